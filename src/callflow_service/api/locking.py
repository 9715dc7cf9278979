"""Lock an account: no device of it or below it forwards to a number; and open it again."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import or_, select
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.bulk import BulkChanged, one_at_a_time, told, written
from callflow_service.api.dependencies import ApiRoute, Caller, TheHouse, Writer
from callflow_service.api.problems import Problem
from callflow_service.api.profiles import Withdrawn, put_back, refuse_body, rings
from callflow_service.api.shapes import Id, as_json
from callflow_service.domain.access import may_change
from callflow_service.repositories import locks, many, resources
from callflow_service.repositories.many import Holder
from callflow_service.storage.transactions import driver
from callflow_service.tables import AccountRow

router = APIRouter(prefix="/v1/accounts", tags=["Accounts"], route_class=ApiRoute)


class Locked(BaseModel):
    """What came of it."""

    changed: int = Field(description="How many states of devices led to numbers, and are empty now")
    changes: list[BulkChanged] = Field(description="The first 1,000 of them")


@router.post("/{account_id}/lock", response_model=Locked)
async def lock_account(
    request: Request, account_id: Annotated[Id, Path()], caller: Writer, house: TheHouse
) -> Response:
    """Empty every state of the account's devices, and of those below it, that leads to a number, and remember them.

    Until it is unlocked no forward to a number is set for them, and none acts. Locked once more, what leads to a number
    all the same is emptied too; remembered is what was there first.
    """
    await refuse_body(request)
    async with house.changing(request, caller, house.bulk) as session:
        connection = await driver(session)
        await one_at_a_time(connection)
        await _check_above(session, caller, account_id)
        await _choose_below(session, caller, account_id)
        holder = Holder("lock", account_id)
        # Alone from the start: who comes later finds the lock, who came before has left what is emptied.
        await many.alone(connection)
        await locks.lock(connection, account_id)
        await many.stage_without_numbers(connection)
        entries = await many.tell(connection, caller.origin, holder)
        await written(connection, caller.origin, entries, holder)
        result = await told(connection, 0)
    return as_json({"changed": result["changed"], "changes": result["changes"]})


@router.post("/{account_id}/unlock", response_model=Withdrawn)
async def unlock_account(
    request: Request, account_id: Annotated[Id, Path()], caller: Writer, house: TheHouse
) -> Response:
    """Put back what was there before the account was locked, in each state that nobody has changed since."""
    await refuse_body(request)
    async with house.changing(request, caller, house.bulk) as session:
        connection = await driver(session)
        await one_at_a_time(connection)
        await _check_above(session, caller, account_id)
        holder = Holder("lock", account_id)
        await many.choose_remembered(session, caller.account, holder)
        await many.stage_back(connection, holder)
        await many.leave(connection, await rings(connection), "loop")
        entries = await many.tell(connection, caller.origin)
        await many.alone(connection)
        result = await put_back(connection, caller, entries, holder)
        await locks.unlock(connection, account_id)
    return as_json(result)


async def _check_above(session: AsyncSession, caller: Caller, account_id: int) -> None:
    """Refuse those who are not above the account: it must not open itself what was locked.

    Raises:
        Problem: `not-found` or `not-allowed`.
    """
    row = await resources.one(session, resources.accounts(caller.account), col(AccountRow.id) == account_id)
    if row is None:
        raise Problem("not-found")
    if not may_change(caller.account, row[0].id, row[0].owner_id):
        raise Problem("not-allowed")


async def _choose_below(session: AsyncSession, caller: Caller, account_id: int) -> None:
    below = select(col(AccountRow.id)).where(col(AccountRow.owner_id) == account_id)
    statement = resources.devices(caller.account).where(
        or_(
            col(AccountRow.id) == account_id,
            col(AccountRow.owner_id) == account_id,
            col(AccountRow.owner_id).in_(below.correlate(None)),
        )
    )
    await many.choose(session, statement)
