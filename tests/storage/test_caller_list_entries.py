"""By which entries a caller is in a list, as the database looks for them."""

import asyncpg
import pytest


@pytest.mark.parametrize(
    ("number", "is_anonymous", "entries"),
    [
        ("+3706", False, ["3*", "37*", "370*", "3706*", "3706"]),
        ("3706", False, ["3*", "37*", "370*", "3706*", "3706"]),
        ("+37", True, ["3*", "37*", "37", "anonymous"]),
        ("", False, ["anonymous"]),
        ("", True, ["anonymous"]),
        ("alice", False, []),
        ("alice", True, ["anonymous"]),
        ("*31#37", False, []),
    ],
)
async def test_a_caller_is_looked_for_by_its_number_and_every_prefix_of_it(
    demo_database: asyncpg.Connection, number: str, entries: list[str], *, is_anonymous: bool
) -> None:
    found = await demo_database.fetchval("SELECT caller_list_entries_of($1, $2)", number, is_anonymous)
    assert found == entries
