"""What the router is asked, what it knows, and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple, Self

from callflow_service.domain.callerid import (
    Caller,
    Privacy,
    clean_caller_number,
    clean_name,
)
from callflow_service.domain.callflow import State, StateFlow
from callflow_service.domain.dialing import NO_TRUNK, TrunkRules
from callflow_service.domain.path import Hop, Path
from callflow_service.domain.targets import NO_TARGET_RULES, Refusal, TargetRules

CAUSES: Final = {State.BEFORE_CALL: 503, State.NO_ANSWER: 480, State.BUSY: 486, State.FAILED: 503}
"""The SIP status that a call ends with where nothing is set for what happened."""

NEVER_SET: Final = StateFlow()
"""What a device does in a state that was never set."""


class RouteAction(StrEnum):
    """What the switch is to do with the call, in the words of the switch answers."""

    RING = "ring"
    FORWARD = "forward"
    VOICEMAIL = "voicemail"
    FAX = "fax"
    END = "end"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class RoutedDevice:
    """A device with all that routing asks of it.

    `owner` is its owner's username, `ring_seconds` how long it rings, `dids` the numbers assigned to it, lowest id
    first. A state that is missing from `flows` is empty. `targets` holds for forwards to numbers.
    """

    id: int
    technology: str
    name: str
    owner: str
    caller_number: str
    caller_name: str
    ring_seconds: int
    dids: tuple[str, ...]
    flows: Mapping[State, StateFlow]
    targets: TargetRules = NO_TARGET_RULES

    @property
    def caller_id(self) -> Caller:
        """The device's own caller ID, as far as it may be shown."""
        return Caller(clean_caller_number(self.caller_number), clean_name(self.caller_name), Privacy.OFF)

    @property
    def label(self) -> str:
        """`TYPE/name`, for people."""
        return f"{self.technology}/{self.name}"

    @property
    def is_untouched(self) -> bool:
        """Whether nothing is set in any of the four states."""
        return all(flow.is_empty for flow in self.flows.values())

    def flow(self, state: State) -> StateFlow:
        """What the device does in `state`."""
        return self.flows.get(state, NEVER_SET)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What rules ask about a call.

    Attributes:
        open_schedules: The schedules that are open at the time of the call.
        caller_lists: The caller lists that the caller is in.
        internal_for: The devices for which the caller is one of their own house.
    """

    open_schedules: frozenset[int] = frozenset()
    caller_lists: frozenset[int] = frozenset()
    internal_for: frozenset[int] = frozenset()

    def __or__(self, more: Self) -> "Circumstances":
        return Circumstances(
            self.open_schedules | more.open_schedules,
            self.caller_lists | more.caller_lists,
            self.internal_for | more.internal_for,
        )


NO_CIRCUMSTANCES: Final = Circumstances()
"""Where no rule asks for any."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the world.

    `devices` by id, None where there is no such device; `own_numbers` gives, for external numbers without their
    leading `+`, the id of the device that the number is a DID of. A number that is missing or None is not ours.
    """

    devices: Mapping[int, RoutedDevice | None]
    own_numbers: Mapping[str, int | None]
    circumstances: Circumstances = NO_CIRCUMSTANCES

    def __or__(self, more: Self) -> "Facts":
        return Facts(
            {**self.devices, **more.devices},
            {**self.own_numbers, **more.own_numbers},
            self.circumstances | more.circumstances,
        )


class FactsMissing(Exception):
    """A device is needed that the facts say nothing about."""

    def __init__(self, device_id: int) -> None:
        super().__init__(device_id)
        self.device_id = device_id


# What is asked, what holds and what is answered are made for every lookup: a tuple takes half the time of a frozen
# dataclass.
class Question(NamedTuple):
    """What a switch asks.

    `device` is the device's id, None for the one that `path` ends in; an id below 0 (`NAMES_NOTHING`) is a device that
    is not there. `caller` is the original caller. `call_flow_id` is what `new_flow_id` gives, for a call without a
    path. `diversion` and `history_info` are these headers of the original INVITE, each comma-joined;
    `diversions_withheld` says that the caller wants them private. `is_emergency_callback` is set for a call by which
    an emergency centre calls a person back (RFC 7090). `called` is the number by which a call without a path came in,
    and `at` the time of the call: that of its first question.
    """

    device: int | None
    state: State
    caller: Caller
    path: Path | None
    call_flow_id: str
    diversion: str
    history_info: str
    at: datetime
    diversions_withheld: bool = False
    is_emergency_callback: bool = False
    called: str = ""

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The diversions of earlier answers."""
        return self.path.hops if self.path else ()


class Rules(NamedTuple):
    """What holds for the switch that asks.

    `limit` is the most diversions a call may take, `max_legs` how often it may ring somebody, `number_ring_seconds` how
    long a number rings, `domain` the host part of our header entries; `can_ring` says whether a device can be rung
    there, `can_dial_numbers` whether a number can be dialled, and `trunk` what legs to numbers show. `refusal` says why
    a device may not forward to a number, and nothing where it may.
    """

    limit: int
    number_ring_seconds: int
    trust_headers: bool
    domain: str
    can_ring: Callable[[RoutedDevice], bool]
    can_dial_numbers: bool
    trunk: TrunkRules = NO_TRUNK
    max_legs: int = 20
    refusal: Callable[[RoutedDevice, str], Refusal | None] = lambda _, __: None


class Decision(NamedTuple):
    """What the switch is to do, and all it needs for it.

    `mailbox` is the device whose voicemail takes the call.

    `target` is whom to dial now, `ring_seconds` for how long, `fax` where the call goes once a fax is heard, `cause`
    the SIP status to end with. `caller`, `diversion` and `history_info` are what the leg shows, `asserted` is the
    caller behind it where `caller` is the device that forwards to a trunk. `device` rings, or is the last one
    whose flow decided. The leg is for the account `payer`, for its device `payer_device`. `leg` counts the diversions
    so far, plus 1. `explain` is one line of the `steps` that led to all this, for a log. `loops_cut` counts the
    forwards that were refused for a loop or the limit, `targets_refused` says why others were for their number.
    """

    action: RouteAction
    target: RoutedDevice | str | None
    ring_seconds: int | None
    fax: RoutedDevice | None
    mailbox: RoutedDevice | None
    cause: int | None
    caller: Caller
    asserted: Caller | None
    diversion: str
    history_info: str
    reason: str
    device: RoutedDevice | None
    payer: str
    payer_device: int | None
    leg: int
    flow_id: str
    path: Path
    explain: str
    steps: tuple[str, ...]
    loops_cut: int
    targets_refused: tuple[Refusal, ...] = ()

    @property
    def is_to_number(self) -> bool:
        """Whether the leg leaves through a trunk."""
        return isinstance(self.target, str)

    @property
    def is_diverted(self) -> bool:
        """Whether the leg is the work of a call flow: any other shows the caller as it came."""
        return self.leg > 1
