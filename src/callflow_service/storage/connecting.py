"""Connect to PostgreSQL: to the one server that is named, or to the right one of several."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import asyncpg
from asyncpg.exceptions import TargetServerAttributeNotMatched
from pydantic import SecretStr
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from callflow_service.domain.errors import StorageUnavailable
from callflow_service.settings import driver_url

MINIMAL_VERSION: Final = 15
"""The oldest PostgreSQL that the service was tried with."""

_CONNECT_SECONDS: Final = 10

READ_ONLY: Final = "25006"
"""The SQLSTATE of a server that takes no writes: a standby, or a primary that is one by now."""

SERVER_TROUBLE: Final = ("08", "28", "3D", "53", "57", "58", READ_ONLY)
"""SQLSTATE classes that speak of the server and not of the statement: connection, login, database, resources, operator
intervention, its files, its part."""

Wanted = Literal["primary", "any"]
"""asyncpg's `target_session_attrs`: which server will do, where several are named."""


class Connector:
    """Connects to one server after the other until one is what is wanted, first to the one that was so last time.

    Each gets its part of the time, so that a server that hangs leaves time for the next.
    """

    def __init__(self, wanted: Wanted = "primary") -> None:
        self._wanted: Final = wanted
        self._last = 0

    async def __call__(self, *, host: Any = None, port: Any = None, timeout: float = 10, **options: Any) -> Any:  # noqa: ANN401, ASYNC109 - asyncpg's own parameters
        """The connection, by the parameters of asyncpg's `connect`.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError: The server, or the last of several, cannot be used.
        """
        if "sslmode" in options:
            # As libpq names it, and so whoever writes the URL; asyncpg has it as `ssl`.
            options["ssl"] = options.pop("sslmode")
        if not isinstance(host, list):
            return await asyncpg.connect(host=host, port=port, timeout=timeout, **options)
        options.setdefault("target_session_attrs", self._wanted)
        servers = list(zip(host, port, strict=True))
        problem: Exception = ConnectionError("no server was named")
        # As it is now: another connection that is made meanwhile may change it, and this one would ask a server twice.
        first = self._last
        for turn in range(len(servers)):
            at = (first + turn) % len(servers)
            name, number = servers[at]
            try:
                connection = await asyncpg.connect(host=name, port=number, timeout=timeout / len(servers), **options)
            except TargetServerAttributeNotMatched:
                problem = ConnectionError(f"no server is {options['target_session_attrs']}")
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                problem = error
            else:
                self._last = at
                return connection
        raise problem


def connect_options(url: SecretStr) -> dict[str, Any]:
    """The database URL as the parameters of asyncpg's `connect`."""
    _, options = PGDialect_asyncpg().create_connect_args(driver_url(url))  # type: ignore[no-untyped-call]  # SQLAlchemy's dialects carry no types
    return dict(options)


async def connect(url: SecretStr, *, timeout: float) -> Any:  # noqa: ANN401, ASYNC109 - asyncpg carries no types, and has its own timeout
    """A connection of asyncpg's to the database, outside any pool.

    Raises:
        OSError, TimeoutError, asyncpg.PostgresError: It cannot be had within `timeout` seconds.
    """
    return await Connector()(timeout=timeout, **connect_options(url))


def version_problem(connection: asyncpg.Connection) -> str | None:
    """What keeps the service from working with the server of a connection, as a sentence; None where nothing does."""
    version = connection.get_server_version().major
    if version < MINIMAL_VERSION:
        return f"PostgreSQL {MINIMAL_VERSION} or later is needed; this one is {version}."
    return None


@asynccontextmanager
async def connected(url: SecretStr) -> AsyncIterator[asyncpg.Connection]:
    """A connection of a command's own, closed in the end.

    Raises:
        StorageUnavailable: The database cannot be reached, is too old, or has no tables.
    """
    try:
        connection = await connect(url, timeout=_CONNECT_SECONDS)
        try:
            if problem := version_problem(connection):
                raise StorageUnavailable(problem)
            yield connection
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
        raise StorageUnavailable(type(error).__name__) from error
    except asyncpg.UndefinedTableError as error:
        raise StorageUnavailable("The database has no tables yet; run 'callflow-service migrate'.") from error
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "").startswith(SERVER_TROUBLE):
            raise StorageUnavailable(type(error).__name__) from error
        raise
