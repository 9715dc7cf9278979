"""The call flow of a device: shown, changed, its history, taken back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, assert_never, cast

from asyncpg import Connection
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field, ValidationError
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.dependencies import (
    ApiRoute,
    Caller,
    Reader,
    TheHouse,
    Writer,
    check_precondition,
    etag_of,
    problem_of_fields,
    with_etag,
)
from callflow_service.api.flow_shapes import (
    AnyAction,
    CustomCallerId,
    DeviceCallerId,
    DidCallerId,
    EmptyAction,
    FaxDetectAction,
    FlowChange,
    ForwardAction,
    Restore,
    ShownFlow,
    ShownState,
    SourceCallerId,
    StateFlow,
    Undo,
    VoicemailAction,
    state_shape,
    stored_shape,
)
from callflow_service.api.lists import Page, cursor_value, page_of
from callflow_service.api.problems import Problem, invalid
from callflow_service.api.shapes import Id, SentMoment, as_json, written_moment
from callflow_service.domain.access import OwnedDevice, Role, may_use
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
from callflow_service.domain.history import Face, Origin
from callflow_service.domain.rings import ring_through
from callflow_service.repositories import callflows, flows, history, resources
from callflow_service.repositories.history import Entry
from callflow_service.storage.transactions import driver
from callflow_service.tables import DeviceRow

router = APIRouter(
    prefix="/v1",
    tags=["Call flows"],
    route_class=ApiRoute,
)

_ORDER: Final = (State.BEFORE_CALL, State.NO_ANSWER, State.BUSY, State.FAILED)


@router.get("/devices/{device_id}/callflow", response_model=ShownFlow)
async def show_callflow(request: Request, device_id: Id, caller: Reader, house: TheHouse) -> Response:
    """What a device does in each of the four states."""
    async with house.transactions.begin() as session:
        device = await _device(session, caller, device_id)
        return with_etag(request, _shown(device, await flows.flows(await driver(session), device_id)))


@router.put("/devices/{device_id}/callflow", response_model=ShownFlow)
async def change_callflow(
    request: Request, device_id: Id, body: FlowChange, caller: Writer, house: TheHouse
) -> Response:
    """Set several states at once, all or none; those that are not named stay as they are."""
    async with house.transactions.begin(caller.origin) as session:
        device = await _device(session, caller, device_id, to_change=True)
        connection = await driver(session)
        check_precondition(request, house, _shown(device, await flows.flows(connection, device_id, locked=True)))
        wanted = {state: found for state in _ORDER if (found := getattr(body.states, state)) is not None}
        warnings: list[str] = []
        for state, flow in wanted.items():
            place = f"states.{state}.otherwise"
            read = await _read(session, caller, device, state, flow.otherwise, place)
            warnings += await _save(connection, device, state, read, caller.origin)
        shown = _shown(device, await flows.flows(connection, device_id))
    return with_etag(request, shown | {"warnings": warnings})


@router.get("/devices/{device_id}/callflow/history")
async def show_callflow_history(
    request: Request, device_id: Id, page: Annotated[Page, Query()], caller: Reader, house: TheHouse
) -> Response:
    """The changes of a device's call flow, newest first."""
    async with house.transactions.begin() as session:
        await _device(session, caller, device_id)
        wanted = history.Wanted(page.limit + 1, cursor_value(page.cursor, int), device=device_id, kind="callflow")
        entries = await history.page(session, caller.account, wanted)
    return page_of(request, entries, limit=page.limit, key=lambda entry: entry[0].id, shape=entry_shape)


@router.post("/devices/{device_id}/callflow/restore", response_model=ShownFlow)
async def restore_callflow(request: Request, device_id: Id, body: Restore, caller: Writer, house: TheHouse) -> Response:
    """Set every state as it was at a time. What came since would be lost, and is told first."""
    async with house.transactions.begin(caller.origin) as session:
        device = await _device(session, caller, device_id, to_change=True)
        connection = await driver(session)
        check_precondition(request, house, _shown(device, await flows.flows(connection, device_id, locked=True)))
        found = await history.as_of(session, device_id, body.as_of)
        if found and not body.force:
            oldest = min(id_ for id_, _ in found.values())
            await _refuse_newer(session, device_id, list(found), than=oldest - 1)
        for state, (_, before) in found.items():
            read = await _read_stored(session, caller, device, state, before)
            await _save(connection, device, state, read, caller.origin)
        shown = _shown(device, await flows.flows(connection, device_id))
    return with_etag(request, shown)


