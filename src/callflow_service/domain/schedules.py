"""Schedules: when something is open, by the week, by holidays, by exceptions, on the clocks of one time zone.

What a clock on the wall shows decides. So a time that a clock change skips begins at the first moment after it, and one
that comes twice counts both times.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

MINUTES_OF_A_DAY: Final = 24 * 60
SEARCHED_DAYS: Final = 105 * 7
"""How far `next_changes` looks, two years; what does not change in this time is told as never."""

TIME_OF_DAY: Final = "([01][0-9]|2[0-3]):[0-5][0-9]"
"""What a time of day looks like, as a regular expression; the end of a window may be 24:00 too."""

_TIME: Final = re.compile(f"{TIME_OF_DAY}|24:00", re.ASCII)
_DAY: Final = timedelta(days=1)
_CHUNK_DAYS: Final = 7
# A day's windows reach into the next, and a clock change moves them by at most a day.
_AROUND_DAYS: Final = 2
# They are another zone on another machine, or none.
_NO_ZONES: Final = frozenset({"localtime", "Factory"})

IsHoliday = Callable[[date], bool]
"""Whether a date is a holiday where the schedule is."""


@dataclass(frozen=True, slots=True)
class Window:
    """A time of a day: minutes since its midnight, `start` in and `end` out; over midnight `end` is more than a day."""

    start: int
    end: int

    @classmethod
    def between(cls, start: str, end: str) -> "Window":
        """The window between two times of day as people write them, `22:00` to `06:00` over midnight.

        Raises:
            ValueError: One is no time of day, or they are the same, which could be all day or never.
        """
        first, last = _minutes(start), _minutes(end)
        if first == MINUTES_OF_A_DAY:
            raise ValueError("a window begins at a time from 00:00 to 23:59")
        if first == last:
            raise ValueError("a window must end at another time than it begins; all day is 00:00 to 24:00")
        return cls(first, last if last > first else last + MINUTES_OF_A_DAY)


WHOLE_DAY: Final = Window(0, MINUTES_OF_A_DAY)


@dataclass(frozen=True, slots=True)
class Weekly:
    """A window on some days of each week; Monday is 0."""

    days: frozenset[int]
    window: Window


@dataclass(frozen=True, slots=True)
class Holidays:
    """Whose holidays count, and whether holidays are open or closed, all day."""

    country: str
    region: str | None
    open: bool


@dataclass(frozen=True, slots=True)
class ScheduleException:
    """Days from `first` to `last`, both in, on which it is otherwise.

    Without `hours` they are open or closed all day. An open one with `hours` is open in these alone; a closed one is
    closed in these, and for the rest of the day as it would be without the exception.
    """

    first: date
    last: date
    open: bool
    hours: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is open. Of several exceptions for a day the first decides."""

    time_zone: ZoneInfo
    weekly: tuple[Weekly, ...] = ()
    holidays: Holidays | None = None
    exceptions: tuple[ScheduleException, ...] = ()


@cache
def time_zone(name: str) -> ZoneInfo:
    """The time zone of a name such as `Europe/Vilnius`.

    Raises:
        ValueError: There is none.
    """
    if name not in _zone_names():
        raise ValueError("must be a time zone such as Europe/Vilnius")
    return ZoneInfo(name)


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) - _NO_ZONES


def is_open(schedule: Schedule, at: datetime, is_holiday: IsHoliday) -> bool:
    """Whether the schedule is open at a moment.

    Args:
        schedule: When it is open.
        at: The moment, with its zone.
        is_holiday: Is asked where the schedule has holidays, and no exception decides.
    """
    return _is_open(schedule.time_zone, at, lambda day: _windows(schedule, day, is_holiday))


def next_changes(schedule: Schedule, at: datetime, is_holiday: IsHoliday, limit: int) -> list[tuple[datetime, bool]]:
    """The next moments after `at` at which the schedule opens (True) or closes (False), at most `limit` of them.

    It looks `SEARCHED_DAYS` ahead. The moments are in UTC.
    """
    windows = cache(lambda day: _windows(schedule, day, is_holiday))
    was_open = _is_open(schedule.time_zone, at, windows)
    changes: list[tuple[datetime, bool]] = []
    for moment in _possible_changes(schedule.time_zone, at, windows):
        if len(changes) == limit:
            break
        opens = _is_open(schedule.time_zone, moment, windows)
        if opens is not was_open:
            changes.append((moment, opens))
            was_open = opens
    return changes


