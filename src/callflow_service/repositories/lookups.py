"""What the router needs to know: the devices of a call, what is set for them, and where that leads."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from asyncpg import Connection

from callflow_service.domain.asked import SwitchUser
from callflow_service.domain.callflow import CallFlow, Device, Rule, State, StateFlow
from callflow_service.domain.dialing import ChainHeader, Identity, LegRules, Redirected, Rejected, TrunkRules
from callflow_service.domain.flow_documents import Names, read_action, read_rules
from callflow_service.domain.routing import NO_CIRCUMSTANCES, Circumstances, Facts, RoutedDevice
from callflow_service.domain.targets import NO_TARGET_RULES, TargetRules
from callflow_service.repositories.callflows import call_flow
from callflow_service.repositories.targets import read_target_rules, target_rules_of


@dataclass(frozen=True, slots=True)
class Found:
    """The device that was called, where there is one, and the facts about it and its neighbours."""

    device_id: int | None
    facts: Facts


@dataclass(frozen=True, slots=True)
class Asking:
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


# A chain of forwards that leads to more devices than this is followed no further.
_MOST_FOLLOWED: Final = 1_000
# Documents that calls asked for lately. One of ten rules takes some ten kilobytes.
_REMEMBERED: Final = 1_000

# Put into both statements below: the text is ours, nothing of a request is in it.
_COLUMNS: Final = f"""
SELECT device.id = (SELECT id FROM named),
    device.id, device.technology, device.name, owner.username, device.caller_number, device.caller_name,
    device.ring_seconds, ARRAY(SELECT did.number FROM did WHERE did.device_id = device.id ORDER BY did.id LIMIT 20),
    own.number, own.device_id, flow.state,
    flow.action, target.id, target.technology, target.name, flow.target_number, flow.caller_id,
    shown.id, shown.number, flow.caller_id_text,
    flow.otherwise::text, flow.rules::text,
    CASE WHEN flow.rules IS NOT NULL OR flow.otherwise IS NOT NULL THEN
        (SELECT callflow_notes(array_agg(id), $4, $5) FROM near) END,
    CASE WHEN num_nonnulls(flow.target_number, flow.rules, flow.otherwise) > 0 THEN {target_rules_of("owner")} END
FROM near
JOIN device ON device.id = near.id
JOIN account AS owner ON owner.id = device.owner_id
LEFT JOIN callflow AS flow ON flow.device_id = device.id AND flow.priority = 1
LEFT JOIN device AS target ON target.id = flow.target_device_id
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
    SELECT DISTINCT unnest(ARRAY[start.id, flow.target_device_id, did.device_id]
        || CASE WHEN num_nonnulls(flow.rules, flow.otherwise) > 0
            THEN callflow_leads(flow.device_id, flow.state) END) AS id
    FROM start
    LEFT JOIN callflow AS flow ON flow.device_id = start.id AND flow.priority = 1
    LEFT JOIN did ON ltrim(did.number, '+') = ltrim(flow.target_number, '+')
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
    gathered = _Gathered(asking)
    rows = await connection.fetch(_FIND, ids, asking.called, asking.technologies, asking.caller, asking.is_anonymous)
    gathered.add(rows, known=ids)
    return Found(gathered.named, gathered.facts())


async def follow(connection: Connection, device_id: int, asking: Asking, *, steps: int) -> Facts:
    """The facts about every device that a call to this one may be passed on to before it rings, in one statement."""
    gathered = _Gathered(asking)
    rows = await connection.fetch(_FOLLOW, device_id, steps, _MOST_FOLLOWED, asking.caller, asking.is_anonymous)
    gathered.add(rows, known=[device_id])
    return gathered.facts()


async def switch_users(connection: Connection) -> dict[str, SwitchUser]:
    """Every switch that may ask, by its username."""
    rows = await connection.fetch(_SWITCH_USERS)
    return {
        username: SwitchUser(
            username,
            password_hash,
            domain,
            trust_headers,
            {name: template or "" for name, template in json.loads(dial).items()},
            LegRules(Rejected(rejected), Redirected(redirected), early_media, _trunk(trunk)),
        )
        for username, password_hash, domain, trust_headers, dial, rejected, redirected, early_media, trunk in rows
    }


