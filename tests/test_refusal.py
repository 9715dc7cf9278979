"""Too much is in work: what comes on top is refused before it becomes a request, and the connection stays good."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from callflow_service.web.headers import SECURITY_HEADERS
from mor_requests import GET, get, got, refused
from postgresql import asyncpg_url
from running import HERE, Served, read_answer, request, served

ASKED = request(GET, get(), "X-Request-ID: mine")
UNAVAILABLE = refused("Service is temporarily unavailable", 503)
ONE_AT_ONCE = {
    "CALLFLOW_MAX_IN_FLIGHT": "1",
    "CALLFLOW_DATABASE_TIMEOUT_MS": "20000",
    "CALLFLOW_TRUSTED_PROXIES": HERE,
}
SECURITY = {name.decode(): [value.decode()] for name, value in SECURITY_HEADERS}
WAITING = """SELECT EXISTS (
    SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"""


@asynccontextmanager
async def full(service: Served, url: SecretStr) -> AsyncIterator[None]:
    """The one call that may be in work waits for the database meanwhile."""
    async with AsyncExitStack() as opened:
        holding, watching = [await asyncpg.connect(asyncpg_url(url)) for _ in range(2)]
        for connection in (holding, watching):
            opened.push_async_callback(connection.close)
        first = opened.enter_context(service.connect())
        async with holding.transaction():
            await holding.execute("LOCK TABLE device")
            first.sendall(ASKED)
            while not await watching.fetchval(WAITING):  # noqa: ASYNC110 - PostgreSQL tells nobody
                await asyncio.sleep(0.01)
            yield
        assert (await asyncio.to_thread(read_answer, first))[0] == 200


@pytest.mark.usefixtures("untouched")
async def test_a_call_on_top_is_refused_whole_and_the_connection_goes_on(demo_url: SecretStr, tmp_path: Path) -> None:
    with served(demo_url, tmp_path / "log", **ONE_AT_ONCE) as service, service.connect() as connection:
        async with full(service, demo_url):
            # In one piece; then its head, a part of its body, and the rest.
            for parts in ((ASKED,), (ASKED[:40], ASKED[40:-10], ASKED[-10:])):
                for part in parts:
                    connection.sendall(part)
                    await asyncio.sleep(0.05)
                status, headers, page = await asyncio.to_thread(read_answer, connection)
                assert (status, headers["content-type"][0], page) == UNAVAILABLE
                assert headers == {
                    "content-type": ["application/xml; charset=utf-8"],
                    "content-length": [str(len(page.encode()))],
                    "retry-after": ["2"],
                    "x-request-id": ["mine"],
                    **SECURITY,
                }
        connection.sendall(ASKED)
        status, headers, page = await asyncio.to_thread(read_answer, connection)
        assert (status, headers["content-type"][0], page) == got()
    assert (tmp_path / "log").read_text().count('"event":"overloaded"') == 1


async def test_who_wants_no_second_answer_is_hung_up_on_after_the_refusal(demo_url: SecretStr, tmp_path: Path) -> None:
    with served(demo_url, tmp_path / "log", **ONE_AT_ONCE) as service, service.connect() as connection:
        async with full(service, demo_url):
            connection.sendall(request(GET, get(), "Connection: close"))
            status, headers, _ = await asyncio.to_thread(read_answer, connection)
            assert (status, headers["connection"]) == (503, ["close"])
            assert await asyncio.to_thread(connection.recv, 1) == b""


async def test_the_json_api_names_the_request_that_it_refuses(demo_url: SecretStr, tmp_path: Path) -> None:
    with served(demo_url, tmp_path / "log", **ONE_AT_ONCE) as service, service.connect() as connection:
        async with full(service, demo_url):
            for name in ("mine", "x" * 64):
                connection.sendall(f"GET /v1/devices HTTP/1.1\r\nHost: a\r\nX-Request-ID: {name}\r\n\r\n".encode())
                status, headers, page = await asyncio.to_thread(read_answer, connection)
                assert (status, headers["content-type"]) == (503, ["application/problem+json"])
                assert headers["x-request-id"] == [name]
                assert json.loads(page) == {
                    "type": "/problems/unavailable",
                    "title": "The service cannot answer now",
                    "status": 503,
                    "detail": "Send it again after Retry-After.",
                    "instance": name,
                }
