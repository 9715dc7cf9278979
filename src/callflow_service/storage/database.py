"""The way to PostgreSQL: one pool of connections, how long a request waits for it, and what counts as unreachable."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Self, TypeVar

import asyncpg
from asyncpg import InterfaceError, InternalClientError, PostgresError
from asyncpg.pool import PoolConnectionHolder, PoolConnectionProxy
from pydantic import SecretStr

from callflow_service.domain.errors import Overloaded, StorageUnavailable
from callflow_service.storage.connecting import READ_ONLY, SERVER_TROUBLE, Connector, Wanted, connect_options
from callflow_service.unpromised import need

# A replica that wants a query out of the way of what it replays says so by this SQLSTATE.
_TROUBLE: Final = (*SERVER_TROUBLE, "40001")

_UNUSED_SECONDS: Final = 60.0
_SURE_SECONDS: Final = 1.0
_PING_SECONDS: Final = 0.1
_GOODBYE_SECONDS: Final = 2.0

PING: Final = "SELECT"
"""Sent on a connection that nobody used for a while: a firewall may have forgotten it, and then nothing comes back."""

PLANNING: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""How PostgreSQL plans on the pool's connections: every statement here is answered by index scans.

A generic plan avoids planning statements with array parameters anew each time, which takes ten times what running them
does. Without the other settings PostgreSQL would expect many rows for a list of any length, and read tables of some
thousand rows whole.
"""

