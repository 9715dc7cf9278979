"""Patterns of numbers: which there are, and which numbers fit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callflow_service.domain.number_patterns import MAX_LENGTH, NUMBER_PATTERN, fits_all, read_pattern


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        (r"\+370[56]\d{7}", ["+37061234567", "+37051234567"], ["37061234567", "+37071234567", "+370612345678"]),
        (r"\+370\d{8}|1\d{2}", ["+37061234567", "101"], ["1011", "201"]),
        (r"^1\d{2}|2$", ["101", "2"], ["1012", "12"]),
        (r"\*98#?", ["*98", "*98#"], ["98"]),
        (r"[^0]\d*", ["5", "+123"], ["0123"]),
        (r"[*#]\d{2,}", ["*98", "#123456"], ["*9"]),
        (r".+", ["101", "+1"], []),
    ],
)
def test_a_number_fits_as_a_whole_or_not(pattern: str, fitting: list[str], other: list[str]) -> None:
    read = read_pattern(pattern)
    assert [number for number in [*fitting, *other] if fits_all(number, [read])] == fitting


def test_a_number_must_fit_every_pattern() -> None:
    assert fits_all("101", [])
    assert fits_all("101", [r"\d{3}", r"1\d*"])
    assert not fits_all("101", [r"\d{3}", r"2\d*"])


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "+370",
        r"(\d+)+",
        r"(?:1|2)",
        r"\d*\d*\d*\d*",
        r"\d+?",
        r"\d++",
        r"\d{2}{2}",
        r"\d{5,2}",
        "[9-0]",
        "[0-9",
        "|1",
        "1|",
        r"\w",
        r"\1",
        "$",
        "1\n",
        "\u0661",
        "1" * (MAX_LENGTH + 1),
    ],
)
def test_what_is_no_pattern_or_takes_too_long_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^must be such as \\\+370"):
        read_pattern(pattern)


numbers = st.from_regex(r"\+?(?=[*#]*[0-9])[0-9*#]{1,32}", fullmatch=True)


@given(st.from_regex(NUMBER_PATTERN, fullmatch=True), numbers)
@settings(deadline=None)
def test_no_pattern_that_is_taken_fails_on_a_number(pattern: str, number: str) -> None:
    try:
        read = read_pattern(pattern)
    except ValueError:
        return
    assert fits_all(number, [read]) in {True, False}


def test_the_worst_pattern_that_is_taken_ends() -> None:
    # One repetition more in each choice, and a group around, and it would take years.
    worst = read_pattern("|".join([r"\d*\d*\d*#"] * 23))
    assert not fits_all("1" * 32, [worst])
