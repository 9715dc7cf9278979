"""Compare staged resources with the database, and bring the database to them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from asyncpg import Connection
from sqlmodel import SQLModel

from callflow_service.domain.history import Origin
from callflow_service.intake.staging import SHORT
from callflow_service.resources.models import Section
from callflow_service.tables import (
    AccountRow,
    CallerListRow,
    CallFlowRow,
    DeviceRow,
    DidRow,
    ScheduleRow,
    SwitchUserRow,
)

MAX_DIFFERENCES: Final = 1_000
"""How many differences a report tells one by one."""

_NAMED: Final = 5


_SECRETS: Final = {"api_key", "password_hash"}


@dataclass(frozen=True, slots=True)
class Counts:
    """How many items of a section are new, differ from the database, or are in it as they are."""

    added: int
    changed: int
    unchanged: int


@dataclass(frozen=True, slots=True)
class _Target:
    """A table, the columns that tell its rows apart, what it is called in a report, and the device that it is about."""

    row: type[SQLModel]
    keys: tuple[str, ...]
    title: str
    stored: str = "to_jsonb(stored)"
    device: str = "NULL"

    @property
    def table(self) -> str:
        return str(self.row.__tablename__)

    @property
    def columns(self) -> list[str]:
        """All columns but the keys."""
        return [name for name in self.row.model_fields if name not in self.keys]

    @property
    def _listed(self) -> str:
        return ", ".join(self.keys)

    @property
    def _is_new(self) -> str:
        return f"stored.{self.keys[0]} IS NULL"

    @property
    def _differs(self) -> str:
        wanted, stored = (", ".join(f"{side}.{column}" for column in self.columns) for side in ("wanted", "stored"))
        return f"({wanted}) IS DISTINCT FROM ({stored})"

    @property
    def _joined(self) -> str:
        return f"FROM wanted_{self.table} AS wanted LEFT JOIN {self.table} AS stored USING ({self._listed})"

    @property
    def count(self) -> str:
        return f"""
        SELECT count(*) FILTER (WHERE {self._is_new}) AS added,
            count(*) FILTER (WHERE NOT {self._is_new} AND {self._differs}) AS changed,
            count(*) AS staged
        {self._joined}
        """

    @property
    def differences(self) -> str:
        return f"""
        SELECT {self.stored} AS stored, to_jsonb(wanted) AS wanted
        {self._joined} WHERE {self._is_new} OR {self._differs} ORDER BY position LIMIT $1
        """

    @property
    def note(self) -> str:
        """Note how the rows are that will change."""
        return f"""
        CREATE TEMPORARY TABLE was_{self.table} ON COMMIT DROP AS
        SELECT {self._listed}, to_jsonb(stored) AS before
        {self._joined} WHERE {self._is_new} OR {self._differs}
        """

    @property
    def remember(self) -> str:
        """Write the history of the rows that were noted, as the triggers do it for single ones."""
        changed = " || ".join(
            f"CASE WHEN before ->> '{name}' IS DISTINCT FROM stored.{name} AND before IS NOT NULL "
            f"THEN jsonb_build_object('{name}_changed', true) ELSE '{{}}' END"
            for name in self.columns
            if name in _SECRETS
        )
        return f"""
        INSERT INTO callflow_history (kind, resource, device_id, before, after, account_id, face, request_id, turn)
        SELECT '{self.table}', {self.keys[0]}::text, {self.device}, callflow_shown(before),
            callflow_shown(to_jsonb(stored)) || {changed or "'{}'"}, $1, $2, $3, $4
        FROM was_{self.table} JOIN {self.table} AS stored USING ({self._listed})
        """  # noqa: S608 - our own names

    @property
    def upsert(self) -> str:
        names = ", ".join([*self.keys, *self.columns])
        values = ", ".join(f"wanted.{column}" for column in [*self.keys, *self.columns])
        updates = ", ".join(f"{column} = EXCLUDED.{column}" for column in self.columns)
        # Rows that stay as they are never reach the conflict, which would lock and so write them.
        return f"""
        INSERT INTO {self.table} ({names})
        SELECT {values} {self._joined} WHERE {self._is_new} OR {self._differs}
        ON CONFLICT ({self._listed}) DO UPDATE SET {updates}
        """


@dataclass(frozen=True, slots=True)
class _FlowTarget(_Target):
    """The table of call flows, whose history is told by state."""

    @property
    def remember(self) -> str:
        """Write the history of the rows that were noted, as a single change of a state has it."""
        return f"""
        INSERT INTO callflow_history
            ({self._listed}, before, after, account_id, face, request_id, turn)
        SELECT {self._listed}, before, to_jsonb(stored), $1, $2, $3, $4
        FROM was_{self.table} JOIN {self.table} AS stored USING ({self._listed})
        """  # noqa: S608 - our own names


_STORED_WITH_OWNER: Final = """
to_jsonb(stored) || jsonb_build_object('owner', (SELECT username FROM account WHERE id = stored.owner_id))
"""
_TARGETS: Final = {
    Section.ACCOUNTS: _Target(AccountRow, ("id",), "account {id} {username}", _STORED_WITH_OWNER),
    Section.DEVICES: _Target(DeviceRow, ("id",), "device {id} {technology}/{name}", _STORED_WITH_OWNER, "stored.id"),
    Section.DIDS: _Target(DidRow, ("id",), "DID {id} {number}", device="stored.device_id"),
    Section.SWITCHES: _Target(SwitchUserRow, ("username",), "switch {username}"),
    Section.SCHEDULES: _Target(ScheduleRow, ("id",), "schedule {id} {name}", _STORED_WITH_OWNER),
    Section.CALLER_LISTS: _Target(CallerListRow, ("id",), "caller list {id} {name}", _STORED_WITH_OWNER),
    Section.FLOWS: _FlowTarget(CallFlowRow, ("device_id", "state", "priority"), "callflow {device_id} {state}"),
}

# Names and numbers may change hands at once. A row that loses its name to another gets a temporary impossible name
# (with a leading blank) until the upsert, because uniqueness is checked row by row.
_STEP_ASIDE: Final = """
UPDATE account SET username = ' ' || account.id FROM staged_account AS staged
WHERE staged.id = account.id AND staged.username <> account.username
    AND EXISTS (SELECT FROM staged_account WHERE username = account.username);
