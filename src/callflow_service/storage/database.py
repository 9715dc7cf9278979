"""The way to PostgreSQL: connections, sessions, and what counts as unreachable."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar, cast

from asyncpg import InterfaceError, InternalClientError, PostgresError
from pydantic import SecretStr
from sqlalchemy import AdaptedConnection, QueuePool, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.errors import Overloaded, StorageUnavailable
from callflow_service.settings import driver_url
from callflow_service.storage.connecting import READ_ONLY, SERVER_TROUBLE, Connector, Wanted
from callflow_service.storage.statements import Driver, driver_of, has_driver, hold_driver, leave

# A replica that wants a query out of the way of what it replays tells so by this SQLSTATE.
_TROUBLE: Final = (*SERVER_TROUBLE, "40001")

# What breaks a connection, or comes of a broken one: asyncpg has an error apart for one that failed while it was idle.
_BROKEN: Final = (OSError, InterfaceError, InternalClientError)

_CAUGHT: Final = (TimeoutError, PoolTimeoutError, PostgresError, DBAPIError, *_BROKEN)

PLANNING: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""How PostgreSQL is to plan on our connections: each statement of a request is about a few rows, found by their keys.

The same index scans answer one whatever its parameters are, but where it takes a list it is planned anew each time,
which costs ten times what running it does. And for a plan that holds for lists of any length PostgreSQL expects many
rows, and reads tables of some thousand rows whole, several times for each lookup.
"""

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolUse:
    """How many connections a pool has at most, how many of them work now, and how many are open without work."""

    size: int
    in_use: int
    idle: int


class Database:
    """One pool of connections, and the sessions on it.

    Every statement is its own transaction (autocommit): each thing a caller can ask is saved by one statement, and
    round trips for BEGIN and COMMIT would double what a request costs.

    A session that has done its work stays at hand with its connection, for the next request: it holds no objects and no
    transaction, and the way in and out of a session and a pool costs as much as all else that an update needs.
    """

    def __init__(
        self,
        url: SecretStr,
        *,
        pool_size: int,
        timeout_ms: int,
        max_in_flight: int = 100_000,
        wanted: Wanted = "primary",
    ) -> None:
        self._timeout = timeout_ms / 1000
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._settling: set[asyncio.Task[None]] = set()
        self._at_hand: list[AsyncSession] = []
        self._turns = asyncio.Semaphore(pool_size)
        self._engine = create_async_engine(
            driver_url(url),
            isolation_level="AUTOCOMMIT",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=self._timeout,
            # Nothing is left open in autocommit, so there is nothing to roll back when a connection returns.
            pool_reset_on_return=None,
            connect_args={
                "async_creator_fn": Connector(wanted),
                "timeout": self._timeout,
                "server_settings": {"application_name": "callflow-service"},
            },
        )
        event.listen(self._engine.sync_engine, "connect", _prepare)

    @property
    def is_full(self) -> bool:
        """Whether as much is in work as may be."""
        return self._in_flight >= self._max_in_flight

    @property
    def pool_use(self) -> PoolUse:
        """What the pool's connections do at this moment."""
        pool = cast(QueuePool, self._engine.pool)
        at_hand = len(self._at_hand)
        return PoolUse(pool.size(), in_use=pool.checkedout() - at_hand, idle=pool.checkedin() + at_hand)

    async def run(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Do the work of one request on a session, within the time limit.

        Raises:
            StorageUnavailable: PostgreSQL cannot be reached, has no room, or did not answer in time; `Overloaded`
                where too much is in work already.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._in_turn(work)
        except TimeoutError as error:
            raise StorageUnavailable("no answer in time") from error
        except _CAUGHT as error:
            _raise_translated(error)

    async def read(self, work: Callable[[Driver], Awaitable[T]]) -> T:
        """Do the work of one request that only reads, on the driver's own connection; the caller bounds its time.

        Raises:
            StorageUnavailable: PostgreSQL cannot be reached, or has no room; `Overloaded` where too much is in work
                already.
        """
        try:
            return await self._in_turn(lambda session: work(driver_of(session)))
        except _CAUGHT as error:
            _raise_translated(error)

    async def _in_turn(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        if self.is_full:
            raise Overloaded
        self._in_flight += 1
        try:
            async with self._turns:
                session = await self._session()
                try:
                    found = await work(session)
                except BaseException as error:
                    if _is_clean(session, error):
                        self._at_hand.append(session)
                    else:
                        self._settle(session)
                    raise
                self._at_hand.append(session)
                return found
        finally:
            self._in_flight -= 1

    async def _session(self) -> AsyncSession:
        while self._at_hand:
            session = self._at_hand.pop()
            if not driver_of(session).is_closed():
                return session
            self._settle(session)
        session = AsyncSession(self._engine, autoflush=False)
        try:
            await hold_driver(session)
        except BaseException:
            self._settle(session)
            raise
        return session

    def _settle(self, session: AsyncSession) -> None:
        """Give up a session beside the requests: leaving a connection that hangs takes longer than a caller waits."""
        task = asyncio.create_task(_leave(session))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def close(self) -> None:
        """Close every connection."""
        while self._at_hand:
            await self._at_hand.pop().close()
        await self._engine.dispose()


def _raise_translated(error: Exception) -> NoReturn:
    # SQLAlchemy wraps what happens while it connects; a statement's errors come as the driver has them.
    cause = error.orig if isinstance(error, DBAPIError) else error
    state = str(getattr(cause, "sqlstate", None) or "")
    if not state or state.startswith(_TROUBLE):
        raise StorageUnavailable(type(cause).__name__) from error
    raise error


def _is_clean(session: AsyncSession, error: BaseException) -> bool:
    """Whether a session that an error came out of can serve the next request: no answer is outstanding on it."""
    if not isinstance(error, Exception) or isinstance(error, (*_BROKEN, SQLAlchemyError)):
        return False
    # On a server that takes no writes any more the connection works, and is of no use.
    return getattr(error, "sqlstate", None) != READ_ONLY and not driver_of(session).is_closed()


async def _leave(session: AsyncSession) -> None:
    if has_driver(session):
        await leave(driver_of(session))
    with suppress(Exception):
        await session.invalidate()


def _prepare(connection: AdaptedConnection, _: object) -> None:
    # Statements and not start-up parameters, which PgBouncer would refuse.
    settings = "; ".join(f"SET {name} = {value}" for name, value in PLANNING.items())
    connection.run_async(lambda driver: driver.execute(settings))
