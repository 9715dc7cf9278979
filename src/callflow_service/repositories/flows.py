"""Call flows of single devices for the JSON API, and the ways that forwards lead."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from asyncpg import Connection

from callflow_service.domain.callflow import CallFlow, State
from callflow_service.domain.changing import AssignedDid
from callflow_service.domain.history import Origin
from callflow_service.repositories.callflows import call_flow

_FLOWS: Final = """
SELECT flow.state, flow.action, target.id, target.technology, target.name, flow.target_number, flow.caller_id,
    did.id, did.number, flow.caller_id_text
FROM callflow AS flow LEFT JOIN device AS target ON target.id = flow.target_device_id
LEFT JOIN did ON did.id = flow.caller_id_did_id
WHERE flow.device_id = $1 AND flow.priority = 1"""
# Everything that forwards lead to from one device, by any state; a number that is one of our own DIDs is its device.
_LEADS: Final = """
WITH RECURSIVE way (id) AS (
    SELECT $1::bigint
    UNION
    SELECT coalesce(flow.target_device_id, did.device_id) FROM way
    JOIN callflow AS flow ON flow.device_id = way.id AND flow.priority = 1 AND flow.action = 'forward'
    LEFT JOIN did ON ltrim(did.number, '+') = ltrim(flow.target_number, '+')
    WHERE coalesce(flow.target_device_id, did.device_id) IS NOT NULL
)
SELECT way.id, flow.state, coalesce(flow.target_device_id, did.device_id) FROM way
JOIN callflow AS flow ON flow.device_id = way.id AND flow.priority = 1 AND flow.action = 'forward'
LEFT JOIN did ON ltrim(did.number, '+') = ltrim(flow.target_number, '+')
WHERE coalesce(flow.target_device_id, did.device_id) IS NOT NULL"""


_OWNERS_BEFORE: Final = """
SELECT owner.id, owner.owner_id FROM callflow AS flow
JOIN device ON device.id = flow.device_id JOIN account AS owner ON owner.id = device.owner_id
WHERE flow.target_device_id = $1 FOR NO KEY UPDATE OF flow"""
# The flows are locked by the statement above, so none of them changes in between.
_EMPTY_AROUND: Final = """WITH emptied AS (
    UPDATE callflow SET action = 'empty', target_device_id = NULL, target_number = NULL,
        caller_id = NULL, caller_id_did_id = NULL, caller_id_text = NULL
    FROM callflow AS was
    WHERE (was.device_id, was.state, was.priority) = (callflow.device_id, callflow.state, callflow.priority)
        AND (callflow.target_device_id = $1 OR callflow.device_id = $1 AND callflow.action <> 'empty')
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


async def flows(connection: Connection, device_id: int, *, locked: bool = False) -> Mapping[State, CallFlow]:
    """What the device does in each state that was ever set; with `locked`, until the transaction ends."""
    rows = await connection.fetch(f"{_FLOWS} FOR NO KEY UPDATE OF flow" if locked else _FLOWS, device_id)
    return {State(row[0]): call_flow(tuple(row)[1:]) for row in rows}


async def did(connection: Connection, did_id: int) -> AssignedDid | None:
    """A DID and the device that it is assigned to."""
    row = await connection.fetchrow("SELECT id, number, device_id FROM did WHERE id = $1", did_id)
    return AssignedDid(*row) if row else None


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