def _trunk(text: str | None) -> TrunkRules | None:
    if text is None:
        return None
    stored = json.loads(text)
    return TrunkRules(
        stored["from_host"] or "",
        Identity(stored["identity"]),
        frozenset(ChainHeader(header) for header in stored["headers"]),
    )


@dataclass(slots=True)
class _Gathered:
    """Rows, one for each state of each device, put together."""

    asking: Asking
    named: int | None = None
    _devices: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    _flows: dict[int, dict[State, StateFlow]] = field(default_factory=dict)
    _own_numbers: dict[str, int | None] = field(default_factory=dict)
    _known: set[int] = field(default_factory=set)
    _targets: dict[int, TargetRules] = field(default_factory=dict)
    _circumstances: Circumstances = NO_CIRCUMSTANCES

    def add(self, rows: Sequence[Any], *, known: Iterable[int]) -> None:
        self._known.update(known)
        for row in rows:
            device_id: int = row[1]
            if row[0]:
                self.named = device_id
            self._devices[device_id] = row[1:9]
            flows = self._flows.setdefault(device_id, {})
            own_number, own_device, state = row[9:12]
            if own_number is not None:
                self._own_numbers[own_number.lstrip("+")] = own_device
            if state is not None:
                *documents, targets = row[21:]
                if targets is not None:
                    self._targets[device_id] = read_target_rules(targets)
                shown = call_flow(row[12:21])
                flows[State(state)] = StateFlow(shown) if documents[-1] is None else self._whole(shown, *documents)

    def _whole(self, shown: CallFlow, otherwise: str | None, rules: str | None, notes: list[str | None]) -> StateFlow:
        """A state with what its columns cannot say."""
        devices, dids, own_numbers, schedules, caller_lists, internal_for = notes
        # The same notes stand in every row that needs them.
        if self._circumstances is NO_CIRCUMSTANCES:
            self._own_numbers |= json.loads(own_numbers) if own_numbers else {}
            self._circumstances = Circumstances(
                self.asking.open_schedules(schedules) if schedules else frozenset(),
                frozenset(json.loads(caller_lists)) if caller_lists else frozenset(),
                frozenset(json.loads(internal_for)) if internal_for else frozenset(),
            )
        return StateFlow(
            _read_action(otherwise, devices, dids) if otherwise else shown,
            _read_rules(rules, devices, dids) if rules else (),
        )

    def facts(self) -> Facts:
        devices: dict[int, RoutedDevice | None] = dict.fromkeys(self._known)
        for device_id, (_, technology, name, owner, number, caller_name, ring_seconds, dids) in self._devices.items():
            devices[device_id] = RoutedDevice(
                id=device_id,
                technology=technology,
                name=name,
                owner=owner,
                caller_number=number,
                caller_name=caller_name,
                ring_seconds=ring_seconds,
                dids=tuple(dids),
                flows=self._flows[device_id],
                targets=self._targets.get(device_id, NO_TARGET_RULES),
            )
        return Facts(devices, self._own_numbers, self._circumstances)


# To read a document takes longer than to ask all of its rules.
@lru_cache(_REMEMBERED)
def _read_rules(rules: str, devices: str | None, dids: str | None) -> tuple[Rule, ...]:
    return read_rules(json.loads(rules), _names(devices, dids))


@lru_cache(_REMEMBERED)
def _read_action(action: str, devices: str | None, dids: str | None) -> CallFlow:
    return read_action(json.loads(action), _names(devices, dids))


def _names(devices: str | None, dids: str | None) -> Names:
    return Names(
        {int(id_): Device(int(id_), *labels) for id_, labels in json.loads(devices or "{}").items()},
        {int(id_): number for id_, number in json.loads(dids or "{}").items()},
    )
