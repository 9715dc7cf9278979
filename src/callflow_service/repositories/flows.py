"""Call flows of single devices for the JSON API, and the ways that forwards lead."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from asyncpg import Connection

from callflow_service.domain.callflow import Device, State, StateFlow
from callflow_service.domain.changing import AssignedDid
from callflow_service.domain.flow_documents import Names, read_action, read_rules
from callflow_service.domain.history import Origin
from callflow_service.domain.targets import NO_TARGET_RULES, TargetRules
from callflow_service.repositories.callflows import call_flow
from callflow_service.repositories.targets import read_target_rules, target_rules_of

_FLOWS: Final = """
SELECT flow.state, flow.action, target.id, target.technology, target.name, flow.target_number, flow.caller_id,
    did.id, did.number, flow.caller_id_text, flow.otherwise::text, flow.rules::text
FROM callflow AS flow LEFT JOIN device AS target ON target.id = flow.target_device_id
LEFT JOIN did ON did.id = flow.caller_id_did_id
WHERE flow.device_id = $1 AND flow.priority = 1"""
# Everything that forwards lead to from one device, by any state; a number that is one of our own DIDs is its device.
_NEXT: Final = """
    SELECT named.state, coalesce(named.target_device_id, did.device_id) AS target FROM (
        SELECT state, target_device_id, target_number FROM callflow
        WHERE device_id = way.id AND priority = 1 AND action = 'forward'
        UNION
        SELECT state, target_device_id, target_number FROM callflow_reference WHERE device_id = way.id
    ) AS named LEFT JOIN did ON ltrim(did.number, '+') = ltrim(named.target_number, '+')
    WHERE coalesce(named.target_device_id, did.device_id) IS NOT NULL"""
_LEADS: Final = f"""
WITH RECURSIVE way (id) AS (
    SELECT $1::bigint
    UNION
    SELECT lead.target FROM way CROSS JOIN LATERAL ({_NEXT}) AS lead
)
SELECT way.id, lead.state, lead.target FROM way CROSS JOIN LATERAL ({_NEXT}) AS lead"""  # noqa: S608 - our own text

# Those of the accounts from a device's owner up.
_USABLE: Final = """
SELECT named.id FROM {table} AS named WHERE named.id = ANY ($1::bigint[]) AND named.owner_id IN (
    SELECT unnest(ARRAY[owner.id, above.id, top.id]) FROM account AS owner
    LEFT JOIN account AS above ON above.id = owner.owner_id LEFT JOIN account AS top ON top.id = above.owner_id
    WHERE owner.id = $2
)"""
_TARGET_RULES: Final = f"SELECT {target_rules_of('owner')} FROM account AS owner WHERE owner.id = $1"  # noqa: S608 - ours
_TARGET_RULES_OF: Final = f"SELECT owner.id, {target_rules_of('owner')} FROM account AS owner WHERE owner.id = ANY($1)"  # noqa: S608 - ours
_NAMES: Final = """
SELECT target.id, target.technology, target.name, did.id, did.number FROM callflow_reference AS reference
LEFT JOIN device AS target ON target.id = reference.target_device_id LEFT JOIN did ON did.id = reference.did_id
WHERE reference.device_id = $1"""


_OWNERS_BEFORE: Final = """
SELECT owner.id, owner.owner_id FROM callflow AS flow
JOIN device ON device.id = flow.device_id JOIN account AS owner ON owner.id = device.owner_id
WHERE flow.target_device_id = $1 OR (flow.device_id, flow.state) IN (
    SELECT named.device_id, named.state FROM callflow_reference AS named WHERE named.target_device_id = $1
) FOR NO KEY UPDATE OF flow"""
# The flows are locked by the statement above, so none of them changes in between.
_EMPTY_AROUND: Final = """WITH emptied AS (
    UPDATE callflow SET action = 'empty', target_device_id = NULL, target_number = NULL,
        caller_id = NULL, caller_id_did_id = NULL, caller_id_text = NULL, otherwise = NULL, rules = NULL
    FROM callflow AS was
    WHERE (was.device_id, was.state, was.priority) = (callflow.device_id, callflow.state, callflow.priority)
        AND (callflow.target_device_id = $1 OR callflow.device_id = $1 AND (
                callflow.action <> 'empty' OR num_nonnulls(callflow.otherwise, callflow.rules) > 0)
            OR (callflow.device_id, callflow.state) IN (
                SELECT named.device_id, named.state FROM callflow_reference AS named
                WHERE named.target_device_id = $1))
    RETURNING callflow.device_id, callflow.state, callflow.priority,
        to_jsonb(was) AS before, to_jsonb(callflow) AS after
)
INSERT INTO callflow_history (account_id, face, address, request_id, device_id, state, priority, before, after)
SELECT $2, $3, $4, $5, device_id, state, priority, before, after FROM emptied"""


@dataclass(frozen=True, slots=True)
class Lead:
    """One forward from a device to another, in one state."""

    device: int
    state: State
    target: int


async def flows(connection: Connection, device_id: int, *, locked: bool = False) -> Mapping[State, StateFlow]:
    """What the device does in each state that was ever set; with `locked`, until the transaction ends."""
    rows = await connection.fetch(f"{_FLOWS} FOR NO KEY UPDATE OF flow" if locked else _FLOWS, device_id)
    names = Names({}, {})
    if any(row["rules"] or row["otherwise"] for row in rows):
        named = await connection.fetch(_NAMES, device_id)
        names = Names(
            {row[0]: Device(*row[:3]) for row in named if row[0] is not None},
            {row[3]: row[4] for row in named if row[3] is not None},
        )
    return {State(row[0]): _state(tuple(row)[1:], names) for row in rows}


def _state(columns: tuple[Any, ...], names: Names) -> StateFlow:
    *shown, otherwise, rules = columns
    action = read_action(json.loads(otherwise), names) if otherwise else call_flow(tuple(shown))
    return StateFlow(action, read_rules(json.loads(rules), names) if rules else ())


async def dids(connection: Connection, ids: Collection[int]) -> Mapping[int, AssignedDid]:
    """Some DIDs, and the devices that they are assigned to."""
    rows = await connection.fetch("SELECT id, number, device_id FROM did WHERE id = ANY ($1::bigint[])", list(ids))
    return {row[0]: AssignedDid(*row) for row in rows}


async def target_rules(connection: Connection, owner: int) -> TargetRules:
    """What holds for the forwards of an account's devices to numbers."""
    found = await connection.fetchval(_TARGET_RULES, owner)
    return read_target_rules(found) if found else NO_TARGET_RULES


