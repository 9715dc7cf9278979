"""Call flows of many devices in one transaction: chosen, compared with what is wanted, written with their history.

What is long is done while nothing is locked: the changes are staged, and their history is written. What is locked comes
last, and is short: for as long as the rows are written an update of one of them waits.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncpg import Connection
from sqlalchemy import BigInteger, ColumnElement, any_, bindparam, column, func, insert, select, table, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.access import Account
from callflow_service.domain.callflow import State, StateFlow
from callflow_service.domain.history import Origin
from callflow_service.repositories.callflows import STORED, stored_columns
from callflow_service.repositories.resources import Statement, Wanted, device_filters, devices
from callflow_service.repositories.visibility import may_see
from callflow_service.storage import locks
from callflow_service.storage.transactions import run
from callflow_service.tables import AccountRow, DeviceRow, RememberedFlowRow

_NAMES: Final = ", ".join(STORED)
_WANTED: Final = ", ".join(f"flow.{name}" for name in STORED)
_SET: Final = ", ".join(f"{name} = flow.{name}" for name in STORED)

# What is staged has every column of a stored row, and beside them how the row was, and in which version. Who changed it
# meanwhile came first, and is compared with again: for these there is `bulk_late`.
_TABLES: Final = """
CREATE TEMPORARY TABLE bulk_device (id bigint PRIMARY KEY) ON COMMIT DROP;
CREATE TEMPORARY TABLE bulk_flow (
    LIKE callflow, version xid, before jsonb, after jsonb NOT NULL, PRIMARY KEY (device_id, state)
) ON COMMIT DROP;
CREATE TEMPORARY TABLE bulk_late (device_id bigint, state text, PRIMARY KEY (device_id, state)) ON COMMIT DROP;
CREATE TEMPORARY TABLE bulk_left (device_id bigint NOT NULL, state text NOT NULL, reason text NOT NULL) ON COMMIT DROP;
SET LOCAL work_mem = '64MB'"""

_STAGE: Final = """
INSERT INTO bulk_flow
SELECT wanted.*, flow.xmin, to_jsonb(flow), to_jsonb(wanted)
FROM bulk_device AS chosen
LEFT JOIN callflow AS flow ON flow.device_id = chosen.id AND flow.state = $1 AND flow.priority = 1
CROSS JOIN LATERAL jsonb_populate_record(NULL::callflow,
    $2::jsonb || jsonb_build_object('device_id', chosen.id, 'state', $1::text, 'priority', 1)) AS wanted
WHERE CASE WHEN flow.device_id IS NULL THEN NOT $3::boolean ELSE to_jsonb(flow) <> to_jsonb(wanted) END
AND NOT EXISTS (SELECT FROM remembered_flow AS known
    WHERE known.kind = $4 AND known.holder_id = $5 AND known.device_id = chosen.id AND known.state = $1)
ORDER BY chosen.id"""

# A state leads to a number by its columns, or by a step of a rule or a chain in its documents.
_STAGE_WITHOUT_NUMBERS: Final = """
INSERT INTO bulk_flow
SELECT wanted.*, flow.xmin, to_jsonb(flow), to_jsonb(wanted)
FROM bulk_device AS chosen
JOIN callflow AS flow ON flow.device_id = chosen.id AND flow.priority = 1
CROSS JOIN LATERAL jsonb_populate_record(NULL::callflow, $1::jsonb || jsonb_build_object(
    'device_id', flow.device_id, 'state', flow.state, 'priority', 1)) AS wanted
WHERE flow.target_number IS NOT NULL OR jsonb_path_exists(to_jsonb(flow), '$.**.number')
ORDER BY flow.device_id, flow.state"""

_LEAVE: Final = """
INSERT INTO bulk_left
SELECT known.device_id, known.state, CASE
    WHEN chosen.id IS NULL OR flow.device_id IS NULL THEN 'device_gone'
    WHEN EXISTS (SELECT FROM callflow_history AS newer
        WHERE newer.device_id = known.device_id AND newer.id > known.history_id AND newer.state = known.state
        AND newer.kind = 'callflow' AND newer.priority = 1) THEN 'changed_since'
    ELSE 'target_gone' END
