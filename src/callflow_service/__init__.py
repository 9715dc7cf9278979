"""The open home of the call flow: MOR's `device_callflow_update` as a service of its own."""

from importlib.metadata import version

__version__ = version("callflow-service")