def _is_open(zone: ZoneInfo, at: datetime, windows: Callable[[date], tuple[Window, ...]]) -> bool:
    try:
        clock = at.astimezone(zone)
    except OverflowError:
        # In the first or the last hours that there are dates for.
        clock = at
    day, minute = clock.date(), clock.hour * 60 + clock.minute
    if any(window.start <= minute < window.end for window in windows(day)):
        return True
    if day == date.min:
        return False
    minute += MINUTES_OF_A_DAY
    return any(window.start <= minute < window.end for window in windows(day - _DAY))


def _windows(schedule: Schedule, day: date, is_holiday: IsHoliday) -> tuple[Window, ...]:
    """The windows that begin on a day."""
    for exception in schedule.exceptions:
        if exception.first <= day <= exception.last:
            if not exception.hours:
                return (WHOLE_DAY,) if exception.open else ()
            if exception.open:
                return exception.hours
            return tuple(_without(_usual_windows(schedule, day, is_holiday), exception.hours))
    return _usual_windows(schedule, day, is_holiday)


def _usual_windows(schedule: Schedule, day: date, is_holiday: IsHoliday) -> tuple[Window, ...]:
    if schedule.holidays and is_holiday(day):
        return (WHOLE_DAY,) if schedule.holidays.open else ()
    return tuple(weekly.window for weekly in schedule.weekly if day.weekday() in weekly.days)


def _without(windows: Iterable[Window], closed: Iterable[Window]) -> Iterable[Window]:
    for hours in closed:
        windows = [
            part
            for window in windows
            for part in (
                Window(window.start, min(window.end, hours.start)),
                Window(max(window.start, hours.end), window.end),
            )
            if part.start < part.end
        ]
    return windows


def _possible_changes(
    zone: ZoneInfo, after: datetime, windows: Callable[[date], tuple[Window, ...]]
) -> Iterator[datetime]:
    """Moments after another, in order: at each that is not among them, all is as it was at the one before."""
    done = after.astimezone(UTC)
    try:
        first = after.astimezone(zone).date()
        for chunk in range(0, SEARCHED_DAYS, _CHUNK_DAYS):
            days = [first + _DAY * day for day in range(chunk - _AROUND_DAYS, chunk + _CHUNK_DAYS + _AROUND_DAYS)]
            end = _moment(zone, first + _DAY * (chunk + _CHUNK_DAYS), 0)
            moments = {moment for day in days for moment in _edges(zone, day, windows(day))}
            moments.update(_clock_changes(zone, days))
            yield from sorted(moment for moment in moments if done < moment <= end)
            done = max(done, end)
    except OverflowError:
        # There are no dates beyond.
        return


def _edges(zone: ZoneInfo, day: date, windows: Iterable[Window]) -> Iterator[datetime]:
    for window in windows:
        for minute in (window.start, window.end):
            yield _moment(zone, day, minute)
            yield _moment(zone, day, minute, fold=1)


def _clock_changes(zone: ZoneInfo, days: Iterable[date]) -> Iterator[datetime]:
    """The first moment after each change of the zone's clocks in these days."""
    for before, after in pairwise(_moment(zone, day, 0) for day in days):
        if _offset(zone, before) != _offset(zone, after):
            early, late = 0, int((after - before).total_seconds())
            while late - early > 1:
                middle = (early + late) // 2
                if _offset(zone, before + timedelta(seconds=middle)) == _offset(zone, before):
                    early = middle
                else:
                    late = middle
            yield before + timedelta(seconds=late)


def _moment(zone: ZoneInfo, day: date, minute: int, *, fold: int = 0) -> datetime:
    clock = datetime.combine(day, time()) + timedelta(minutes=minute)
    return clock.replace(tzinfo=zone, fold=fold).astimezone(UTC)


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()


def _minutes(text: str) -> int:
    if not _TIME.fullmatch(text):
        raise ValueError("must be a time of day such as 08:30")
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)