FROM remembered_flow AS known
LEFT JOIN bulk_device AS chosen ON chosen.id = known.device_id
LEFT JOIN callflow AS flow ON flow.device_id = known.device_id AND flow.state = known.state AND flow.priority = 1
WHERE known.kind = $1 AND known.holder_id = $2 AND (chosen.id IS NULL OR flow.device_id IS NULL
    OR EXISTS (SELECT FROM callflow_history AS newer
        WHERE newer.device_id = known.device_id AND newer.id > known.history_id AND newer.state = known.state
        AND newer.kind = 'callflow' AND newer.priority = 1)
    OR known.before ->> 'target_device_id' IS NOT NULL
        AND NOT EXISTS (SELECT FROM device WHERE id = (known.before ->> 'target_device_id')::bigint)
    OR known.before ->> 'caller_id_did_id' IS NOT NULL
        AND NOT EXISTS (SELECT FROM did WHERE id = (known.before ->> 'caller_id_did_id')::bigint
            AND device_id = known.device_id))"""

_STAGE_BACK: Final = """
INSERT INTO bulk_flow
SELECT wanted.*, flow.xmin, to_jsonb(flow), to_jsonb(wanted)
FROM remembered_flow AS known
JOIN callflow AS flow ON flow.device_id = known.device_id AND flow.state = known.state AND flow.priority = 1
CROSS JOIN LATERAL jsonb_populate_record(NULL::callflow, coalesce(known.before, $3::jsonb)
    || jsonb_build_object('device_id', known.device_id, 'state', known.state, 'priority', 1)) AS wanted
WHERE known.kind = $1 AND known.holder_id = $2 AND NOT EXISTS (SELECT FROM bulk_left AS kept
    WHERE kept.device_id = known.device_id AND kept.state = known.state)
