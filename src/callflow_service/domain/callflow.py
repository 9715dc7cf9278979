"""The call flow: what a device does with a call in each of its four states.

A value of `CallFlow` is always possible: a forward has exactly one destination, a fax detection has
its FAX device. What is impossible has no representation here and is forbidden by the database too.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_ID: Final = 2**63 - 1
"""The largest id there is: PostgreSQL's `bigint`."""

NAMES_NOTHING: Final = -1
"""Stands for an id that was sent but names nothing; no row has a negative id."""

MAX_CUSTOM_LENGTH: Final = 255
"""The longest custom caller ID, in characters."""

EXTERNAL_NUMBER: Final = r"\+?(?=[*#]*[0-9])[0-9*#]{1,32}"
"""What a number looks like, as a regular expression."""

_EXTERNAL_NUMBER = re.compile(EXTERNAL_NUMBER, re.ASCII)


class State(StrEnum):
    """When a device's call flow applies, in the words of the update call."""

    BEFORE_CALL = "before_call"
    NO_ANSWER = "no_answer"
    FAILED = "failed"
    BUSY = "busy"


class Action(StrEnum):
    """What can be asked for in one state, in the words of the update call."""

    EMPTY = "empty"
    FORWARD = "forward"
    FAX_DETECT = "fax_detect"
    VOICEMAIL = "voicemail"


class CallerIdKind(StrEnum):
    """Which caller ID a forwarded call shows."""

    DEVICE = "device"
    SOURCE = "source"
    DID = "did"
    CUSTOM = "custom"


FAX_TECHNOLOGY: Final = "FAX"
"""The technology of the devices that a fax detection may name."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device as a call flow names it."""

    id: int
    technology: str
    name: str

    @property
    def label(self) -> str:
        """`TYPE/name`, as MOR shows it."""
        return f"{self.technology}/{self.name}"

    @property
    def is_fax(self) -> bool:
        """Whether a detected fax can go to it."""
        return self.technology == FAX_TECHNOLOGY


@dataclass(frozen=True, slots=True)
class FromDevice:
    """The caller ID of the device that forwards."""


@dataclass(frozen=True, slots=True)
class AsItComes:
    """The caller ID that reached the device that forwards."""


@dataclass(frozen=True, slots=True)
class FromDid:
    """A DID that is assigned to the device that forwards."""

    id: int
    number: str


@dataclass(frozen=True, slots=True)
class Custom:
    """A text of the caller's own, at most `MAX_CUSTOM_LENGTH` characters; any text, so not for a switch as it is."""

    text: str


CallerId = FromDevice | AsItComes | FromDid | Custom


@dataclass(frozen=True, slots=True)
class Empty:
    """Nothing is set: the call goes on as if there were no call flow."""


@dataclass(frozen=True, slots=True)
class Forward:
    """The call goes to one local device or to one external number."""

    destination: Device | str
    caller_id: CallerId


@dataclass(frozen=True, slots=True)
class Voicemail:
    """The call goes to the device's voicemail."""


@dataclass(frozen=True, slots=True)
class FaxDetect:
    """A fax heard on the line goes to `fax`; only before the call."""

    fax: Device


CallFlow = Empty | Forward | Voicemail | FaxDetect


def is_external_number(text: str) -> bool:
    """Whether a call can be forwarded to `text`: an optional `+`, then 1 to 32 of `0-9 * #` with at least one digit."""
    return _EXTERNAL_NUMBER.fullmatch(text) is not None
