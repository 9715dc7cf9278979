"""Transactions of several statements: lists, searches and bulk changes, on SQLModel's sessions."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from asyncpg import Connection, InterfaceError, PostgresError
from pydantic import SecretStr
from sqlalchemy import Executable, Result, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.errors import StorageUnavailable
from callflow_service.domain.history import Origin
from callflow_service.settings import driver_url
from callflow_service.storage import locks
from callflow_service.storage.connecting import SERVER_TROUBLE, Connector
from callflow_service.storage.waking import Tell

_UNUSED_SECONDS: Final = 300
# 40: taken back for another transaction, as in a deadlock; the same request can succeed.
_TRY_AGAIN: Final = (*SERVER_TROUBLE, "40")


class Transactions:
    """A few connections beside the pool of `database`, with PostgreSQL's usual planner settings.

    They are apart so that a long list never holds a connection that a call waits for. A transaction may take as long as
    to get a connection, or `seconds`. `tell` is called after each one with an origin.
    """

    def __init__(
        self,
        url: SecretStr,
        *,
        size: int,
        timeout_ms: int,
        seconds: float | None = None,
        tell: Tell | None = None,
    ) -> None:
        timeout = timeout_ms / 1000
        self._seconds: Final = timeout if seconds is None else seconds
        self._tell: Final = tell
        self._engine = create_async_engine(
            driver_url(url),
            pool_size=size,
            max_overflow=0,
            pool_timeout=timeout,
            pool_pre_ping=True,
            pool_recycle=_UNUSED_SECONDS,
            connect_args={
                "async_creator_fn": Connector(),
                "timeout": timeout,
                "server_settings": {"application_name": "callflow-service"},
            },
        )

    @asynccontextmanager
    async def begin(self, origin: Origin | None = None) -> AsyncIterator[AsyncSession]:
        """A session in a transaction: committed at the end, taken back where an error comes out.

        What it changes goes into the history under `origin`. It begins after a bulk change that is being written.

        Raises:
            StorageUnavailable: PostgreSQL cannot be reached, has no room, or did not answer in time.
        """
        try:
            async with (
                asyncio.timeout(self._seconds),
                AsyncSession(self._engine, expire_on_commit=False) as session,
                session.begin(),
            ):
                if origin:
                    await set_origin(session, origin)
                yield session
            if origin and self._tell:
                self._tell()
        except (TimeoutError, PoolTimeoutError) as error:
            raise StorageUnavailable("no answer in time") from error
        except OSError as error:
            raise StorageUnavailable(type(error).__name__) from error
        except DBAPIError as error:
            state = str(getattr(error.orig, "sqlstate", None) or "")
            if error.connection_invalidated or state.startswith(_TRY_AGAIN):
                raise StorageUnavailable(type(error.orig).__name__) from error
            raise
        except (PostgresError, InterfaceError) as error:
            # Of a statement that went to the driver itself; its InterfaceError is a connection that is closed.
            if isinstance(error, InterfaceError) or str(error.sqlstate or "").startswith(_TRY_AGAIN):
                raise StorageUnavailable(type(error).__name__) from error
            raise

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


async def run(session: AsyncSession, statement: Executable, **parameters: object) -> Result[Any]:
    """The rows of a statement; one that selects a single table gives rows of one value."""
    result: Result[Any] = await session.exec(statement, params=parameters)  # type: ignore[call-overload]  # SQLModel types its own select() alone
    return result


async def set_origin(session: AsyncSession, origin: Origin) -> None:
    """What is changed from now on goes into the history under `origin`."""
    await run(session, _SET_ORIGIN, origin=_written(origin), lock=locks.CHANGING)


async def plan_anew(session: AsyncSession) -> None:
    """Have each statement of the transaction planned for its parameters, and not once for any.

    A list is found in another way for one account or text than for another, and a plan for any of them may read it all.
    """
    await run(session, _PLAN_ANEW)


async def driver(session: AsyncSession) -> Connection:
    """The driver's connection beneath a transaction, for statements that are written for it."""
    await run(session, _NOTHING)
    raw = (await (await session.connection()).get_raw_connection()).driver_connection
    return cast(Connection, raw)


# The transaction begins on the connection with the first statement, and not before.
_NOTHING: Final = text("SELECT")
_PLAN_ANEW: Final = text("SELECT set_config('plan_cache_mode', 'force_custom_plan', true)")
# Behind a pooler the connection may have been one of `database`, whose statements are transactions of their own.
_SET_ORIGIN: Final = text("""
SELECT set_config('callflow.origin', :origin, true), set_config('callflow.one_statement', 'off', true),
    pg_advisory_xact_lock_shared(:lock)""")


def _written(origin: Origin) -> str:
    return json.dumps(
        {
            "account": origin.account_id,
            "face": origin.face,
            "address": str(origin.sender.address) if origin.sender.address else None,
            "request_id": origin.sender.request_id,
            "undoes": origin.undoes,
        }
    )
