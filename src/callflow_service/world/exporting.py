"""Print everything that the database holds as a world file that `load` takes back unchanged."""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from callflow_service.credentials.api_keys import ENCRYPTED, Keyring, Undecipherable
from callflow_service.domain.callflow import State
from callflow_service.domain.flow_documents import row_document
from callflow_service.resources.kept import AS_STORED, MODELS
from callflow_service.resources.models import Section
from callflow_service.settings import SettingsError
from callflow_service.storage.connecting import connected

_BATCH: Final = 2_000
_ROWS: Final = {
    Section.ACCOUNTS: """
        SELECT account.*, account.api_key AS api_key_encrypted, owner.username AS owner
        FROM account LEFT JOIN account AS owner ON owner.id = account.owner_id ORDER BY account.id""",
    Section.DEVICES: """
        SELECT device.*, owner.username AS owner
        FROM device JOIN account AS owner ON owner.id = device.owner_id ORDER BY device.id""",
    Section.DIDS: "SELECT did.*, device_id AS device FROM did ORDER BY id",
    Section.SWITCHES: "SELECT * FROM switch_user ORDER BY username",
    Section.SCHEDULES: """
        SELECT schedule.*, owner.username AS owner
        FROM schedule JOIN account AS owner ON owner.id = schedule.owner_id ORDER BY schedule.id""",
    Section.CALLER_LISTS: """
        SELECT caller_list.*, owner.username AS owner
        FROM caller_list JOIN account AS owner ON owner.id = caller_list.owner_id ORDER BY caller_list.id""",
    Section.FLOWS: """
        SELECT device_id AS device, jsonb_object_agg(state, to_jsonb(callflow)) AS states FROM callflow
        WHERE action <> 'empty' OR rules IS NOT NULL OR otherwise IS NOT NULL GROUP BY device_id ORDER BY device_id""",
}
_TABLES: Final = ("account", "device", "did", "switch_user", "schedule", "caller_list", "callflow")
_COUNT: Final = " + ".join(f"(SELECT count(*) FROM {table})" for table in _TABLES)  # noqa: S608 - ours
# What the database keeps in another form.
_SECRETS: Final = {"api_key", "password"}
_DOCUMENTS: Final = {"dial", "trunk", "targets", "weekly", "holidays", "exceptions"}


async def export_world(
    url: SecretStr, *, keys: Keyring, progress: Callable[[int, int], None] | None = None
) -> AsyncIterator[str]:
    """The world file in JSON, which is YAML too, piece by piece; all of it as it was at one moment.

    Passwords stand in it as their hashes, and API keys encrypted. Of `progress` see `load_world`; it counts items.

    Raises:
        SettingsError: An API key cannot be decrypted, so the file could be loaded nowhere.
        StorageUnavailable: The database cannot be reached, or has no tables.
    """
    # One snapshot for all sections, and at no time more than a batch of rows in memory.
    async with connected(url) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        total, done = int(await connection.fetchval(f"SELECT {_COUNT}")), 0
        between = "{"
        for section, statement in _ROWS.items():
            yield f'{between}\n"{section}": ['
            between = "\n],"
            comma = ""
            async for row in connection.cursor(statement, prefetch=_BATCH):
                yield f"{comma}\n{json.dumps(_item(section, row, keys), ensure_ascii=False)}"
                comma = ","
                done += 1
                if progress and done % _BATCH == 0:
                    progress(done, total)
        yield "\n]\n}\n"


def _item(section: Section, row: Mapping[str, Any], keys: Keyring) -> dict[str, Any]:
    """A row as the file has it, without what is so where nothing is said."""
    written: dict[str, Any] = {}
    for name, field in MODELS[section].model_fields.items():
        if name in _SECRETS:
            continue
        value = _value(name, row, keys)
        if value is not None and value != field.get_default(call_default_factory=True):
            written[name] = value
    return {name: written[name] for name in sorted(written, key=lambda name: name in AS_STORED)}


def _value(name: str, row: Mapping[str, Any], keys: Keyring) -> Any:  # noqa: ANN401 - of any column
    value = row[name]
    if name == "api_key_encrypted" and value is not None:
        return _encrypted(value, row["username"], keys)
    if name == "states":
        rows = json.loads(value)
        return {state: row_document(rows[state]) for state in State if state in rows}
    if name in _DOCUMENTS and value is not None:
        return json.loads(value)
    if name == "allowed_addresses" and value is not None:
        return [str(network) for network in value]
    return value


def _encrypted(stored: str, username: str, keys: Keyring) -> str:
    try:
        api_key = keys.decrypt_afresh(stored) if stored.startswith(ENCRYPTED) else stored
    except Undecipherable:
        raise SettingsError(
            f"The API key of account {username} cannot be decrypted with {keys.source}, so nobody could load the file."
        ) from None
    # One from before encryption must not leave the database as it is.
    return stored if stored.startswith(ENCRYPTED) else keys.encrypt(api_key)


async def write(pieces: AsyncIterator[str], file: Path | None) -> None:
    """Write a file whole or not at all, for its owner alone; without one, to standard output.

    Raises:
        SettingsError: The file cannot be written.
    """
    if file is None:
        async for piece in pieces:
            sys.stdout.write(piece)
        return
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            async for piece in pieces:
                stream.write(piece)
        beside.replace(file)
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {error.strerror}.") from None
    finally:
        beside.unlink(missing_ok=True)
