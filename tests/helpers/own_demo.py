"""A demo of a test's own, for what changes accounts or breaks the database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from pydantic import SecretStr

from callflow_service.settings import driver_url
from callflow_service.world.loading import DEMO_FILE, load_world
from encryption import KEYS


@dataclass(frozen=True, slots=True)
class OwnDemo:
    """The demo data in a database that no other test uses, and a connection to it."""

    url: SecretStr
    database: asyncpg.Connection


async def connect(url: SecretStr) -> asyncpg.Connection:
    return await asyncpg.connect(driver_url(url).set(drivername="postgresql").render_as_string(hide_password=False))


@asynccontextmanager
async def open_own_demo(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> AsyncIterator[OwnDemo]:
    url = await asyncio.to_thread(create_database, migrated_url)
    await load_world(url, DEMO_FILE, keys=KEYS, demo=True)
    database = await connect(url)
    try:
        yield OwnDemo(url, database)
    finally:
        await database.close()
