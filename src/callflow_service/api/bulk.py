"""Many devices at once: which of them, what shall be set, and what came of it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Literal, Self

from asyncpg import Connection, IntegrityConstraintViolationError
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.dependencies import ApiRoute, TheHouse, Writer
from callflow_service.api.flow_writing import Writing, by_device, numbers_of, owned_device, read_states, steps_of
from callflow_service.api.problems import Problem, invalid
from callflow_service.api.shapes import Id, Text, as_json
from callflow_service.domain.access import Account, OwnedDevice, Role
from callflow_service.domain.callflow import NAMES_NOTHING, Device, State, StateFlow
from callflow_service.domain.flow_documents import row_document
from callflow_service.domain.history import Origin
from callflow_service.domain.rings import way_to
from callflow_service.domain.targets import counts_numbers
from callflow_service.repositories import flows, many, resources
from callflow_service.repositories.many import Changed, Entries, Holder
from callflow_service.repositories.resources import Statement, Wanted
from callflow_service.resources.flows import SentState, States
from callflow_service.storage.transactions import driver, run
from callflow_service.tables import DeviceRow
from callflow_service.usecases.policing import Past

router = APIRouter(prefix="/v1", tags=["Many at once"], route_class=ApiRoute)

SHOWN: Final = 1000
"""How many changes are told one by one."""

_ORDER: Final = (State.BEFORE_CALL, State.NO_ANSWER, State.BUSY, State.FAILED)
_RETRY_SECONDS: Final = "10"


class Where(BaseModel):
    """Which devices, of those that you may change; exactly one of the four."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"minProperties": 1, "maxProperties": 1},
    )

    devices: Annotated[list[Id] | None, Field(min_length=1, description="Ids of devices")] = None
    owner: Annotated[Text | None, Field(description="Username of the owner")] = None
    q: Annotated[Text | None, Field(min_length=1, max_length=100, description="Part of a label or a caller ID")] = None
    all: Annotated[Literal[True] | None, Field(description="Every device")] = None

    @model_validator(mode="after")
    def _one_of_four(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("must name one of devices, owner, q and all")
        return self


class FlowSet(States):
    """What is set, in at least one state; the others stay as they are."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, json_schema_extra={"minProperties": 1})

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("must name at least one state")
        return self


class BulkChange(BaseModel):
    """A change of many devices' call flows, of all or none."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    where: Where
    set: FlowSet
    dry_run: Annotated[bool, Field(description="Tell what would change, and change nothing")] = False


class BulkChanged(BaseModel):
    """What one state of a device was, and what it is."""

    device: int
    state: State
    before: SentState
    after: SentState


class BulkResult(BaseModel):
    """What came of it."""

    dry_run: bool
    changed: int = Field(description="How many states of devices changed")
    unchanged: int = Field(description="How many were so before, or were set by this profile already")
    changes: list[BulkChanged] = Field(description="The first 1,000 changes")
    warnings: list[str]


@router.post("/bulk", response_model=BulkResult)
async def change_many(request: Request, body: BulkChange, caller: Writer, house: TheHouse) -> Response:
    """Set states of many devices in one transaction; each change has its own entry in the history."""
    if caller.account.role is Role.ACCOUNTANT:
        raise Problem("not-allowed")
    async with house.changing(request, caller, house.bulk) as session:
        connection = await driver(session)
        await one_at_a_time(connection)
        chosen = await choose(session, caller.account, body.where)
        writing = Writing(session, caller, house.policing, takes_up=not body.dry_run)
        wanted = await read_set(writing, body.where, body.set)
        for state, flow in wanted.items():
            await many.stage(connection, state, flow)
        warnings = await check_rings(connection, wanted)
        if not body.dry_run:
            entries = await many.tell(connection, caller.origin)
            await many.catch_up(connection, caller.origin, entries)
            await many.alone(connection)
            await check_rings(connection, wanted)
            await written(connection, caller.origin, entries)
        result = await told(connection, chosen * len(wanted))
    return as_json({"dry_run": body.dry_run, **result, "warnings": warnings})


async def one_at_a_time(connection: Connection) -> None:
    """Make ready, where no other bulk change is at work.

    Raises:
        Problem: `unavailable`.
    """
    if not await many.begin(connection):
        raise Problem("unavailable", "Another bulk change is at work.", headers={"Retry-After": _RETRY_SECONDS})


async def choose(session: AsyncSession, viewer: Account, where: Where) -> int:
    """Choose the devices, of those that `viewer` may see; how many they are.

    But for an accountant, who changes nothing, an account may change what it may see of devices.

    Raises:
        Problem: `invalid`, with each device that is not there.
    """
    return await many.choose(session, await _seen(session, viewer, where))


async def read_set(writing: Writing, where: Where, sent: FlowSet) -> dict[State, StateFlow]:
    """What shall be set, checked against the devices that fit.

    Raises:
        Problem: `invalid`.
    """
    session = writing.session
    statement = (await _seen(session, writing.caller.account, where)).limit(2)
    rows = (await run(session, statement)).all()
    some = owned_device(rows[0]) if rows else OwnedDevice(Device(NAMES_NOTHING, "", ""), NAMES_NOTHING, "", None, 1)
    wanted = {state: flow for state in _ORDER if (flow := getattr(sent, state)) is not None}
    for state, flow in wanted.items():
        if len(rows) > 1 and _names_did(flow.model_dump()):
            raise invalid(f"set.{state}.otherwise", "a DID is one device's, and more than one is chosen")
    if rows and (numbers := numbers_of(wanted.values())):
        chosen = await _seen(session, writing.caller.account, where)
        writing = replace(writing, pasts=await _pasts(writing, chosen, numbers))
    return await read_states(writing, some, wanted, "set.{state}.")


async def _pasts(writing: Writing, statement: Statement, numbers: set[str]) -> list[Past]:
    """What the accounts took up before whose devices are chosen; of those that count nothing, one for each policy."""
    chosen = await run(writing.session, statement.with_only_columns(col(DeviceRow.owner_id)).distinct())
    connection = await driver(writing.session)
    rules = await flows.target_rules_of_many(connection, list(chosen.scalars()))
    uncounted = {each: owner for owner, each in rules.items() if not counts_numbers(each.policies)}
    counted = [(owner, each) for owner, each in rules.items() if each not in uncounted]
    if counted and writing.takes_up:
        # Whoever waited for an account's turn would be waited for when the rows are written.
        await many.alone(connection)
    owners = [*counted, *((owner, each) for each, owner in uncounted.items())]
    # In the order of their ids, so that no two of such changes wait for each other.
    owners.sort(key=lambda one: one[0])
    return [await writing.policing.past(connection, owner, each, numbers) for owner, each in owners]


async def check_rings(connection: Connection, wanted: Mapping[State, StateFlow]) -> list[str]:
    """Refuse a forward that closes a ring before the call through any chosen device; tell of other rings.

    Raises:
        Problem: `loop`, with the devices of the ring.
    """
    warnings: list[str] = []
    for state, flow in wanted.items():
        destinations = {step.destination for step in steps_of(flow)}
        for to in sorted(destinations, key=str):
            target = to.id if isinstance(to, Device) else await flows.own(connection, to)
            if target is not None:
                warnings += await _check_ring(connection, state, target)
    return list(dict.fromkeys(warnings))


async def _check_ring(connection: Connection, state: State, target: int) -> list[str]:
    leads = await flows.leads(connection, target)
    chosen = await many.chosen_of(connection, [target, *(lead.target for lead in leads)])
    if target in chosen:
        raise Problem("loop", "The device would forward to itself.", {"path": [target]})
    before = by_device([lead for lead in leads if lead.state is State.BEFORE_CALL])
    if state is State.BEFORE_CALL and (way := way_to(target, chosen, before)):
        path = [way[-1], *way[:-1]]
        raise Problem("loop", "The forward closes a ring of forwards before the call.", {"path": path})
    if way := way_to(target, chosen, by_device(leads)):
        ring = " to ".join(str(each) for each in [way[-1], *way])
        return [f"The forward is part of a ring, device {ring}; a call that comes round is not forwarded again."]
    return []


async def written(connection: Connection, origin: Origin, entries: Entries, holder: Holder | None = None) -> None:
    """Write what is staged and told.

    Raises:
        Problem: `invalid`, where something that a call flow names vanished.
    """
    try:
        await many.write(connection, origin, entries, holder)
    except IntegrityConstraintViolationError as error:
        raise invalid("set", "what it names is gone since a moment ago") from error


async def told(connection: Connection, states: int) -> dict[str, Any]:
    """What changed of so many states, as it is shown."""
    changed, first = await many.changed(connection, SHOWN)
    return {"changed": changed, "unchanged": states - changed, "changes": [change_shape(each) for each in first]}


def change_shape(change: Changed) -> dict[str, Any]:
    """One change, as it is shown."""
    return {
        "device": change.device,
        "state": change.state,
        "before": row_document(change.before),
        "after": row_document(change.after),
    }


async def _seen(session: AsyncSession, viewer: Account, where: Where) -> Statement:
    if where.owner is not None and await resources.account_by_name(session, viewer, where.owner) is None:
        raise invalid("where.owner", f"there is no account {where.owner}")
    if where.devices is not None and (gone := await many.missing(session, viewer, where.devices)):
        errors = [{"field": f"where.devices.{at}", "message": f"there is no device {device}"} for at, device in gone]
        raise Problem("invalid", errors[0]["message"], {"errors": errors})
    return many.seen(viewer, Wanted(0, q=where.q, owner=where.owner), where.devices)


def _names_did(value: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether a call flow names a DID anywhere."""
    if isinstance(value, dict):
        return value.get("did") is not None or any(map(_names_did, value.values()))
    return isinstance(value, list) and any(map(_names_did, value))
