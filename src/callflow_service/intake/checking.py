"""Whether staged resources fit together, and with what the database holds already."""

from dataclasses import dataclass
from typing import Final

from asyncpg import Connection

from callflow_service.resources.models import Section


@dataclass(frozen=True, slots=True)
class _Rule:
    """What must not be.

    Attributes:
        statement: The items that break the rule; `position` and `line` say where, further columns fill the sentence.
    """

    section: Section
    key: str
    sentence: str
    statement: str


def _used_twice(section: Section, table: str, key: str, same: str) -> _Rule:
    return _Rule(
        section,
        key,
        "is the same as {first}.",
        f"""
        SELECT position, {key}_line AS line, first FROM (
            SELECT position, {key}_line,
                lag(coalesce('on line ' || {key}_line, 'in {section}[' || position || ']')) OVER same AS first
            FROM {table} WINDOW same AS (PARTITION BY {same} ORDER BY position)
        ) AS ranked
        WHERE first IS NOT NULL
        """,  # noqa: S608 - of constants
    )


def _no_owner(section: Section, table: str) -> _Rule:
    return _Rule(
        section,
        "owner",
        "there is no account {owner}.",
        f"SELECT position, owner_line AS line, owner FROM wanted_{table} WHERE owner_id IS NULL",  # noqa: S608 - likewise
    )


