"""PostgreSQL's advisory locks that the service takes, each with its number."""

from typing import Final

MIGRATING: Final = 7101300
"""One migration at a time."""

TAKING_IN: Final = 7101301
"""One load or rotation of keys at a time: what a load encrypts must not be encrypted with a key that goes."""

BULK: Final = 7101302
"""One bulk change at a time."""

CHANGING: Final = 7101303
"""Shared by the changes of the JSON API; a bulk change has it to itself while it writes."""
