"""The call flow: what a device does with a call in each of its four states.

A state has rules and what holds otherwise; each leads to an action. An action is always possible: a forward has at
least one step, a fax detection has its FAX device. What is impossible has no representation here and is forbidden by
the database too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Self

MAX_ID: Final = 2**63 - 1
"""The largest id there is: PostgreSQL's `bigint`."""

NAMES_NOTHING: Final = -1
"""Stands for an id that was sent but names nothing; no row has a negative id."""

MAX_CUSTOM_LENGTH: Final = 255
"""The longest custom caller ID, in characters."""

EXTERNAL_NUMBER: Final = r"\+?(?=[*#]*[0-9])[0-9*#]{1,32}"
"""What a number looks like, as a regular expression."""

MAX_STEPS: Final = 10
"""The most steps of one forward."""

MAX_RULES: Final = 20
"""The most rules of one state."""

MAX_RING_SECONDS: Final = 3600
"""The longest ring time."""

END_CAUSES: Final = (486, 480, 603, 404)
"""The SIP statuses that a call flow can end a call with."""

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
    """A device as a call flow names it, or by its id alone: without technology and name."""

    id: int
    technology: str
    name: str

    @property
    def label(self) -> str:
        """`TYPE/name`, as MOR shows it."""
        return f"{self.technology}/{self.name}" if self.name else f"device {self.id}"

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
class Step:
    """One place that a forward tries: a local device or an external number.

    `ring_seconds` is None where the device or the setting says how long it rings. A step with `held_until` is skipped
    by calls that began before.
    """

    destination: Device | str
    caller_id: CallerId
    ring_seconds: int | None = None
    held_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Voicemail:
    """The call goes to the device's voicemail, or to that of another device."""

    of: Device | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The call ends with a SIP status, one of `END_CAUSES`."""

    cause: int


@dataclass(frozen=True, slots=True)
class Forward:
    """The call goes to the first of 1 to `MAX_STEPS` steps that takes it, after the last one to `then`.

    With `then` empty it ends with the cause of the last step.
    """

    steps: tuple[Step, ...]
    then: Empty | Voicemail | End = Empty()

    @classmethod
    def to(cls, destination: Device | str, caller_id: CallerId) -> Self:
        """A forward with one step."""
        return cls((Step(destination, caller_id),))


@dataclass(frozen=True, slots=True)
class FaxDetect:
    """A fax heard on the line goes to `fax`; only before the call."""

    fax: Device


ActiveAction = Empty | Forward | Voicemail | FaxDetect | End


@dataclass(frozen=True, slots=True)
class SwitchedOff:
    """An action that is kept and acts as if it were empty."""

    action: ActiveAction


CallFlow = ActiveAction | SwitchedOff
"""What is done with a call."""


class CallerIs(StrEnum):
    """What a rule can ask of the caller beside its number."""

    ANONYMOUS = "anonymous"
    INTERNAL = "internal"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class InList:
    """Whether the caller is in a caller list, or is not."""

    list_id: int
    is_in: bool = True


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold for a rule to decide: all that is given.

    `schedule` must be open, `not_schedule` must not be; `called` are DIDs, by one of which the call came in.
    """

    schedule: int | None = None
    not_schedule: int | None = None
    caller: InList | CallerIs | None = None
    called: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done with a call for which the conditions hold."""

    name: str
    conditions: Conditions
    do: CallFlow
    is_enabled: bool = True


@dataclass(frozen=True, slots=True)
class StateFlow:
    """What a device does in one state: the first enabled rule whose conditions hold decides, else `otherwise`."""

    otherwise: CallFlow = Empty()
    rules: tuple[Rule, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing would come of it, whatever the call."""
        return isinstance(active(self.otherwise), Empty) and not any(rule.is_enabled for rule in self.rules)

    def actions(self) -> Iterator[CallFlow]:
        """Every action, those that are switched off too."""
        yield self.otherwise
        yield from (rule.do for rule in self.rules)


def active(flow: CallFlow) -> ActiveAction:
    """What an action comes down to: nothing where it is switched off."""
    return Empty() if isinstance(flow, SwitchedOff) else flow


def kept(flow: CallFlow) -> ActiveAction:
    """What an action holds, also where it is switched off."""
    return flow.action if isinstance(flow, SwitchedOff) else flow


def first_step(flow: CallFlow) -> ActiveAction:
    """What MOR's calls can show of an action: a forward's first step, and empty where they have no word for it."""
    match found := active(flow):
        case Forward(steps):
            return Forward.to(steps[0].destination, steps[0].caller_id)
        case Voicemail():
            return Voicemail()
        case End():
            return Empty()
        case _:
            return found


def is_external_number(text: str) -> bool:
    """Whether a call can be forwarded to `text`: an optional `+`, then 1 to 32 of `0-9 * #` with at least one digit."""
    return _EXTERNAL_NUMBER.fullmatch(text) is not None
