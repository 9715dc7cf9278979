"""Connections that died unseen, statements that cannot be sent, and what is left when the service ends."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest
from pydantic import SecretStr

from callflow_service.domain.errors import StorageUnavailable
from callflow_service.repositories import callflows
from callflow_service.settings import driver_url
from callflow_service.storage.database import Database
from mor_requests import GET, StartService, answer, get, got, refused
from statements import statements
from switch_questions import ask

pytestmark = pytest.mark.usefixtures("untouched")

CONNECTIONS = 4


class Firewall:
    """Passes connections on to PostgreSQL, until it forgets those it has: then nothing comes through, and no end."""

    def __init__(self, url: SecretStr) -> None:
        self._to = driver_url(url)
        self._passing = asyncio.Event()
        self.passed = 0

    def forget(self) -> None:
        """Forget the connections that are there; new ones pass."""
        self._passing.set()
        self._passing = asyncio.Event()

    @asynccontextmanager
    async def url(self) -> AsyncIterator[SecretStr]:
        """The database through the firewall."""
        passing: list[asyncio.Task[None]] = []
        writers: list[asyncio.StreamWriter] = []

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.passed += 1
            forgotten = self._passing
            folder = self._to.query.get("host", self._to.host)
            to_server = (
                await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{self._to.port or 5432}")
                if str(folder).startswith("/")
                else await asyncio.open_connection(self._to.host, self._to.port or 5432)
            )
            ways = ((reader, to_server[1]), (to_server[0], writer))
            writers.extend(writer for _, writer in ways)
            passing.extend(asyncio.create_task(pass_on(*way, forgotten)) for way in ways)

        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forgotten: asyncio.Event) -> None:
            with suppress(OSError):
                while data := await reader.read(65536):
                    if not forgotten.is_set():
                        writer.write(data)
            if not forgotten.is_set():
                writer.close()

        server = await asyncio.start_server(connect, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        url = self._to.set(host="127.0.0.1", port=port, query={})
        yield SecretStr(url.render_as_string(hide_password=False))
        server.close()
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)
        for writer in writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def test_connections_that_a_firewall_forgot_cost_no_request_its_answer(
    start_service: StartService, demo_url: SecretStr
) -> None:
    firewall = Firewall(demo_url)
    async with firewall.url() as url:
        service = await start_service(url, pool_size=CONNECTIONS, switch_timeout_ms=5000)
        await asyncio.gather(*(service.post(GET, data=get()) for _ in range(CONNECTIONS)))
        assert firewall.passed > 1
        assert (await ask(service, device="4"))["action"] == "none"
        firewall.forget()
        # Longer than a connection is taken for a living one unasked.
        await asyncio.sleep(1.1)
        started = time.monotonic()
        for _ in range(CONNECTIONS + 1):
            assert answer(await service.post(GET, data=get())) == got()
            assert (await ask(service, device="4"))["action"] == "none"
        assert time.monotonic() - started < 1.5


async def test_a_statement_of_ours_that_cannot_be_sent_is_a_defect_and_costs_no_connection(
    start_service: StartService, demo_url: SecretStr, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = await start_service(demo_url, pool_size=1)
    assert answer(await service.post(GET, data=get())) == got()
    with monkeypatch.context() as broken:
        broken.setattr(callflows, "_LOAD_FLOWS", "SELECT $1::text")
        assert answer(await service.post(GET, data=get())) == refused("Internal error", 500)
    (defect,) = [record for record in caplog.records if record.getMessage() == "defect"]
    assert defect.exc_info is not None
    assert defect.exc_info[0] is asyncpg.InterfaceError
    async with statements() as sent:
        assert answer(await service.post(GET, data=get())) == got()
    # A new connection would be told how to plan.
    assert len(sent) == 1


async def test_a_closed_database_opens_no_connection_any_more(demo_url: SecretStr) -> None:
    database = Database(demo_url, pool_size=1, timeout_ms=1500)

    async def one(connection: asyncpg.Connection) -> object:
        return await connection.fetchval("SELECT 1")

    assert await database.run(one) == 1
    await database.close()
    with pytest.raises(StorageUnavailable):
        await database.run(one)
    assert (database.pool_use.in_use, database.pool_use.idle) == (0, 0)


async def test_a_statement_that_is_given_up_leaves_its_connection_to_the_next(demo_url: SecretStr) -> None:
    database = Database(demo_url, pool_size=1, timeout_ms=300)

    async def hang(connection: asyncpg.Connection) -> None:
        await connection.execute("SELECT pg_sleep(10)")

    async def server(connection: asyncpg.Connection) -> object:
        return await connection.fetchval("SELECT pg_backend_pid()")

    before = await database.run(server)
    with pytest.raises(StorageUnavailable, match="no answer in time"):
        await database.run(hang)
    async with asyncio.timeout(10):
        while database.pool_use.in_use:  # noqa: ASYNC110 - it is cancelled beside
            await asyncio.sleep(0.01)
    assert await database.run(server) == before
    await database.close()
