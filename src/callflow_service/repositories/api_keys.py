"""The API keys as they are stored, and what replaces them."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from asyncpg import Connection

from callflow_service.storage import locks

_BATCH: Final = 1_000

_NEWEST: Final = "SELECT username, api_key FROM account WHERE api_key LIKE 'fernet:%' ORDER BY id DESC LIMIT 5"
_COUNT: Final = "SELECT count(*) FROM account WHERE api_key IS NOT NULL"
_NEXT: Final = """
SELECT id, username, api_key FROM account WHERE api_key IS NOT NULL AND id > $1 ORDER BY id LIMIT $2
"""
_REPLACE: Final = """
UPDATE account SET api_key = new.api_key
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS new (id, was, api_key)
WHERE account.id = new.id AND account.api_key = new.was
"""


async def lock(connection: Connection) -> bool:
    """Whether nothing else takes API keys in or rotates them, from now on until the connection is closed."""
    return bool(await connection.fetchval(f"SELECT pg_try_advisory_lock({locks.TAKING_IN})"))


async def newest(connection: Connection) -> list[Any]:
    """Username and encrypted API key of the newest accounts."""
    return list(await connection.fetch(_NEWEST))


async def count(connection: Connection) -> int:
    """How many accounts have an API key."""
    return int(await connection.fetchval(_COUNT))


async def batches(connection: Connection) -> AsyncIterator[list[Any]]:
    """Id, username and API key of all accounts that have one."""
    last = -1
    while rows := await connection.fetch(_NEXT, last, _BATCH):
        yield rows
        last = rows[-1]["id"]


async def replace(connection: Connection, ids: Sequence[int], old: Sequence[str], new: Sequence[str]) -> None:
    """Store other API keys, each only where the old one is still there: the account may have got another meanwhile."""
    await connection.execute(_REPLACE, ids, old, new)