UPDATE did SET number = ' ' || did.id FROM staged_did AS staged
WHERE staged.id = did.id AND ltrim(staged.number, '+') <> ltrim(did.number, '+')
    AND EXISTS (SELECT FROM staged_did WHERE ltrim(number, '+') = ltrim(did.number, '+'));
"""

# All changes of a transaction have one turn in the feed; the trigger that gives it need not look at each row then.
_ONE_TURN: Final = "SET LOCAL callflow.one_statement = 'on'"
_NEXT_TURN: Final = "SELECT nextval('callflow_history_id_seq')"

_INHERITING: Final = """
SELECT staged.username, count(*) OVER () AS found
FROM staged_account AS staged
JOIN account USING (id)
JOIN account AS owner ON owner.id = account.owner_id
LEFT JOIN account AS owners_owner ON owners_owner.id = owner.owner_id
WHERE staged.api_key IS NULL AND coalesce(owner.api_key, owners_owner.api_key) IS NOT NULL
    AND staged.hash_policy IS DISTINCT FROM 'off'
ORDER BY position LIMIT $1
"""
_SHORT_KEYS: Final = """
SELECT username, count(*) OVER () AS found FROM staged_account WHERE has_short_key ORDER BY position LIMIT $1
"""
_ODD_NAMES: Final = """
SELECT name AS username, count(*) OVER () AS found FROM staged_device WHERE has_odd_name ORDER BY position LIMIT $1
"""
_SHORT_PASSWORDS: Final = """
SELECT username, count(*) OVER () AS found FROM staged_switch_user WHERE has_short_password ORDER BY position LIMIT $1
"""


async def count_changes(connection: Connection) -> dict[Section, Counts]:
    """What applying would do to each section."""
    counts = {}
    for section, target in _TARGETS.items():
        found = await connection.fetchrow(target.count)
        unchanged = found["staged"] - found["added"] - found["changed"]
        counts[section] = Counts(found["added"], found["changed"], unchanged)
    return counts


async def tell_differences(connection: Connection, counts: Mapping[Section, Counts]) -> list[str]:
    """What applying would change, a line for each item, at most `MAX_DIFFERENCES` and one that counts the rest.

    `+ device 5 IAX2/101` is new; `~ device 4 ring_seconds: 60 -> 30` changes. Of keys and passwords only that they do.
    """
    lines: list[str] = []
    for target in _TARGETS.values():
        for row in await connection.fetch(target.differences, MAX_DIFFERENCES - len(lines)):
            wanted, stored = json.loads(row["wanted"]), json.loads(row["stored"] or "null")
            lines.append(_difference(target, wanted, stored))
    rest = sum(count.added + count.changed for count in counts.values()) - len(lines)
    return [*lines, f"... and {rest} more"] if rest else lines


async def apply_staged(connection: Connection, origin: Origin | None = None) -> None:
    """Insert and update; what the file does not name stays as it is.

    The history has it under `origin`, where one is given: for many rows at once, which a trigger would take four times
    as long for.
    """
    if origin:
        for target in _TARGETS.values():
            await connection.execute(target.note)
    await connection.execute(_STEP_ASIDE)
    for target in _TARGETS.values():
        await connection.execute(target.upsert)
    if origin:
        await connection.execute(_ONE_TURN)
        turn = await connection.fetchval(_NEXT_TURN)
        for target in _TARGETS.values():
            await connection.execute(target.remember, origin.account_id, origin.face, origin.sender.request_id, turn)


async def find_warnings(connection: Connection, *, demo: bool) -> list[str]:
    """What in the applied file is allowed but unwise; the demo's short secrets are public anyway."""
    warnings = [
        *_warning(
            await connection.fetch(_INHERITING, _NAMED),
            "Accounts that sign with an inherited key, {found} ({who}): who signs with it is as powerful as its owner, "
            "so give each an api_key of its own.",
        ),
        *_warning(
            await connection.fetch(_ODD_NAMES, _NAMED),
            "Devices with a name that no dial string can hold, {found} ({who}): no switch can ring them; a name that "
            "can be dialled has letters of A-Z and a-z, digits and . _ + * # - alone.",
        ),
    ]
    if not demo:
        warnings += _warning(
            await connection.fetch(_SHORT_KEYS, _NAMED),
            f"Accounts with an api_key of fewer than {SHORT} characters, {{found}} ({{who}}): it can be guessed.",
        )
        warnings += _warning(
            await connection.fetch(_SHORT_PASSWORDS, _NAMED),
            f"Switches with a password of fewer than {SHORT} characters, {{found}} ({{who}}): it is stored as a fast "
            "hash, so it should be long and random.",
        )
    return warnings


