"""Forwards that were refused or held for their numbers, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import aliased
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.access import Account, Role
from callflow_service.repositories.visibility import may_see
from callflow_service.storage.transactions import run
from callflow_service.tables import AccountRow, DeviceRow, TargetAlertRow


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of them: at most `limit` older than `before`, of one device where it is named."""

    limit: int
    before: int | None = None
    device: int | None = None


async def page(session: AsyncSession, viewer: Account, wanted: Wanted) -> Sequence[Any]:
    """Alerts with the usernames of the device's owner and of who asked; an admin sees those of deleted devices too."""
    asked = aliased(AccountRow, name="asked")
    statement = (
        select(TargetAlertRow, col(AccountRow.username), col(asked.username))
        .outerjoin(DeviceRow, col(DeviceRow.id) == TargetAlertRow.device_id)
        .outerjoin(AccountRow, col(AccountRow.id) == DeviceRow.owner_id)
        .outerjoin(asked, col(asked.id) == TargetAlertRow.account_id)
    )
    if viewer.role is not Role.ADMIN:
        statement = statement.where(may_see(viewer, AccountRow))
    if wanted.before is not None:
        statement = statement.where(col(TargetAlertRow.id) < wanted.before)
    if wanted.device is not None:
        statement = statement.where(col(TargetAlertRow.device_id) == wanted.device)
    statement = statement.order_by(col(TargetAlertRow.id).desc()).limit(wanted.limit)
    return (await run(session, statement)).all()
