"""Transactions of several statements: lists, searches and bulk changes, on SQLModel's sessions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.errors import StorageUnavailable
from callflow_service.settings import driver_url
from callflow_service.storage.connecting import SERVER_TROUBLE, Connector

_UNUSED_SECONDS: Final = 300


class Transactions:
    """A few connections beside the pool of `database`, with PostgreSQL's usual planner settings.

    They are apart so that a long list never holds a connection that a call waits for.
    """

    def __init__(self, url: SecretStr, *, size: int, timeout_ms: int) -> None:
        self._timeout: Final = timeout_ms / 1000
        self._engine = create_async_engine(
            driver_url(url),
            pool_size=size,
            max_overflow=0,
            pool_timeout=self._timeout,
            pool_pre_ping=True,
            pool_recycle=_UNUSED_SECONDS,
            connect_args={
                "async_creator_fn": Connector(),
                "timeout": self._timeout,
                "server_settings": {"application_name": "callflow-service"},
            },
        )

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """A session in a transaction: committed at the end, taken back where an error comes out.

        Raises:
            StorageUnavailable: PostgreSQL cannot be reached, has no room, or did not answer in time.
        """
        try:
            async with (
                asyncio.timeout(self._timeout),
                AsyncSession(self._engine, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session
        except (TimeoutError, PoolTimeoutError) as error:
            raise StorageUnavailable("no answer in time") from error
        except OSError as error:
            raise StorageUnavailable(type(error).__name__) from error
        except DBAPIError as error:
            state = str(getattr(error.orig, "sqlstate", None) or "")
            if error.connection_invalidated or state.startswith(SERVER_TROUBLE):
                raise StorageUnavailable(type(error.orig).__name__) from error
            raise

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
