"""Tokens: made, listed and revoked by those who may change the account they speak for."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import select

from callflow_service.api.dependencies import ApiRoute, Caller, Reader, TheHouse, Writer
from callflow_service.api.lists import Page, cursor_value, page_of
from callflow_service.api.problems import Problem, invalid
from callflow_service.api.shapes import Id, Moment, as_json
from callflow_service.domain.access import may_change
from callflow_service.domain.tokens import Scope, new_token
from callflow_service.repositories import tokens
from callflow_service.repositories.visibility import may_see
from callflow_service.resources.types import Line, Username
from callflow_service.tables import AccountRow, TokenRow

router = APIRouter(prefix="/v1/tokens", tags=["Tokens"], route_class=ApiRoute)

_DEFAULT_DAYS: Final = 90


class NewToken(BaseModel):
    """What a new token shall be."""

    model_config = ConfigDict(extra="forbid")

    account: Annotated[Username | None, Field(description="Username of the account it speaks for; else your own")] = (
        None
    )
    name: Annotated[Line, Field(description="What it is for")] = "token"
    scope: Scope = Scope.READ
    expires_in_days: Annotated[
        int | None,
        Field(
            ge=1,
            le=36500,
            description="How long it lives, in days; null for ever. No longer than the token that makes it, and where "
            "nothing is said no longer than that either.",
        ),
    ] = _DEFAULT_DAYS


class Token(BaseModel):
    """A token, without what makes it one."""

    id: int
    account: str
    name: str
    scope: Scope
    created_at: Moment
    expires_at: Moment | None
    last_used_at: Moment | None = Field(description="To the minute")


class ShownToken(Token):
    """A token as it is shown once, when it is made."""

    token: str = Field(examples=["cf_0123456789abcdefghijklmnopqrstuvwxyzABCD0yP3qH"])


class Tokens(BaseModel):
    """A page of tokens."""

    items: list[Token]
    next: str | None


@router.post("", status_code=201, response_model=ShownToken)
async def create_token(request: Request, wanted: NewToken, caller: Writer, house: TheHouse) -> Response:
    """Make a token. It is shown this once; only a hash of it is kept."""
    async with house.changing(request, caller) as session:
        username = wanted.account or caller.account.username
        statement = select(AccountRow).where(AccountRow.username == username, may_see(caller.account, AccountRow))
        account = (await session.exec(statement)).one_or_none()
        if account is None:
            raise invalid("account", "there is no such account")
        if account.id != caller.account.id and not may_change(caller.account, account.id, account.owner_id):
            raise Problem("not-allowed")
        token = new_token()
        expires_at = _end(wanted, caller)
        row = await tokens.create(
            session, account_id=account.id, name=wanted.name, scope=wanted.scope, token=token, expires_at=expires_at
        )
        shown = _shown(row, username) | {"token": token}
    return as_json(shown, 201, {"Location": f"/v1/tokens/{row.id}"})


@router.get("", response_model=Tokens)
async def list_tokens(request: Request, page: Annotated[Page, Query()], caller: Reader, house: TheHouse) -> Response:
    """The tokens of the accounts that you may see, by id."""
    after = cursor_value(page.cursor, int) or 0
    async with house.transactions.begin() as session:
        rows = await tokens.listed(session, caller.account, after=after, limit=page.limit + 1)
    return page_of(request, rows, limit=page.limit, key=lambda row: row[0].id, shape=lambda row: _shown(*row))


@router.delete("/{token_id}", status_code=204, response_class=Response)
async def revoke_token(token_id: Id, caller: Writer, house: TheHouse) -> Response:
    """Take a token away; it works no longer at once."""
    async with house.transactions.begin(caller.origin) as session:
        found = await tokens.visible(session, caller.account, token_id)
        if found is None:
            raise Problem("not-found")
        _, account = found
        if account.id != caller.account.id and not may_change(caller.account, account.id, account.owner_id):
            raise Problem("not-allowed")
        await tokens.revoke(session, token_id)
    return Response(status_code=204)


def _end(wanted: NewToken, caller: Caller) -> datetime | None:
    """When a token expires that another token makes: what does not last cannot make what lasts.

    Raises:
        Problem: `invalid`; it was to outlive the other one.
    """
    now, latest = datetime.now(UTC), caller.token_expires_at
    end = now + timedelta(days=wanted.expires_in_days) if wanted.expires_in_days else None
    if latest is None or (end is not None and end <= latest):
        return end
    if "expires_in_days" in wanted.model_fields_set:
        raise invalid("expires_in_days", f"the token that makes it lives {(latest - now).days} whole days more")
    return latest


def _shown(row: TokenRow, username: str) -> dict[str, Any]:
    shown = Token.model_validate({**row.model_dump(exclude={"token_hash", "account_id"}), "account": username})
    return shown.model_dump(mode="json")