@router.get("/devices/{device_id}/callflow/{state}", response_model=ShownState)
async def show_callflow_state(
    request: Request, device_id: Id, state: State, caller: Reader, house: TheHouse
) -> Response:
    """What a device does in one state."""
    async with house.transactions.begin() as session:
        await _device(session, caller, device_id)
        return with_etag(request, await _shown_state(await driver(session), device_id, state))


@router.put("/devices/{device_id}/callflow/{state}", response_model=ShownState)
async def change_callflow_state(  # noqa: PLR0913, PLR0917 - FastAPI's parameters
    request: Request, device_id: Id, state: State, body: StateFlow, caller: Writer, house: TheHouse
) -> Response:
    """Set what a device does in one state."""
    async with house.transactions.begin(caller.origin) as session:
        device = await _device(session, caller, device_id, to_change=True)
        connection = await driver(session)
        check_precondition(request, house, await _shown_state(connection, device_id, state, locked=True))
        read = await _read(session, caller, device, state, body.otherwise, "otherwise")
        warnings = await _save(connection, device, state, read, caller.origin)
        shown = await _shown_state(connection, device_id, state)
    return with_etag(request, shown | {"warnings": warnings})


@router.delete("/devices/{device_id}/callflow/{state}", response_model=ShownState)
async def empty_callflow_state(
    request: Request, device_id: Id, state: State, caller: Writer, house: TheHouse
) -> Response:
    """Set nothing for one state."""
    empty = StateFlow(otherwise=EmptyAction())
    return await change_callflow_state(request, device_id, state, empty, caller, house)


class HistoryPage(Page):
    """Which part of the history."""

    account: Annotated[Id | None, Field(description="Id of the account that made the change")] = None
    device: Annotated[Id | None, Field(description="Id of the device")] = None
    face: Face | None = None
    since: SentMoment | None = None
    until: SentMoment | None = None


@router.get("/history")
async def show_history(
    request: Request, page: Annotated[HistoryPage, Query()], caller: Reader, house: TheHouse
) -> Response:
    """Every change of everything that you may see, newest first."""
    filters = page.model_dump(exclude={"limit", "cursor"})
    wanted = history.Wanted(page.limit + 1, cursor_value(page.cursor, int), **filters)
    async with house.transactions.begin() as session:
        entries = await history.page(session, caller.account, wanted)
    return page_of(request, entries, limit=page.limit, key=lambda entry: entry[0].id, shape=entry_shape)


@router.post("/history/{entry_id}/undo")
async def undo_change(entry_id: Id, caller: Writer, house: TheHouse, body: Undo | None = None) -> Response:
    """Take a change of a call flow back. It is a change itself, and can be taken back too."""
    force = body is not None and body.force
    async with house.transactions.begin(caller.origin) as session:
        found = await history.entry(session, entry_id)
        row = found[0] if found else None
        if row is None or (row.device_id is None and caller.account.role is not Role.ADMIN):
            raise Problem("not-found")
        if row.device_id is not None:
            device = await _device(session, caller, row.device_id, to_change=True)
        if row.kind != "callflow" or row.device_id is None or row.state is None:
            raise Problem("invalid", "Only changes of call flows can be taken back.", {"errors": []})
        state = State(row.state)
        if not force:
            await _refuse_newer(session, row.device_id, [state], than=entry_id)
        read = await _read_stored(session, caller, device, state, row.before)
        undoing = replace(caller.origin, undoes=entry_id)
        connection = await driver(session)
        await _check_rings(connection, device, state, read)
        made = await history.entry(session, await _saved(connection, Change(device, state, read), undoing))
        shown = entry_shape(made) if made else {}
    return as_json(shown)


def entry_shape(entry: Entry) -> dict[str, Any]:
    """One entry of the history."""
    row, username = entry
    is_flow = row.kind == "callflow"
    return {
        "id": row.id,
        "at": written_moment(row.changed_at),
        "kind": row.kind,
        "resource": row.resource,
        "account": username,
        "face": row.face,
        "address": str(row.address) if row.address else None,
        "request_id": row.request_id,
        "device": row.device_id,
        "state": row.state,
        "before": stored_shape(row.before) if is_flow else row.before,
        "after": stored_shape(row.after) if is_flow else row.after,
        "undoes": row.undoes,
    }


