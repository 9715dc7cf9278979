"""A new API key for an account: made here, so that it is random, and shown this once."""

import secrets
from typing import Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlmodel import col

from callflow_service.api.dependencies import ApiRoute, TheHouse, Writer
from callflow_service.api.problems import Problem
from callflow_service.api.shapes import Id, as_json
from callflow_service.domain.access import may_change
from callflow_service.repositories import resources
from callflow_service.tables import AccountRow

router = APIRouter(prefix="/v1/accounts", tags=["Accounts"], route_class=ApiRoute)

_KEY_BYTES: Final = 24


class ShownApiKey(BaseModel):
    """An API key as it is shown once, when it is made."""

    api_key: str = Field(examples=["p0XfRrG1zJk3vQ8mTq7YwLs5bN2cHd4E"])


@router.post("/{account_id}/api_key", status_code=201, response_model=ShownApiKey)
async def make_api_key(request: Request, account_id: Id, caller: Writer, house: TheHouse) -> Response:
    """Give an account a new API key in place of the one that it has: requests signed with the old one fail at once."""
    if await request.body():
        raise Problem("invalid", "This call takes no body.", {"errors": []})
    async with house.changing(request, caller) as session:
        condition = col(AccountRow.id) == account_id
        row = await resources.one(session, resources.accounts(caller.account), condition, locked=AccountRow)
        if row is None:
            raise Problem("not-found")
        account: AccountRow = row[0]
        if not may_change(caller.account, account_id, account.owner_id):
            raise Problem("not-allowed")
        api_key = secrets.token_urlsafe(_KEY_BYTES)
        account.api_key = house.keys.encrypt(api_key)
        await session.flush()
    return as_json({"api_key": api_key}, 201)
