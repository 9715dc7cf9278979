"""When something is away, slow or wrong on our side: every call goes on, and we come back by ourselves."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from callflow_service.settings import driver_url
from switch_questions import (
    ALICE,
    FACES,
    NONE,
    NOT_FOUND,
    SWITCH,
    Flows,
    StartService,
    add_switch,
    ask,
    connect,
    flat,
    freeswitch_request,
    read_dialplan,
)

LONG = 30
"""Seconds after which a test gives up; nothing here should take so long."""


class Line:
    """A line to PostgreSQL that can be cut and frozen."""

    def __init__(self, url: SecretStr) -> None:
        self._far = driver_url(url)
        self._port = 0
        self.is_used = asyncio.Event()
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> SecretStr:
        """The database's address at this end of the line."""
        near = self._far.set(host="127.0.0.1", port=self._port, query={})
        return SecretStr(near.render_as_string(hide_password=False))

    async def connect(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    def freeze(self) -> None:
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.is_used.set()
        host = str(self._far.query.get("host") or self._far.host)
        port = self._far.port or 5432
        if host.startswith("/"):
            far_reader, far_writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._writers -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def line_to(url: SecretStr) -> AsyncIterator[Line]:
    line = Line(url)
    await line.connect()
    try:
        yield line
    finally:
        line.thaw()
        await line.cut()


async def until(found: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that comes by itself."""
    async with asyncio.timeout(LONG):
        while not await found():  # noqa: ASYNC110 - nothing tells us when
            await asyncio.sleep(0.02)


FREESWITCH_NAMES = {"path": "variable_callflow_path", "state": "variable_originate_disposition"}


async def question(
    service: httpx.AsyncClient, face: str, user: tuple[str, str] = SWITCH, **path: str
) -> httpx.Response:
    """Ask about device 500, or go on with a call of its that found it busy."""
    if face == "freeswitch":
        words = {FREESWITCH_NAMES[name]: text for name, text in path.items()}
        asked = freeswitch_request("callflow-next" if path else "5000", **words)
    else:
        asked = {**ALICE, **(path or {"device": "500"})}
    return await asyncio.wait_for(service.post(f"/switch/{face}", data=asked, auth=user, timeout=LONG), LONG)


def carries_on(face: str, response: httpx.Response) -> None:
    assert response.status_code == 200
    if face == "freeswitch":
        assert response.content == NOT_FOUND
    else:
        assert flat(face, response) == NONE


def outcomes(caplog: pytest.LogCaptureFixture) -> list[object]:
    return [record.fields.get("outcome") for record in caplog.records if record.name == "callflow_service.request"]


async def test_a_database_that_was_never_there_lets_every_call_carry_on(
    start_service: StartService, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "callflow_service")
    service = await start_service(
        SecretStr("postgresql://nobody:nothing@127.0.0.1:1/nowhere"), switch_timeout_ms=20_000
    )
    for face in (*FACES, *FACES):
        carries_on(face, await question(service, face))
    assert outcomes(caplog) == ["carry on: database unavailable"] * 8
    assert "The switch users could not be read; those known stay known" in caplog.text


async def test_without_tables_every_call_carries_on(
    start_service: StartService, create_empty: SecretStr, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "callflow_service")
    service = await start_service(create_empty, switch_timeout_ms=20_000)
    for face in FACES:
        carries_on(face, await question(service, face))
    assert outcomes(caplog)[0] == "carry on: defect"


@pytest.fixture(scope="session")
def create_empty(create_database: Callable[..., SecretStr]) -> SecretStr:
    return create_database()


async def test_known_switches_stay_known_while_the_database_is_away_and_it_is_found_again(
    start_service: StartService, switch_url: SecretStr, flows: Flows
) -> None:
    await flows.set(500, "before_call", "voicemail")
    await flows.set(500, "busy", "voicemail")
    async with line_to(switch_url) as line:
        service = await start_service(line.url, switch_timeout_ms=20_000, database_timeout_ms=20_000)
        assert (await ask(service, device="500"))["action"] == "voicemail"
        await line.cut()
        for face in FACES:
            carries_on(face, await question(service, face))
            refused = await question(service, face, ("switch", "wrong"))
            assert refused.status_code == 401
        for face in ("asterisk", "kamailio", "opensips"):
            response = await question(service, face, path="500_c1", state="busy")
            assert response.status_code == 200
            expected = NONE | {"action": "end", "cause": "486", "flow_id": "c1", "path": "500_c1"}
            assert flat(face, response) == expected
        response = await question(service, "freeswitch", path="500_c1", state="USER_BUSY")
        assert read_dialplan(response.content, context="public") == [
            ("multiunset", "last_bridge_proto_specific_hangup_cause sip_reason"),
            ("hangup", "USER_BUSY"),
        ]
        await line.connect()

        async def found() -> bool:
            return (await ask(service, device="500"))["action"] == "voicemail"

        await until(found)


async def test_a_frozen_database_lets_calls_carry_on_in_time_and_is_found_again(
    start_service: StartService, switch_url: SecretStr, flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "callflow_service")
    await flows.set(500, "before_call", "voicemail")
    async with line_to(switch_url) as line:
        service = await start_service(line.url, switch_timeout_ms=500, database_timeout_ms=2000, pool_size=2)

        async def found() -> bool:
            return (await ask(service, device="500"))["action"] == "voicemail"

        await until(found)
        caplog.clear()
        line.freeze()
        # More questions than there are connections: waiting for one of them is in the limit too.
        asked = [question(service, face) for face in (*FACES, *FACES)]
        for face, response in zip((*FACES, *FACES), await asyncio.gather(*asked), strict=True):
            carries_on(face, response)
        assert set(outcomes(caplog)) == {"carry on: out of time"}
        # A second on, a wrong password is looked for in the database again.
        await asyncio.sleep(1.1)
        assert (await question(service, "opensips", ("switch", "wrong"))).status_code == 401
        line.thaw()
        await until(found)


async def test_a_statement_that_takes_too_long_is_given_up_on_both_sides(
    start_switch_service: StartService, switch_url: SecretStr, flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "callflow_service")
    await flows.set(500, "before_call", "voicemail")
    service = await start_switch_service(switch_timeout_ms=500)
    locking = await connect(switch_url)
    watching = await connect(switch_url)

    async def found() -> bool:
        return (await ask(service, device="500"))["action"] == "voicemail"

    async def nobody_waits() -> bool:
        return not await watching.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )

    try:
        await until(found)
        caplog.clear()
        async with locking.transaction():
            await locking.execute("LOCK TABLE callflow IN ACCESS EXCLUSIVE MODE")
            for face in FACES:
                carries_on(face, await question(service, face))
            assert outcomes(caplog) == ["carry on: out of time"] * 4
            await until(nobody_waits)
        await until(found)
    finally:
        await locking.close()
        await watching.close()


async def test_a_question_that_never_ends_is_answered_when_its_time_is_over(start_switch_service: StartService) -> None:
    service = await start_switch_service(switch_timeout_ms=300)
    reader, writer = await asyncio.open_connection(service.base_url.host, service.base_url.port)
    writer.write(
        b"POST /switch/opensips?path=500_c1&state=busy HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\ndevice"
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LONG)
    body = await asyncio.wait_for(reader.readuntil(b"}"), LONG)
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b'"action":"end"' in body
    assert b'"cause":"486"' in body


async def test_a_switch_that_hangs_up_in_mid_question_harms_nobody(
    service: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "callflow_service")
    _, writer = await asyncio.open_connection(service.base_url.host, service.base_url.port)
    writer.write(b"POST /switch/opensips HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\ndevice")
    await writer.drain()
    writer.close()

    async def logged() -> bool:
        return bool(outcomes(caplog))

    await until(logged)
    assert outcomes(caplog) == ["carry on: the client went away"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_the_first_questions_of_a_new_process_wait_for_each_other(
    start_service: StartService, switch_url: SecretStr, flows: Flows
) -> None:
    await flows.set(500, "before_call", "voicemail")
    async with line_to(switch_url) as line:
        service = await start_service(line.url, switch_timeout_ms=20_000, database_timeout_ms=20_000)
        line.freeze()
        first = asyncio.create_task(question(service, "opensips"))
        async with asyncio.timeout(LONG):
            await line.is_used.wait()
        second = asyncio.create_task(question(service, "opensips"))
        # Long enough for the second one to be at the door; were it longer in coming, nothing would fail here.
        await asyncio.wait({second}, timeout=0.3)
        line.thaw()
        answers = await asyncio.gather(first, second)
    assert [(response.status_code, response.json()["action"]) for response in answers] == [(200, "voicemail")] * 2


async def test_a_new_switch_and_a_new_password_are_known_without_a_restart(
    start_switch_service: StartService, switch_database: asyncpg.Connection, flows: Flows
) -> None:
    await flows.set(500, "before_call", "voicemail")
    service = await start_switch_service()
    assert (await question(service, "opensips")).status_code == 200

    async def known(password: str) -> bool:
        return (await question(service, "opensips", ("newcomer", password))).status_code == 200

    assert not await known("first")
    await add_switch(switch_database, "newcomer", "first")
    await until(lambda: known("first"))
    await add_switch(switch_database, "newcomer", "second")
    await until(lambda: known("second"))
    assert not await known("first")


async def test_a_defect_of_ours_costs_no_call_and_is_logged(
    start_switch_service: StartService, flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    await flows.set(500, "before_call", "voicemail")
    service = await start_switch_service()
    # A state that no release of ours has ever written.
    connection = flows.connection
    await connection.execute("ALTER TABLE callflow DROP CONSTRAINT ck_callflow_state")
    try:
        await flows.set(500, "later", "voicemail")
        for face in FACES:
            carries_on(face, await question(service, face))
        response = await question(service, "opensips", path="500_c1", state="no_answer")
        assert (response.status_code, response.json()["action"], response.json()["cause"]) == (200, "end", "480")
    finally:
        await connection.execute("DELETE FROM callflow")
        await connection.execute(
            "ALTER TABLE callflow ADD CONSTRAINT ck_callflow_state"
            " CHECK (state IN ('before_call', 'no_answer', 'failed', 'busy'))"
        )
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == ["defect"] * 5