async def _device(session: AsyncSession, caller: Caller, device_id: int, *, to_change: bool = False) -> OwnedDevice:
    """The device, where the caller may see it, and may change its call flow where that is wanted.

    Raises:
        Problem: `not-found` or `not-allowed`.
    """
    locked = DeviceRow if to_change else None
    row = await resources.one(session, resources.devices(caller.account), col(DeviceRow.id) == device_id, locked=locked)
    if row is None:
        raise Problem("not-found")
    device = _owned(row)
    if to_change and not may_use(caller.account, device):
        raise Problem("not-allowed")
    return device


def _owned(row: resources.Row) -> OwnedDevice:
    device, owner, _ = row
    named = Device(device.id, device.technology, device.name)
    return OwnedDevice(named, owner.id, owner.username, owner.owner_id, device.ring_seconds)


def _shown(device: OwnedDevice, found: Mapping[State, CallFlow]) -> dict[str, Any]:
    shown = {
        "device": {"id": device.device.id, "label": device.device.label, "owner": device.owner_name},
        "states": {str(state): state_shape(found.get(state, Empty())) for state in _ORDER},
    }
    return {"device": shown["device"], "etag": etag_of(shown), "states": shown["states"]}


async def _shown_state(connection: Connection, device_id: int, state: State, *, locked: bool = False) -> dict[str, Any]:
    shown = state_shape((await flows.flows(connection, device_id, locked=locked)).get(state, Empty()))
    return shown | {"etag": etag_of(shown)}


async def _read(  # noqa: PLR0913, PLR0917 - what is read, and all that it is read against
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
    if row is None or not may_use(caller.account, _owned(row)):
        raise invalid(place, f"there is no device {device_id}")
    return _owned(row).device


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


async def _read_stored(
    session: AsyncSession, caller: Caller, device: OwnedDevice, state: State, stored: dict[str, Any] | None
) -> CallFlow:
    """What the history holds, checked as if it were sent anew: a target can be gone by now."""
    try:
        sent = StateFlow.model_validate(stored_shape(stored))
    except ValidationError as error:
        raise problem_of_fields(error.errors(include_url=False, include_input=False)) from None
    action = sent.otherwise
    if not isinstance(action, ForwardAction) or not isinstance(shown := action.steps[0].caller_id, CustomCallerId):
        return await _read(session, caller, device, state, action, "before")
    # Any text was good enough for MOR's call, and what it set can be put back.
    step = action.steps[0].model_copy(update={"caller_id": DeviceCallerId(kind="device")})
    read = await _read(session, caller, device, state, action.model_copy(update={"steps": [step]}), "before")
    return replace(cast(Forward, read), caller_id=Custom(shown.text))


async def _save(connection: Connection, device: OwnedDevice, state: State, flow: CallFlow, origin: Origin) -> list[str]:
    warnings = await _check_rings(connection, device, state, flow)
    await _saved(connection, Change(device, state, flow), origin)
    return warnings


async def _saved(connection: Connection, change: Change, origin: Origin) -> int:
    try:
        return await callflows.save(connection, change, origin)
    except ChangeRefused as error:
        raise invalid("otherwise", "what it names is gone since a moment ago") from error


async def _check_rings(connection: Connection, device: OwnedDevice, state: State, flow: CallFlow) -> list[str]:
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
    before = _by_device([lead for lead in leads if lead.state is State.BEFORE_CALL])
    if state is State.BEFORE_CALL and (path := ring_through(own, before | {own: [target]})):
        raise Problem("loop", "The forward closes a ring of forwards before the call.", {"path": path})
    if path := ring_through(own, _by_device(leads) | {own: [target]}):
        way = " to ".join(str(each) for each in [*path, own])
        return [f"The forward is part of a ring, device {way}; a call that comes round is not forwarded again."]
    return []


def _by_device(leads: Sequence[flows.Lead]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for lead in leads:
        found.setdefault(lead.device, []).append(lead.target)
    return found


async def _refuse_newer(session: AsyncSession, device_id: int, states: Sequence[State], *, than: int) -> None:
    if entries := await history.newer(session, device_id, states, than=than):
        raise Problem("newer-change", "", {"newer": [entry_shape(entry) for entry in entries]})