ORDER BY known.device_id"""

_ALL: Final = "bulk_flow AS flow"
_LATE: Final = "bulk_late JOIN bulk_flow AS flow USING (device_id, state)"


def _tell_statement(staged: str) -> str:
    return f"""
    WITH told AS (
        INSERT INTO callflow_history
            (account_id, face, address, request_id, undoes, turn, device_id, state, priority, before, after)
        SELECT $1, $2, $3, $4, $5, $6, flow.device_id, flow.state, 1, flow.before, flow.after
        FROM {staged} ORDER BY flow.device_id, flow.state
        RETURNING id, device_id, state, before
    )
    INSERT INTO remembered_flow (kind, holder_id, device_id, state, history_id, before)
    SELECT $7::text, $8::bigint, device_id, state, id, before FROM told WHERE $7::text IS NOT NULL
    ON CONFLICT (kind, holder_id, device_id, state) DO UPDATE SET history_id = EXCLUDED.history_id"""  # noqa: S608 - ours


_TELL: Final = {staged: _tell_statement(staged) for staged in (_ALL, _LATE)}

# The history is written before the rows are locked, but its turn in the feed must be that of the commit. To write the
# turn into each entry at the end would take longer than all else that is done under locks, so a number is chosen that
# nobody draws until then, and the sequence goes on after it.
_DRAW_TURN: Final = """
SELECT number, number + (SELECT count(*) FROM bulk_flow) + $1 FROM nextval('callflow_history_id_seq') AS number"""
_TAKE_TURN: Final = """
SELECT setval('callflow_history_id_seq', $1) FROM callflow_history_id_seq WHERE last_value < $1"""
_AHEAD: Final = 100_000
"""How many changes others may make between the history and the commit of a bulk change: seconds."""


def _write_statement(staged: str) -> str:
    return f"""
    WITH changed AS (
        UPDATE callflow SET {_SET} FROM {staged}
        WHERE callflow.device_id = flow.device_id AND callflow.state = flow.state AND callflow.priority = 1
        AND callflow.xmin = flow.version
        RETURNING 1
    ), added AS (
        INSERT INTO callflow (device_id, state, priority, {_NAMES})
        SELECT flow.device_id, flow.state, 1, {_WANTED} FROM {staged}
        WHERE flow.version IS NULL AND EXISTS (SELECT FROM device WHERE id = flow.device_id)
        ORDER BY flow.device_id, flow.state
        ON CONFLICT DO NOTHING
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM changed) + (SELECT count(*) FROM added)"""  # noqa: S608 - our own names


_WRITE: Final = {staged: _write_statement(staged) for staged in (_ALL, _LATE)}


def _find_late_statement(version: str) -> str:
    return f"""
    INSERT INTO bulk_late
    SELECT flow.device_id, flow.state FROM bulk_flow AS flow LEFT JOIN callflow AS stored
        ON stored.device_id = flow.device_id AND stored.state = flow.state AND stored.priority = 1
    WHERE stored.xmin IS DISTINCT FROM {version}"""  # noqa: S608 - our own names


_FIND_LATE: Final = _find_late_statement("flow.version")
# What this transaction has written bears its number, as what it has staged does.
_FIND_UNWRITTEN: Final = _find_late_statement("flow.xmin")

# An array, so that entries are found by an index, whatever the planner knows of a table that has just grown. What was
# remembered before this change stays: it is not what was staged.
_UNTELL: Final = """
WITH untold AS (
    DELETE FROM callflow_history WHERE id = ANY (ARRAY(SELECT (
        SELECT told.id FROM callflow_history AS told
        WHERE told.device_id = late.device_id AND told.id >= $1 AND told.state = late.state
        AND told.request_id = $2 AND told.kind = 'callflow' ORDER BY told.id DESC LIMIT 1
    ) FROM bulk_late AS late))
)
DELETE FROM remembered_flow AS known USING bulk_late AS late JOIN bulk_flow AS flow USING (device_id, state)
WHERE known.kind = $3 AND known.holder_id = $4 AND known.device_id = late.device_id AND known.state = late.state
AND known.before IS NOT DISTINCT FROM flow.before"""


def _compare_again_statement(lock: str) -> str:
    return f"""
    WITH now AS (
        SELECT stored.device_id, stored.state, stored.xmin AS version, to_jsonb(stored) AS before
        FROM bulk_late JOIN callflow AS stored USING (device_id, state) WHERE stored.priority = 1
        ORDER BY stored.device_id, stored.state {lock}
    )
    UPDATE bulk_flow AS flow SET version = now.version, before = now.before
    FROM bulk_late LEFT JOIN now USING (device_id, state)
    WHERE flow.device_id = bulk_late.device_id AND flow.state = bulk_late.state"""  # noqa: S608 - ours


_COMPARE_AGAIN: Final = _compare_again_statement("")
_LOCK_AND_COMPARE: Final = _compare_again_statement("FOR NO KEY UPDATE OF stored")
_DROP_EQUAL: Final = """
DELETE FROM bulk_flow AS flow USING bulk_late AS late
WHERE flow.device_id = late.device_id AND flow.state = late.state AND (version IS NULL OR before = after)"""

_LEADS_BACK: Final = """
SELECT flow.device_id, flow.state, coalesce(flow.target_device_id, did.device_id) FROM bulk_flow AS flow
LEFT JOIN did ON ltrim(did.number, '+') = ltrim(flow.target_number, '+')
WHERE flow.action = 'forward' AND coalesce(flow.target_device_id, did.device_id) IS NOT NULL
AND (flow.state = 'before_call' OR coalesce(flow.target_device_id, did.device_id) = flow.device_id)
ORDER BY flow.device_id, flow.state"""

_LEADS_ON: Final = """
WITH RECURSIVE way (id) AS (
    SELECT unnest($1::bigint[])
    UNION
    SELECT coalesce(flow.target_device_id, did.device_id) FROM way
    JOIN callflow AS flow ON flow.device_id = way.id AND flow.priority = 1 AND flow.action = 'forward'
        AND flow.state = 'before_call'
    LEFT JOIN did ON ltrim(did.number, '+') = ltrim(flow.target_number, '+')
    WHERE coalesce(flow.target_device_id, did.device_id) IS NOT NULL
)
SELECT way.id, coalesce(flow.target_device_id, did.device_id) FROM way
JOIN callflow AS flow ON flow.device_id = way.id AND flow.priority = 1 AND flow.action = 'forward'
    AND flow.state = 'before_call'
