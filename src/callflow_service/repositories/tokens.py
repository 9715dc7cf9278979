"""Tokens of the JSON API: made, found by their hash, listed, taken away."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import text
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.access import Account, Role
from callflow_service.domain.signature import HashPolicy
from callflow_service.domain.tokens import Scope, token_hash
from callflow_service.repositories.visibility import may_see
from callflow_service.storage.transactions import run
from callflow_service.tables import AccountRow, TokenRow

# An account's API is off where its own switch is, or its reseller's. The last use is kept to the minute.
_FIND: Final = text("""
WITH found AS (
    SELECT token.id, token.scope, token.expires_at, token.last_used_at,
        account.id AS account_id, account.username, account.role, account.blocked, account.pbx_addon,
        account.hash_policy,
        account.api_enabled AND coalesce(owner.role <> 'reseller' OR owner.api_enabled, true) AS api_enabled,
        account.allowed_addresses
    FROM token JOIN account ON account.id = token.account_id LEFT JOIN account AS owner ON owner.id = account.owner_id
    WHERE token.token_hash = :hash
), used AS (
    UPDATE token SET last_used_at = date_trunc('minute', now()) FROM found
    WHERE token.id = found.id AND (found.last_used_at IS NULL OR found.last_used_at < date_trunc('minute', now()))
)
SELECT * FROM found""")


@dataclass(frozen=True, slots=True)
class FoundToken:
    """A token that exists, with the account that it speaks for."""

    id: int
    scope: Scope
    expires_at: datetime | None
    account: Account

    @property
    def is_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)


async def find(session: AsyncSession, token: str) -> FoundToken | None:
    """The token, None where there is none like it."""
    row = (await run(session, _FIND, hash=token_hash(token))).one_or_none()
    if row is None:
        return None
    account = Account(
        id=row.account_id,
        username=row.username,
        role=Role(row.role),
        blocked=row.blocked,
        api_enabled=row.api_enabled,
        pbx_addon=row.pbx_addon,
        hash_policy=HashPolicy(row.hash_policy) if row.hash_policy else None,
        api_key="",
        password_hash=None,
        allowed_addresses=tuple(row.allowed_addresses or ()),
    )
    return FoundToken(row.id, Scope(row.scope), row.expires_at, account)


async def create(  # noqa: PLR0913 - a row's columns
    session: AsyncSession, *, account_id: int, name: str, scope: Scope, token: str, expires_at: datetime | None
) -> TokenRow:
    """Store a new token's hash; without `expires_at` it never expires."""
    row = TokenRow(account_id=account_id, name=name, scope=scope, token_hash=token_hash(token), expires_at=expires_at)
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return row


async def listed(session: AsyncSession, viewer: Account, *, after: int, limit: int) -> Sequence[tuple[TokenRow, str]]:
    """Tokens of the accounts that `viewer` may see, with the account's username, by id."""
    statement = (
        select(TokenRow, AccountRow.username)
        .join(AccountRow, col(AccountRow.id) == TokenRow.account_id)
        .where(may_see(viewer, AccountRow), col(TokenRow.id) > after)
        .order_by(col(TokenRow.id))
        .limit(limit)
    )
    return list((await session.exec(statement)).all())


async def visible(session: AsyncSession, viewer: Account, token_id: int) -> tuple[TokenRow, AccountRow] | None:
    """One token with its account, None where `viewer` may not see it."""
    statement = (
        select(TokenRow, AccountRow)
        .join(AccountRow, col(AccountRow.id) == TokenRow.account_id)
        .where(TokenRow.id == token_id, may_see(viewer, AccountRow))
    )
    return (await session.exec(statement)).one_or_none()


async def revoke(session: AsyncSession, token_id: int) -> None:
    """Take a token away."""
    statement: Any = delete(TokenRow).where(col(TokenRow.id) == token_id)
    await session.exec(statement)
