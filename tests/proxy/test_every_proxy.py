"""What each of the shipped proxies does in front of the real service; what nginx alone does is in test_nginx.py."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from callflow_service.api import problems
from callflow_service.domain.tokens import new_token, token_hash
from callflow_service.mor.face import FAILED_TRANSPORT
from callflow_service.mor.pages import error_page
from callflow_service.storage import locks
from callflow_service.web.headers import SECURITY_HEADERS
from clusters import free_port
from mor_requests import GET, UPDATE, answer, get, got, update, updated
from nginx import HERE
from proxies import KINDS, run_proxy

pytestmark = [pytest.mark.proxy, pytest.mark.usefixtures("untouched")]

CALLER = "127.0.0.2"
"""Where the tests' requests come from, so that nobody takes them for the proxy's own."""

XML = "application/xml; charset=utf-8"

StartProxy = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture(scope="module", params=["nginx", *KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest_asyncio.fixture(scope="module")
async def start_proxy(kind: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StartProxy]:
    """Run the proxy in front of the addresses given."""
    async with AsyncExitStack() as running:

        async def start(*upstreams: str) -> httpx.AsyncClient:
            port, _ = await running.enter_async_context(run_proxy(kind, tmp_path_factory.mktemp(kind), *upstreams))
            transport = httpx.AsyncHTTPTransport(local_address=CALLER)
            client = httpx.AsyncClient(base_url=f"http://{HERE}:{port}", transport=transport, timeout=20)
            return await running.enter_async_context(client)

        yield start


def address(service: httpx.AsyncClient) -> str:
    return f"{service.base_url.host}:{service.base_url.port}"


@pytest_asyncio.fixture(scope="module")
async def trusting_service(start_service: Callable[..., Any], demo_url: SecretStr) -> httpx.AsyncClient:
    service: httpx.AsyncClient = await start_service(demo_url, trusted_proxies=(HERE,), allow_get=True)
    return service


@pytest_asyncio.fixture(scope="module")
async def proxy(start_proxy: StartProxy, trusting_service: httpx.AsyncClient) -> httpx.AsyncClient:
    """The proxy in front of the service that trusts it."""
    return await start_proxy(address(trusting_service))


@pytest_asyncio.fixture(scope="module")
async def lonely_proxy(start_proxy: StartProxy) -> httpx.AsyncClient:
    """The proxy in front of a service that is away."""
    return await start_proxy(f"{HERE}:{free_port()}")


@pytest.mark.parametrize(
    "path",
    [GET, f"//billing//api/{GET.rpartition('/')[2]}/", "/api/device_callflow_get", "/api//device_callflow_get//"],
)
async def test_the_call_is_reached_however_its_slashes_are(proxy: httpx.AsyncClient, path: str) -> None:
    # Put together by hand: joined to the base address by the client, a leading // would be read as a host.
    found = await proxy.post(str(proxy.base_url).rstrip("/") + path, data=get())
    assert answer(found) == got()


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_an_update_and_the_callers_own_address_get_through(
    proxy: httpx.AsyncClient, demo_database: asyncpg.Connection, method: str
) -> None:
    sent = {"params" if method == "GET" else "data": update()}
    found = await proxy.request(method, UPDATE, **sent, headers={"X-Forwarded-For": "203.0.113.9"})
    assert answer(found) == updated()
    assert await demo_database.fetchval("SELECT host(address) FROM callflow_history") == CALLER


async def test_a_requests_id_goes_through_to_the_history_and_back(
    proxy: httpx.AsyncClient, demo_database: asyncpg.Connection
) -> None:
    found = await proxy.post(UPDATE, data=update(), headers={"X-Request-ID": "order-4711"})
    assert found.headers.get_list("x-request-id") == ["order-4711"]
    assert await demo_database.fetchval("SELECT request_id FROM callflow_history") == "order-4711"


async def test_what_is_no_id_is_replaced_by_one(proxy: httpx.AsyncClient, demo_database: asyncpg.Connection) -> None:
    found = await proxy.post(UPDATE, data=update(), headers={"X-Request-ID": "not an id"})
    (request_id,) = found.headers.get_list("x-request-id")
    assert request_id != "not an id"
    assert await demo_database.fetchval("SELECT request_id FROM callflow_history") == request_id


@pytest.mark.parametrize("size", [64 * 1024 + 1, 250_000])
async def test_a_body_that_is_too_large_gets_the_services_page(proxy: httpx.AsyncClient, size: int) -> None:
    found = await proxy.post(UPDATE, content=b"a" * size)
    assert (found.status_code, found.headers["content-type"], found.content) == (
        413,
        XML,
        error_page(FAILED_TRANSPORT[413], "status"),
    )


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/health/live", "/health/ready"])
async def test_the_explorer_and_the_health_are_passed_on(
    proxy: httpx.AsyncClient, trusting_service: httpx.AsyncClient, path: str
) -> None:
    through, direct = await proxy.get(path), await trusting_service.get(path)
    assert (through.status_code, through.content) == (200, direct.content)


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/billing", "/billing/apis", "/health", "/switch"])
async def test_everything_else_is_not_found(proxy: httpx.AsyncClient, path: str) -> None:
    assert (await proxy.get(str(proxy.base_url).rstrip("/") + path)).status_code == 404


async def test_a_switchs_question_is_passed_on(proxy: httpx.AsyncClient, trusting_service: httpx.AsyncClient) -> None:
    question = {"called": "1002", "call_id": "a-call", "format": "json"}
    through, direct = [
        await of.post("/switch/asterisk", data=question, auth=("switch", "switch-secret"))
        for of in (proxy, trusting_service)
    ]
    assert (through.status_code, through.content) == (200, direct.content)


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_service_that_is_away_is_told_in_xml(lonely_proxy: httpx.AsyncClient, method: str) -> None:
    found = await lonely_proxy.request(method, UPDATE)
    assert (found.status_code, found.headers["content-type"], found.headers["retry-after"]) == (503, XML, "2")
    assert found.content == error_page(FAILED_TRANSPORT[503], "status")


async def test_the_json_api_is_passed_on(proxy: httpx.AsyncClient, trusting_service: httpx.AsyncClient) -> None:
    for method, path in (
        ("GET", "/v1/devices"),
        ("PATCH", "/v1/devices/4"),
        ("DELETE", "/v1/devices/4"),
        ("PUT", "/v1/x"),
    ):
        through, direct = [
            await of.request(method, path, headers={"X-Request-ID": "order-4713"}) for of in (proxy, trusting_service)
        ]
        assert (through.status_code, through.content) == (direct.status_code, direct.content)
    page = await proxy.get("/problems/unavailable")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_the_json_api_says_that_the_service_is_away_in_its_own_words(
    lonely_proxy: httpx.AsyncClient, method: str
) -> None:
    found = await lonely_proxy.request(method, "/v1/devices/4/callflow/busy")
    assert (found.status_code, found.headers["content-type"], found.headers["retry-after"]) == (
        503,
        problems.MEDIA_TYPE,
        "2",
    )
    kind = problems.KINDS["unavailable"]
    expected = {"type": "/problems/unavailable", "title": kind.title, "status": 503, "detail": kind.advice}
    assert found.json() == expected


async def test_the_json_api_says_that_a_body_is_too_large_in_its_own_words(proxy: httpx.AsyncClient) -> None:
    found = await proxy.post("/v1/devices", content=b"a" * 1_200_000)
    kind = problems.KINDS["too-large"]
    assert (found.status_code, found.headers["content-type"]) == (413, problems.MEDIA_TYPE)
    expected = {"type": "/problems/too-large", "title": kind.title, "status": 413, "detail": kind.advice}
    assert expected.items() <= found.json().items()


async def test_a_switch_is_told_at_once_that_the_service_is_away(lonely_proxy: httpx.AsyncClient) -> None:
    async with asyncio.timeout(5):
        found = await lonely_proxy.post("/switch/asterisk", data={"called": "101"})
    assert (found.status_code, found.headers["retry-after"], found.text) == (
        503,
        "2",
        "Service is temporarily unavailable\n",
    )


HEADERS = {name.decode(): [value.decode()] for name, value in SECURITY_HEADERS}


@pytest.mark.parametrize("path", [UPDATE, "/switch/asterisk", "/nowhere"])
async def test_every_answer_has_the_security_headers_once(
    proxy: httpx.AsyncClient, lonely_proxy: httpx.AsyncClient, path: str
) -> None:
    for somewhere in (proxy, lonely_proxy):
        found = await somewhere.post(path, headers={"X-Request-ID": "order-4712"})
        assert {name: found.headers.get_list(name) for name in HEADERS} == HEADERS
        assert found.headers.get_list("x-request-id") == ["order-4712"]


async def test_an_instance_that_is_away_costs_no_request(
    start_proxy: StartProxy, trusting_service: httpx.AsyncClient
) -> None:
    proxy = await start_proxy(f"{HERE}:{free_port()}", address(trusting_service))
    found = [await proxy.post(UPDATE, data=update()) for _ in range(6)]
    assert [answer(one) for one in found] == [updated()] * 6


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_an_update_that_was_sent_is_not_sent_again(start_proxy: StartProxy, kind: str, method: str) -> None:
    arrived: list[bytes] = []

    async def read_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if UPDATE.encode() in request:
            arrived.append(request)
        else:
            # HAProxy asks how it is.
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    async with (
        await asyncio.start_server(read_and_close, HERE, 0) as first,
        await asyncio.start_server(read_and_close, HERE, 0) as second,
    ):
        ports = [server.sockets[0].getsockname()[1] for server in (first, second)]
        proxy = await start_proxy(*(f"{HERE}:{port}" for port in ports))
        found = await proxy.request(method, UPDATE, params=update())
    # Apache tells apart what the others do not.
    status = 502 if kind == "apache" else 503
    assert (found.status_code, found.content) == (status, error_page(FAILED_TRANSPORT[503], "status"))
    assert len(arrived) == 1


async def test_no_log_holds_a_signature_or_a_password(
    kind: str, tmp_path: Path, trusting_service: httpx.AsyncClient
) -> None:
    async with run_proxy(kind, tmp_path, address(trusting_service)) as (port, logs), httpx.AsyncClient() as client:
        for path in (UPDATE, "/switch/asterisk", "/nowhere", f"{UPDATE}%3F", f"{UPDATE}&"):
            secrets = {**update(), "p": "canary-secret"}
            await client.post(
                f"http://{HERE}:{port}{path}", params=secrets, headers={"Referer": f"http://x/?{secrets}"}
            )
            await client.post(f"http://{HERE}:{port}{path}p=canary-secret&device_id=4")
        await asyncio.sleep(0.5)
    logged = "".join(log.read_text() for log in logs.iterdir())
    assert UPDATE in logged
    assert [secret for secret in ("canary", "hash", "device_id") if secret in logged] == []


async def test_each_change_comes_through_a_stream_at_once(
    proxy: httpx.AsyncClient, demo_database: asyncpg.Connection
) -> None:
    token = new_token()
    statement = "INSERT INTO token (account_id, name, scope, token_hash) VALUES (1, 'test', 'read', $1)"
    await demo_database.execute(statement, token_hash(token))
    headers = {"Authorization": f"Bearer {token}"}
    async with proxy.stream("GET", "/v1/changes/stream?after=now", headers=headers) as stream:
        assert stream.status_code == 200
        lines = stream.aiter_lines()
        assert await anext(lines) == ": open"
        for _ in range(3):
            assert answer(await proxy.post(UPDATE, data=update())) == updated()
            async for line in lines:
                if line.startswith("data: "):
                    break


async def test_a_bulk_change_may_take_its_time(proxy: httpx.AsyncClient, demo_database: asyncpg.Connection) -> None:
    token = new_token()
    statement = "INSERT INTO token (account_id, name, scope, token_hash) VALUES (1, 'test', 'write', $1)"
    await demo_database.execute(statement, token_hash(token))
    headers = {"Authorization": f"Bearer {token}"}
    sent = {"where": {"devices": [4]}, "set": {"failed": {"otherwise": {"action": "voicemail"}}}}
    async with demo_database.transaction():
        await demo_database.execute(f"SELECT pg_advisory_xact_lock_shared({locks.CHANGING})")
        changing = asyncio.create_task(proxy.post("/v1/bulk", json=sent, headers=headers, timeout=60))
        await asyncio.sleep(11)
        assert not changing.done()
    assert (await changing).json()["changed"] == 1
