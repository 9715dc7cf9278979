"""Webhooks of accounts: added, found, listed, changed; and what was delivered to them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from asyncpg import Connection
from pydantic import SecretStr
from sqlalchemy import ColumnElement, Select, delete, text, true
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.access import Account, Role
from callflow_service.domain.webhooks import PING
from callflow_service.storage.connecting import connected
from callflow_service.storage.transactions import run
from callflow_service.tables import (
    AccountRow,
    WebhookAttemptRow,
    WebhookDeliveryRow,
    WebhookProgressRow,
    WebhookRow,
)

EXIST: Final = "SELECT EXISTS (SELECT FROM webhook WHERE enabled)"
"""Asked by each worker once in a while, and nothing else, where there is no webhook."""

MOST: Final = 100
"""How many webhooks an account may have."""

Owned = tuple[WebhookRow, str]
"""A webhook, and the username of its account."""

_LOCK: Final = text("SELECT FROM webhook_progress WHERE webhook_id = :webhook FOR UPDATE")
_START: Final = text("""
UPDATE webhook_progress SET position = :after, failures = 0, rests_until = NULL WHERE webhook_id = :webhook""")
_TRY_NOW: Final = text("""
WITH roused AS (UPDATE webhook_progress SET failures = 0, rests_until = NULL WHERE webhook_id = :webhook)
UPDATE webhook_delivery SET due_at = clock_timestamp() WHERE webhook_id = :webhook AND due_at IS NOT NULL""")
_GIVE_UP: Final = text("""
UPDATE webhook_delivery SET finished_at = clock_timestamp(), outcome = 'given_up', problem = :problem, due_at = NULL
WHERE webhook_id = :webhook AND finished_at IS NULL""")


async def exist(url: SecretStr) -> bool:
    """Whether any webhook is to be told of anything, asked on a connection for this alone.

    Raises:
        StorageUnavailable: The database cannot be reached, or has no tables.
    """
    async with connected(url) as connection:
        return bool(await connection.fetchval(EXIST))


async def add(session: AsyncSession, fields: Mapping[str, Any], *, after: int) -> WebhookRow:
    """Store a new webhook, which is told of what has a later position in the feed than `after`."""
    row = WebhookRow(**fields)
    session.add(row)
    await session.flush()
    await session.refresh(row)
    session.add(WebhookProgressRow(webhook_id=row.id or 0, position=after))
    await session.flush()
    return row


async def count(session: AsyncSession, account_id: int) -> int:
    """How many webhooks an account has. Others that would add one wait until the transaction ends."""
    locked = select(AccountRow.id).where(col(AccountRow.id) == account_id).with_for_update(key_share=True)
    await run(session, locked)
    return len((await run(session, select(WebhookRow.id).where(col(WebhookRow.account_id) == account_id))).all())


async def page(session: AsyncSession, viewer: Account, *, after: int, limit: int) -> Sequence[Owned]:
    """The webhooks that are `viewer`'s to manage, by id."""
    statement = _owned(viewer).where(col(WebhookRow.id) > after).order_by(col(WebhookRow.id)).limit(limit)
    rows: Sequence[Any] = (await run(session, statement)).all()
    return [(row, username) for row, username in rows]


async def one(session: AsyncSession, viewer: Account, webhook_id: int, *, locked: bool = False) -> Owned | None:
    """One webhook, None where it is not `viewer`'s to manage; where wanted, locked until the transaction ends."""
    statement = _owned(viewer).where(col(WebhookRow.id) == webhook_id)
    if locked:
        statement = statement.with_for_update(of=WebhookRow, key_share=True)
    found: Any = (await run(session, statement)).one_or_none()
    return (found[0], found[1]) if found else None


async def begin(session: AsyncSession, webhook_id: int, *, after: int) -> None:
    """Tell a webhook, that was told of nothing, of what has a later position in the feed than `after`."""
    await _lock(session, webhook_id)
    await run(session, _START, webhook=webhook_id, after=after)


async def end(session: AsyncSession, webhook_id: int, because: str) -> None:
    """Give up everything that waits for a webhook."""
    await _lock(session, webhook_id)
    await run(session, _GIVE_UP, webhook=webhook_id, problem=because)


async def try_now(session: AsyncSession, webhook_id: int) -> None:
    """Try again at once whatever rests after a failure."""
    await _lock(session, webhook_id)
    await run(session, _TRY_NOW, webhook=webhook_id)


async def secrets(connection: Connection) -> list[tuple[int, str]]:
    """Id and encrypted secret of every webhook."""
    return [tuple(row) for row in await connection.fetch("SELECT id, secret FROM webhook ORDER BY id")]


async def replace_secret(connection: Connection, webhook_id: int, *, old: str, new: str) -> None:
    """Store a secret encrypted anew, where the old one is still there."""
    await connection.execute("UPDATE webhook SET secret = $1 WHERE id = $2 AND secret = $3", new, webhook_id, old)


async def _lock(session: AsyncSession, webhook_id: int) -> None:
    """Have whoever delivers to a webhook wait until the transaction ends."""
    await run(session, _LOCK, webhook=webhook_id)


async def remove(session: AsyncSession, webhook_id: int) -> None:
    """Take a webhook away; what it was told goes later."""
    statement: Any = delete(WebhookRow).where(col(WebhookRow.id) == webhook_id)
    await run(session, statement)


async def add_ping(session: AsyncSession, webhook_id: int, body: str, expires_at: datetime) -> WebhookDeliveryRow:
    """Have a test sent."""
    row = WebhookDeliveryRow(
        webhook_id=webhook_id,
        event=PING,
        subject=None,
        history_id=None,
        body=body,
        expires_at=expires_at,
        due_at=datetime.now(UTC),
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return row


async def deliveries(
    session: AsyncSession, webhook_id: int, *, before: int | None, limit: int
) -> Sequence[WebhookDeliveryRow]:
    """What a webhook was sent or is to be sent, newest first."""
    statement = select(WebhookDeliveryRow).where(WebhookDeliveryRow.webhook_id == webhook_id)
    if before is not None:
        statement = statement.where(col(WebhookDeliveryRow.id) < before)
    return list((await session.exec(statement.order_by(col(WebhookDeliveryRow.id).desc()).limit(limit))).all())


async def attempts(session: AsyncSession, deliveries: Sequence[int]) -> Mapping[int, list[WebhookAttemptRow]]:
    """By delivery, every attempt at it in the order that they were made."""
    statement = select(WebhookAttemptRow).where(col(WebhookAttemptRow.delivery_id).in_(deliveries))
    found: dict[int, list[WebhookAttemptRow]] = {}
    for row in (await session.exec(statement.order_by(col(WebhookAttemptRow.id)))).all():
        found.setdefault(row.delivery_id, []).append(row)
    return found


def _owned(viewer: Account) -> Select[Any]:
    statement: Any = select(WebhookRow, AccountRow.username)
    owned: Select[Any] = statement.join(AccountRow, col(AccountRow.id) == WebhookRow.account_id)
    return owned.where(_manages(viewer))


def _manages(viewer: Account) -> ColumnElement[bool]:
    return true() if viewer.role is Role.ADMIN else col(WebhookRow.account_id) == viewer.id
