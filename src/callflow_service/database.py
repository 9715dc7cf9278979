"""The way to PostgreSQL: connections, sessions, and what counts as unreachable."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from asyncpg import InterfaceError, PostgresError
from pydantic import SecretStr
from sqlalchemy import AdaptedConnection, PoolProxiedConnection, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.errors import StorageUnavailable
from callflow_service.repositories.statements import Driver, leave
from callflow_service.revisions import known_revisions
from callflow_service.settings import driver_url

MINIMAL_VERSION: Final = 18
"""The oldest PostgreSQL that knows our statements (`RETURNING old, new`)."""

# SQLSTATE classes that speak of the server and not of the statement: connection, login, database, resources, operator
# intervention; then a replica that wants a query out of the way of what it replays, and one that was asked to write.
_SERVER_TROUBLE: Final = ("08", "28", "3D", "53", "57", "58", "40001", "25006")

_REPLICA_REST_SECONDS: Final = 1.0
_SETTLE_SECONDS: Final = 2

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Database:
    """One pool of connections, and the sessions on it.

    Every statement is its own transaction (autocommit): each thing a caller can ask is saved by one statement, and
    round trips for BEGIN and COMMIT would double what a request costs.
    """

    def __init__(self, url: SecretStr, *, pool_size: int, timeout_ms: int) -> None:
        self._timeout = timeout_ms / 1000
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._at_hand: list[PoolProxiedConnection] = []
        # The other half is always there for sessions.
        self._most_at_hand = pool_size // 2
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
        event.listen(self._engine.sync_engine, "connect", _prepare)
        event.listen(self._engine.sync_engine, "checkout", _refuse_closed)

    async def run(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Do the work of one request on a session of its own, within the time limit.

        Raises:
            StorageUnavailable: PostgreSQL cannot be reached, has no room, or did not answer in time.
        """
        task = asyncio.create_task(self._work(work))
        try:
            done, _ = await asyncio.wait((task,), timeout=self._timeout)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not done:
            self._abandon(task)
            raise StorageUnavailable("no answer in time")
        return task.result()

    async def _work(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        with _translated_errors():
            session = AsyncSession(self._engine, autoflush=False)
            try:
                return await work(session)
            finally:
                await session.close()

    async def read(self, work: Callable[[Driver], Awaitable[T]]) -> T:
        """Do the work of one request that only reads, on the driver's own connection; the caller bounds its time.

        Every call waits for a switch's question, and what a session costs is more than the one statement in it.

        Raises:
            StorageUnavailable: PostgreSQL cannot be reached, or has no room.
        """
        with _translated_errors():
            pooled = await self._checked_out()
            try:
                found = await work(pooled.driver_connection)
            except BaseException:
                self._keep(asyncio.create_task(_settle(pooled)))
                raise
            self._put_back(pooled)
            return found

    async def _checked_out(self) -> PoolProxiedConnection:
        while self._at_hand:
            pooled = self._at_hand.pop()
            driver: Driver = pooled.driver_connection
            if not driver.is_closed():
                return pooled
            pooled.invalidate()
        return await self._engine.raw_connection()

    def _put_back(self, pooled: PoolProxiedConnection) -> None:
        """Keep a connection at hand for the next read: the pool's own way in and out costs as much as the statement."""
        if len(self._at_hand) < self._most_at_hand:
            self._at_hand.append(pooled)
        else:
            pooled.close()

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        """Let a task end by itself: taking leave of a connection that hangs takes longer than a caller should wait."""
        task.cancel()
        self._keep(task)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            # Looked at, so that it is not reported as never looked at; nobody waits for it any more.
            task.exception()

    async def close(self) -> None:
        """Close every connection."""
        while self._at_hand:
            self._at_hand.pop().close()
        await self._engine.dispose()


class Reading:
    """Where facts are read that may be a moment old: from a replica, and from the primary while that is away.

    A replica that was away is asked again after `_REPLICA_REST_SECONDS`, so that not every call waits for it.
    """

    def __init__(self, replica: Database, primary: Database, *, timeout_ms: int) -> None:
        self._timeout = timeout_ms / 1000
        self._replica = replica
        self._primary = primary
        self._was_away = False
        self._rests_until = float("-inf")

    async def read(self, work: Callable[[Driver], Awaitable[T]]) -> T:
        """Do the work of one request that only reads.

        Raises:
            StorageUnavailable: Neither can be asked.
        """
        if time.monotonic() < self._rests_until:
            return await self._primary.read(work)
        if self._was_away:
            # One call tries whether the replica is back; those beside it need not wait.
            self._rests_until = time.monotonic() + _REPLICA_REST_SECONDS
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._replica.read(work)
        except (StorageUnavailable, TimeoutError) as error:
            self._was_away = True
            self._rests_until = time.monotonic() + _REPLICA_REST_SECONDS
            _log.warning(
                "The replica cannot be asked (%s); lookups go to the primary", str(error) or "no answer in time"
            )
            return await self._primary.read(work)
        self._was_away = False
        self._rests_until = float("-inf")
        return found

    async def close(self) -> None:
        """Close every connection to the replica."""
        await self._replica.close()


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, TimeoutError, PoolTimeoutError) as error:
        raise StorageUnavailable(type(error).__name__) from error
    except (PostgresError, InterfaceError, DBAPIError) as error:
        # SQLAlchemy wraps what happens while it connects; a statement's errors come as the driver has them.
        cause = error.orig if isinstance(error, DBAPIError) else error
        state = str(getattr(cause, "sqlstate", None) or "")
        if not state or state.startswith(_SERVER_TROUBLE):
            raise StorageUnavailable(type(cause).__name__) from error
        raise


async def _settle(pooled: PoolProxiedConnection) -> None:
    """Give a connection that was perhaps left in the middle back to the pool once it answers again, else close it.

    To close it at once would cost a connection for each caller whose time ran out, just when there is the least time to
    make new ones.
    """
    driver: Driver = pooled.driver_connection
    try:
        # The driver tells the server to stop, and lets nothing else through until it has.
        await driver.execute("SELECT", timeout=_SETTLE_SECONDS)
    except Exception:  # noqa: BLE001 - whatever it was, the connection is of no use
        pooled.detach()
        await leave(driver)
    else:
        pooled.close()


def _prepare(connection: AdaptedConnection, _: object) -> None:
    # Every statement of ours is answered by the same index scans whatever its parameters are, but one that takes a
    # list is planned anew each time, which costs ten times what running it does. A statement and not a start-up
    # parameter, which PgBouncer would refuse.
    connection.run_async(lambda driver: driver.execute("SET plan_cache_mode = force_generic_plan"))


def _refuse_closed(connection: AdaptedConnection, *_: object) -> None:
    # The server went away and may be back: the pool makes a new connection. It would not see this by itself, for
    # statements pass it by; and a session cannot leave its connection for another once it has one.
    if connection.driver_connection.is_closed():
        raise DisconnectionError


async def schema_problem(session: AsyncSession) -> str | None:
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
    known = known_revisions()
    if revision is None or revision in known[:-1]:
        return "The database has an older schema than this release; run 'callflow-service migrate'."
    return None
