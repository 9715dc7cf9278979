"""Run one statement on a session's own connection."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from sqlalchemy.orm import Session
from sqlmodel.ext.asyncio.session import AsyncSession

Driver = Any
"""asyncpg's connection, which carries no types."""

_DRIVER: Final = "driver"
_GOODBYE_SECONDS: Final = 2


async def hold_driver(session: AsyncSession) -> None:
    """Give a session its connection, which it holds from now on."""
    session.info[_DRIVER] = await session.run_sync(_driver)


def has_driver(session: AsyncSession) -> bool:
    """Whether a session was given its connection."""
    return _DRIVER in session.info


def driver_of(session: AsyncSession) -> Driver:
    """The driver's connection beneath a session."""
    return session.info[_DRIVER]


async def fetch(session: AsyncSession, statement: str, parameters: tuple[object, ...]) -> Sequence[Any]:
    """The rows of one statement, written for the driver with `$1` and on for its parameters.

    The connection is the session's, from its pool; the statement goes to asyncpg, which prepares it once for each
    connection. The layers between cost a request several times what PostgreSQL does (see `docs/performance.md`).

    Raises:
        asyncpg.PostgresError: PostgreSQL refused the statement.
        OSError, asyncpg.InterfaceError: The connection broke.
    """
    rows: Sequence[Any] = await driver_of(session).fetch(statement, *parameters)
    return rows


async def leave(driver: Driver) -> None:
    """Close a connection in peace, where that goes quickly: cut off, the server would work on for nobody."""
    with suppress(Exception):
        await driver.close(timeout=_GOODBYE_SECONDS)
    driver.terminate()


def _driver(session: Session) -> Driver:
    return session.connection().connection.driver_connection
