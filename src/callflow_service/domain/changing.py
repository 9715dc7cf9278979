"""From what a caller asks for and what there is, the call flow that shall be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self, assert_never

from callflow_service.domain.access import Account, OwnedDevice, may_use
from callflow_service.domain.callflow import (
    Action,
    AsItComes,
    CallerId,
    CallFlow,
    Custom,
    Device,
    Empty,
    FaxDetect,
    Forward,
    FromDevice,
    FromDid,
    Rule,
    State,
    Step,
    Voicemail,
    is_external_number,
)
from callflow_service.domain.errors import (
    ActionUnknown,
    DestinationMissing,
    DeviceNotFound,
    DidNotFound,
    ExternalNumberInvalid,
    FaxDeviceNotFound,
    LocalDeviceNotFound,
    StateUnknown,
    TargetRefused,
)
from callflow_service.domain.targets import NO_TARGET_RULES, Refusal, TargetRules

RefusalOf = Callable[[TargetRules, str], Refusal | None]
"""Why a number may not be forwarded to under the rules of an account; None where it may."""


@dataclass(frozen=True, slots=True)
class WantedChange:
    """What a caller asks for, each part as it was sent.

    An id is None where it was not sent and `NAMES_NOTHING` where what was sent is no id; a state or an action is
    None where it was not sent or is unknown.
    """

    device_id: int
    state: State | None
    action: Action | None
    forward_to_device: int | None = None
    external_number: str | None = None
    fax_device: int | None = None
    device_caller_id: bool = False
    source_caller_id: bool = False
    did_id: int | None = None
    custom: str | None = None
    custom_with_plus: str | None = None

    def with_plus(self) -> Self:
        """The same, with a `+` in `custom` where a blank came for one that was not escaped."""
        return replace(self, custom=self.custom_with_plus)


@dataclass(frozen=True, slots=True)
class AssignedDid:
    """A DID and the device it is assigned to, if any."""

    id: int
    number: str
    device_id: int | None


@dataclass(frozen=True, slots=True)
class ChangeFacts:
    """Everything a decision needs, of what the request names; None is not there, or was not named.

    `targets` holds for the device's forwards to numbers.
    """

    account: Account | None
    device: OwnedDevice | None
    forward_device: OwnedDevice | None = None
    fax_device: OwnedDevice | None = None
    did: AssignedDid | None = None
    targets: TargetRules = NO_TARGET_RULES


@dataclass(frozen=True, slots=True)
class Change:
    """What shall be stored for a state of a device.

    `rules` are None where they stay as they are: MOR's calls know only what holds otherwise.
    """

    device: OwnedDevice
    state: State
    flow: CallFlow
    rules: tuple[Rule, ...] | None = None


@dataclass(frozen=True, slots=True)
class DeviceCallFlow:
    """A device and what MOR's calls show of its call flow; a state that is not there was never touched."""

    device: OwnedDevice
    flows: Mapping[State, CallFlow]


def usable_device(account: Account, device: OwnedDevice | None) -> OwnedDevice:
    """The device that a request is about.

    Raises:
        DeviceNotFound: It is not there, or not the account's: the two must look the same.
    """
    if device is None or not may_use(account, device):
        raise DeviceNotFound
    return device


def decide(account: Account, facts: ChangeFacts, wanted: WantedChange, refusal: RefusalOf) -> Change:
    """The change, if it may and can be made. The checks run in the order of MOR's error table.

    `refusal` says why a number may not be forwarded to.

    Raises:
        ChangeRefused: The first thing that is wrong.
    """
    device = usable_device(account, facts.device)
    if wanted.state is None:
        raise StateUnknown
    if wanted.action is None or (wanted.action is Action.FAX_DETECT and wanted.state is not State.BEFORE_CALL):
        raise ActionUnknown
    return Change(device, wanted.state, _flow(wanted.action, account, facts, wanted, refusal))


def number_of(change: Change) -> str:
    """The number that a change forwards to as MOR's calls set it, empty where it is none."""
    match change.flow:
        case Forward(steps=(Step(destination=str() as number),)):
            return number
        case _:
            return ""


def held(change: Change, until: datetime) -> Change:
    """The change, with its forward held until a time."""
    if not isinstance(change.flow, Forward):
        return change
    steps = tuple(replace(step, held_until=until) for step in change.flow.steps)
    return replace(change, flow=replace(change.flow, steps=steps))


def _flow(action: Action, account: Account, facts: ChangeFacts, wanted: WantedChange, refusal: RefusalOf) -> CallFlow:
    match action:
        case Action.FORWARD:
            destination = _destination(account, facts, wanted, refusal)
            return Forward.to(destination, _caller_id(wanted, _own_did(facts, wanted)))
        case Action.FAX_DETECT:
            fax = _fax_device(account, facts)
            _own_did(facts, wanted)
            return FaxDetect(fax)
        case Action.VOICEMAIL:
            _own_did(facts, wanted)
            return Voicemail()
        case Action.EMPTY:
            _own_did(facts, wanted)
            return Empty()
        case _:
            assert_never(action)


def _destination(account: Account, facts: ChangeFacts, wanted: WantedChange, refusal: RefusalOf) -> Device | str:
    if wanted.forward_to_device is not None:
        target = facts.forward_device
        if target is None or not may_use(account, target):
            raise LocalDeviceNotFound
        return target.device
    if wanted.external_number is None:
        raise DestinationMissing
    if not is_external_number(wanted.external_number):
        raise ExternalNumberInvalid
    if refused := refusal(facts.targets, wanted.external_number):
        raise TargetRefused(refused)
    return wanted.external_number


def _fax_device(account: Account, facts: ChangeFacts) -> Device:
    target = facts.fax_device
    if target is None or not target.device.is_fax or not may_use(account, target):
        raise FaxDeviceNotFound
    return target.device


def _own_did(facts: ChangeFacts, wanted: WantedChange) -> AssignedDid | None:
    """The DID that was named. A wrong one is an error even where no caller ID is needed."""
    if wanted.did_id is None:
        return None
    if facts.did is None or facts.did.device_id != wanted.device_id:
        raise DidNotFound
    return facts.did


def _caller_id(wanted: WantedChange, did: AssignedDid | None) -> CallerId:
    """The first that is set wins; none means from the device."""
    if wanted.device_caller_id:
        return FromDevice()
    if wanted.source_caller_id:
        return AsItComes()
    if did is not None:
        return FromDid(did.id, did.number)
    if wanted.custom is not None:
        return Custom(wanted.custom)
    return FromDevice()