def _warning(rows: list[Any], sentence: str) -> Iterator[str]:
    if rows:
        found = rows[0]["found"]
        who = ", ".join(row["username"] for row in rows) + (", ..." if found > len(rows) else "")
        yield sentence.format(found=found, who=who)


def _difference(target: _Target, wanted: dict[str, Any], stored: dict[str, Any] | None) -> str:
    if stored is None:
        return f"+ {target.title.format(**wanted)}"
    changes = (_change(column, stored, wanted) for column in target.columns if stored[column] != wanted[column])
    kind, _, _ = target.title.partition(" {")
    which = " ".join(str(stored[key]) for key in target.keys if key != "priority")
    return f"~ {kind} {which} {', '.join(changes)}"


def _change(column: str, stored: dict[str, Any], wanted: dict[str, Any]) -> str:
    match column:
        case "api_key":
            return f"api_key: {_secret_change(stored[column], wanted[column])}"
        case "password_hash":
            return f"password: {_secret_change(stored[column], wanted[column])}"
        case "owner_id":
            return f"owner: {_shown(stored['owner'])} -> {_shown(wanted['owner'])}"
        case "device_id":
            return f"device: {_shown(stored[column])} -> {_shown(wanted[column])}"
        case "entries":
            added, gone = set(wanted[column]) - set(stored[column]), set(stored[column]) - set(wanted[column])
            return f"entries: {len(added)} added, {len(gone)} removed"
        case _:
            return f"{column}: {_shown(stored[column])} -> {_shown(wanted[column])}"


def _secret_change(stored: str | None, wanted: str | None) -> str:
    if stored is None:
        return "added"
    return "removed" if wanted is None else "changed"


def _shown(value: object) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)
