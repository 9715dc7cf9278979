"""The open home of the call flow: MOR's `device_callflow_update` as a service of its own."""

__version__ = "0.2.0"
