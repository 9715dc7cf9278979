"""Bring resources into temporary tables, batch by batch, so that SQL can check and apply them as a whole."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from asyncpg import Connection

from callflow_service.credentials.api_keys import Keyring, Undecipherable
from callflow_service.credentials.passwords import hash_password, is_password
from callflow_service.credentials.switch_passwords import hash_switch_password, is_switch_password
from callflow_service.domain.dialing import is_safe_name
from callflow_service.intake.checking import Conflict
from callflow_service.intake.flows import flow_names, flow_records
from callflow_service.intake.placing import Placed
from callflow_service.resources.flows import FlowItem
from callflow_service.resources.kept import KeptItem
from callflow_service.resources.models import (
    AccountItem,
    CallerListItem,
    DeviceItem,
    DidItem,
    Item,
    ScheduleItem,
    Section,
    SwitchItem,
)

SHORT: Final = 16
"""Keys and switch passwords of fewer characters than this can be guessed."""

BATCH: Final = 2_000
"""How many resources are staged at once."""

# A staged row has the columns of its table, and what is asked of it later: its position among its like, and in a source
# with lines those of the keys that can be wrong. The views give the rows as they will be, with owners resolved as they
# will be called afterwards.
_TABLES: Final = """
CREATE TEMP TABLE staged_account (
    position integer, id_line integer, username_line integer, owner_line integer, role_line integer,
    has_short_key boolean, owner text, LIKE account
) ON COMMIT DROP;
ALTER TABLE staged_account DROP COLUMN owner_id;
CREATE TEMP TABLE staged_device (
    position integer, id_line integer, technology_line integer, owner_line integer, has_odd_name boolean,
    owner text, LIKE device
) ON COMMIT DROP;
ALTER TABLE staged_device DROP COLUMN owner_id;
CREATE TEMP TABLE staged_did (
    position integer, id_line integer, number_line integer, device_line integer, LIKE did
) ON COMMIT DROP;
CREATE TEMP TABLE staged_switch_user (
    position integer, username_line integer, has_short_password boolean, LIKE switch_user
) ON COMMIT DROP;
CREATE TEMP TABLE staged_schedule (
    position integer, id_line integer, owner_line integer, owner text, LIKE schedule
) ON COMMIT DROP;
ALTER TABLE staged_schedule DROP COLUMN owner_id;
CREATE TEMP TABLE staged_caller_list (
    position integer, id_line integer, owner_line integer, owner text, LIKE caller_list
) ON COMMIT DROP;
ALTER TABLE staged_caller_list DROP COLUMN owner_id;
CREATE TEMP TABLE staged_callflow (position integer, device_line integer, LIKE callflow) ON COMMIT DROP;
CREATE TEMP TABLE staged_flow_name (
    position integer, line integer, device_id bigint, place text, kind text, id bigint
) ON COMMIT DROP;
CREATE TEMP VIEW named_account AS
    SELECT id, username, role FROM staged_account
    UNION ALL
    SELECT id, username, role FROM account WHERE NOT EXISTS (SELECT FROM staged_account WHERE id = account.id);
CREATE TEMP VIEW wanted_account AS
    SELECT staged.*, owner.id AS owner_id
    FROM staged_account AS staged LEFT JOIN named_account AS owner ON owner.username = staged.owner;
CREATE TEMP VIEW wanted_device AS
    SELECT staged.*, owner.id AS owner_id
    FROM staged_device AS staged LEFT JOIN named_account AS owner ON owner.username = staged.owner;
CREATE TEMP VIEW wanted_schedule AS
    SELECT staged.*, owner.id AS owner_id
    FROM staged_schedule AS staged LEFT JOIN named_account AS owner ON owner.username = staged.owner;
CREATE TEMP VIEW wanted_caller_list AS
    SELECT staged.*, owner.id AS owner_id
    FROM staged_caller_list AS staged LEFT JOIN named_account AS owner ON owner.username = staged.owner;
CREATE TEMP VIEW wanted_did AS SELECT * FROM staged_did;
CREATE TEMP VIEW wanted_switch_user AS SELECT * FROM staged_switch_user;
CREATE TEMP VIEW wanted_callflow AS
    SELECT staged.* FROM staged_callflow AS staged LEFT JOIN callflow AS stored USING (device_id, state, priority)
    WHERE stored.device_id IS NOT NULL OR staged.action <> 'empty'
        OR staged.rules IS NOT NULL OR staged.otherwise IS NOT NULL;
"""
_STAGED: Final = {
    Section.ACCOUNTS: "staged_account",
    Section.DEVICES: "staged_device",
    Section.DIDS: "staged_did",
    Section.SWITCHES: "staged_switch_user",
    Section.SCHEDULES: "staged_schedule",
    Section.CALLER_LISTS: "staged_caller_list",
    Section.FLOWS: "staged_callflow",
}
_ANALYZE: Final = f"ANALYZE {', '.join(_STAGED.values())}, staged_flow_name"


async def stage(connection: Connection, batches: Iterable[tuple[Section, Sequence[Placed]]], *, keys: Keyring) -> None:
    """Bring resources into the temporary tables, batch by batch; each batch is of one section.

    Raises:
        Conflict: An API key that is encrypted cannot be decrypted.
        SettingsError: There is no key to encrypt API keys with, and none can be made.
    """
    await connection.execute(_TABLES)
    for section, batch in batches:
        stored = await _stored_secrets(connection, section, [placed.item for placed in batch])
        records = [record for placed in batch for record in _records(placed, stored, keys)]
        await _copy(connection, _STAGED[section], records)
        names = [
            name for placed in batch if isinstance(placed.item, FlowItem) for name in flow_names(placed, placed.item)
        ]
        await _copy(connection, "staged_flow_name", names)
    await connection.execute(_ANALYZE)


async def _copy(connection: Connection, table: str, records: Sequence[Mapping[str, object]]) -> None:
    if records:
        values = [tuple(record.values()) for record in records]
        await connection.copy_records_to_table(table, columns=list(records[0]), records=values)


@dataclass(frozen=True, slots=True)
class _Secrets:
    """What the database holds of an item's secrets."""

    password_hash: str | None = None
    api_key: str | None = None


