"""By which entries a caller is in a list, as the database looks for them."""

import json

import asyncpg
import pytest

pytestmark = pytest.mark.usefixtures("untouched")

DEVICE, LIST = 5, 1
RULE = {"name": "listed", "enabled": True, "if": {"caller": {"list": LIST}}, "do": {"action": "voicemail"}}


async def is_in_list(database: asyncpg.Connection, entry: str, caller: str, *, is_anonymous: bool) -> bool:
    await database.execute(
        "INSERT INTO caller_list (id, name, owner_id, entries) VALUES ($1, 'Some', 1, $2) "
        "ON CONFLICT (id) DO UPDATE SET entries = excluded.entries",
        *(LIST, [entry]),
    )
    await database.execute(
        "INSERT INTO callflow (device_id, state, priority, action, rules) VALUES ($1, 'before_call', 1, 'empty', $2)",
        *(DEVICE, json.dumps([RULE])),
    )
    *_, lists, _ = await database.fetchval("SELECT callflow_notes($1, $2, $3)", [DEVICE], caller, is_anonymous)
    assert lists in {f"[{LIST}]", None}
    return lists is not None


@pytest.mark.parametrize("caller", ["+37061234567", "37061234567"])
@pytest.mark.parametrize("entry", ["+37061234567", "37061234567", "+3706*", "3706*", "+3*", "37061234567*"])
async def test_a_caller_is_in_a_list_by_its_number_and_by_every_prefix_of_it(
    demo_database: asyncpg.Connection, entry: str, caller: str
) -> None:
    assert await is_in_list(demo_database, entry, caller, is_anonymous=False)


@pytest.mark.parametrize(
    ("entry", "caller", "is_anonymous"),
    [
        ("+3706", "+37061234567", False),
        ("+371*", "+37061234567", False),
        ("+370612345678*", "+37061234567", False),
        ("anonymous", "+37061234567", False),
        ("3*", "", True),
        ("3*", "alice", False),
        ("31*", "*31#37", False),
    ],
)
async def test_nobody_else_is(
    demo_database: asyncpg.Connection, entry: str, caller: str, *, is_anonymous: bool
) -> None:
    assert not await is_in_list(demo_database, entry, caller, is_anonymous=is_anonymous)


@pytest.mark.parametrize("caller", ["", "alice", "+37061234567"])
async def test_who_shows_no_number_is_in_a_list_by_anonymous(demo_database: asyncpg.Connection, caller: str) -> None:
    assert await is_in_list(demo_database, "anonymous", caller, is_anonymous=True)