async def target_rules_of_many(connection: Connection, owners: Collection[int]) -> dict[int, TargetRules]:
    """The same for several accounts."""
    return {
        owner: read_target_rules(found) if found else NO_TARGET_RULES
        for owner, found in await connection.fetch(_TARGET_RULES_OF, list(owners))
    }


async def usable_schedules(connection: Connection, ids: Collection[int], owner: int) -> frozenset[int]:
    """Those of some schedules that the devices of an account may use: its own, and those of the accounts above it."""
    rows = await connection.fetch(_USABLE.format(table="schedule"), list(ids), owner) if ids else []
    return frozenset(row[0] for row in rows)


async def usable_caller_lists(connection: Connection, ids: Collection[int], owner: int) -> frozenset[int]:
    """The same for caller lists."""
    rows = await connection.fetch(_USABLE.format(table="caller_list"), list(ids), owner) if ids else []
    return frozenset(row[0] for row in rows)


async def leads(connection: Connection, device_id: int) -> list[Lead]:
    """Every forward that a call to the device can meet, device after device."""
    return [Lead(id_, State(state), target) for id_, state, target in await connection.fetch(_LEADS, device_id)]


async def one_ring_check_at_a_time(connection: Connection) -> None:
    """Wait for other changes of forwards, so that two of them cannot close a ring from both ends at once."""
    await connection.fetch("SELECT pg_advisory_xact_lock(hashtext('callflow rings'))")


async def own(connection: Connection, number: str) -> int | None:
    """The device of a number that is one of our own DIDs, None for any other."""
    found = await connection.fetchval("SELECT device_id FROM did WHERE ltrim(number, '+') = ltrim($1, '+')", number)
    return None if found is None else int(found)


async def owners_before(connection: Connection, device_id: int) -> list[tuple[int, int | None]]:
    """Whose flows lead to a device, with the owners of these accounts; the flows are locked."""
    await connection.execute("SELECT FROM device WHERE id = $1 FOR UPDATE", device_id)
    own = "SELECT FROM callflow WHERE device_id = $1 FOR NO KEY UPDATE"
    await connection.execute(own, device_id)
    return [(row[0], row[1]) for row in await connection.fetch(_OWNERS_BEFORE, device_id)]


async def empty_around(connection: Connection, device_id: int, origin: Origin) -> None:
    """Empty every flow that leads to a device, and its own, each with its history, and free its DIDs."""
    sender = origin.sender
    await connection.execute(
        _EMPTY_AROUND, device_id, origin.account_id, origin.face, sender.address, sender.request_id
    )
    await connection.execute("UPDATE did SET device_id = NULL WHERE device_id = $1", device_id)