LEFT JOIN did ON ltrim(did.number, '+') = ltrim(flow.target_number, '+')
WHERE coalesce(flow.target_device_id, did.device_id) IS NOT NULL"""

_ORDER: Final = "device_id, array_position(ARRAY['before_call', 'no_answer', 'busy', 'failed'], state)"

_ANALYZE: Final = text("ANALYZE bulk_device")
_CHOSEN: Final = table("bulk_device", column("id"))


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose memory it is: what a `kind` of thing with this id found when it was applied."""

    kind: str
    id: int


@dataclass(frozen=True, slots=True)
class Entries:
    """The history of a bulk change: `after` is older than its first entry, `turn` is its place among the commits."""

    after: int
    turn: int


@dataclass(frozen=True, slots=True)
class Changed:
    """One state of a device, as its row was and as it is wanted."""

    device: int
    state: State
    before: dict[str, Any] | None
    after: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Left:
    """One state of a device that was left alone, and why."""

    device: int
    state: State
    reason: str


async def begin(connection: Connection) -> bool:
    """Make ready for a bulk change; whether it may go on, for there is one at a time."""
    if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", locks.BULK):
        return False
    await connection.execute(_TABLES)
    return True


def seen(viewer: Account, wanted: Wanted, ids: Sequence[int] | None = None) -> Statement:
    """The devices that `viewer` may see and that fit; with `ids`, of these alone."""
    statement = devices(viewer).where(*device_filters(wanted))
    return statement if ids is None else statement.where(_is_one_of(ids))


async def choose(session: AsyncSession, statement: Statement) -> int:
    """Choose the devices of a statement of `seen`; how many they are."""
    await run(session, insert(_CHOSEN).from_select(["id"], statement.with_only_columns(col(DeviceRow.id))))
    await run(session, _ANALYZE)
    return int((await run(session, select(func.count()).select_from(_CHOSEN))).scalar_one())


async def choose_remembered(session: AsyncSession, viewer: Account, holder: Holder) -> None:
    """Choose, of the devices that are remembered, those that `viewer` may see."""
    known = select(col(RememberedFlowRow.device_id)).where(
        col(RememberedFlowRow.kind) == holder.kind, col(RememberedFlowRow.holder_id) == holder.id
    )
    await choose(session, devices(viewer).where(col(DeviceRow.id).in_(known)))


