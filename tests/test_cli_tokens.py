"""The commands for tokens, run as a program."""

import json

import asyncpg
from pydantic import SecretStr

from callflow_service.domain.tokens import is_token
from postgresql import asyncpg_url
from program import run


async def history(url: SecretStr) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(asyncpg_url(url))
    try:
        rows = await connection.fetch(
            "SELECT kind, account_id, face, address, request_id <> '', before, after FROM callflow_history ORDER BY id"
        )
    finally:
        await connection.close()
    return [tuple(row) for row in rows]


async def test_a_token_is_made_listed_and_revoked_and_the_history_has_it_without_the_token(own_url: SecretStr) -> None:
    made = run("tokens", "create", "--account", "user1", "--name", "phone", "--expires", "never", url=own_url)
    token = made.stdout.splitlines()[-1]
    assert is_token(token)
    listed = run("tokens", "list", url=own_url).stdout.splitlines()
    assert listed[1].split() == ["1", "user1", "phone", "read", "never", "never"]
    assert run("tokens", "revoke", "1", url=own_url).stdout == "Token 1 is revoked.\n"
    rows = await history(own_url)
    assert [row[:5] for row in rows] == 2 * [("token", 1, "cli", None, True)]
    created, revoked = json.loads(str(rows[0][6])), json.loads(str(rows[1][5]))
    assert created == revoked
    assert created.keys() == {"id", "account_id", "name", "scope", "created_at", "expires_at"}
    assert (created["account_id"], created["name"]) == (20, "phone")
    assert token not in str(rows)
