"""Reach PostgreSQL past the service, to set the stage and to look."""

import asyncpg
from pydantic import SecretStr

from callflow_service.settings import driver_url


def asyncpg_url(url: SecretStr) -> str:
    """The URL as asyncpg itself takes it."""
    return driver_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


async def execute(url: SecretStr, statement: str) -> None:
    """Run a statement on a connection of its own."""
    connection = await asyncpg.connect(asyncpg_url(url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def fetch(url: SecretStr, statement: str) -> list[asyncpg.Record]:
    """The rows of a statement on a connection of its own."""
    connection = await asyncpg.connect(asyncpg_url(url))
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()
