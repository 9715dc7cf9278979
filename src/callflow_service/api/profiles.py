"""Profiles: changes of many devices under a name, kept to be applied, and withdrawn."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, cast

from asyncpg import Connection, IntegrityConstraintViolationError
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import InvalidRequestError
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.bulk import (
    SHOWN,
    BulkChanged,
    FlowSet,
    Where,
    change_shape,
    check_rings,
    choose,
    one_at_a_time,
    read_set,
    told,
    written,
)
from callflow_service.api.dependencies import ApiRoute, Caller, TheHouse, Writer
from callflow_service.api.flow_writing import Writing
from callflow_service.api.lists import Page
from callflow_service.api.problems import Problem, invalid
from callflow_service.api.resource_routes import Change, Resource, router_of
from callflow_service.api.shapes import Id, Text, as_json, written_moment
from callflow_service.domain.access import Account, Role
from callflow_service.domain.callflow import State
from callflow_service.domain.flow_documents import state_document
from callflow_service.domain.history import Face, Origin, Sender
from callflow_service.domain.rings import without_rings
from callflow_service.domain.tokens import Scope
from callflow_service.repositories import many, profiles, resources
from callflow_service.repositories.many import Entries, Holder
from callflow_service.repositories.resources import Row
from callflow_service.storage.transactions import driver
from callflow_service.tables import AccountRow, ProfileRow

_IS_APPLIED: Final = "It is applied: withdraw it first."


class ProfilesPage(Page):
    """Which profiles."""

    q: Annotated[Text | None, Field(max_length=100, description="Part of a name")] = None
    owner: Annotated[Text | None, Field(description="Username of the owner")] = None
    sort: Literal["id", "-id"] = "id"


class ProfileItem(BaseModel):
    """A change of many devices' call flows under a name. It reaches the devices that its owner may change."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: Id
    name: Annotated[Text, Field(min_length=1, max_length=100)]
    owner: Annotated[Text | None, Field(description="Username of the owner; yours where it is not said")] = None
    where: Where
    set: FlowSet


