"""Read call flows that clients send, and save them: what is named must be there, and no ring may close."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, assert_never, cast

from asyncpg import Connection
from pydantic import ValidationError
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.dependencies import (
    Caller,
    problem_of_fields,
)
from callflow_service.api.flow_shapes import (
    AnyAction,
    CustomCallerId,
    DeviceCallerId,
    DidCallerId,
    EmptyAction,
    FaxDetectAction,
    ForwardAction,
    SourceCallerId,
    StateFlow,
    VoicemailAction,
    stored_shape,
)
from callflow_service.api.problems import Problem, invalid
from callflow_service.domain.access import OwnedDevice, may_use
from callflow_service.domain.callerid import parse_custom, without_separators
from callflow_service.domain.callflow import (
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
    State,
    Voicemail,
    is_external_number,
)
from callflow_service.domain.changing import Change
from callflow_service.domain.errors import ChangeRefused
from callflow_service.domain.history import Origin
from callflow_service.domain.rings import ring_through
from callflow_service.repositories import callflows, flows, resources
from callflow_service.storage.transactions import driver
from callflow_service.tables import DeviceRow


def owned_device(row: resources.Row) -> OwnedDevice:
    """A device and its owner, of a row."""
    device, owner, _ = row
    named = Device(device.id, device.technology, device.name)
    return OwnedDevice(named, owner.id, owner.username, owner.owner_id, device.ring_seconds)


async def read_action(  # noqa: PLR0913, PLR0917 - what is read, and all that it is read against
    session: AsyncSession, caller: Caller, device: OwnedDevice, state: State, action: AnyAction, place: str
) -> CallFlow:
    """What was sent, as the domain has it.

    Raises:
        Problem: `invalid`.
    """
    match action:
        case EmptyAction():
            return Empty()
        case VoicemailAction():
            return Voicemail()
        case FaxDetectAction():
            if state is not State.BEFORE_CALL:
                raise invalid(f"{place}.action", "fax_detect goes with before_call alone")
            fax = await _target(session, caller, action.to.device, f"{place}.to.device")
            if not fax.is_fax:
                raise invalid(f"{place}.to.device", f"{fax.label} is not a FAX device")
            return FaxDetect(fax)
        case ForwardAction():
            (step,) = action.steps
            place = f"{place}.steps.0"
            destination: Device | str
            if step.to.device is not None and step.to.number is None:
                destination = await _target(session, caller, step.to.device, f"{place}.to.device")
            elif step.to.number is not None and step.to.device is None:
                destination = _number(step.to.number, f"{place}.to.number")
            else:
                raise invalid(f"{place}.to", "must name a device or a number, and not both")
            return Forward(destination, await _caller_id(session, device, step.caller_id, f"{place}.caller_id"))
        case _ as never:
            assert_never(never)


async def _target(session: AsyncSession, caller: Caller, device_id: int, place: str) -> Device:
    row = await resources.one(session, resources.devices(caller.account), col(DeviceRow.id) == device_id)
    if row is None or not may_use(caller.account, owned_device(row)):
        raise invalid(place, f"there is no device {device_id}")
    return owned_device(row).device


def _number(text: str, place: str) -> str:
    number = without_separators(text)
    if not is_external_number(number):
        raise invalid(place, "must be an optional + and 1 to 32 of 0-9 * #, at least one a digit")
    return number


async def _caller_id(
    session: AsyncSession,
    device: OwnedDevice,
    sent: DeviceCallerId | SourceCallerId | DidCallerId | CustomCallerId,
    place: str,
) -> CallerId:
    match sent:
        case DeviceCallerId():
            return FromDevice()
        case SourceCallerId():
            return AsItComes()
        case DidCallerId():
            did = await flows.did(await driver(session), sent.did)
            if did is None or did.device_id != device.device.id:
                raise invalid(f"{place}.did", f"DID {sent.did} is not assigned to this device")
            return FromDid(did.id, did.number)
        case CustomCallerId():
            number, name = parse_custom(sent.text)
            left = f'"{name}" <{number}>' if name and number else name or number
            if sent.text not in {left, f'"{name}" {number}', f"{name} <{number}>"}:
                raise invalid(f"{place}.text", f"has signs that no switch is sent; what would be left is: {left}")
            return Custom(sent.text)
        case _ as never:
            assert_never(never)


async def read_stored(
    session: AsyncSession, caller: Caller, device: OwnedDevice, state: State, stored: dict[str, Any] | None
) -> CallFlow:
    """What the history holds, checked as if it were sent anew: a target can be gone by now."""
    try:
        sent = StateFlow.model_validate(stored_shape(stored))
    except ValidationError as error:
        raise problem_of_fields(error.errors(include_url=False, include_input=False)) from None
    action = sent.otherwise
    if not isinstance(action, ForwardAction) or not isinstance(shown := action.steps[0].caller_id, CustomCallerId):
        return await read_action(session, caller, device, state, action, "before")
    # Any text was good enough for MOR's call, and what it set can be put back.
    step = action.steps[0].model_copy(update={"caller_id": DeviceCallerId(kind="device")})
    read = await read_action(session, caller, device, state, action.model_copy(update={"steps": [step]}), "before")
    return replace(cast(Forward, read), caller_id=Custom(shown.text))


async def save(connection: Connection, device: OwnedDevice, state: State, flow: CallFlow, origin: Origin) -> list[str]:
    """Save one state, and tell of rings that are harmless.

    Raises:
        Problem: `loop`, or `invalid` where something that it names vanished.
    """
    warnings = await check_rings(connection, device, state, flow)
    await saved(connection, Change(device, state, flow), origin)
    return warnings


async def saved(connection: Connection, change: Change, origin: Origin) -> int:
    """Save one state without a look at rings; the id of its history entry.

    Raises:
        Problem: `invalid`.
    """
    try:
        return await callflows.save(connection, change, origin)
    except ChangeRefused as error:
        raise invalid("otherwise", "what it names is gone since a moment ago") from error


async def check_rings(connection: Connection, device: OwnedDevice, state: State, flow: CallFlow) -> list[str]:
    """Refuse a forward that closes a ring before the call, or leads to the device itself; tell of other rings.

    Raises:
        Problem: `loop`, with the devices of the ring.
    """
    if not isinstance(flow, Forward):
        return []
    await flows.one_ring_check_at_a_time(connection)
    own = device.device.id
    target = (
        flow.destination.id if isinstance(flow.destination, Device) else await flows.own(connection, flow.destination)
    )
    if target is None:
        return []
    if target == own:
        raise Problem("loop", "The device would forward to itself.", {"path": [own]})
    leads = await flows.leads(connection, target)
    before = by_device([lead for lead in leads if lead.state is State.BEFORE_CALL])
    if state is State.BEFORE_CALL and (path := ring_through(own, before | {own: [target]})):
        raise Problem("loop", "The forward closes a ring of forwards before the call.", {"path": path})
    if path := ring_through(own, by_device(leads) | {own: [target]}):
        way = " to ".join(str(each) for each in [*path, own])
        return [f"The forward is part of a ring, device {way}; a call that comes round is not forwarded again."]
    return []


def by_device(leads: Sequence[flows.Lead]) -> dict[int, list[int]]:
    """Where each device's forwards lead."""
    found: dict[int, list[int]] = {}
    for lead in leads:
        found.setdefault(lead.device, []).append(lead.target)
    return found
