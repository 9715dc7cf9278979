"""Whether a stored schedule is open at a time, on its own clocks and with its own holidays."""

import json
from collections.abc import Mapping
from datetime import date, datetime
from functools import lru_cache, partial
from typing import Any, Final

from callflow_service.almanac.public_holidays import is_holiday
from callflow_service.domain import schedules
from callflow_service.domain.schedules import Holidays, Schedule, ScheduleException, Weekly, Window

_DAYS: Final = {day: number for number, day in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"))}
_REMEMBERED: Final = 1_000

Document = Mapping[str, Any]


def is_open(stored: Document, at: datetime, *, time_zone: str) -> bool:
    """Whether a schedule is open at a moment.

    Args:
        stored: The schedule's `time_zone`, `weekly`, `holidays` and `exceptions` as the table has them.
        at: The moment, with its zone.
        time_zone: The zone of schedules that have none of their own.
    """
    schedule = read_schedule(stored, time_zone=time_zone)
    return schedules.is_open(schedule, at, partial(_is_holiday, schedule))


# The calls of a second ask for the same.
@lru_cache(_REMEMBERED)
def open_schedules(stored: str, at: datetime, *, time_zone: str) -> frozenset[int]:
    """Which of some schedules are open at a moment; `stored` is a JSON object, for each id what `is_open` takes."""
    return frozenset(
        id_
        for id_, schedule in _read_schedules(stored, time_zone)
        if schedules.is_open(schedule, at, partial(_is_holiday, schedule))
    )


def next_changes(stored: Document, at: datetime, limit: int, *, time_zone: str) -> list[tuple[datetime, bool]]:
    """The next moments after `at` at which a schedule opens (True) or closes (False), at most `limit` of them."""
    schedule = read_schedule(stored, time_zone=time_zone)
    return schedules.next_changes(schedule, at, partial(_is_holiday, schedule), limit)


def read_schedule(stored: Document, *, time_zone: str) -> Schedule:
    """A schedule of the columns that the table has."""
    days = stored["holidays"]
    return Schedule(
        schedules.time_zone(stored["time_zone"] or time_zone),
        tuple(
            Weekly(frozenset(_DAYS[day] for day in each["days"]), Window.between(each["from"], each["to"]))
            for each in stored["weekly"]
        ),
        Holidays(days["country"], days["region"], days["open"]) if days else None,
        tuple(_read_exception(each) for each in stored["exceptions"]),
    )


# Every lookup brings the text anew, and reading it takes longer than asking it.
@lru_cache(_REMEMBERED)
def _read_schedules(stored: str, time_zone: str) -> tuple[tuple[int, Schedule], ...]:
    return tuple((int(id_), read_schedule(each, time_zone=time_zone)) for id_, each in json.loads(stored).items())


def _read_exception(stored: Document) -> ScheduleException:
    return ScheduleException(
        date.fromisoformat(stored["from"]),
        date.fromisoformat(stored["to"]),
        stored["open"],
        tuple(Window.between(hours["from"], hours["to"]) for hours in stored.get("hours") or ()),
    )


def _is_holiday(schedule: Schedule, day: date) -> bool:
    found = schedule.holidays
    return found is not None and is_holiday(found.country, found.region, day)