class ProfileItemChanges(BaseModel):
    """What changes; null empties, in `where` and `set` too, and what is not named stays as it is."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: Id | None = None
    name: Text | None = None
    owner: Text | None = None
    where: dict[str, Any] | None = None
    set: dict[str, Any] | None = None


class ShownProfile(BaseModel):
    """A profile."""

    id: int
    name: str
    owner: str
    where: Where
    set: FlowSet
    applied_at: str | None = Field(description="Since when it is applied; null where it is not")
    applied_states: int = Field(description="How many states of devices it has changed since then")
    etag: str


class Applied(BaseModel):
    """What came of it."""

    applied_at: str
    changed: int = Field(description="How many states of devices changed")
    unchanged: int = Field(description="How many were so before, or were set by this profile already")
    changes: list[BulkChanged] = Field(description="The first 1,000 changes")
    warnings: list[str]


class LeftAlone(BaseModel):
    """A state of a device that is not as it was before the profile, and why."""

    device: int
    state: State
    reason: Literal["changed_since", "device_gone", "target_gone", "loop"]


class Withdrawn(BaseModel):
    """What came of it."""

    restored: int = Field(description="How many states are again as they were before the profile")
    left: int = Field(description="How many were left alone")
    changes: list[BulkChanged] = Field(description="The first 1,000 that are as they were")
    left_alone: list[LeftAlone] = Field(description="The first 1,000 that were left alone")


def _shape(row: Row) -> dict[str, Any]:
    profile, owner = row
    return {
        "id": profile.id,
        "name": profile.name,
        "owner": owner.username,
        "where": profile.where,
        "set": profile.set,
        "applied_at": written_moment(profile.applied_at) if profile.applied_at else None,
        "applied_states": profile.applied_states,
    }


async def _columns(change: Change) -> dict[str, Any]:
    item = cast(ProfileItem, change.item)
    username = item.owner or change.caller.username
    owner = await resources.account_by_name(change.session, change.caller, username)
    if owner is None:
        raise invalid("owner", f"there is no account {username}")
    if owner.role == Role.ACCOUNTANT:
        raise invalid("owner", "an accountant changes no call flows")
    if not _is_for(change.caller, owner):
        raise Problem("not-allowed")
    origin = Origin(change.caller.id, Face.JSON, Sender(None, ""))
    writing = Writing(change.session, _as_owner(owner, origin), change.house.policing, takes_up=False)
    flows = await read_set(writing, item.where, item.set)
    columns = {
        "id": item.id,
        "name": item.name,
        "owner_id": owner.id,
        "where": item.where.model_dump(mode="json", exclude_none=True),
        "set": {state: state_document(flow) for state, flow in flows.items()},
    }
    if change.row and change.row.applied_at:
        changed = {name for name, value in columns.items() if getattr(change.row, name) != value}
        if changed - {"name"}:
            raise Problem("in-use", _IS_APPLIED, {"used_by": []})
    return columns


def _is_for(caller: Account, owner: AccountRow) -> bool:
    """Whether what is this account's is the caller's to change: its own, or that of one below it."""
    if caller.role is Role.ACCOUNTANT:
        return False
    return caller.role is Role.ADMIN or caller.id in {owner.id, owner.owner_id}


def _as_owner(owner: AccountRow, origin: Origin) -> Caller:
    """The owner as if it asked itself: a profile reaches what its owner may change, whoever applies it."""
    account = Account(
        id=owner.id,
        username=owner.username,
        role=Role(owner.role),
        blocked=owner.blocked,
        api_enabled=owner.api_enabled,
        pbx_addon=owner.pbx_addon,
        hash_policy=None,
        api_key="",
        password_hash=None,
    )
    return Caller(account, Scope.READ, origin)


PROFILES: Final = Resource(
    name="profiles",
    table=ProfileRow,
    kind="profile",
    key=col(ProfileRow.id),
    key_type=int,
    item=ProfileItem,
    shown=ShownProfile,
    page=ProfilesPage,
    statement=profiles.profiles,
    filters=profiles.profile_filters,
    shape=_shape,
    columns=_columns,
    changes=ProfileItemChanges,
    may_add=lambda caller: caller.role is not Role.ACCOUNTANT,
    may_change=lambda caller, row: _is_for(caller, row[1]),
)
"""Profiles as a resource like the others."""

router = APIRouter(prefix="/v1/profiles", tags=["Profiles"], route_class=ApiRoute)


def routers() -> Iterator[APIRouter]:
    """The routes of profiles."""
    yield router_of(PROFILES)
    yield router


@router.post("/{profile_id}/apply", response_model=Applied)
async def apply_profile(request: Request, profile_id: Id, caller: Writer, house: TheHouse) -> Response:
    """Set what the profile says, and remember what was there before.

    Where it is applied already, devices that fit by now are added; what it has set before is left as it is.
    """
    await refuse_body(request)
    holder = Holder("profile", profile_id)
    async with house.changing(request, caller, house.bulk) as session:
        connection = await driver(session)
        await one_at_a_time(connection)
        profile, owner = await _profile(session, caller, profile_id)
        where, sent = Where.model_validate(profile.where), FlowSet.model_validate(profile.set)
        as_owner = _as_owner(owner, caller.origin)
        chosen = await choose(session, as_owner.account, where)
        wanted = await read_set(Writing(session, as_owner, house.policing), where, sent)
        for state, flow in wanted.items():
            await many.stage(connection, state, flow, holder)
        warnings = await check_rings(connection, wanted)
        entries = await many.tell(connection, caller.origin, holder)
        await many.catch_up(connection, caller.origin, entries, holder)
        await many.alone(connection)
        await check_rings(connection, wanted)
        await _lock_unchanged(session, profile)
        await written(connection, caller.origin, entries, holder)
        result = await told(connection, chosen * len(wanted))
        profile.applied_at = profile.applied_at or datetime.now(UTC)
        profile.applied_states += result["changed"]
        applied_at = written_moment(profile.applied_at)
        await session.flush()
    return as_json({"applied_at": applied_at, **result, "warnings": warnings})


@router.post("/{profile_id}/withdraw", response_model=Withdrawn)
async def withdraw_profile(request: Request, profile_id: Id, caller: Writer, house: TheHouse) -> Response:
    """Put back what was there before the profile, in each state that nobody has changed since."""
    await refuse_body(request)
    holder = Holder("profile", profile_id)
    async with house.changing(request, caller, house.bulk) as session:
        connection = await driver(session)
        await one_at_a_time(connection)
        profile, owner = await _profile(session, caller, profile_id)
        await many.choose_remembered(session, _as_owner(owner, caller.origin).account, holder)
        await many.stage_back(connection, holder)
        await many.leave(connection, await rings(connection), "loop")
        entries = await many.tell(connection, caller.origin)
        await many.alone(connection)
        await _lock_unchanged(session, profile)
        result = await put_back(connection, caller, entries, holder)
        profile.applied_at, profile.applied_states = None, 0
        await session.flush()
    return as_json(result)


async def put_back(connection: Connection, caller: Caller, entries: Entries, holder: Holder) -> dict[str, Any]:
    """Write what is staged and told of what was before, and tell what came of it.

    Raises:
        Problem: `unavailable`, where it can be no longer.
    """
    try:
        if await rings(connection):
            raise Problem("unavailable", "A ring was closed meanwhile.", headers={"Retry-After": "1"})
        await many.write_back(connection, caller.origin, entries, holder)
    except IntegrityConstraintViolationError:
        raise Problem("unavailable", "A target went away meanwhile.", headers={"Retry-After": "1"}) from None
    restored, changes = await many.changed(connection, SHOWN)
    left, left_alone = await many.left(connection, SHOWN)
    return {
        "restored": restored,
        "left": left,
        "changes": [change_shape(each) for each in changes],
        "left_alone": [{"device": each.device, "state": each.state, "reason": each.reason} for each in left_alone],
    }


async def refuse_body(request: Request) -> None:
    """Refuse a body where there is nothing to say.

    Raises:
        Problem: `invalid`.
    """
    if await request.body():
        raise Problem("invalid", "This call takes no body.", {"errors": []})


async def _profile(session: AsyncSession, caller: Caller, profile_id: int) -> tuple[ProfileRow, AccountRow]:
    condition = col(ProfileRow.id) == profile_id
    row = await resources.one(session, profiles.profiles(caller.account), condition)
    if row is None:
        raise Problem("not-found")
    profile, owner = row
    if not _is_for(caller.account, owner):
        raise Problem("not-allowed")
    return profile, owner


async def _lock_unchanged(session: AsyncSession, profile: ProfileRow) -> None:
    """Lock the profile, as late as that: whoever waits for it would be waited for by this transaction.

    Raises:
        Problem: `unavailable`, where it was changed since it was read.
    """
    was = (profile.where, profile.set, profile.owner_id)
    try:
        await session.refresh(profile, with_for_update=True)
    except InvalidRequestError:
        raise Problem("not-found") from None
    if (profile.where, profile.set, profile.owner_id) != was:
        raise Problem("unavailable", "The profile was changed meanwhile.", headers={"Retry-After": "1"})


async def rings(connection: Connection) -> list[tuple[int, State]]:
    """The staged states by which a ring before the call would close, or a device forward to itself."""
    staged, leads = await many.leads_back(connection)
    before = [(device, target) for device, state, target in staged if state is State.BEFORE_CALL]
    fine = set(without_rings(before, leads))
    return [
        (device, state)
        for device, state, target in staged
        if device == target or (state is State.BEFORE_CALL and (device, target) not in fine)
    ]