async def missing(session: AsyncSession, viewer: Account, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The devices that `viewer` may not see or that are not there, each with its place in `ids`; the first hundred."""
    array = func.unnest(bindparam("ids", ids, type_=ARRAY(BigInteger)))
    sent = array.table_valued("id", with_ordinality="place").render_derived("sent")
    found = select(col(DeviceRow.id)).join(AccountRow, col(AccountRow.id) == DeviceRow.owner_id)
    found = found.where(col(DeviceRow.id) == sent.c.id, may_see(viewer, AccountRow))
    statement = select(sent.c.place - 1, sent.c.id).where(~found.exists()).order_by(sent.c.place).limit(100)
    rows: Any = await run(session, statement)
    return [(place, id_) for place, id_ in rows]


async def chosen_of(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Which of these devices are chosen."""
    return {id_ for (id_,) in await connection.fetch("SELECT id FROM bulk_device WHERE id = ANY($1)", ids)}


async def stage(connection: Connection, state: State, flow: StateFlow, holder: Holder | None = None) -> None:
    """Stage what changes where the chosen devices shall do this in one state; not what `holder` remembers already."""
    row = _row(flow)
    await connection.execute(_STAGE, state, row, row == _row(StateFlow()), *_named(holder))


async def stage_without_numbers(connection: Connection) -> None:
    """Stage as empty every state of the chosen devices that leads to a number in any way."""
    await connection.execute(_STAGE_WITHOUT_NUMBERS, _row(StateFlow()))


async def stage_back(connection: Connection, holder: Holder) -> None:
    """Stage what `holder` remembers of the chosen devices, where nobody changed it since and what it names is there."""
    await connection.execute(_LEAVE, holder.kind, holder.id)
    empty = _row(StateFlow())
    await connection.execute(_STAGE_BACK, holder.kind, holder.id, empty)


async def leave(connection: Connection, states: Sequence[tuple[int, State]], reason: str) -> None:
    """Leave states alone that are staged."""
    places = ([device for device, _ in states], [state for _, state in states])
    await connection.execute(
        """WITH kept AS (
            DELETE FROM bulk_flow WHERE (device_id, state) IN (SELECT * FROM unnest($1::bigint[], $2::text[]))
            RETURNING device_id, state
        )
        INSERT INTO bulk_left SELECT device_id, state, $3 FROM kept""",
        *(*places, reason),
    )


async def leads_back(connection: Connection) -> tuple[list[tuple[int, State, int]], dict[int, list[int]]]:
    """The staged forwards that could close a ring before the call, and where the forwards stored now lead from them.

    Among the first are those in any state that lead to the device itself.
    """
    staged = [(device, State(state), target) for device, state, target in await connection.fetch(_LEADS_BACK)]
    leads: dict[int, list[int]] = {}
    if staged:
        ids = list({device for device, _, _ in staged} | {target for _, _, target in staged})
        for device, target in await connection.fetch(_LEADS_ON, ids):
            leads.setdefault(device, []).append(target)
    return staged, leads


async def tell(connection: Connection, origin: Origin, holder: Holder | None = None) -> Entries:
    """Write the history of what is staged, and what `holder` shall remember."""
    await connection.execute("ANALYZE bulk_flow")
    ((after, turn),) = await connection.fetch(_DRAW_TURN, _AHEAD)
    entries = Entries(after, turn)
    await _tell(connection, origin, entries, holder, _ALL)
    return entries


async def catch_up(connection: Connection, origin: Origin, entries: Entries, holder: Holder | None = None) -> None:
    """Compare and tell anew what others changed by now, so that less of it is left for when the rows are locked."""
    if await _find_late(connection, _FIND_LATE):
        await _untell(connection, origin, entries, holder)
        await _compare_again(connection, _COMPARE_AGAIN)
        await _tell(connection, origin, entries, holder, _LATE)


async def alone(connection: Connection) -> None:
    """Wait until the other changes of the JSON API are done, and have later ones wait for this transaction."""
    await connection.execute(f"SELECT pg_advisory_xact_lock({locks.CHANGING})")


async def write(connection: Connection, origin: Origin, entries: Entries, holder: Holder | None = None) -> None:
    """Write what is staged and told. What somebody changed meanwhile is compared and told anew.

    Raises:
        asyncpg.IntegrityConstraintViolationError: What a call flow names vanished meanwhile.
    """
    if await _write(connection):
        await _untell(connection, origin, entries, holder)
        await _compare_again(connection, _LOCK_AND_COMPARE)
        await _tell(connection, origin, entries, holder, _LATE)
        await connection.execute(_WRITE[_LATE])
    await connection.execute(_TAKE_TURN, entries.turn)


async def write_back(connection: Connection, origin: Origin, entries: Entries, holder: Holder) -> None:
    """Write what is staged and told, but for what somebody changed meanwhile; nothing is remembered any longer.

    Raises:
        asyncpg.IntegrityConstraintViolationError: What a call flow names vanished meanwhile.
    """
    if await _write(connection):
        await _untell(connection, origin, entries, None)
        late = await connection.fetch("SELECT device_id, state FROM bulk_late")
        await leave(connection, [(device, State(state)) for device, state in late], "changed_since")
    await connection.execute(_TAKE_TURN, entries.turn)
    await connection.execute("DELETE FROM remembered_flow WHERE kind = $1 AND holder_id = $2", holder.kind, holder.id)


async def changed(connection: Connection, limit: int) -> tuple[int, list[Changed]]:
    """How many states change, and the first of them."""
    count = await connection.fetchval("SELECT count(*) FROM bulk_flow")
    rows = await connection.fetch(
        f"SELECT device_id, state, before, after FROM bulk_flow ORDER BY {_ORDER} LIMIT $1",  # noqa: S608 - ours
        limit,
    )
    return count, [Changed(device, State(state), before, after) for device, state, before, after in rows]


async def left(connection: Connection, limit: int) -> tuple[int, list[Left]]:
    """How many states were left alone, and the first of them."""
    count = await connection.fetchval("SELECT count(*) FROM bulk_left")
    rows = await connection.fetch(f"SELECT * FROM bulk_left ORDER BY {_ORDER} LIMIT $1", limit)  # noqa: S608 - ours
    return count, [Left(device, State(state), reason) for device, state, reason in rows]


async def _tell(connection: Connection, origin: Origin, entries: Entries, holder: Holder | None, staged: str) -> None:
    sender = origin.sender
    parameters = (origin.account_id, origin.face, sender.address, sender.request_id, origin.undoes, entries.turn)
    # They have their turn.
    await connection.execute("SELECT set_config('callflow.one_statement', 'on', true)")
    await connection.execute(_TELL[staged], *parameters, *_named(holder))
    await connection.execute("SELECT set_config('callflow.one_statement', 'off', true)")


async def _write(connection: Connection) -> bool:
    """Write what is staged; whether something came in between, which is late then."""
    written = await connection.fetchval(_WRITE[_ALL])
    if written == await connection.fetchval("SELECT count(*) FROM bulk_flow"):
        return False
    return await _find_late(connection, _FIND_UNWRITTEN)


async def _find_late(connection: Connection, statement: str) -> bool:
    await connection.execute("TRUNCATE bulk_late")
    found = await connection.execute(statement)
    await connection.execute("ANALYZE bulk_late")
    return not found.endswith(" 0")


async def _untell(connection: Connection, origin: Origin, entries: Entries, holder: Holder | None) -> None:
    await connection.execute(_UNTELL, entries.after, origin.sender.request_id, *_named(holder))


async def _compare_again(connection: Connection, statement: str) -> None:
    """Compare what is late with what is stored now; what is gone, or as it shall be, is staged no longer."""
    await connection.execute(statement)
    await connection.execute(_DROP_EQUAL)


def _row(flow: StateFlow) -> str:
    """A state as a row of `callflow` in JSON, where documents are no texts."""
    columns = stored_columns(flow.otherwise, flow.rules)
    documents = {name: json.loads(columns[name]) for name in ("otherwise", "rules") if columns[name]}
    return json.dumps(columns | documents)


def _named(holder: Holder | None) -> tuple[str | None, int | None]:
    return (holder.kind, holder.id) if holder else (None, None)


def _is_one_of(ids: Sequence[int]) -> ColumnElement[bool]:
    # One array, for a statement takes 32,767 parameters.
    return col(DeviceRow.id) == any_(bindparam("ids", ids, type_=ARRAY(BigInteger)))
