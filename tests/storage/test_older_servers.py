"""A PostgreSQL that is too old is refused before anything is changed in it."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr

from callflow_service.settings import driver_url
from callflow_service.world.loading import DEMO_FILE
from encryption import KEY
from mor_requests import StartService
from postgresql import asyncpg_url

REFUSAL = "PostgreSQL 15 or later is needed; this one is 14."


@pytest_asyncio.fixture
async def posing_as_14(postgresql: SecretStr) -> AsyncIterator[int]:
    """A port where the tests' PostgreSQL answers, and says of itself that it is 14."""
    server = driver_url(postgresql)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, lie: bool) -> None:
        while data := await reader.read(65536):
            writer.write(re.sub(rb"(server_version\0)\d\d", rb"\g<1>14", data) if lie else data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if server.port:
            theirs = await asyncio.open_connection(server.host, server.port)
        else:
            theirs = await asyncio.open_unix_connection(f"{server.query['host']}/.s.PGSQL.5432")
        await asyncio.gather(pass_on(reader, theirs[1], lie=False), pass_on(theirs[0], writer, lie=True))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as relaying:
        yield relaying.sockets[0].getsockname()[1]


def through(port: int, url: SecretStr) -> SecretStr:
    """The address of the same database by that port."""
    changed = driver_url(url).set(drivername="postgresql", host="127.0.0.1", port=port, query={})
    return SecretStr(changed.render_as_string(hide_password=False))


@pytest.mark.parametrize(
    "command",
    [["migrate"], ["load", str(DEMO_FILE)], ["serve", "--port=0"], ["serve", "--port=0", "--demo"]],
    ids=" ".join,
)
async def test_each_command_refuses_an_older_server_and_leaves_it_as_it_was(
    posing_as_14: int, create_database: Callable[[], SecretStr], command: list[str]
) -> None:
    url = await asyncio.to_thread(create_database)
    given = {"CALLFLOW_DATABASE_URL": through(posing_as_14, url), "CALLFLOW_ENCRYPTION_KEYS": KEY}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callflow_service.cli", *command),
        env=os.environ | {name: value.get_secret_value() for name, value in given.items()},
        stderr=subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert (process.returncode, REFUSAL in said.decode(), said.count(b"\n")) == (1, True, 1)
    database = await asyncpg.connect(asyncpg_url(url))
    assert await database.fetch("SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []
    await database.close()


async def test_a_service_that_comes_upon_an_older_server_is_not_ready(
    posing_as_14: int, start_service: StartService, demo_url: SecretStr
) -> None:
    service = await start_service(through(posing_as_14, demo_url))
    response = await service.get("/health/ready")
    assert (response.status_code, response.json()) == (503, {"status": "unavailable", "detail": REFUSAL})
