"""The history: every change of everything, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, text, true
from sqlmodel import col, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.access import Account, Role
from callflow_service.domain.callflow import State
from callflow_service.repositories.visibility import may_see
from callflow_service.storage.transactions import plan_anew, run
from callflow_service.tables import AccountRow, CallFlowHistoryRow, DeviceRow

Entry = tuple[CallFlowHistoryRow, str | None]
"""A history row, and the username of the account that made the change where that is still there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of the history: at most `limit` entries older than `before`, that fit the filters."""

    limit: int
    before: int | None = None
    account: int | None = None
    device: int | None = None
    face: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    kind: str | None = None


def is_for(viewer: Account) -> ColumnElement[bool]:
    """Whether `viewer` may see an entry: those of the devices that it may see, and for an admin all."""
    if viewer.role is Role.ADMIN:
        return true()
    devices = select(DeviceRow.id).join(AccountRow, col(AccountRow.id) == DeviceRow.owner_id)
    return col(CallFlowHistoryRow.device_id).in_(devices.where(may_see(viewer, AccountRow)).scalar_subquery())


async def page(session: AsyncSession, viewer: Account, wanted: Wanted) -> Sequence[Entry]:
    """A part of the history that `viewer` may see."""
    statement = select(CallFlowHistoryRow, AccountRow.username).join(
        AccountRow, col(AccountRow.id) == CallFlowHistoryRow.account_id, isouter=True
    )
    statement = statement.where(is_for(viewer))
    conditions = {
        CallFlowHistoryRow.account_id: wanted.account,
        CallFlowHistoryRow.device_id: wanted.device,
        CallFlowHistoryRow.face: wanted.face,
        CallFlowHistoryRow.kind: wanted.kind,
    }
    statement = statement.where(*(col(column) == value for column, value in conditions.items() if value is not None))
    if wanted.before is not None:
        statement = statement.where(col(CallFlowHistoryRow.id) < wanted.before)
    if wanted.since is not None:
        statement = statement.where(col(CallFlowHistoryRow.changed_at) >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(col(CallFlowHistoryRow.changed_at) < wanted.until)
    statement = statement.order_by(col(CallFlowHistoryRow.id).desc()).limit(wanted.limit)
    await plan_anew(session)
    return [(row, username) for row, username in (await session.exec(statement)).all()]


async def entry(session: AsyncSession, entry_id: int) -> Entry | None:
    """One entry."""
    statement = (
        select(CallFlowHistoryRow, AccountRow.username)
        .join(AccountRow, col(AccountRow.id) == CallFlowHistoryRow.account_id, isouter=True)
        .where(CallFlowHistoryRow.id == entry_id)
    )
    return (await session.exec(statement)).one_or_none()


async def newer(session: AsyncSession, device: int, states: Sequence[State], *, than: int) -> Sequence[Entry]:
    """The entries about these states of a device that came after another one, newest first; at most a hundred."""
    statement = (
        select(CallFlowHistoryRow, AccountRow.username)
        .join(AccountRow, col(AccountRow.id) == CallFlowHistoryRow.account_id, isouter=True)
        .where(
            CallFlowHistoryRow.device_id == device,
            CallFlowHistoryRow.kind == "callflow",
            or_(*(CallFlowHistoryRow.state == state for state in states)),
            col(CallFlowHistoryRow.id) > than,
        )
        .order_by(col(CallFlowHistoryRow.id).desc())
        .limit(100)
    )
    return [(row, username) for row, username in (await session.exec(statement)).all()]


_AS_OF: Final = text("""
SELECT DISTINCT ON (state) state, id, before
FROM callflow_history
WHERE device_id = :device AND kind = 'callflow' AND priority = 1 AND changed_at > :moment
ORDER BY state, id""")


async def as_of(session: AsyncSession, device: int, moment: datetime) -> dict[State, tuple[int, Any]]:
    """By each state that changed since: the id of its first change after `moment`, and how it was before that."""
    rows: Any = await run(session, _AS_OF, device=device, moment=moment)
    return {State(state): (id_, before) for state, id_, before in rows}
