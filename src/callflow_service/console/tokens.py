"""The command line for tokens of the JSON API: made, listed, revoked, past the API and so without a token."""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.access import Role
from callflow_service.domain.callflow import MAX_ID
from callflow_service.domain.history import Face, Origin, Sender
from callflow_service.domain.tokens import Scope, new_token
from callflow_service.repositories import operators, tokens
from callflow_service.storage.embedded import settings_with_database
from callflow_service.storage.transactions import Transactions, run, set_origin
from callflow_service.storage.waking import NOTIFY
from callflow_service.tables import AccountRow, TokenRow

app = typer.Typer(help="Tokens of the JSON API.", no_args_is_help=True)

_COMMAND_TIMEOUT_MS: Final = 10_000
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

_out = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
_err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False, markup=False)

T = TypeVar("T")


@app.command()
def create(
    account: Annotated[str, typer.Option(help="Username of the account that the token speaks for.")],
    scope: Annotated[Scope, typer.Option(help="What it may do.")] = Scope.READ,
    name: Annotated[str, typer.Option(help="What it is for.")] = "token",
    expires: Annotated[str, typer.Option(help="How long it lives: 30d, 12h, 4w, or never.")] = "90d",
) -> None:
    """Make a token and print it alone on the last line: it is shown this once."""
    lives = _lifetime(expires)
    expires_at = datetime.now(UTC) + lives if lives else None

    async def make(session: AsyncSession) -> str:
        found = (await session.exec(select(AccountRow).where(AccountRow.username == account))).one_or_none()
        if found is None:
            _fail(f"There is no account {account}.")
        if found.role == Role.RESELLER and not found.pbx_addon:
            _err.print("Warning: a reseller without the PBX addon may do nothing with a token.")
        await set_origin(session, await _origin(session))
        token = new_token()
        await run(session, text(NOTIFY))
        await tokens.create(session, account_id=found.id, name=name, scope=scope, token=token, expires_at=expires_at)
        return token

    made = _in_transaction(make)
    _out.print(f"A token for {account}, scope {scope}, {'which never expires' if lives is None else f'for {expires}'}:")
    _out.print(made)


@app.command(name="list")
def list_() -> None:
    """List all tokens, without what makes them one."""

    async def read(session: AsyncSession) -> list[tuple[TokenRow, str]]:
        statement = select(TokenRow, AccountRow.username).join(AccountRow, col(AccountRow.id) == TokenRow.account_id)
        return list((await session.exec(statement.order_by(col(TokenRow.id)))).all())

    table = Table("id", "account", "name", "scope", "expires", "last used", box=None)
    for row, username in _in_transaction(read):
        expires = row.expires_at.isoformat(" ", "minutes") if row.expires_at else "never"
        used = row.last_used_at.isoformat(" ", "minutes") if row.last_used_at else "never"
        table.add_row(str(row.id), username, row.name, row.scope, expires, used)
    _out.print(table)


@app.command()
def revoke(
    token_id: Annotated[int, typer.Argument(min=0, max=MAX_ID, help="The token's id, as list shows it.")],
) -> None:
    """Take a token away; it works no longer at once."""

    async def take(session: AsyncSession) -> bool:
        if await session.get(TokenRow, token_id) is None:
            return False
        await set_origin(session, await _origin(session))
        await run(session, text(NOTIFY))
        await tokens.revoke(session, token_id)
        return True

    if not _in_transaction(take):
        _fail(f"There is no token {token_id}.")
    _out.print(f"Token {token_id} is revoked.")


def _lifetime(expires: str) -> timedelta | None:
    if expires == "never":
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", expires)
    if found is None:
        raise typer.BadParameter("must be a number with m, h, d or w, such as 30d, or never", param_hint="--expires")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


async def _origin(session: AsyncSession) -> Origin:
    """Where the history says that a change came from: this command, in the name of the first admin."""
    account = await operators.operator(session, None)
    return Origin(account.id if account else None, Face.CLI, Sender(None, secrets.token_hex(8)))


def _in_transaction(work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    settings = settings_with_database()

    async def in_one() -> T:
        transactions = Transactions(settings.database_url, size=1, timeout_ms=_COMMAND_TIMEOUT_MS)
        try:
            async with transactions.begin() as session:
                return await work(session)
        finally:
            await transactions.close()

    return asyncio.run(in_one())


def _fail(sentence: str) -> NoReturn:
    _err.print(f"callflow-service: {sentence}")
    raise typer.Exit(1)