_NONE_STORED: Final = _Secrets()


async def _stored_secrets(connection: Connection, section: Section, items: list[KeptItem]) -> dict[int | str, _Secrets]:
    if section is Section.ACCOUNTS:
        ids = [item.id for item in items if isinstance(item, AccountItem)]
        statement = "SELECT id, password_hash, api_key FROM account WHERE id = ANY($1)"
        return {id_: _Secrets(*secrets) for id_, *secrets in await connection.fetch(statement, ids)} if ids else {}
    if section is Section.SWITCHES:
        usernames = [item.username for item in items if isinstance(item, SwitchItem)]
        statement = "SELECT username, password_hash FROM switch_user WHERE username = ANY($1)"
        return {username: _Secrets(hashed) for username, hashed in await connection.fetch(statement, usernames)}
    return {}


def _records(placed: Placed, stored: dict[int | str, _Secrets], keys: Keyring) -> Iterable[dict[str, object]]:
    """The rows of an item: one, but of a call flow one for each state."""
    if isinstance(placed.item, FlowItem):
        return flow_records(placed, placed.item)
    return [_record(placed, placed.item, stored, keys)]


def _record(placed: Placed, item: Item, stored: dict[int | str, _Secrets], keys: Keyring) -> dict[str, object]:
    """A resource by the names of its table's columns."""
    match item:
        case AccountItem():
            secrets = stored.get(item.id, _NONE_STORED)
            api_key = item.api_key or _opened(placed, keys)
            return {
                **_place(placed, "id", "username", "owner", "role"),
                "has_short_key": api_key is not None and len(api_key) < SHORT,
                **_fields(item, "password", "api_key_encrypted"),
                "name": item.name or item.username,
                "targets": item.targets.model_dump_json() if item.targets else None,
                "api_key": _encrypted(api_key, secrets.api_key, keys),
                "password_hash": _kept(item, "password_hash") or _account_hash(item.password, secrets.password_hash),
            }
        case DeviceItem():
            return {
                **_place(placed, "id", "technology", "owner"),
                "has_odd_name": not is_safe_name(item.name),
                **_fields(item),
            }
        case DidItem():
            return {**_place(placed, "id", "number", "device"), **_fields(item, "device"), "device_id": item.device}
        case SwitchItem():
            stored_hash = stored.get(item.username, _NONE_STORED).password_hash
            return {
                **_place(placed, "username"),
                "has_short_password": bool(item.password) and len(item.password) < SHORT,
                **_fields(item, "password"),
                "password_hash": _kept(item, "password_hash") or _switch_hash(item.password, stored_hash),
                "dial": json.dumps(item.dial),
                "trunk": item.trunk.model_dump_json() if item.trunk else None,
            }
        case ScheduleItem():
            return {
                **_place(placed, "id", "owner"),
                **_fields(item),
                "weekly": json.dumps(item.weekly),
                "holidays": json.dumps(item.holidays) if item.holidays else None,
                "exceptions": json.dumps(item.exceptions),
            }
        case CallerListItem():
            return {**_place(placed, "id", "owner"), **_fields(item)}
        case _ as never:
            assert_never(never)


def _kept(item: KeptItem, name: str) -> str | None:
    """A secret as it is stored, of an item that has it so."""
    value: str | None = getattr(item, name, None)
    return value


def _opened(placed: Placed, keys: Keyring) -> str | None:
    """The API key of an item that has it encrypted.

    Raises:
        Conflict: None of the keys opens it.
    """
    encrypted = _kept(placed.item, "api_key_encrypted")
    if encrypted is None:
        return None
    try:
        return keys.decrypt_afresh(encrypted)
    except Undecipherable:
        line = placed.lines.get("api_key_encrypted", placed.line)
        sentence = f"cannot be decrypted with {keys.source}; the keys must be those of the service that exported it."
        raise Conflict(Section.ACCOUNTS, placed.position, "api_key_encrypted", line, sentence) from None


def _place(placed: Placed, *keys: str) -> dict[str, object]:
    lines = {f"{key}_line": placed.lines.get(key, placed.line) for key in keys}
    return {"position": placed.position, **lines}


def _fields(item: Item, *without: str) -> dict[str, object]:
    return {name: getattr(item, name) for name in type(item).model_fields if name not in without}


# What did not change must stay as it is: a new hash has new salt, an API key is another text each time that it is
# encrypted, and both would be a difference.
def _encrypted(api_key: str | None, stored: str | None, keys: Keyring) -> str | None:
    if api_key is None:
        return None
    is_stored = stored is not None and keys.opens(stored) and keys.decrypt(stored) == api_key
    return stored if is_stored else keys.encrypt(api_key)


def _account_hash(password: str | None, stored: str | None) -> str | None:
    if password is None:
        return None
    return stored if stored is not None and is_password(password, stored) else hash_password(password)


def _switch_hash(password: str, stored: str | None) -> str:
    return stored if stored is not None and is_switch_password(password, stored) else hash_switch_password(password)
