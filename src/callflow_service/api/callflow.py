"""The call flow of a device: shown, changed, its history, taken back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

from asyncpg import Connection
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
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
    with_etag,
)
from callflow_service.api.flow_shapes import FlowChange, Restore, ShownFlow, ShownState, Undo
from callflow_service.api.flow_writing import Writing, check_rings, owned_device, read_states, read_stored, save, saved
from callflow_service.api.lists import Page, cursor_value, page_of
from callflow_service.api.problems import Problem
from callflow_service.api.shapes import Id, Moment, as_json, written_moment
from callflow_service.domain.access import OwnedDevice, Role, may_use
from callflow_service.domain.callflow import (
    State,
    StateFlow,
)
from callflow_service.domain.changing import Change
from callflow_service.domain.flow_documents import row_document, state_document
from callflow_service.domain.history import Face
from callflow_service.domain.routing import NEVER_SET
from callflow_service.repositories import flows, history, resources
from callflow_service.repositories.history import Entry
from callflow_service.resources.flows import EmptyAction, SentState
from callflow_service.resources.types import SentMoment
from callflow_service.storage.transactions import driver
from callflow_service.tables import DeviceRow

router = APIRouter(
    prefix="/v1",
    tags=["Call flows"],
    route_class=ApiRoute,
)

_ORDER: Final = (State.BEFORE_CALL, State.NO_ANSWER, State.BUSY, State.FAILED)


class ShownEntry(BaseModel):
    """One change: who, through which face, when, before and after. No secret ever stands in it."""

    id: int
    at: Moment
    kind: str = Field(description="`callflow`, else what was changed: `account`, `device`, `did` and so on")
    resource: str | None = Field(description="The id of what was changed")
    account: str | None = Field(description="Username of the account that made the change")
    face: str = Field(description="`json`, `mor` or `cli`")
    address: str | None
    request_id: str
    device: int | None
    state: State | None
    before: dict[str, Any] | None = Field(description="Of a call flow, the state as the API shows it")
    after: dict[str, Any] | None
    undoes: int | None = Field(description="The id of the change that this one takes back")


class ShownEntries(BaseModel):
    """A page of the history."""

    items: list[ShownEntry]
    next: str | None = Field(description="Where the next page is")


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
        read = await read_states(Writing(session, caller, house.policing), device, wanted, "states.{state}.")
        for state, flow in read.items():
            warnings += await save(connection, device, state, flow, caller.origin)
        shown = _shown(device, await flows.flows(connection, device_id))
    return with_etag(request, shown | {"warnings": warnings})


@router.get("/devices/{device_id}/callflow/history", response_model=ShownEntries)
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
    async with house.changing(request, caller) as session:
        device = await _device(session, caller, device_id, to_change=True)
        connection = await driver(session)
        check_precondition(request, house, _shown(device, await flows.flows(connection, device_id, locked=True)))
        found = await history.as_of(session, device_id, body.as_of)
        if found and not body.force:
            oldest = min(id_ for id_, _ in found.values())
            await _refuse_newer(session, device_id, list(found), than=oldest - 1)
        for state, (_, before) in found.items():
            read = await read_stored(Writing(session, caller, house.policing), device, state, before)
            await save(connection, device, state, read, caller.origin)
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
    request: Request, device_id: Id, state: State, body: SentState, caller: Writer, house: TheHouse
) -> Response:
    """Set what a device does in one state."""
    async with house.transactions.begin(caller.origin) as session:
        device = await _device(session, caller, device_id, to_change=True)
        connection = await driver(session)
        check_precondition(request, house, await _shown_state(connection, device_id, state, locked=True))
        read = await read_states(Writing(session, caller, house.policing), device, {state: body})
        warnings = await save(connection, device, state, read[state], caller.origin)
        shown = await _shown_state(connection, device_id, state)
    return with_etag(request, shown | {"warnings": warnings})


@router.delete("/devices/{device_id}/callflow/{state}", response_model=ShownState)
async def empty_callflow_state(
    request: Request, device_id: Id, state: State, caller: Writer, house: TheHouse
) -> Response:
    """Set nothing for one state."""
    empty = SentState(otherwise=EmptyAction())
    return await change_callflow_state(request, device_id, state, empty, caller, house)


class HistoryPage(Page):
    """Which part of the history."""

    account: Annotated[Id | None, Field(description="Id of the account that made the change")] = None
    device: Annotated[Id | None, Field(description="Id of the device")] = None
    face: Face | None = None
    since: SentMoment | None = None
    until: SentMoment | None = None


@router.get("/history", response_model=ShownEntries)
async def show_history(
    request: Request, page: Annotated[HistoryPage, Query()], caller: Reader, house: TheHouse
) -> Response:
    """Every change of everything that you may see, newest first."""
    filters = page.model_dump(exclude={"limit", "cursor"})
    wanted = history.Wanted(page.limit + 1, cursor_value(page.cursor, int), **filters)
    async with house.transactions.begin() as session:
        entries = await history.page(session, caller.account, wanted)
    return page_of(request, entries, limit=page.limit, key=lambda entry: entry[0].id, shape=entry_shape)


@router.post("/history/{entry_id}/undo", response_model=ShownEntry)
async def undo_change(
    request: Request, entry_id: Id, caller: Writer, house: TheHouse, body: Undo | None = None
) -> Response:
    """Take a change of a call flow back. It is a change itself, and can be taken back too."""
    force = body is not None and body.force
    async with house.changing(request, caller) as session:
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
        read = await read_stored(Writing(session, caller, house.policing), device, state, row.before)
        undoing = replace(caller.origin, undoes=entry_id)
        connection = await driver(session)
        await check_rings(connection, device, state, read)
        change = Change(device, state, read.otherwise, read.rules)
        made = await history.entry(session, await saved(connection, change, undoing))
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
        "before": row_document(row.before) if is_flow else row.before,
        "after": row_document(row.after) if is_flow else row.after,
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
    device = owned_device(row)
    if to_change and not may_use(caller.account, device):
        raise Problem("not-allowed")
    return device


def _shown(device: OwnedDevice, found: Mapping[State, StateFlow]) -> dict[str, Any]:
    shown = {
        "device": {"id": device.device.id, "label": device.device.label, "owner": device.owner_name},
        "states": {str(state): state_document(found.get(state, NEVER_SET)) for state in _ORDER},
    }
    return {"device": shown["device"], "etag": etag_of(shown), "states": shown["states"]}


async def _shown_state(connection: Connection, device_id: int, state: State, *, locked: bool = False) -> dict[str, Any]:
    shown = state_document((await flows.flows(connection, device_id, locked=locked)).get(state, NEVER_SET))
    return shown | {"etag": etag_of(shown)}


async def _refuse_newer(session: AsyncSession, device_id: int, states: Sequence[State], *, than: int) -> None:
    if entries := await history.newer(session, device_id, states, than=than):
        raise Problem("newer-change", "", {"newer": [entry_shape(entry) for entry in entries]})
