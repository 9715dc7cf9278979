"""What the router needs to know: the devices of a call, what is set for them, and where that leads."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asyncpg import Connection

from callflow_service.domain.asked import SwitchUser
from callflow_service.domain.callflow import CallFlow, State
from callflow_service.domain.dialing import ChainHeader, Identity, LegRules, Redirected, Rejected, TrunkRules
from callflow_service.domain.routing import Facts, RoutedDevice
from callflow_service.repositories.callflows import call_flow


@dataclass(frozen=True, slots=True)
class Found:
    """The device that was called, where there is one, and the facts about it and its neighbours."""

    device_id: int | None
    facts: Facts


# Put into both statements below: the text is ours, nothing of a request is in it.
_COLUMNS: Final = """
SELECT device.id = (SELECT id FROM named),
    device.id, device.technology, device.name, owner.username, device.caller_number, device.caller_name,
    device.ring_seconds, ARRAY(SELECT did.number FROM did WHERE did.device_id = device.id ORDER BY did.id LIMIT 20),
    own.number, own.device_id, flow.state,
    flow.action, target.id, target.technology, target.name, flow.target_number, flow.caller_id,
    shown.id, shown.number, flow.caller_id_text
FROM near
JOIN device ON device.id = near.id
JOIN account AS owner ON owner.id = device.owner_id
LEFT JOIN callflow AS flow ON flow.device_id = device.id AND flow.priority = 1
LEFT JOIN device AS target ON target.id = flow.target_device_id
LEFT JOIN did AS own ON ltrim(own.number, '+') = ltrim(flow.target_number, '+')
LEFT JOIN did AS shown ON shown.id = flow.caller_id_did_id"""

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
    SELECT id FROM start
    UNION
    SELECT flow.target_device_id FROM start JOIN callflow AS flow ON flow.device_id = start.id AND flow.priority = 1
    UNION
    SELECT did.device_id FROM start
    JOIN callflow AS flow ON flow.device_id = start.id AND flow.priority = 1
    JOIN did ON ltrim(did.number, '+') = ltrim(flow.target_number, '+')
){_COLUMNS}"""  # noqa: S608 - see _COLUMNS

# All the devices that forwards before the call can lead to from one device, at most $2 steps on.
_FOLLOW: Final = f"""WITH RECURSIVE named AS (SELECT $1::bigint AS id), chain (id, step) AS (
    SELECT id, 0 FROM named
    UNION
    SELECT coalesce(flow.target_device_id, did.device_id), chain.step + 1 FROM chain
    JOIN callflow AS flow ON flow.device_id = chain.id AND flow.priority = 1 AND flow.state = 'before_call'
    LEFT JOIN did ON ltrim(did.number, '+') = ltrim(flow.target_number, '+')
    WHERE chain.step < $2
), near AS (SELECT DISTINCT id FROM chain){_COLUMNS}"""  # noqa: S608 - see _COLUMNS

_SWITCH_USERS: Final = """
SELECT username, password_hash, domain, trust_headers, dial::text, rejected, redirected, early_media, trunk::text
FROM switch_user"""


async def find(
    connection: Connection, device_ids: Iterable[int], *, called: str | None, technologies: Sequence[str]
) -> Found:
    """The facts about some devices and about the one that `called` names, in one statement.

    A number that was called is a DID, a leading `+` aside, else a device's name; of several the technology that
    stands first in `technologies` wins.
    """
    ids = list(device_ids)
    gathered = _Gathered()
    gathered.add(await connection.fetch(_FIND, ids, called, list(technologies)), known=ids)
    return Found(gathered.named, gathered.facts())


async def follow(connection: Connection, device_id: int, *, steps: int) -> Facts:
    """The facts about every device that a call to this one may be passed on to before it rings, in one statement."""
    gathered = _Gathered()
    gathered.add(await connection.fetch(_FOLLOW, device_id, steps), known=[device_id])
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

    named: int | None = None
    _devices: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    _flows: dict[int, dict[State, CallFlow]] = field(default_factory=dict)
    _own_numbers: dict[str, int | None] = field(default_factory=dict)
    _known: set[int] = field(default_factory=set)

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
                flows[State(state)] = call_flow(row[12:])

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
            )
        return Facts(devices, self._own_numbers)
