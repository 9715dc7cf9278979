"""The API keys that the database holds: whether they can be read, and all of them encrypted anew."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

from asyncpg import Connection
from pydantic import SecretStr

from callflow_service.credentials.api_keys import SETTING, Keyring
from callflow_service.storage.connecting import connected

_BATCH: Final = 1_000
_NAMED: Final = 5

# The loading of a world file takes the same lock: what it encrypts must not be encrypted with a key that goes.
_ONE_AT_A_TIME: Final = "SELECT pg_try_advisory_lock(7101301)"

_NEWEST: Final = "SELECT username, api_key FROM account WHERE api_key LIKE 'fernet:%' ORDER BY id DESC LIMIT 5"
_COUNT: Final = "SELECT count(*) FROM account WHERE api_key IS NOT NULL"
_NEXT: Final = """
SELECT id, username, api_key FROM account WHERE api_key IS NOT NULL AND id > $1 ORDER BY id LIMIT $2
"""
# Only where it is still what was encrypted: somebody may have given the account another key meanwhile.
_REPLACE: Final = """
UPDATE account SET api_key = new.api_key
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS new (id, was, api_key)
WHERE account.id = new.id AND account.api_key = new.was
"""


class RotationRefused(Exception):
    """No API key was encrypted anew; the text is a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """How many API keys were encrypted with the first key now, and how many were so already."""

    encrypted: int
    already: int


async def unreadable_keys_problem(connection: Connection, keys: Keyring) -> str | None:
    """What is wrong with the keys for this database, as a sentence; None where the newest API keys can be read."""
    rows = await connection.fetch(_NEWEST)
    return _problem([username for username, stored in rows if not keys.opens(stored)], keys)


async def rotate_keys(url: SecretStr, keys: Keyring, *, progress: Callable[[int, int], None] | None = None) -> Rotation:
    """Encrypt every API key with the first key. Where the keys are in a file, that is a new one, and then the only one.

    Services that run meanwhile go on. What is broken off can be done again. `progress` is told after each batch how
    many API keys of how many were looked at.

    Raises:
        RotationRefused: An API key cannot be decrypted, or a world file is being loaded; nothing has changed.
        SettingsError: The file with the keys cannot be written.
        StorageUnavailable: The database cannot be reached, or has no tables.
    """
    async with connected(url) as connection:
        if not await connection.fetchval(_ONE_AT_A_TIME):
            raise RotationRefused("A world file is being loaded, or keys are rotated; try again when that is done.")
        await _refuse_unreadable(connection, keys)
        keys.put_new_key_in_front()
        rotation = await _encrypt(connection, keys, progress)
        # Until nothing is found that somebody else wrote meanwhile: then no API key needs an older key.
        while more := (await _encrypt(connection, keys)).encrypted:
            rotation = Rotation(rotation.encrypted + more, rotation.already)
        keys.drop_old_keys()
    return rotation


async def _refuse_unreadable(connection: Connection, keys: Keyring) -> None:
    unreadable = [
        username async for rows in _batches(connection) for _, username, stored in rows if not keys.opens(stored)
    ]
    if problem := _problem(unreadable, keys):
        raise RotationRefused(f"{problem} Nothing was changed.")


async def _encrypt(
    connection: Connection, keys: Keyring, progress: Callable[[int, int], None] | None = None
) -> Rotation:
    """Encrypt what is not encrypted with the first key, batch by batch."""
    encrypted = already = 0
    total = await connection.fetchval(_COUNT)
    async for rows in _batches(connection):
        older = [(id_, stored) for id_, _, stored in rows if not keys.is_current(stored)]
        if older:
            ids, stored = zip(*older, strict=True)
            await connection.execute(_REPLACE, ids, stored, [keys.encrypt(keys.decrypt(text)) for text in stored])
        encrypted += len(older)
        already += len(rows) - len(older)
        if progress:
            progress(encrypted + already, total)
    return Rotation(encrypted, already)


async def _batches(connection: Connection) -> AsyncIterator[list[Any]]:
    last = -1
    while rows := await connection.fetch(_NEXT, last, _BATCH):
        yield rows
        last = rows[-1]["id"]


def _problem(unreadable: list[str], keys: Keyring) -> str | None:
    if not unreadable:
        return None
    who = ", ".join(unreadable[:_NAMED]) + (", ..." if len(unreadable) > _NAMED else "")
    return (
        f"The API keys of some accounts ({who}) were encrypted with a key that is not in {keys.source}: "
        f"put that key into {SETTING}, or load these accounts once more."
    )
