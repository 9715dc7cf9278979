"""The feed: every change of everything in the order of the commits, each with its position, none missing, none twice.

A change has no position when it is committed. Whoever reads the feed first gives positions to those that are there by
then, see `docs/decisions/0014-the-feed.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import text, true
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.access import Account
from callflow_service.repositories.history import Entry, is_for
from callflow_service.storage.transactions import plan_anew, run
from callflow_service.tables import AccountRow, CallFlowHistoryRow, ChangeFeedRow

BATCH: Final = 1000
"""How many changes get their positions in one transaction, which others wait for."""

_WINDOW: Final = 5000
_MOST_WINDOWS: Final = 20

# A transaction's own settings: however many rows the planner expects, an index finds them.
_LOCK: Final = text("""
SELECT head, set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true)
FROM change_feed FOR UPDATE""")

# A statement after the one that locks: it sees all that whoever had the lock before has done.
_NUMBER: Final = text("""
WITH waiting AS (
    SELECT id, row_number() OVER (ORDER BY coalesce(turn, id), id) AS place
    FROM (
        SELECT id, turn FROM callflow_history WHERE position IS NULL ORDER BY coalesce(turn, id), id LIMIT :most
    ) AS in_turn
), numbered AS (
    UPDATE callflow_history SET position = :head + place FROM waiting WHERE callflow_history.id = waiting.id
    RETURNING position
)
UPDATE change_feed SET head = last FROM (SELECT max(position) AS last, count(*) AS many FROM numbered) AS found
WHERE many > 0 RETURNING many""")


@dataclass(frozen=True, slots=True)
class Page:
    """Some changes in their order, and the position to go on from, which may be beyond the last of them.

    Where `is_last` is false more are there already.
    """

    entries: Sequence[Entry]
    cursor: int
    is_last: bool


async def number(session: AsyncSession, most: int = BATCH) -> int:
    """Give the next positions to changes that are committed and have none, at most `most`; how many there were.

    Others that want the same wait until the transaction ends, so it is to be one of its own, and short.
    """
    head = (await run(session, _LOCK)).one().head
    return int((await run(session, _NUMBER, head=head, most=most)).scalar_one_or_none() or 0)


async def head(session: AsyncSession) -> int:
    """The last position that was given."""
    return int((await session.exec(select(ChangeFeedRow.head))).one())


async def page(session: AsyncSession, viewer: Account | None, *, after: int, limit: int) -> Page:
    """At most `limit` changes from after a position on: those that `viewer` may see, all where it is None."""
    await plan_anew(session)
    last = await head(session)
    statement = (
        select(CallFlowHistoryRow, AccountRow.username)
        .join(AccountRow, col(AccountRow.id) == CallFlowHistoryRow.account_id, isouter=True)
        .where(is_for(viewer) if viewer else true())
        .order_by(col(CallFlowHistoryRow.position))
    )
    position: Any = col(CallFlowHistoryRow.position)
    entries: list[Entry] = []
    cursor = after
    # What a viewer may not see is passed over in steps, so that a page takes no longer where there is much of it.
    for _ in range(_MOST_WINDOWS):
        if cursor >= last or len(entries) == limit:
            break
        end = min(cursor + _WINDOW, last)
        part = statement.where(position > cursor, position <= end).limit(limit - len(entries))
        entries += [(row, username) for row, username in (await session.exec(part)).all()]
        cursor = int(entries[-1][0].position or 0) if len(entries) == limit else end
    return Page(entries, cursor, is_last=cursor >= last)