_RULES: Final = (
    _used_twice(Section.ACCOUNTS, "staged_account", "id", "id"),
    _used_twice(Section.ACCOUNTS, "staged_account", "username", "username"),
    _Rule(
        Section.ACCOUNTS,
        "username",
        "{username} is the username of account {id} already.",
        """
        SELECT position, username_line AS line, account.username, account.id
        FROM staged_account AS staged JOIN account USING (username)
        WHERE account.id <> staged.id AND NOT EXISTS (SELECT FROM staged_account WHERE id = account.id)
        """,
    ),
    _Rule(
        Section.ACCOUNTS,
        "owner",
        "there is no account {owner}.",
        """
        SELECT position, owner_line AS line, owner FROM wanted_account WHERE owner IS NOT NULL AND owner_id IS NULL
        """,
    ),
    _Rule(
        Section.ACCOUNTS,
        "owner",
        "{owner} is of the role {owner_role}; the owner of a user is a reseller or an admin, any other's an admin.",
        """
        SELECT position, owner_line AS line, owner, named.role AS owner_role
        FROM wanted_account JOIN named_account AS named ON named.id = owner_id
        WHERE named.role <> 'admin' AND NOT (wanted_account.role = 'user' AND named.role = 'reseller')
        """,
    ),
    _Rule(
        Section.ACCOUNTS,
        "role",
        "cannot be this, because account {username}, which this file does not change, has this one for its owner.",
        """
        SELECT position, role_line AS line, account.username
        FROM staged_account AS staged JOIN account ON account.owner_id = staged.id
        WHERE staged.role <> 'admin' AND NOT (account.role = 'user' AND staged.role = 'reseller')
            AND NOT EXISTS (SELECT FROM staged_account WHERE id = account.id)
        """,
    ),
    _used_twice(Section.DEVICES, "staged_device", "id", "id"),
    _no_owner(Section.DEVICES, "device"),
    _Rule(
        Section.DEVICES,
        "technology",
        "must stay FAX, because the call flow of device {device_id} detects faxes for this one.",
        """
        SELECT position, technology_line AS line, callflow.device_id
        FROM staged_device AS staged JOIN callflow ON target_device_id = id
        WHERE technology <> 'FAX' AND action = 'fax_detect'
        """,
    ),
    _used_twice(Section.DIDS, "staged_did", "id", "id"),
    _used_twice(Section.DIDS, "staged_did", "number", "ltrim(number, '+')"),
    _Rule(
        Section.DIDS,
        "number",
        "{number} is the number of DID {id} already.",
        """
        SELECT position, number_line AS line, staged.number, did.id
        FROM staged_did AS staged JOIN did ON ltrim(did.number, '+') = ltrim(staged.number, '+')
        WHERE did.id <> staged.id AND NOT EXISTS (SELECT FROM staged_did WHERE id = did.id)
        """,
    ),
    _Rule(
        Section.DIDS,
        "device",
        "there is no device {device_id}.",
        """
        SELECT position, device_line AS line, device_id FROM staged_did
        WHERE device_id IS NOT NULL
            AND NOT EXISTS (SELECT FROM staged_device WHERE id = device_id)
            AND NOT EXISTS (SELECT FROM device WHERE id = device_id)
        """,
    ),
    _Rule(
        Section.DIDS,
        "device",
        "must stay device {device_id}, because a call flow of that device shows this DID as caller ID.",
        """
        SELECT position, device_line AS line, callflow.device_id
        FROM staged_did AS staged JOIN callflow ON caller_id_did_id = id
        WHERE staged.device_id IS DISTINCT FROM callflow.device_id
        """,
    ),
    _used_twice(Section.SWITCHES, "staged_switch_user", "username", "username"),
    _Rule(
        Section.FLOWS,
        "device",
        "there is another call flow of device {device_id}.",
        """
        SELECT position, device_line AS line, device_id FROM (
            SELECT position, device_line, device_id, row_number() OVER (
                PARTITION BY device_id, state ORDER BY position) AS place
            FROM staged_callflow
        ) AS numbered
        WHERE place > 1
        """,
    ),
    _Rule(
        Section.FLOWS,
        "states",
        "there is no {kind} {id}.",
        """
        SELECT position, line, place AS key, CASE kind WHEN 'did' THEN 'DID' WHEN 'fax' THEN 'device'
            WHEN 'caller_list' THEN 'caller list' ELSE kind END AS kind, id
        FROM staged_flow_name AS named
        WHERE NOT CASE kind
            WHEN 'schedule' THEN EXISTS (SELECT FROM staged_schedule WHERE id = named.id)
                OR EXISTS (SELECT FROM schedule WHERE id = named.id)
            WHEN 'caller_list' THEN EXISTS (SELECT FROM staged_caller_list WHERE id = named.id)
                OR EXISTS (SELECT FROM caller_list WHERE id = named.id)
            WHEN 'did' THEN EXISTS (SELECT FROM staged_did WHERE id = named.id)
                OR EXISTS (SELECT FROM did WHERE id = named.id)
            ELSE EXISTS (SELECT FROM staged_device WHERE id = named.id)
                OR EXISTS (SELECT FROM device WHERE id = named.id) END
        """,
    ),
    _Rule(
        Section.FLOWS,
        "states",
        "device {id} is not a FAX device.",
        """
        SELECT named.position, line, place AS key, named.id FROM staged_flow_name AS named
        LEFT JOIN staged_device AS staged ON staged.id = named.id LEFT JOIN device AS stored ON stored.id = named.id
        WHERE kind = 'fax' AND coalesce(staged.technology, stored.technology) <> 'FAX'
        """,
    ),
    _Rule(
        Section.FLOWS,
        "states",
        "DID {id} is not assigned to device {device_id}.",
        """
        SELECT named.position, line, place AS key, named.id, named.device_id FROM staged_flow_name AS named
        LEFT JOIN staged_did AS staged ON staged.id = named.id LEFT JOIN did AS stored ON stored.id = named.id
        WHERE kind = 'did' AND named.device_id IS DISTINCT FROM
            CASE WHEN staged.id IS NULL THEN stored.device_id ELSE staged.device_id END
        """,
    ),
    _used_twice(Section.SCHEDULES, "staged_schedule", "id", "id"),
    _no_owner(Section.SCHEDULES, "schedule"),
    _used_twice(Section.CALLER_LISTS, "staged_caller_list", "id", "id"),
    _no_owner(Section.CALLER_LISTS, "caller_list"),
)


class Conflict(Exception):
    """Resources do not fit together, or with what is stored. The text is a sentence about `key`.

    Attributes:
        position: The place of the resource among its like, from 0.
        line: Where it is wrong, in a source that has lines.
    """

    def __init__(self, section: Section, position: int, key: str, line: int | None, sentence: str) -> None:
        super().__init__(sentence)
        self.section = section
        self.position = position
        self.key = key
        self.line = line

    @property
    def place(self) -> str:
        """What a message calls it."""
        return f"{self.section}[{self.position}].{self.key}"


async def check_staged(connection: Connection) -> None:
    """Refuse staged resources that do not fit together.

    Raises:
        Conflict: An id, username or number is used twice, an owner or device is not there or cannot be that, or a call
            flow stands in the way.
    """
    for rule in _RULES:
        found = await connection.fetchrow(f"{rule.statement} ORDER BY position LIMIT 1")
        if found:
            sentence = rule.sentence.format(**found)
            raise Conflict(rule.section, found["position"], found.get("key", rule.key), found["line"], sentence)
