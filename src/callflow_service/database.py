"""The way to PostgreSQL: connections, sessions, and what counts as unreachable."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.errors import StorageUnavailable
from callflow_service.settings import driver_url

MINIMAL_VERSION: Final = 18
"""The oldest PostgreSQL that knows our statements (`RETURNING old, new`)."""

# SQLSTATE classes that speak of the server and not of the statement: connection, resources, operator intervention.
_SERVER_TROUBLE: Final = ("08", "53", "57", "58", "25006")

_CLOCK: Final = "clock"


class Database:
    """One pool of connections, and the sessions on it.

    Every statement is its own transaction (autocommit): each thing a caller can ask is saved by one statement, and
    round trips for BEGIN and COMMIT would double what a request costs.
    """

    def __init__(self, url: SecretStr, *, pool_size: int, timeout_ms: int) -> None:
        self._timeout = timeout_ms / 1000
        self._engine = create_async_engine(
            driver_url(url),
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=self._timeout,
            # Nothing is left open in autocommit, so there is nothing to roll back when a connection returns.
            pool_reset_on_return=None,
            connect_args={"timeout": self._timeout, "server_settings": {"application_name": "callflow-service"}},
        )

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A session for one request.

        Raises:
            StorageUnavailable: PostgreSQL cannot be reached, has no room, or did not answer in time.
        """
        try:
            async with (
                asyncio.timeout(self._timeout) as clock,
                AsyncSession(self._engine, autoflush=False, info={_CLOCK: (clock, self._timeout)}) as session,
            ):
                yield session
        except (OSError, TimeoutError, PoolTimeoutError) as error:
            raise StorageUnavailable(type(error).__name__) from error
        except DBAPIError as error:
            state = str(getattr(error.orig, "sqlstate", "") or "")
            if error.connection_invalidated or not state or state.startswith(_SERVER_TROUBLE):
                raise StorageUnavailable(type(error.orig).__name__) from error
            raise

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


@asynccontextmanager
async def off_the_clock(session: AsyncSession) -> AsyncIterator[None]:
    """Let go of the connection for slow work that is not the database's, and do not count the time that it takes.

    The session takes a new connection when it is next used, and has all of its time again.
    """
    clock, timeout = session.info[_CLOCK]
    await session.close()
    clock.reschedule(None)
    yield
    clock.reschedule(asyncio.get_running_loop().time() + timeout)


async def schema_problem(session: AsyncSession, script: ScriptDirectory) -> str | None:
    """What keeps the service from working on this database, as a sentence; None where nothing does.

    A revision that this release does not know is a newer one's, and newer schemas serve older releases.
    """
    connection = await session.connection()
    version = (await connection.exec_driver_sql("SHOW server_version_num")).scalar_one()
    if int(version) < MINIMAL_VERSION * 10_000:
        return f"PostgreSQL {MINIMAL_VERSION} or later is needed; this one is {int(version) // 10_000}."
    table = (await connection.exec_driver_sql("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar_one()
    if not table:
        return "The database has no tables yet; run 'callflow-service migrate'."
    revision = (await connection.exec_driver_sql("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    known = {script_revision.revision for script_revision in script.walk_revisions()}
    if revision is None or (revision in known and revision != script.get_current_head()):
        return "The database has an older schema than this release; run 'callflow-service migrate'."
    return None
