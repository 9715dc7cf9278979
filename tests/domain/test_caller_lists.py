"""Who is in a list of callers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callflow_service.domain.caller_lists import candidates, indexed, matches, read_entry


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("+37061234567", "+37061234567"),
        ("+370 (612) 34-567", "+37061234567"),
        ("37061234567", "37061234567"),
        ("+3706*", "+3706*"),
        ("+370 6*", "+3706*"),
        ("101", "101"),
        ("anonymous", "anonymous"),
        ("Anonymous", "anonymous"),
    ],
)
def test_an_entry_is_kept_without_what_people_write_between_digits(typed: str, kept: str) -> None:
    assert read_entry(typed) == kept


@pytest.mark.parametrize(
    "typed",
    ["", "+", "*", "+*", "++370", "370+", "+37*06", "+3706**", "alice", "#31#", "+370\n", "\u0663\u0667", "1" * 33],
)
def test_what_is_no_entry_is_refused(typed: str) -> None:
    with pytest.raises(
        ValueError, match=r"^must be a number such as \+37061234567, a prefix such as \+3706\*, or anonymous$"
    ):
        read_entry(typed)


@pytest.mark.parametrize(
    ("number", "entry", "is_in"),
    [
        ("+37061234567", "+37061234567", True),
        ("37061234567", "+37061234567", True),
        ("+37061234567", "37061234567", True),
        ("+37061234567", "+3706*", True),
        ("37061234567", "+3706*", True),
        ("+37061234567", "+37061234567*", True),
        ("+37061234567", "+370612345678*", False),
        ("+37061234567", "+3706123456", False),
        ("+37051234567", "+3706*", False),
        ("+37061234567", "anonymous", False),
        ("", "anonymous", True),
        (None, "anonymous", True),
        ("", "+3706*", False),
        ("alice", "anonymous", False),
        ("3706*", "+3706*", False),
    ],
)
def test_a_caller_is_in_a_list_or_not(number: str | None, entry: str, *, is_in: bool) -> None:
    assert matches(number, {indexed(entry)}) is is_in


def test_a_caller_is_looked_for_by_itself_and_every_prefix_of_it() -> None:
    assert candidates("+3706") == ["3706", "3*", "37*", "370*", "3706*"]
    assert candidates(None) == candidates("") == ["anonymous"]
    assert candidates("alice") == []


digits = st.text("0123456789", min_size=1, max_size=32)


@given(digits, digits, st.booleans(), st.booleans())
def test_a_prefix_fits_what_begins_with_it(number: str, prefix: str, plus: bool, entry_plus: bool) -> None:  # noqa: FBT001
    entry = read_entry(f"{'+' * entry_plus}{prefix}*")
    assert matches("+" * plus + number, {indexed(entry)}) is number.startswith(prefix)
    assert matches("+" * plus + number, {indexed(entry[:-1])}) is (number == prefix)
