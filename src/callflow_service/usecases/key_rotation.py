"""The API keys that the database holds: whether they can be read, and all of them encrypted anew."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from asyncpg import Connection
from pydantic import SecretStr

from callflow_service.credentials.api_keys import SETTING, Keyring, Undecipherable
from callflow_service.repositories import answers, api_keys, webhooks
from callflow_service.storage.connecting import connected

_NAMED: Final = 5


class RotationRefused(Exception):
    """No API key was encrypted anew; the text is a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """How many API keys were encrypted with the first key now, and how many were so already."""

    encrypted: int
    already: int


async def unreadable_keys_problem(connection: Connection, keys: Keyring) -> str | None:
    """What is wrong with the keys for this database, as a sentence; None where the newest API keys can be read."""
    rows = await api_keys.newest(connection)
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
        if not await api_keys.lock(connection):
            raise RotationRefused("A world file is being loaded, or keys are rotated; try again when that is done.")
        await _refuse_unreadable(connection, keys)
        keys.put_new_key_in_front()
        rotation = await _encrypt(connection, keys, progress)
        # Until nothing is found that somebody else wrote meanwhile: then no API key needs an older key.
        while more := (await _encrypt(connection, keys)).encrypted:
            rotation = Rotation(rotation.encrypted + more, rotation.already)
        while await _encrypt_answers(connection, keys):
            pass
        while await _encrypt_webhook_secrets(connection, keys):
            pass
        keys.drop_old_keys()
    return rotation


async def _refuse_unreadable(connection: Connection, keys: Keyring) -> None:
    unreadable = [
        username
        async for rows in api_keys.batches(connection)
        for _, username, stored in rows
        if not keys.opens(stored)
    ]
    if problem := _problem(unreadable, keys):
        raise RotationRefused(f"{problem} Nothing was changed.")


async def _encrypt(
    connection: Connection, keys: Keyring, progress: Callable[[int, int], None] | None = None
) -> Rotation:
    """Encrypt what is not encrypted with the first key, batch by batch."""
    encrypted = already = 0
    total = await api_keys.count(connection)
    async for rows in api_keys.batches(connection):
        older = [(id_, stored) for id_, _, stored in rows if not keys.is_current(stored)]
        if older:
            ids, stored = zip(*older, strict=True)
            await api_keys.replace(connection, ids, stored, [keys.encrypt(keys.decrypt(text)) for text in stored])
        encrypted += len(older)
        already += len(rows) - len(older)
        if progress:
            progress(encrypted + already, total)
    return Rotation(encrypted, already)


async def _encrypt_answers(connection: Connection, keys: Keyring) -> int:
    """Encrypt what is kept for requests that come again with the first key; how many were not so yet.

    What does not open is of no use to anybody, and is gone within a day.
    """
    encrypted = 0
    async for rows in answers.batches(connection):
        for account, key, stored in rows:
            if keys.is_current(stored):
                continue
            try:
                answer = keys.decrypt_afresh(stored)
            except Undecipherable:
                continue
            await answers.replace(connection, account, key, old=stored, new=keys.encrypt(answer))
            encrypted += 1
    return encrypted


async def _encrypt_webhook_secrets(connection: Connection, keys: Keyring) -> int:
    """Encrypt the secrets of webhooks with the first key; how many were not so yet. What does not open stays so."""
    encrypted = 0
    for webhook, stored in await webhooks.secrets(connection):
        if keys.is_current(stored) or not keys.opens(stored):
            continue
        await webhooks.replace_secret(connection, webhook, old=stored, new=keys.encrypt(keys.decrypt(stored)))
        encrypted += 1
    return encrypted


def _problem(unreadable: list[str], keys: Keyring) -> str | None:
    if not unreadable:
        return None
    names = ", ".join(unreadable[:_NAMED]) + (", ..." if len(unreadable) > _NAMED else "")
    return (
        f"The API keys of some accounts ({names}) were encrypted with a key that is not in {keys.source}: "
        f"put that key into {SETTING}, or load these accounts once more."
    )
