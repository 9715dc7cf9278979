"""A real PostgreSQL for every test.

It is the one of CALLFLOW_TEST_DATABASE_URL, else one that is started: with the programs in CALLFLOW_TEST_POSTGRESQL,
else the embedded one.
"""

import asyncio
import atexit
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio
import uvicorn
from pydantic import SecretStr

from callflow_service.app import MakeFaces, all_faces, create_app
from callflow_service.settings import Settings, driver_url
from callflow_service.storage.embedded import start_embedded
from callflow_service.storage.migrating import migrate
from callflow_service.world.loading import DEMO_FILE, load_world
from clusters import OTHER_PROGRAMS, new_cluster
from encryption import KEY, KEYS
from postgresql import asyncpg_url, execute

StartService = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[SecretStr]:
    """The address of the server's own database."""
    given = os.environ.get("CALLFLOW_TEST_DATABASE_URL")
    if given:
        yield SecretStr(given)
        return
    folder = tempfile.mkdtemp(prefix="callflow-test-")
    if OTHER_PROGRAMS:
        cluster = new_cluster(Path(folder) / "other")
        with cluster.running():
            yield cluster.url
        shutil.rmtree(folder)
        return
    # Called last of all: the server registers its own end when it starts.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server = start_embedded(Path(folder))
    # What the tests write need not outlive the machine.
    for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):
        asyncio.run(execute(server, statement))
    yield server


@pytest.fixture(scope="session")
def create_database(postgresql: SecretStr) -> Iterator[Callable[..., SecretStr]]:
    """Make an empty database, or a copy of another one; all are dropped in the end."""
    made: list[str] = []

    def create(template: SecretStr | None = None) -> SecretStr:
        name = f"callflow_test_{uuid4().hex[:12]}"
        source = f' TEMPLATE "{driver_url(template).database}"' if template else ""
        asyncio.run(execute(postgresql, f'CREATE DATABASE "{name}"{source}'))
        made.append(name)
        return SecretStr(driver_url(postgresql).set(database=name).render_as_string(hide_password=False))

    yield create
    for name in made:
        asyncio.run(execute(postgresql, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def migrated_url(create_database: Callable[..., SecretStr]) -> SecretStr:
    """An empty database with the schema, to be copied and left alone."""
    url = create_database()
    migrate(url)
    return url


@pytest.fixture(scope="session")
def demo_url(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> SecretStr:
    """A database with the demo data, which the tests of the demo's world share."""
    url = create_database(migrated_url)
    asyncio.run(load_world(url, DEMO_FILE, keys=KEYS, demo=True))
    return url


@pytest.fixture(scope="session")
def demo_template(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> SecretStr:
    """A database with the demo data, to be copied and left alone."""
    url = create_database(migrated_url)
    asyncio.run(load_world(url, DEMO_FILE, keys=KEYS, demo=True))
    return url


@pytest.fixture
def own_url(create_database: Callable[..., SecretStr], demo_template: SecretStr) -> SecretStr:
    """The demo data in a database that no other test uses."""
    return create_database(demo_template)


@pytest_asyncio.fixture(scope="session")
async def start_service() -> AsyncIterator[StartService]:
    """Serve the application on a free port, with the settings given, and get an HTTP client for it."""
    async with AsyncExitStack() as running:

        async def start(url: SecretStr, *, make_faces: MakeFaces = all_faces, **settings: Any) -> httpx.AsyncClient:
            # Most tests are wrong on purpose, and all of them from one address.
            usual = {"database_url": url, "encryption_keys": KEY, "guess_limit": "1000000/minute"}
            usual["address_guess_limit"] = "1000000/minute"
            app = create_app(Settings(**(usual | settings)), make_faces)
            config = uvicorn.Config(
                app, port=0, log_config=None, access_log=False, proxy_headers=False, timeout_keep_alive=600
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve())

            async def stop() -> None:
                server.should_exit = True
                await serving

            running.push_async_callback(stop)
            while not server.started:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            return await running.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}"))

        yield start


@pytest_asyncio.fixture(scope="session")
async def demo_service(start_service: StartService, demo_url: SecretStr) -> httpx.AsyncClient:
    """The service on the demo data, with the settings as they come."""
    return await start_service(demo_url)


@pytest_asyncio.fixture(scope="session")
async def demo_database(demo_url: SecretStr) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the tests' own to the demo data, to look and to set the stage."""
    connection = await asyncpg.connect(asyncpg_url(demo_url))
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def untouched(demo_database: asyncpg.Connection) -> None:
    """The demo data as loaded: no call flow is set, and there is no history."""
    await demo_database.execute("TRUNCATE callflow, callflow_history")