_ONE_STATEMENT: Final = "callflow.one_statement"
"""Tells the history that what comes on a connection is its own transaction, see migration 0005."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PoolUse:
    """How many connections a pool has at most, how many of them work now, and how many are open without work."""

    size: int
    in_use: int
    idle: int


def check_asyncpg() -> None:
    """Check that asyncpg's pool still has what is used of it without its promise.

    Raises:
        LibraryChanged: It lacks a name.
    """
    need(PoolConnectionProxy, "_holder")
    need(PoolConnectionHolder, "release")


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg carries no types
    """A connection that knows when it last answered."""

    __slots__ = ("used_at",)

    async def reset(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109, ARG002 - asyncpg's own parameter
        """Nothing is left to reset, see `Database`."""
        self.used_at = time.monotonic()


class Database:
    """The pool of connections for what is found by keys; `transactions` is the way for everything else.

    Every statement is its own transaction (autocommit): each change is saved by one statement, and round trips for
    BEGIN and COMMIT would double what a request costs. So a connection that comes back has nothing to be reset.
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
        check_asyncpg()
        self._size: Final = pool_size
        self._max_in_flight: Final = max_in_flight
        self._in_flight = 0
        self._timeout: Final = timeout_ms / 1000
        self._options: Final = connect_options(url) | {"server_settings": {"application_name": "callflow-service"}}
        self._connector: Final = Connector(wanted)
        self._pool: Any = None
        # When a connection last turned out to be dead: those that nobody used since may be, too.
        self._died_at = float("-inf")
        self._returning: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Whether as much is in work as may be."""
        return self._in_flight >= self._max_in_flight

    @property
    def pool_use(self) -> PoolUse:
        """What the pool's connections do at this moment."""
        if self._pool is None:
            return PoolUse(self._size, in_use=0, idle=0)
        idle = self._pool.get_idle_size()
        return PoolUse(self._size, in_use=self._pool.get_size() - idle, idle=idle)

    def ticket(self) -> "Ticket":
        """Room for one request, to be entered with `with`: counted once, however many statements it takes.

        Raises:
            Overloaded: Too much is in work already.
        """
        return Ticket(self, self._timeout)

    async def run(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Do the work of one request on a connection, within the time limit.

        Raises:
            StorageUnavailable: PostgreSQL cannot be reached, has no room, or did not answer in time; `Overloaded`
                where too much is in work already.
        """
        with self.ticket() as ticket:
            return await ticket.run(work)

    async def close(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await self._pool.close()

    async def _work(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            connection = await self._acquire()
        except (OSError, InterfaceError, InternalClientError) as error:
            _raise_unavailable(error)
        try:
            found = await work(connection)
        except BaseException as error:
            is_broken = isinstance(error, (OSError, InternalClientError)) or (
                # A statement that cannot be sent is a defect of ours, and the connection is as good as before.
                isinstance(error, InterfaceError) and _is_lost(connection)
            )
            # Where the server takes no writes any more, the connection works but cannot serve updates.
            if is_broken or getattr(error, "sqlstate", None) == READ_ONLY:
                _terminate(connection)
            # Beside the request: where an answer is outstanding it is cancelled first, which may take its time.
            task = asyncio.create_task(self._give_back(connection))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)
            if is_broken:
                _raise_unavailable(error)
            raise
        # What `Pool.release` does, but for the task that it makes of it: after work that went well nothing is waited
        # for here, so there is nothing that a cancellation could break off.
        await connection._holder.release(None)  # noqa: SLF001 - see check_asyncpg
        return found

    async def _give_back(self, connection: asyncpg.Connection) -> None:
        with suppress(Exception):
            await self._pool.release(connection, timeout=_GOODBYE_SECONDS)

    async def _acquire(self) -> asyncpg.Connection:
        """A connection that answers, or was used so lately that it will."""
        pool = self._pool
        if pool is None:
            pool = self._pool = await self._open()
        while True:
            connection = await pool.acquire()
            if connection.used_at > self._died_at:
                if time.monotonic() - connection.used_at < _SURE_SECONDS:
                    return connection
                try:
                    if await _answers(connection):
                        return connection
                except BaseException:
                    _terminate(connection)
                    raise
                self._died_at = time.monotonic()
            _terminate(connection)

    async def _open(self) -> Any:  # noqa: ANN401 - asyncpg carries no types
        # With no connection to begin with nothing is awaited here, so no other request comes in between.
        return await asyncpg.create_pool(
            min_size=0,
            max_size=self._size,
            max_queries=sys.maxsize,
            max_inactive_connection_lifetime=_UNUSED_SECONDS,
            connect=self._connect,
            connection_class=_Connection,
            init=_prepare,
        )

    async def _connect(self, _dsn: None, **options: object) -> asyncpg.Connection:
        return await self._connector(timeout=self._timeout, **self._options, **options)


class Ticket:
    """Room for one request, and what is left of the time that it may wait for the database."""

    __slots__ = ("_database", "_left")

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self._left = seconds

    def __enter__(self) -> Self:
        database = self._database
        if database.is_full:
            raise Overloaded
        database._in_flight += 1  # noqa: SLF001 - its other half
        return self

    def __exit__(self, *_: object) -> None:
        self._database._in_flight -= 1  # noqa: SLF001 - its other half

    async def run(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Do some of the request's work on a connection; what waits in between does not count.

        Raises:
            StorageUnavailable: PostgreSQL cannot be reached, has no room, or did not answer in time.
        """
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._left):
                return await self._database._work(work)  # noqa: SLF001 - its other half
        except TimeoutError as error:
            raise StorageUnavailable("no answer in time") from error
        except PostgresError as error:
            if (error.sqlstate or "").startswith(_TROUBLE):
                _raise_unavailable(error)
            raise
        finally:
            self._left -= time.monotonic() - started


async def _answers(connection: asyncpg.Connection) -> bool:
    try:
        async with asyncio.timeout(_PING_SECONDS):
            await connection.execute(PING)
    except (TimeoutError, OSError, PostgresError, InterfaceError, InternalClientError):
        return False
    return True


def _is_lost(connection: asyncpg.Connection) -> bool:
    try:
        return bool(connection.is_closed())
    except InterfaceError:
        # The pool has taken it back already.
        return True


def _terminate(connection: asyncpg.Connection) -> None:
    with suppress(InterfaceError):
        connection.terminate()


def _raise_unavailable(error: BaseException) -> NoReturn:
    raise StorageUnavailable(type(error).__name__) from error


async def _prepare(connection: _Connection) -> None:
    # Statements and not start-up parameters, which PgBouncer would refuse.
    settings = PLANNING | {_ONE_STATEMENT: "on"}
    await connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in settings.items()))
    await connection.reset()
