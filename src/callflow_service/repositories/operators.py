"""The account in whose name the operator's own commands change things."""

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.access import Account, Role
from callflow_service.tables import AccountRow


async def operator(session: AsyncSession, username: str | None) -> Account | None:
    """The admin account of that username, the one with the lowest id where none is named; None where there is none.

    Its switches count for requests that come in, and not for a command on this machine.
    """
    statement = select(AccountRow).where(col(AccountRow.role) == Role.ADMIN).order_by(col(AccountRow.id)).limit(1)
    if username is not None:
        statement = statement.where(col(AccountRow.username) == username)
    row = (await session.exec(statement)).one_or_none()
    if row is None:
        return None
    return Account(
        id=row.id,
        username=row.username,
        role=Role.ADMIN,
        blocked=False,
        api_enabled=True,
        pbx_addon=row.pbx_addon,
        hash_policy=None,
        api_key="",
        password_hash=None,
    )
