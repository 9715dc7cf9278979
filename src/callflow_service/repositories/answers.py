"""The answers to requests that may come again, by the account that sent them and the key that it gave them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from asyncpg import Connection
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.storage.transactions import run

_CLEARED_AT_ONCE: Final = 100

_BATCH: Final = 100

_LOCK: Final = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
_FIND: Final = text("""
SELECT fingerprint, answer FROM kept_answer
WHERE account_id = :account AND key = :key AND kept_at > clock_timestamp() - interval '24 hours'""")
# One that is older than a day was not found, and its key may be used anew.
_KEEP: Final = text("""
INSERT INTO kept_answer (account_id, key, fingerprint, answer) VALUES (:account, :key, :fingerprint, :answer)
ON CONFLICT (account_id, key) DO UPDATE
SET fingerprint = excluded.fingerprint, answer = excluded.answer, kept_at = clock_timestamp()""")
_CLEAR: Final = text("""
DELETE FROM kept_answer WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM kept_answer WHERE kept_at < clock_timestamp() - interval '24 hours'
    ORDER BY kept_at LIMIT :most FOR UPDATE SKIP LOCKED))""")

_NEXT: Final = """
SELECT account_id, key, answer FROM kept_answer WHERE (account_id, key) > ($1, $2) ORDER BY account_id, key LIMIT $3"""
_REPLACE: Final = "UPDATE kept_answer SET answer = $4 WHERE account_id = $1 AND key = $2 AND answer = $3"


@dataclass(frozen=True, slots=True)
class Kept:
    """What a request was, as a digest of it, and how it was answered; encrypted."""

    fingerprint: bytes
    answer: str


async def lock(session: AsyncSession, account: int, key: str) -> bool:
    """Whether no other transaction is at work under this key; none can be from now on, until this one ends."""
    found = await run(session, _LOCK, name=f"callflow answer {account} {key}")
    return bool(found.scalar_one())


async def find(session: AsyncSession, account: int, key: str) -> Kept | None:
    """The answer that was given under this key within the last 24 hours."""
    row = (await run(session, _FIND, account=account, key=key)).one_or_none()
    return Kept(row.fingerprint, row.answer) if row else None


async def keep(session: AsyncSession, account: int, key: str, kept: Kept) -> None:
    """Keep an answer with the change that it tells of, and drop a few of those that are too old."""
    await run(session, _CLEAR, most=_CLEARED_AT_ONCE)
    await run(session, _KEEP, account=account, key=key, fingerprint=kept.fingerprint, answer=kept.answer)


async def batches(connection: Connection) -> AsyncIterator[list[Any]]:
    """Account, key and encrypted answer of all that are kept."""
    last = (-1, "")
    while rows := await connection.fetch(_NEXT, *last, _BATCH):
        yield rows
        last = rows[-1]["account_id"], rows[-1]["key"]


async def replace(connection: Connection, account: int, key: str, *, old: str, new: str) -> None:
    """Store the same answer encrypted anew, where the old one is still there."""
    await connection.execute(_REPLACE, account, key, old, new)
