"""Bring a database to this release's schema."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from alembic import command
from alembic.config import Config
from pydantic import SecretStr
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from callflow_service.domain.errors import StorageUnavailable
from callflow_service.settings import driver_url
from callflow_service.storage import locks
from callflow_service.storage.connecting import Connector, version_problem
from callflow_service.storage.revisions import MIGRATIONS

# A migration that waits for a lock makes everyone behind it wait too, and every call with them: it waits a moment,
# gives up what it has, and tries again.
_SESSION: Final = "SET lock_timeout = '200ms'; SET statement_timeout = '10min'"
_LOCK_NOT_AVAILABLE: Final = "55P03"
_ATTEMPTS: Final = 30
_REST_SECONDS: Final = 1.0
_ONE_AT_A_TIME: Final = f"SELECT pg_try_advisory_lock({locks.MIGRATING})"

_log = logging.getLogger(__name__)


def is_compared(_: object, name: str | None, kind: str, *__: object) -> bool:
    """Whether Alembic is to compare a thing with the tables: the search indexes are only where `pg_trgm` is."""
    return not (kind == "index" and (name or "").startswith("ix_search_"))


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, with the migrations of the installed package or of the source tree."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


async def with_connection(url: SecretStr, work: Callable[[Connection], None]) -> None:
    """Run `work` on a connection of its own, one migrating process at a time.

    Raises:
        OSError, DBAPIError: The database cannot be reached, or refused.
        StorageUnavailable: Its PostgreSQL is too old; nothing has changed.
    """
    connecting = {"async_creator_fn": Connector(), "timeout": 10}
    engine = create_async_engine(driver_url(url), poolclass=NullPool, connect_args=connecting)
    try:
        async with engine.connect() as connection:
            if problem := version_problem((await connection.get_raw_connection()).driver_connection):
                raise StorageUnavailable(problem)
            for statement in _SESSION.split("; "):
                await connection.exec_driver_sql(statement)
            await connection.commit()
            await _wait_for_others(connection)
            for attempt in range(_ATTEMPTS):
                try:
                    await connection.run_sync(work)
                    await connection.commit()
                except DBAPIError as error:
                    if attempt == _ATTEMPTS - 1 or getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                        raise
                    await connection.rollback()
                    await asyncio.sleep(_REST_SECONDS)
                else:
                    return
    finally:
        await engine.dispose()


async def _wait_for_others(connection: AsyncConnection) -> None:
    is_told = False
    while not (await connection.exec_driver_sql(_ONE_AT_A_TIME)).scalar_one():
        if not is_told:
            is_told = True
            _log.warning("Another process migrates this database; this one waits until that is done")
        await connection.commit()
        await asyncio.sleep(_REST_SECONDS)
    await connection.commit()


def migrate(url: SecretStr, revision: str = "head") -> None:
    """Upgrade the database to a revision, by default the newest.

    Raises:
        OSError, DBAPIError: The database cannot be reached, or refused.
        StorageUnavailable: Its PostgreSQL is too old; nothing has changed.
    """
    asyncio.run(with_connection(url, lambda connection: command.upgrade(alembic_config(connection), revision)))
