"""What the router needs to know: the devices of a call, what is set for them, and where that leads."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

import orjson
from asyncpg import Connection

from callflow_service.domain.asked import SwitchUser
from callflow_service.domain.callflow import CallFlow, Rule, State, StateFlow
from callflow_service.domain.dialing import ChainHeader, Identity, LegRules, Redirected, Rejected, TrunkRules
from callflow_service.domain.flow_documents import BY_ID, Names, read_action, read_rules
from callflow_service.domain.routing import Circumstances, Facts, RoutedDevice
from callflow_service.domain.targets import NO_TARGET_RULES
from callflow_service.repositories.callflows import call_flow
from callflow_service.repositories.targets import read_target_rules, target_rules_of

T = TypeVar("T")


class Found(NamedTuple):
    """The device that was called, where there is one, and the facts about it and its neighbours."""

    device_id: int | None
    facts: Facts


class Asking(NamedTuple):
    """What of a question the database is asked about.

    Attributes:
        called: The number that was called, None where none was.
        technologies: Which wins where devices share a name, first wins.
        caller: The number of the original caller, empty where it is not known.
        is_anonymous: Whether the caller shows none.
        open_schedules: Which of some schedules, a JSON object of them by their ids, are open at the time of the call.
    """

    called: str | None
    technologies: Sequence[str]
    caller: str
    is_anonymous: bool
    open_schedules: Callable[[str], frozenset[int]]


_STATES: Final = {state.value: state for state in State}
# A chain of forwards that leads to more devices than this is followed no further.
_MOST_FOLLOWED: Final = 1_000
# Documents that calls asked for lately, and how many characters one that is remembered may have: together some forty
# megabytes at most. Ten rules take some two thousand characters.
_REMEMBERED: Final = 4_000
_LONGEST_REMEMBERED: Final = 3_000

# Put into both statements below: the text is ours, nothing of a request is in it.
_COLUMNS: Final = f"""
SELECT device.id = (SELECT id FROM named),
    device.id, device.technology, device.name, owner.username, device.caller_number, device.caller_name,
    device.ring_seconds, ARRAY(SELECT did.number FROM did WHERE did.device_id = device.id ORDER BY did.id LIMIT 20),
    own.device_id, flow.state,
    flow.action, flow.target_device_id, flow.target_number, flow.caller_id, flow.caller_id_did_id, shown.number,
    flow.caller_id_text,
    CASE WHEN flow.rules IS NOT NULL OR flow.otherwise IS NOT NULL THEN
        ARRAY[flow.otherwise::text, flow.rules::text] || (SELECT callflow_notes(array_agg(id), $4, $5) FROM near) END,
    CASE WHEN flow.target_number IS NOT NULL OR flow.rules IS NOT NULL OR flow.otherwise IS NOT NULL THEN
        {target_rules_of("owner")} END
