"""When a schedule is open: a table that was worked out by hand, and what must hold of all schedules."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callflow_service.domain.schedules import (
    SEARCHED_DAYS,
    Holidays,
    Schedule,
    ScheduleException,
    Weekly,
    Window,
    is_open,
    next_changes,
    time_zone,
)

VILNIUS, NEW_YORK, LORD_HOWE = "Europe/Vilnius", "America/New_York", "Australia/Lord_Howe"
KATHMANDU, BEIRUT, APIA = "Asia/Kathmandu", "Asia/Beirut", "Pacific/Apia"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WORKDAYS, EVERY_DAY = "mon tue wed thu fri", " ".join(DAYS)


def week(days: str, *hours: str) -> tuple[Weekly, ...]:
    """`week("mon tue", "09:00-17:00")`."""
    return tuple(Weekly(frozenset(map(DAYS.index, days.split())), window(each)) for each in hours)


def window(hours: str) -> Window:
    return Window.between(*hours.split("-"))


def but(days: str, *hours: str, is_open: bool = False) -> ScheduleException:
    """`but("2026-12-24 2026-12-26", "10:00-14:00")`."""
    first, *last = (date.fromisoformat(day) for day in days.split())
    return ScheduleException(first, *(last or [first]), is_open, tuple(map(window, hours)))


def schedule(zone: str, *parts: Weekly | ScheduleException | Holidays) -> Schedule:
    return Schedule(
        time_zone(zone),
        tuple(part for part in parts if isinstance(part, Weekly)),
        next((part for part in parts if isinstance(part, Holidays)), None),
        tuple(part for part in parts if isinstance(part, ScheduleException)),
    )


def moment(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# In the country of these tests, two days are holidays: a Thursday and a Friday.
HOLIDAYS = frozenset({date(2026, 12, 24), date(2026, 12, 25)})
CLOSED_ON_HOLIDAYS = Holidays("LT", None, open=False)
OPEN_ON_HOLIDAYS = Holidays("LT", None, open=True)

OFFICE = schedule(VILNIUS, *week(WORKDAYS, "09:00-17:00"))
NIGHT = schedule(VILNIUS, *week("fri", "22:00-06:00"))
DAY = schedule(VILNIUS, *week("sun", "00:00-24:00"))
GAP = schedule(VILNIUS, *week("sun", "03:15-03:45"))
INTO_GAP = schedule(VILNIUS, *week("sun", "02:00-03:30"))
OUT_OF_GAP = schedule(VILNIUS, *week("sun", "03:30-05:00"))
TWICE = schedule(VILNIUS, *week("sun", "03:30-03:45"))
SATURDAY_NIGHT = schedule(VILNIUS, *week("sat", "23:00-03:30"))
NEW_YORK_NIGHT = schedule(NEW_YORK, *week("sun", "01:30-02:30"))
HALF_HOUR = schedule(LORD_HOWE, *week("sun", "01:45-02:15"))
NEPAL = schedule(KATHMANDU, *week(EVERY_DAY, "09:00-17:00"))
FROM_MIDNIGHT = schedule(BEIRUT, *week("sun", "00:00-02:00"))
TO_AFTER_MIDNIGHT = schedule(BEIRUT, *week("sat", "22:00-00:30"))
LATE = schedule(BEIRUT, *week("sat", "23:15-23:45"))
SAMOA = schedule(APIA, *week("fri", "22:00-06:00"), *week("sat", "12:00-13:00"))
LEAP = schedule(VILNIUS, *week(EVERY_DAY, "09:00-17:00"), but("2028-02-29"))
CLOSED_DAYS = schedule(VILNIUS, *week(EVERY_DAY, "09:00-17:00"), but("2026-08-10 2026-08-12"))
SHORT_DAY = schedule(VILNIUS, *week(WORKDAYS, "09:00-17:00"), but("2026-12-31", "10:00-14:00", is_open=True))
PAUSE = schedule(VILNIUS, *week(WORKDAYS, "09:00-17:00"), but("2026-12-30", "12:00-13:00"))
OPEN_DAY = schedule(VILNIUS, *week(WORKDAYS, "09:00-17:00"), but("2026-11-28", is_open=True))
NIGHT_PAUSE = schedule(VILNIUS, *week("fri sat", "22:00-06:00"), but("2026-11-28"))
SHOP = schedule(VILNIUS, *week(EVERY_DAY, "09:00-17:00"), CLOSED_ON_HOLIDAYS)
HOLIDAY_LINE = schedule(VILNIUS, *week("thu", "09:00-10:00"), OPEN_ON_HOLIDAYS)
OPEN_AT_CHRISTMAS = schedule(
    VILNIUS, *week(EVERY_DAY, "09:00-17:00"), CLOSED_ON_HOLIDAYS, but("2026-12-24", "10:00-12:00", is_open=True)
)
PAUSE_ON_A_HOLIDAY = schedule(
    VILNIUS, *week(EVERY_DAY, "09:00-17:00"), OPEN_ON_HOLIDAYS, but("2026-12-24", "12:00-13:00")
)
FIRST_DECIDES = schedule(
    VILNIUS, but("2026-12-01", is_open=True), but("2026-12-01 2026-12-31"), *week(EVERY_DAY, "09:00-17:00")
)
LATE_EXCEPTION = schedule(VILNIUS, *week(WORKDAYS, "09:00-17:00"), but("2026-12-31", "22:00-02:00", is_open=True))

CASES = [
    # The week. Vilnius is two hours before UTC in winter, three in summer.
    (OFFICE, "2026-11-26T06:59:59.999999", False, "a microsecond before nine on a Thursday"),
    (OFFICE, "2026-11-26T07:00:00", True, "from is in"),
    (OFFICE, "2026-11-26T14:59:59.999999", True, "the last microsecond before five"),
    (OFFICE, "2026-11-26T15:00:00", False, "to is out"),
    (OFFICE, "2026-11-28T10:00:00", False, "Saturday is no workday"),
    (OFFICE, "2026-07-15T06:00:00", True, "nine in summer is six in UTC"),
    (OFFICE, "2026-07-15T14:00:00", False, "and five is two"),
    (schedule(VILNIUS), "2026-11-26T10:00:00", False, "what says nothing is never open"),
    # Midnight.
    (NIGHT, "2026-11-27T19:59:59.999999", False, "just before ten on Friday evening"),
    (NIGHT, "2026-11-27T20:00:00", True, "ten on Friday evening"),
    (NIGHT, "2026-11-27T22:00:00", True, "midnight is inside of a window over midnight"),
    (NIGHT, "2026-11-28T03:59:59.999999", True, "just before six on Saturday morning belongs to Friday"),
    (NIGHT, "2026-11-28T04:00:00", False, "six on Saturday morning is out"),
    (NIGHT, "2026-11-27T03:00:00", False, "five on Friday morning would be Thursday's window, and it has none"),
    (NIGHT, "2026-11-28T20:00:00", False, "Saturday evening has none either"),
    (schedule(VILNIUS, *week("fri", "20:00-00:00")), "2026-11-27T21:59:59.999999", True, "to 00:00 is to midnight"),
    (schedule(VILNIUS, *week("fri", "20:00-00:00")), "2026-11-27T22:00:00", False, "and midnight is out"),
    (DAY, "2026-11-28T22:00:00", True, "Sunday begins at ten in the evening of UTC's Saturday"),
    (DAY, "2026-11-29T21:59:59.999999", True, "and lasts until its last microsecond"),
    (DAY, "2026-11-29T22:00:00", False, "24:00 is Monday, and out"),
    # Vilnius goes from three to four at 01:00 UTC on the 29th of March.
    (INTO_GAP, "2026-03-29T00:59:59.999999", True, "03:30 does not come, so the window lasts until the change"),
    (INTO_GAP, "2026-03-29T01:00:00", False, "and ends at the first moment after it, which is four"),
    (OUT_OF_GAP, "2026-03-29T00:59:59.999999", False, "before the change it is before three"),
    (OUT_OF_GAP, "2026-03-29T01:00:00", True, "03:30 does not come, so it begins at four"),
    (OUT_OF_GAP, "2026-03-29T02:00:00", False, "five is an hour later"),
    (GAP, "2026-03-29T01:00:00", False, "a window that is skipped as a whole begins and ends at once"),
    (GAP, "2026-03-22T01:15:00", True, "a week before it is there"),
    (DAY, "2026-03-29T20:59:59.999999", True, "a Sunday of 23 hours ends at nine in the evening of UTC"),
    (DAY, "2026-03-29T21:00:00", False, "since midnight is three hours before UTC's by then"),
    (SATURDAY_NIGHT, "2026-03-29T00:59:59.999999", True, "over midnight into the change"),
    (SATURDAY_NIGHT, "2026-03-29T01:00:00", False, "its end is skipped too"),
    # Vilnius goes from four back to three at 01:00 UTC on the 25th of October.
    (TWICE, "2026-10-25T00:30:00", True, "half past three comes the first time"),
    (TWICE, "2026-10-25T00:45:00", False, "and ends the first time"),
    (TWICE, "2026-10-25T01:29:59.999999", False, "in between the clock shows other times"),
    (TWICE, "2026-10-25T01:30:00", True, "it comes the second time"),
    (TWICE, "2026-10-25T01:45:00", False, "and ends the second time"),
    (INTO_GAP, "2026-10-25T00:30:00", False, "two to half past three is over for the first time"),
    (INTO_GAP, "2026-10-25T01:00:00", True, "and is open again, as the clock shows three again"),
    (DAY, "2026-10-24T21:00:00", True, "a Sunday of 25 hours begins at nine in the evening of UTC"),
    (DAY, "2026-10-25T21:59:59.999999", True, "and ends at ten, an hour more than a day later"),
    # New York goes from two to three at 07:00 UTC on the 8th of March, and back at 06:00 UTC on the 1st of November.
    (NEW_YORK_NIGHT, "2026-03-08T06:30:00", True, "half past one is there on the short day"),
    (NEW_YORK_NIGHT, "2026-03-08T07:00:00", False, "half past two is not, so it ends with the change"),
    (NEW_YORK_NIGHT, "2026-11-01T05:30:00", True, "half past one comes by summer time"),
    (NEW_YORK_NIGHT, "2026-11-01T06:00:00", False, "at two it is one again, which is before"),
    (NEW_YORK_NIGHT, "2026-11-01T06:30:00", True, "half past one comes by winter time"),
    (NEW_YORK_NIGHT, "2026-11-01T07:29:59.999999", True, "and half past two comes once"),
    (NEW_YORK_NIGHT, "2026-11-01T07:30:00", False, "then it is over"),
    # Lord Howe goes by half an hour: 02:00 is 02:30 at 15:30 UTC on the 3rd of October, 02:00 is 01:30 at 15:00 UTC on
    # the 4th of April.
    (HALF_HOUR, "2026-10-03T15:15:00", True, "01:45 before the change"),
    (HALF_HOUR, "2026-10-03T15:30:00", False, "02:15 is skipped, so it ends with the change"),
    (HALF_HOUR, "2026-04-04T14:45:00", True, "01:45 comes the first time"),
    (HALF_HOUR, "2026-04-04T15:00:00", False, "at two it is half past one again"),
    (HALF_HOUR, "2026-04-04T15:15:00", True, "01:45 comes the second time"),
    (HALF_HOUR, "2026-04-04T15:44:59.999999", True, "02:15 comes once, ten and a half hours before UTC"),
    (HALF_HOUR, "2026-04-04T15:45:00", False, "then it is over"),
    # Kathmandu never changes, and is five hours and three quarters before UTC.
    (NEPAL, "2026-03-29T03:14:59.999999", False, "a microsecond before nine"),
    (NEPAL, "2026-03-29T03:15:00", True, "nine is a quarter past three of UTC"),
    (NEPAL, "2026-10-25T11:14:59.999999", True, "the same in autumn"),
    (NEPAL, "2026-10-25T11:15:00", False, "five is a quarter past eleven of UTC"),
    # Beirut has no midnight on the 29th of March (22:00 UTC), and two elevens on the evening of the 24th of October.
    (FROM_MIDNIGHT, "2026-03-28T21:59:59.999999", False, "Saturday's last microsecond"),
    (FROM_MIDNIGHT, "2026-03-28T22:00:00", True, "Sunday begins at one, and so does what begins at midnight"),
    (FROM_MIDNIGHT, "2026-03-28T23:00:00", False, "two is an hour later"),
    (TO_AFTER_MIDNIGHT, "2026-03-28T21:59:59.999999", True, "Saturday's window lasts to the end of Saturday"),
    (TO_AFTER_MIDNIGHT, "2026-03-28T22:00:00", False, "half past midnight is skipped"),
    (LATE, "2026-10-24T20:15:00", True, "a quarter past eleven comes the first time"),
    (LATE, "2026-10-24T20:45:00", False, "and ends"),
    (LATE, "2026-10-24T21:15:00", True, "it comes the second time, on the same day"),
    # Samoa had no 30th of December in 2011, a Friday; the 31st began at 10:00 UTC on the 30th.
    (SAMOA, "2011-12-30T09:59:59.999999", False, "Thursday's last microsecond"),
    (SAMOA, "2011-12-30T10:00:00", True, "Friday's night was skipped to Saturday, and lasts until six"),
    (SAMOA, "2011-12-30T16:00:00", False, "six on Saturday, fourteen hours before UTC"),
    # A leap day is a day like others, and can be an exception.
    (LEAP, "2028-02-28T10:00:00", True, "the day before"),
    (LEAP, "2028-02-29T10:00:00", False, "the exception"),
    (LEAP, "2028-03-01T10:00:00", True, "the day after"),
    (schedule(VILNIUS, *week("tue", "09:00-17:00")), "2028-02-29T10:00:00", True, "it is a Tuesday"),
    # Exceptions.
    (CLOSED_DAYS, "2026-08-09T10:00:00", True, "the day before the range"),
    (CLOSED_DAYS, "2026-08-10T10:00:00", False, "its first day is in"),
    (CLOSED_DAYS, "2026-08-12T10:00:00", False, "its last day is in"),
    (CLOSED_DAYS, "2026-08-13T10:00:00", True, "the day after is not"),
    (SHORT_DAY, "2026-12-31T07:30:00", False, "half past nine: open with hours is open in these alone"),
    (SHORT_DAY, "2026-12-31T08:00:00", True, "ten"),
    (SHORT_DAY, "2026-12-31T12:00:00", False, "two"),
    (SHORT_DAY, "2026-12-31T13:00:00", False, "three would be open in the week"),
    (PAUSE, "2026-12-30T09:59:59.999999", True, "closed with hours leaves the day before them"),
    (PAUSE, "2026-12-30T10:00:00", False, "twelve"),
    (PAUSE, "2026-12-30T11:00:00", True, "one, and the day after them goes on"),
    (PAUSE, "2026-12-30T15:00:00", False, "until five as in the week"),
    (OPEN_DAY, "2026-11-27T22:00:00", True, "an open Saturday begins at midnight"),
    (OPEN_DAY, "2026-11-28T21:59:59.999999", True, "and lasts all day"),
    (OPEN_DAY, "2026-11-28T22:00:00", False, "but no longer"),
    (NIGHT_PAUSE, "2026-11-28T03:00:00", True, "Friday's night reaches into the exception, and belongs to Friday"),
    (NIGHT_PAUSE, "2026-11-28T21:00:00", False, "Saturday's night would begin in it"),
    (NIGHT_PAUSE, "2026-11-29T03:00:00", False, "so it has no morning after it either"),
    (FIRST_DECIDES, "2026-12-01T03:00:00", True, "of two exceptions the first decides"),
    (FIRST_DECIDES, "2026-12-02T10:00:00", False, "where it says nothing, the second does"),
    (LATE_EXCEPTION, "2026-12-31T23:59:59.999999", True, "an exception's hours go over midnight too"),
    (LATE_EXCEPTION, "2027-01-01T00:00:00", False, "until two"),
    # Holidays.
    (SHOP, "2026-12-24T10:00:00", False, "a holiday decides over the week"),
    (SHOP, "2026-12-26T10:00:00", True, "the day after is none"),
    (HOLIDAY_LINE, "2026-12-24T01:00:00", True, "open on holidays is open all day"),
    (HOLIDAY_LINE, "2026-12-25T21:59:59.999999", True, "to the last microsecond"),
    (HOLIDAY_LINE, "2026-12-17T07:30:00", True, "on other Thursdays the week decides"),
    (HOLIDAY_LINE, "2026-12-17T08:30:00", False, "and closes at ten"),
    (OPEN_AT_CHRISTMAS, "2026-12-24T08:00:00", True, "an exception decides over a holiday"),
    (OPEN_AT_CHRISTMAS, "2026-12-24T10:00:00", False, "by its hours, and not by the week's"),
    (OPEN_AT_CHRISTMAS, "2026-12-25T08:00:00", False, "the other holiday stays closed"),
    (PAUSE_ON_A_HOLIDAY, "2026-12-24T09:00:00", True, "outside of an exception's closed hours the holiday decides"),
    (PAUSE_ON_A_HOLIDAY, "2026-12-24T10:30:00", False, "and in them the exception"),
]


@pytest.mark.parametrize(("given_schedule", "at", "expected", "why"), CASES, ids=[case[3] for case in CASES])
def test_a_schedule_is_open_or_closed(given_schedule: Schedule, at: str, *, expected: bool, why: str) -> None:
    assert is_open(given_schedule, moment(at), HOLIDAYS.__contains__) is expected, why


def changes(given_schedule: Schedule, at: str, limit: int = 10) -> list[tuple[str, bool]]:
    found = next_changes(given_schedule, moment(at), HOLIDAYS.__contains__, limit)
    return [(when.replace(tzinfo=None).isoformat(timespec="minutes"), opens) for when, opens in found]


def test_the_next_changes_are_told_in_order_and_no_more_than_asked_for() -> None:
    assert changes(OFFICE, "2026-11-27T12:00", 3) == [
        ("2026-11-27T15:00", False),
        ("2026-11-30T07:00", True),
        ("2026-11-30T15:00", False),
    ]


def test_a_change_at_the_moment_itself_is_no_next_one() -> None:
    assert changes(OFFICE, "2026-11-27T15:00", 1) == [("2026-11-30T07:00", True)]


def test_a_time_that_comes_twice_opens_and_closes_twice() -> None:
    assert changes(TWICE, "2026-10-25T00:00", 4) == [
        ("2026-10-25T00:30", True),
        ("2026-10-25T00:45", False),
        ("2026-10-25T01:30", True),
        ("2026-10-25T01:45", False),
    ]


@pytest.mark.parametrize(
    ("given_schedule", "at", "told"),
    [
        (OUT_OF_GAP, "2026-03-28T12:00", [("2026-03-29T01:00", True), ("2026-03-29T02:00", False)]),
        (INTO_GAP, "2026-03-28T12:00", [("2026-03-29T00:00", True), ("2026-03-29T01:00", False)]),
        (
            INTO_GAP,
            "2026-10-24T12:00",
            [
                ("2026-10-24T23:00", True),
                ("2026-10-25T00:30", False),
                ("2026-10-25T01:00", True),
                ("2026-10-25T01:30", False),
            ],
        ),
        (FROM_MIDNIGHT, "2026-03-28T12:00", [("2026-03-28T22:00", True), ("2026-03-28T23:00", False)]),
        (HALF_HOUR, "2026-10-03T12:00", [("2026-10-03T15:15", True), ("2026-10-03T15:30", False)]),
        (SAMOA, "2011-12-30T00:00", [("2011-12-30T10:00", True), ("2011-12-30T16:00", False)]),
    ],
)
def test_a_clock_change_opens_and_closes(given_schedule: Schedule, at: str, told: list[tuple[str, bool]]) -> None:
    assert changes(given_schedule, at, len(told)) == told


def test_a_window_that_is_skipped_changes_nothing() -> None:
    assert changes(GAP, "2026-03-28T00:00", 1) == [("2026-04-05T00:15", True)]


def test_windows_that_touch_are_one() -> None:
    around_the_clock = schedule(VILNIUS, *week(EVERY_DAY, "00:00-12:00", "12:00-00:00"))
    assert changes(around_the_clock, "2026-11-26T10:00") == []


def test_what_never_changes_ends_the_search() -> None:
    assert changes(schedule(VILNIUS), "2026-11-26T10:00") == []


def test_the_search_ends_after_two_years() -> None:
    after_two_years = date(2026, 11, 26) + timedelta(days=SEARCHED_DAYS)
    assert changes(
        schedule("UTC", but(f"{after_two_years - timedelta(days=1)}", is_open=True)), "2026-11-26T10:00"
    ) == [
        ("2028-11-29T00:00", True),
        ("2028-11-30T00:00", False),
    ]
    assert (
        changes(schedule("UTC", but(f"{after_two_years + timedelta(days=1)}", is_open=True)), "2026-11-26T10:00") == []
    )


@pytest.mark.parametrize("at", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_the_ends_of_time_have_an_answer(at: datetime) -> None:
    for zone in (NEW_YORK, VILNIUS):
        around_the_clock = schedule(zone, *week(EVERY_DAY, "00:00-24:00"))
        assert is_open(around_the_clock, at, HOLIDAYS.__contains__)
        assert next_changes(around_the_clock, at, HOLIDAYS.__contains__, 10) == []


@pytest.mark.parametrize(
    ("start", "end", "sentence"),
    [
        ("09:00", "09:00", "a window must end at another time than it begins; all day is 00:00 to 24:00"),
        ("24:00", "06:00", "a window begins at a time from 00:00 to 23:59"),
        ("9:00", "17:00", "must be a time of day such as 08:30"),
        ("09:00", "24:01", "must be a time of day such as 08:30"),
        ("09:60", "17:00", "must be a time of day such as 08:30"),
        ("09:00", "17:00\n", "must be a time of day such as 08:30"),
        ("\u0660\u0669:00", "17:00", "must be a time of day such as 08:30"),
    ],
)
def test_what_is_no_window_is_refused(start: str, end: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Window.between(start, end)


@pytest.mark.parametrize(
    "name", ["Vilnius", "localtime", "right/Europe/Vilnius", "../etc/passwd", "", "europe/vilnius"]
)
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a time zone such as Europe/Vilnius$"):
        time_zone(name)


times = st.integers(0, 287).map(lambda step: f"{step // 12:02}:{step % 12 * 5:02}")
windows = st.tuples(times, times).filter(lambda pair: pair[0] != pair[1]).map(lambda pair: Window.between(*pair))
days_of_2026 = st.integers(0, 400).map(lambda day: date(2026, 1, 1) + timedelta(days=day))
exceptions = st.builds(
    lambda first, more, is_open, hours: ScheduleException(first, first + timedelta(days=more), is_open, tuple(hours)),
    days_of_2026,
    st.integers(0, 20),
    st.booleans(),
    st.lists(windows, max_size=2),
)
schedules = st.builds(
    Schedule,
    st.sampled_from([VILNIUS, NEW_YORK, LORD_HOWE, KATHMANDU, BEIRUT, "Africa/Casablanca", "UTC"]).map(time_zone),
    st.lists(st.builds(Weekly, st.frozensets(st.integers(0, 6)), windows), max_size=3).map(tuple),
    st.sampled_from([None, CLOSED_ON_HOLIDAYS, OPEN_ON_HOLIDAYS]),
    st.lists(exceptions, max_size=3).map(tuple),
)
# Many of them near the clock changes.
moments = st.one_of(
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)),  # noqa: DTZ001 - UTC is put to them below
    st.builds(
        lambda around, minutes: around + timedelta(minutes=minutes),
        st.sampled_from(
            [datetime.fromisoformat(f"2026-{day}") for day in ("03-29", "10-25", "03-08", "11-01", "10-04", "04-05")]
        ),
        st.integers(-2880, 2880),
    ),
).map(lambda at: at.replace(tzinfo=UTC))
a_few_holidays = st.frozensets(days_of_2026, max_size=20)


@given(schedules, moments, a_few_holidays)
@settings(deadline=None)
def test_between_two_changes_nothing_changes(
    given_schedule: Schedule, at: datetime, some_holidays: frozenset[date]
) -> None:
    is_holiday: Callable[[date], bool] = some_holidays.__contains__
    was, before = is_open(given_schedule, at, is_holiday), at
    for when, opens in next_changes(given_schedule, at, is_holiday, 6):
        assert when > before
        assert opens is not was
        assert is_open(given_schedule, when, is_holiday) is opens
        assert is_open(given_schedule, when - timedelta(microseconds=1), is_holiday) is was
        step = (when - before) / 23
        assert all(is_open(given_schedule, before + step * part, is_holiday) is was for part in range(23))
        was, before = opens, when


@given(schedules, moments, a_few_holidays, st.integers(1, 5))
@settings(deadline=None)
def test_fewer_changes_are_the_first_of_more(
    given_schedule: Schedule, at: datetime, some_holidays: frozenset[date], limit: int
) -> None:
    more = next_changes(given_schedule, at, some_holidays.__contains__, 6)
    assert next_changes(given_schedule, at, some_holidays.__contains__, limit) == more[:limit]


@given(schedules, moments, a_few_holidays)
@settings(deadline=None)
def test_every_change_is_told(given_schedule: Schedule, at: datetime, some_holidays: frozenset[date]) -> None:
    told = dict(next_changes(given_schedule, at, some_holidays.__contains__, 1000))
    first = at.replace(second=0, microsecond=0)
    minutes = [first + timedelta(minutes=5 * step) for step in range(1, 600)]
    was = is_open(given_schedule, at, some_holidays.__contains__)
    for minute in minutes:
        now = is_open(given_schedule, minute, some_holidays.__contains__)
        if now is not was:
            assert any(minute - timedelta(minutes=5) < when <= minute and told[when] is now for when in told)
        was = now
