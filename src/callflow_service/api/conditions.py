"""What conditions stand on: schedules and caller lists. Each belongs to an account, and all below it may use it."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, cast

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import col

from callflow_service.almanac import opening
from callflow_service.api.dependencies import ApiRoute, House, Reader, TheHouse
from callflow_service.api.lists import Page
from callflow_service.api.problems import Problem, invalid
from callflow_service.api.resource_routes import Change, Resource, router_of
from callflow_service.api.shapes import Id, Moment, Text, as_json, written_moment
from callflow_service.domain.access import Account, Role
from callflow_service.repositories import resources
from callflow_service.repositories.resources import Row
from callflow_service.resources.models import (
    CallerListItem,
    ExceptionDays,
    HolidaysChanges,
    HolidaysOf,
    ScheduleItem,
    WeeklyHours,
)
from callflow_service.resources.types import SentMoment
from callflow_service.tables import CallerListRow, ScheduleRow


class SchedulesPage(Page):
    """Which schedules."""

    q: Annotated[Text | None, Field(max_length=100, description="Part of a name")] = None
    owner: Annotated[Text | None, Field(description="Username of the owner")] = None
    sort: Literal["id", "-id"] = "id"


class CallerListsPage(Page):
    """Which caller lists."""

    q: Annotated[Text | None, Field(max_length=100, description="Part of a name")] = None
    owner: Annotated[Text | None, Field(description="Username of the owner")] = None
    sort: Literal["id", "-id"] = "id"


class ShownSchedule(BaseModel):
    """A schedule. Its `etag` is of `open_now` too, but a change is safe under any that it had since it was changed."""

    id: int
    name: str
    owner: str
    time_zone: str | None = Field(description="Its own; where it has none its owner's counts")
    weekly: list[WeeklyHours]
    holidays: HolidaysOf | None
    exceptions: list[ExceptionDays]
    open_now: bool
    etag: str


class ShownCallerList(BaseModel):
    """A caller list."""

    id: int
    name: str
    owner: str
    entries: list[str]
    etag: str


class When(BaseModel):
    """From when on, and how many."""

    model_config = ConfigDict(extra="forbid")

    at: Annotated[SentMoment | None, Field(description="After which moment; now where it is not said")] = None
    limit: Annotated[int, Field(ge=1, le=100, description="How many changes at most")] = 10


class OpeningOrClosing(BaseModel):
    """A moment from which on a schedule is open, or closed."""

    at: Moment
    open: bool


class NextChanges(BaseModel):
    """What a schedule is at a moment, and its next changes in the two years after it."""

    at: Moment
    time_zone: str = Field(description="The clocks that it goes by")
    open: bool
    items: list[OpeningOrClosing]


def routers() -> Iterator[APIRouter]:
    """The routes of both."""
    # Before the others, which would take `next` for a part of theirs.
    yield _changes
    yield router_of(SCHEDULES)
    yield router_of(CALLER_LISTS)


_changes = APIRouter(prefix="/v1/schedules", tags=["Schedules"], route_class=ApiRoute)


@_changes.get("/{schedule_id}/next", response_model=NextChanges)
async def next_schedule_changes(
    schedule_id: Annotated[Id, Path()], when: Annotated[When, Query()], caller: Reader, house: TheHouse
) -> Response:
    """When a schedule opens and closes next."""
    async with house.transactions.begin() as session:
        row = await resources.one(session, resources.schedules(caller.account), col(ScheduleRow.id) == schedule_id)
    if row is None:
        raise Problem("not-found")
    at = when.at or datetime.now(UTC)
    stored, time_zone = _definition(row), row[2] or house.time_zone
    changes = opening.next_changes(stored, at, when.limit, time_zone=time_zone)
    return as_json(
        {
            "at": written_moment(at),
            "time_zone": time_zone,
            "open": opening.is_open(stored, at, time_zone=time_zone),
            "items": [{"at": written_moment(moment), "open": opens} for moment, opens in changes],
        }
    )


def _definition(row: Row) -> dict[str, Any]:
    return cast(ScheduleRow, row[0]).model_dump(include={"time_zone", "weekly", "holidays", "exceptions"})


def _schedule_shape(row: Row) -> dict[str, Any]:
    schedule, owner, _ = row
    return {"id": schedule.id, "name": schedule.name, "owner": owner.username, **_definition(row)}


def _open_now(house: House, row: Row) -> list[dict[str, Any]]:
    now = opening.is_open(_definition(row), datetime.now(UTC), time_zone=row[2] or house.time_zone)
    return [{"open_now": now}, {"open_now": not now}]


def _caller_list_shape(row: Row) -> dict[str, Any]:
    found, owner = row
    return {"id": found.id, "name": found.name, "owner": owner.username, "entries": found.entries}


def _may_add(caller: Account) -> bool:
    return caller.role is not Role.ACCOUNTANT


def _may_change(caller: Account, row: Row) -> bool:
    owner = row[1]
    return _is_its_or_below(caller, owner.id, owner.owner_id)


def _is_its_or_below(caller: Account, owner: int, owners_owner: int | None) -> bool:
    """Whether what an account owns is the caller's to change: its own, and what belongs to those below it."""
    match caller.role:
        case Role.ADMIN:
            return True
        case Role.RESELLER:
            return caller.id in {owner, owners_owner}
        case Role.USER:
            return caller.id == owner
        case _:
            return False


async def _columns(change: Change) -> dict[str, Any]:
    item, caller = cast(ScheduleItem | CallerListItem, change.item), change.caller
    owner = await resources.account_by_name(change.session, caller, item.owner)
    if owner is None:
        raise invalid("owner", f"there is no account {item.owner}")
    if not _is_its_or_below(caller, owner.id, owner.owner_id):
        raise Problem("not-allowed")
    return item.model_dump(exclude={"owner"}) | {"owner_id": owner.id}


def _moves(kind: str) -> Callable[[Any, dict[str, Any]], str | None]:
    """Those who use one may not be below another owner."""
    return lambda row, columns: kind if row.owner_id != columns["owner_id"] else None


SCHEDULES: Final = Resource(
    name="schedules",
    table=ScheduleRow,
    kind="schedule",
    key=col(ScheduleRow.id),
    key_type=int,
    item=ScheduleItem,
    shown=ShownSchedule,
    page=SchedulesPage,
    statement=resources.schedules,
    filters=resources.named_filters(ScheduleRow),
    shape=_schedule_shape,
    columns=_columns,
    may_add=_may_add,
    may_change=_may_change,
    merged={"holidays": HolidaysChanges},
    passing=_open_now,
    needed_as=_moves("schedule"),
)
CALLER_LISTS: Final = Resource(
    name="caller_lists",
    table=CallerListRow,
    kind="caller_list",
    key=col(CallerListRow.id),
    key_type=int,
    item=CallerListItem,
    shown=ShownCallerList,
    page=CallerListsPage,
    statement=resources.caller_lists,
    filters=resources.named_filters(CallerListRow),
    shape=_caller_list_shape,
    columns=_columns,
    may_add=_may_add,
    may_change=_may_change,
    needed_as=_moves("caller_list"),
)
