"""The numbers that an account's devices forward to and have forwarded to, and what was refused or held."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from asyncpg import Connection

from callflow_service.domain.history import Origin
from callflow_service.domain.targets import TakenNumber

_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtextextended('callflow numbers of ' || $1::bigint, 0))"
_TAKEN: Final = "SELECT number, country, since FROM taken_number WHERE account_id = $1"
_IN_FLOWS: Final = """
SELECT flow.target_number FROM device JOIN callflow AS flow ON flow.device_id = device.id
WHERE device.owner_id = $1 AND flow.target_number IS NOT NULL
UNION
SELECT named.target_number FROM device JOIN callflow_reference AS named ON named.device_id = device.id
WHERE device.owner_id = $1 AND named.target_number IS NOT NULL"""
_IN_HISTORY: Final = """
SELECT named.number, min(entry.changed_at) FROM device
JOIN callflow_history AS entry ON entry.device_id = device.id AND entry.kind = 'callflow'
CROSS JOIN LATERAL (VALUES (entry.before), (entry.after)) AS side (flow)
CROSS JOIN LATERAL (
    SELECT side.flow ->> 'target_number' UNION SELECT jsonb_path_query(side.flow, 'strict $.**.number') #>> '{}'
) AS named (number)
WHERE device.owner_id = $1 AND named.number IS NOT NULL GROUP BY named.number"""
_OF_DEVICE: Final = """
SELECT target_number FROM callflow WHERE device_id = $1 AND target_number IS NOT NULL
UNION SELECT target_number FROM callflow_reference WHERE device_id = $1 AND target_number IS NOT NULL
UNION SELECT before ->> 'target_number' FROM remembered_flow
    WHERE device_id = $1 AND before ->> 'target_number' IS NOT NULL
UNION SELECT jsonb_path_query(before, 'strict $.**.number') #>> '{}' FROM remembered_flow WHERE device_id = $1"""
_ADD: Final = """
INSERT INTO taken_number (account_id, number, country, since) SELECT $1, * FROM unnest($2::text[], $3::text[],
    $4::timestamptz[]) ON CONFLICT DO NOTHING"""
# What a client tries again and again is one line, and it gets so many lines in an hour, or it could fill a disk: what
# comes on top is counted in its last line. A new line stands in the history too, so that the feed and webhooks tell it.
_MOST_IN_AN_HOUR: Final = 100
_TELL: Final = f"""
WITH again AS (
    UPDATE target_alert SET last_at = clock_timestamp(), times = times + 1, held_until = coalesce($4, held_until)
    WHERE id = coalesce((
        SELECT id FROM target_alert WHERE device_id = $1 AND number = $2 AND reason = $3 AND account_id = $5
        AND face = $6 AND last_at > clock_timestamp() - interval '1 hour' ORDER BY id DESC LIMIT 1
    ), (
        SELECT last.id FROM (SELECT max(id) AS id FROM target_alert WHERE account_id = $5) AS last, (
            SELECT first_at FROM target_alert WHERE account_id = $5
            ORDER BY id DESC OFFSET {_MOST_IN_AN_HOUR - 1} LIMIT 1
        ) AS hundredth WHERE hundredth.first_at > clock_timestamp() - interval '1 hour'
    ))
    RETURNING id
), added AS (
    INSERT INTO target_alert (device_id, number, reason, held_until, account_id, face, address)
    SELECT $1, $2, $3, $4, $5, $6, $7 WHERE NOT EXISTS (SELECT FROM again)
    RETURNING id
)
INSERT INTO callflow_history (kind, resource, device_id, account_id, face, address, request_id, after)
SELECT 'target', id::text, $1, $5, $6, $7, $8, jsonb_build_object(
    'device', $1::bigint, 'number', $2::text, 'reason', $3::text, 'held_until', $4::timestamptz) FROM added"""  # noqa: S608 - ours


@dataclass(frozen=True, slots=True)
class Alert:
    """A forward of a device that was refused, or held until a time, for its number."""

    device_id: int
    number: str
    reason: str
    held_until: datetime | None = None


async def taken_alone(connection: Connection, account_id: int) -> tuple[list[TakenNumber], list[str]]:
    """What is known to be taken, and the numbers that stand in flows; later ones wait until this transaction ends."""
    await connection.execute(_ONE_AT_A_TIME, account_id)
    taken = [TakenNumber(*row) for row in await connection.fetch(_TAKEN, account_id)]
    return taken, [number for (number,) in await connection.fetch(_IN_FLOWS, account_id)]


async def in_history(connection: Connection, account_id: int) -> list[tuple[str, datetime]]:
    """The numbers that an account's devices ever forwarded to, and since when."""
    return [(number, since) for number, since in await connection.fetch(_IN_HISTORY, account_id)]


async def of_device(connection: Connection, device_id: int) -> list[str]:
    """The numbers that stand in a device's flows, or will again when a profile or a lock is taken back."""
    return [number for (number,) in await connection.fetch(_OF_DEVICE, device_id)]


async def add(connection: Connection, account_id: int, numbers: Sequence[TakenNumber]) -> None:
    """Keep numbers that are new to an account."""
    columns = zip(*((each.number, each.country, each.since) for each in numbers), strict=True)
    await connection.execute(_ADD, account_id, *map(list, columns))


async def tell(connection: Connection, alerts: Sequence[Alert], origin: Origin) -> None:
    """Keep alerts, for operators to see."""
    for alert in alerts:
        await connection.execute(
            _TELL,
            alert.device_id,
            alert.number,
            alert.reason,
            alert.held_until,
            origin.account_id,
            origin.face,
            origin.sender.address,
            origin.sender.request_id,
        )
