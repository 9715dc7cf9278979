"""Run one statement on a session's own connection."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CursorResult
from sqlmodel.ext.asyncio.session import AsyncSession


async def run(session: AsyncSession, statement: str, parameters: tuple[object, ...]) -> CursorResult[Any]:
    """Run a statement written for the driver, `$1` and on for its parameters.

    It goes past SQLAlchemy's compiler, which costs a request more than PostgreSQL does; asyncpg prepares each statement
    once for each connection.
    """
    connection = await session.connection()
    return await connection.exec_driver_sql(statement, parameters)


async def fetch(session: AsyncSession, statement: str, parameters: tuple[object, ...]) -> Sequence[Any]:
    """The rows of one statement, each a tuple in the order of its columns."""
    return (await run(session, statement, parameters)).all()
