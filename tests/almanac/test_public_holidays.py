"""Whose holidays are known, and when they are."""

from datetime import date

import pytest

from callflow_service.almanac.public_holidays import holidays_problem, is_holiday


@pytest.mark.parametrize(
    ("country", "region", "day", "expected"),
    [
        ("LT", None, date(2026, 3, 11), True),
        ("LT", None, date(2026, 3, 12), False),
        ("US", None, date(2026, 11, 26), True),
        ("LT", None, date(2026, 11, 26), False),
        ("DE", "BY", date(2026, 1, 6), True),
        ("DE", "BE", date(2026, 1, 6), False),
        ("LT", None, date.min, False),
        ("LT", None, date.max, False),
    ],
)
def test_a_day_is_a_holiday_or_not(country: str, region: str | None, day: date, *, expected: bool) -> None:
    assert is_holiday(country, region, day) is expected


@pytest.mark.parametrize(
    ("country", "region", "problem"),
    [
        ("LT", None, None),
        ("DE", "BY", None),
        ("XX", None, "no holidays are known of a country XX; it is an ISO code such as LT"),
        ("lt", None, "no holidays are known of a country lt; it is an ISO code such as LT"),
        ("LT", "VNO", "the holidays of LT are the same everywhere; leave the region out"),
        ("GB", "XX", "no holidays are known of a region XX in GB; its regions are ENG, NIR, SCT, WLS"),
    ],
)
def test_a_country_without_holidays_is_told(country: str, region: str | None, problem: str | None) -> None:
    assert holidays_problem(country, region) == problem


def test_what_a_release_of_the_library_no_longer_knows_has_no_holidays() -> None:
    assert not is_holiday("XX", None, date(2026, 1, 1))