FROM near
JOIN device ON device.id = near.id
JOIN account AS owner ON owner.id = device.owner_id
LEFT JOIN callflow AS flow ON flow.device_id = device.id AND flow.priority = 1
LEFT JOIN did AS own ON ltrim(own.number, '+') = ltrim(flow.target_number, '+')
LEFT JOIN did AS shown ON shown.id = flow.caller_id_did_id"""  # noqa: S608 - our own text

# The devices asked about and those one step on, which is all that most calls need.
_FIND: Final = f"""WITH named AS MATERIALIZED (
    SELECT device_id AS id FROM did WHERE ltrim(number, '+') = ltrim($2, '+')
    UNION ALL
    (SELECT id FROM device
     WHERE name = $2 AND NOT EXISTS (SELECT FROM did WHERE ltrim(number, '+') = ltrim($2, '+'))
     ORDER BY array_position($3::text[], technology), technology, id LIMIT 1)
), start AS MATERIALIZED (
    SELECT unnest($1::bigint[]) AS id UNION SELECT id FROM named
), near AS (
    SELECT DISTINCT unnest(ARRAY[start.id, flow.target_device_id, lead.target_device_id, did.device_id]) AS id
    FROM start
    LEFT JOIN callflow AS flow ON flow.device_id = start.id AND flow.priority = 1
    LEFT JOIN callflow_reference AS lead ON lead.state = flow.state
        AND lead.device_id = CASE WHEN flow.rules IS NOT NULL OR flow.otherwise IS NOT NULL THEN flow.device_id END
    LEFT JOIN did ON ltrim(did.number, '+') = ltrim(coalesce(lead.target_number, flow.target_number), '+')
){_COLUMNS}"""  # noqa: S608 - see _COLUMNS

# All the devices that forwards before the call can lead to from one device, at most $2 steps on.
_FOLLOW: Final = f"""WITH RECURSIVE named AS (SELECT $1::bigint AS id), chain (id, step) AS (
    SELECT id, 0 FROM named
    UNION
    SELECT coalesce(leads.target_device_id, did.device_id), chain.step + 1 FROM chain
    CROSS JOIN LATERAL (
        SELECT target_device_id, target_number FROM callflow
        WHERE device_id = chain.id AND priority = 1 AND state = 'before_call'
        UNION ALL
        SELECT target_device_id, target_number FROM callflow_reference
        WHERE device_id = chain.id AND num_nonnulls(target_device_id, target_number) > 0
    ) AS leads
    LEFT JOIN did ON ltrim(did.number, '+') = ltrim(leads.target_number, '+')
    WHERE chain.step < $2 AND chain.id IS NOT NULL
), near AS (SELECT id FROM chain GROUP BY id ORDER BY min(step) LIMIT $3){_COLUMNS}"""  # noqa: S608 - see _COLUMNS

_SWITCH_USERS: Final = """
SELECT username, password_hash, domain, trust_headers, dial::text, rejected, redirected, early_media, trunk::text
FROM switch_user"""


async def find(connection: Connection, device_ids: Iterable[int], asking: Asking) -> Found:
    """The facts about some devices and about the one that was called, in one statement.

    A number that was called is a DID, a leading `+` aside, else a device's name.
    """
    ids = list(device_ids)
    rows = await connection.fetch(_FIND, ids, asking.called, asking.technologies, asking.caller, asking.is_anonymous)
    return _found(rows, asking, known=ids)


async def follow(connection: Connection, device_id: int, asking: Asking, *, steps: int) -> Facts:
    """The facts about every device that a call to this one may be passed on to before it rings, in one statement."""
    rows = await connection.fetch(_FOLLOW, device_id, steps, _MOST_FOLLOWED, asking.caller, asking.is_anonymous)
    return _found(rows, asking, known=[device_id]).facts


async def switch_users(connection: Connection) -> dict[str, SwitchUser]:
    """Every switch that may ask, by its username."""
    rows = await connection.fetch(_SWITCH_USERS)
    return {
        username: SwitchUser(
            username,
            password_hash,
            domain,
            trust_headers,
            {name: template or "" for name, template in orjson.loads(dial).items()},
            LegRules(Rejected(rejected), Redirected(redirected), early_media, _trunk(trunk)),
        )
        for username, password_hash, domain, trust_headers, dial, rejected, redirected, early_media, trunk in rows
    }


def _trunk(text: str | None) -> TrunkRules | None:
    if text is None:
        return None
    stored = orjson.loads(text)
    return TrunkRules(
        stored["from_host"] or "",
        Identity(stored["identity"]),
        frozenset(ChainHeader(header) for header in stored["headers"]),
    )


def _found(rows: Sequence[Any], asking: Asking, *, known: Iterable[int]) -> Found:
    """What rows say, one for each state of each device; of a `known` device without rows, that it is not there."""
    named: int | None = None
    devices: dict[int, list[Any]] = {id_: [] for id_ in known}
    own_numbers: dict[str, int | None] = {}
    documents: Sequence[str | None] | None = None
    for row in rows:
        device_id: int = row[1]
        devices.setdefault(device_id, []).append(row)
        if row[0]:
            named = device_id
        if row[9] is not None:
            own_numbers[row[13].lstrip("+")] = row[9]
        documents = documents or row[18]
    if documents is None:
        read = {id_: _device(of_one) if of_one else None for id_, of_one in devices.items()}
        return Found(named, Facts(read, own_numbers))
    # All but the first two are the same wherever there are any.
    _, _, _, more_own_numbers, schedules, caller_lists, internal_for = documents
    circumstances = Circumstances(
        asking.open_schedules(schedules) if schedules else frozenset(),
        frozenset(orjson.loads(caller_lists or "[]")),
        frozenset(orjson.loads(internal_for or "[]")),
    )
    own_numbers |= orjson.loads(more_own_numbers or "{}")
    return Found(named, Facts(_Devices(devices), own_numbers, circumstances))


class _Devices(Mapping[int, RoutedDevice | None]):
    """The devices of some rows, each read when it is first asked for: rules lead to many that a call never meets."""

    __slots__ = ("_read", "_rows")

    def __init__(self, rows: Mapping[int, Sequence[Any]]) -> None:
        self._rows = rows
        self._read: dict[int, RoutedDevice | None] = {}

    def __getitem__(self, device_id: int) -> RoutedDevice | None:
        if device_id not in self._read:
            rows = self._rows[device_id]
            self._read[device_id] = _device(rows) if rows else None
        return self._read[device_id]

    def __contains__(self, device_id: object) -> bool:
        return device_id in self._rows

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _device(rows: Sequence[Any]) -> RoutedDevice:
    _, id_, technology, name, owner, number, caller_name, ring_seconds, own_dids, *_ = rows[0]
    targets = next((row[19] for row in rows if row[19]), None)
    return RoutedDevice(
        id=id_,
        technology=technology,
        name=name,
        owner=owner,
        caller_number=number,
        caller_name=caller_name,
        ring_seconds=ring_seconds,
        dids=tuple(own_dids),
        flows={_STATES[row[10]]: _state(row) for row in rows if row[10]},
        targets=read_target_rules(targets) if targets else NO_TARGET_RULES,
    )


def _state(row: Any) -> StateFlow:  # noqa: ANN401 - asyncpg carries no types
    action, target_id, *more, documents = row[11:19]
    shown = call_flow((action, target_id, "", "", *more))
    if documents is None:
        return StateFlow(shown)
    otherwise, rules, dids, *_ = documents
    return StateFlow(
        _read_otherwise(otherwise, dids) if otherwise else shown,
        _read_rules(rules, dids) if rules else (),
    )


def _remembered(read: Callable[[str, str | None], T]) -> Callable[[str, str | None], T]:
    # To read a document takes longer than to ask all of its rules.
    kept = lru_cache(_REMEMBERED)(read)
    return lambda text, dids: (kept if len(text) <= _LONGEST_REMEMBERED else read)(text, dids)


@_remembered
def _read_rules(rules: str, dids: str | None) -> tuple[Rule, ...]:
    return read_rules(orjson.loads(rules), _names(dids))


@_remembered
def _read_otherwise(action: str, dids: str | None) -> CallFlow:
    return read_action(orjson.loads(action), _names(dids))


def _names(dids: str | None) -> Names:
    # The router knows the devices by their ids.
    return Names(BY_ID.devices, {int(id_): number for id_, number in orjson.loads(dids or "{}").items()})
