"""Who is in a list of callers."""

import pytest

from callflow_service.domain.caller_lists import read_entry


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
