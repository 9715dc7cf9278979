"""The shipped nginx configuration, read by a real nginx in front of the real service."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from callflow_service.mor.face import FAILED_TRANSPORT
from callflow_service.mor.pages import error_page
from callflow_service.web.headers import SECURITY_HEADERS
from clusters import free_port
from nginx import HERE, run_nginx

pytestmark = [pytest.mark.proxy, pytest.mark.usefixtures("untouched")]

CALLER = "127.0.0.2"
"""Where the tests' requests come from, so that nobody takes them for nginx's own."""

SIGNED_GET = "/billing/api/device_callflow_get?u=admin&device_id=100&hash=71516eea4850f7e0300ac86adf9fb64bca845aa7"
UPDATE = "/billing/api/device_callflow_update"

GET_PAGE = """\
<?xml version="1.0" encoding="UTF-8"?>
<page>
  <user>Test User #1</user>
  <device>SIP/101</device>
""" + "".join(
    f"""\
  <callflow>
    <state>{state}</state>
    <priority>1</priority>
    {action}
    {data}
    <data2/>
    <data3>1</data3>
    <data4/>
    <data5/>
  </callflow>
"""
    for state, action, data in (
        ("Before call", "<action/>", "<data/>"),
        ("Call", "<action>Dial</action>", "<data>SIP/101|60</data>"),
        ("Answered", "<action>Hangup</action>", "<data/>"),
        ("No answer", "<action/>", "<data/>"),
        ("Busy", "<action/>", "<data/>"),
        ("Failed", "<action/>", "<data/>"),
    )
)
GET_PAGE += "</page>\n"

UPDATE_PAGE = """\
<?xml version="1.0" encoding="UTF-8"?>
<page>
  <status>Callflow was successfully updated</status>
  <user>Test User #1</user>
  <device>IAX2/1002</device>
  <callflow>
    <state>Busy</state>
    <priority>1</priority>
    <action>Forward</action>
    <data>+37060000000</data>
    <callerid_type>Custom</callerid_type>
    <callerid_data>Žaliasis &amp; Co</callerid_data>
  </callflow>
</page>
"""

CHANGE = {
    "device_id": "4",
    "callflow_action": "forward",
    "state": "busy",
    "external_number": "+37060000000",
    "custom": "Žaliasis & Co",
}


def signed(values: dict[str, str], key: str = "456789") -> dict[str, str]:
    digest = sha1(("".join(values.values()) + key).encode(), usedforsecurity=False).hexdigest()
    return {"u": "admin", **values, "hash": digest}


@dataclass(frozen=True)
class Proxy:
    """A running nginx, and where it writes its logs."""

    http: httpx.AsyncClient
    logs: Path

    async def send(self, method: str, path: str, **sent: Any) -> tuple[httpx.Response, dict[str, str]]:
        """Send a request; get the answer, and the access log's line for it."""
        request_id = uuid4().hex
        headers = {"X-Request-ID": request_id, **sent.pop("headers", {})}
        answer = await self.http.request(method, path, headers=headers, **sent)
        return answer, await self.line(request_id)

    async def line(self, request_id: str) -> dict[str, str]:
        """The access log's line for a request, which nginx writes a little after it has answered."""
        for _ in range(500):
            for text in (self.logs / "access.log").read_text().splitlines():
                line: dict[str, str] = json.loads(text)
                if line["request_id"] == request_id:
                    return line
            await asyncio.sleep(0.02)
        pytest.fail(f"nginx wrote no line for the request {request_id} within ten seconds.")

    def everything_logged(self) -> str:
        return "".join(log.read_text() for log in self.logs.iterdir())


StartProxy = Callable[..., Awaitable[Proxy]]


@pytest_asyncio.fixture(scope="session")
async def start_proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[StartProxy]:
    """Run nginx with the shipped configuration in front of the addresses given."""
    async with AsyncExitStack() as running:

        async def start(*upstreams: str) -> Proxy:
            nginx = await running.enter_async_context(run_nginx(tmp_path_factory.mktemp("nginx"), *upstreams))
            client = httpx.AsyncClient(
                base_url=f"http://{HERE}:{nginx.port}", transport=httpx.AsyncHTTPTransport(local_address=CALLER)
            )
            return Proxy(await running.enter_async_context(client), nginx.logs)

        yield start


def address(service: httpx.AsyncClient) -> str:
    return f"{service.base_url.host}:{service.base_url.port}"


@pytest_asyncio.fixture(scope="session")
async def trusting_service(start_service: Callable[..., Any], demo_url: SecretStr) -> httpx.AsyncClient:
    """The service as it is behind nginx; GET is allowed, so that all encodings can be tried."""
    service: httpx.AsyncClient = await start_service(demo_url, trusted_proxies=HERE, allow_get=True)
    return service


@pytest_asyncio.fixture(scope="session")
async def proxy(start_proxy: StartProxy, trusting_service: httpx.AsyncClient) -> Proxy:
    """nginx in front of the service that trusts it."""
    return await start_proxy(address(trusting_service))


@pytest_asyncio.fixture(scope="session")
async def lonely_proxy(start_proxy: StartProxy) -> Proxy:
    """nginx in front of a service that is away."""
    return await start_proxy(f"{HERE}:{free_port()}")


async def sender_in_history(connection: asyncpg.Connection) -> str:
    """The address in the one row that the history has."""
    (row,) = await connection.fetch("SELECT host(address) AS address FROM callflow_history")
    found: str = row["address"]
    return found


async def test_the_wikis_own_request_gets_the_wikis_answer(proxy: Proxy) -> None:
    answer = await proxy.http.post(SIGNED_GET)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/xml; charset=utf-8")
    assert answer.text == GET_PAGE


@pytest.mark.parametrize(
    "path", ["//billing/api//device_callflow_get/", "/api/device_callflow_get", "/api//device_callflow_get//"]
)
async def test_doubled_and_trailing_slashes_reach_the_call(proxy: Proxy, path: str) -> None:
    # Put together by hand: joined to the base address by the client, a leading // would be read as a host.
    address = str(proxy.http.base_url).rstrip("/")
    answer = await proxy.http.post(f"{address}{path}?{SIGNED_GET.partition('?')[2]}")
    assert (answer.status_code, answer.text) == (200, GET_PAGE)


ENCODINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "query of a POST without a body": ("POST", {"params": signed(CHANGE)}),
    "form": ("POST", {"data": signed(CHANGE)}),
    "multipart form": ("POST", {"files": {name: (None, value) for name, value in signed(CHANGE).items()}}),
    "JSON object": ("POST", {"json": signed(CHANGE)}),
    "query of a GET": ("GET", {"params": signed(CHANGE)}),
}


@pytest.mark.parametrize(("method", "sent"), ENCODINGS.values(), ids=ENCODINGS)
async def test_every_encoding_passes_unharmed(proxy: Proxy, method: str, sent: dict[str, Any]) -> None:
    answer = await proxy.http.request(method, UPDATE, **sent)
    assert (answer.status_code, answer.text) == (200, UPDATE_PAGE)


async def test_a_body_sent_in_chunks_passes_unharmed(proxy: Proxy) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for character in urlencode(signed(CHANGE)):
            yield character.encode()

    answer = await proxy.http.post(
        UPDATE, content=chunks(), headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert (answer.status_code, answer.text) == (200, UPDATE_PAGE)


async def test_the_history_holds_the_callers_own_address(proxy: Proxy, demo_database: asyncpg.Connection) -> None:
    await proxy.http.post(UPDATE, data=signed(CHANGE))
    assert await sender_in_history(demo_database) == CALLER


async def test_a_forged_forwarding_header_does_not_get_through(proxy: Proxy, demo_database: asyncpg.Connection) -> None:
    await proxy.http.post(UPDATE, data=signed(CHANGE), headers={"X-Forwarded-For": "203.0.113.9"})
    assert await sender_in_history(demo_database) == CALLER


async def test_a_service_that_trusts_no_proxy_ignores_the_forwarding_header(
    start_proxy: StartProxy, demo_service: httpx.AsyncClient, demo_database: asyncpg.Connection
) -> None:
    proxy = await start_proxy(address(demo_service))
    await proxy.http.post(UPDATE, data=signed(CHANGE))
    assert await sender_in_history(demo_database) == HERE


async def test_a_request_id_goes_through_to_the_history_and_back(
    proxy: Proxy, demo_database: asyncpg.Connection
) -> None:
    answer = await proxy.http.post(UPDATE, data=signed(CHANGE), headers={"X-Request-ID": "order-4711"})
    assert answer.headers.get_list("x-request-id") == ["order-4711"]
    assert await demo_database.fetchval("SELECT request_id FROM callflow_history") == "order-4711"
    assert (await proxy.line("order-4711"))["path"] == UPDATE


async def test_a_request_without_an_id_has_the_same_one_in_both_logs(proxy: Proxy) -> None:
    answer = await proxy.http.post(SIGNED_GET, headers={"X-Request-ID": "not an id"})
    assert (await proxy.line(answer.headers["x-request-id"]))["status"] == "200"


@pytest.mark.parametrize("path", ["/docs", "/docs/explorer.js", "/openapi.json", "/health/live", "/health/ready"])
async def test_the_explorer_and_the_health_are_passed_on(
    proxy: Proxy, trusting_service: httpx.AsyncClient, path: str
) -> None:
    through, direct = await proxy.http.get(path), await trusting_service.get(path)
    assert (through.status_code, through.content) == (200, direct.content)


async def test_the_first_page_leads_to_the_explorer(proxy: Proxy) -> None:
    answer = await proxy.http.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


async def test_the_explorers_scripts_are_passed_on_whole(proxy: Proxy, trusting_service: httpx.AsyncClient) -> None:
    path = "/static-offline-docs/swagger-ui-bundle.js"
    through, direct = await proxy.http.get(path), await trusting_service.get(path)
    assert (through.status_code, through.content) == (200, direct.content)


@pytest.mark.parametrize(
    "path", ["/metrics", "/billing", "/billing/apis", "/docs/x", "/docs/x/y.js", "/health", "/switch"]
)
async def test_everything_else_is_not_found_and_does_not_reach_the_service(proxy: Proxy, path: str) -> None:
    answer, line = await proxy.send("GET", path)
    assert (answer.status_code, line["path"], line["upstream"]) == (404, path, "")


async def test_an_unknown_call_is_answered_by_the_service(proxy: Proxy) -> None:
    answer = await proxy.http.post("/billing/api/device_delete")
    assert (answer.status_code, answer.content) == (404, error_page(FAILED_TRANSPORT[404], "status"))


async def test_no_answer_names_a_version_of_nginx(proxy: Proxy, lonely_proxy: Proxy) -> None:
    assert (await proxy.http.get("/nowhere")).headers["server"] == "nginx"
    assert (await lonely_proxy.http.post(SIGNED_GET)).headers["server"] == "nginx"


@pytest.mark.parametrize(
    ("size", "asks_the_service"),
    [(64 * 1024 + 1, True), (128 * 1024, True), (128 * 1024 + 1, False), (8 * 1024 * 1024, False)],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_body_that_is_too_large_gets_the_same_page_from_both(
    proxy: Proxy, method: str, size: int, *, asks_the_service: bool
) -> None:
    answer, line = await proxy.send(method, UPDATE, content=b"a" * size)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (
        413,
        "application/xml; charset=utf-8",
        error_page(FAILED_TRANSPORT[413], "status"),
    )
    assert (line["upstream"] != "") == asks_the_service


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_service_that_is_away_is_told_in_xml(lonely_proxy: Proxy, method: str) -> None:
    answer = await lonely_proxy.http.request(method, SIGNED_GET)
    assert (answer.status_code, answer.headers["content-type"], answer.headers["retry-after"]) == (
        503,
        "application/xml; charset=utf-8",
        "2",
    )
    assert answer.content == error_page(FAILED_TRANSPORT[503], "status")


async def test_the_services_own_503_is_passed_on_as_it_is(start_proxy: StartProxy, start_service: Any) -> None:
    without_database = await start_service(SecretStr(f"postgresql://nobody@{HERE}:{free_port()}/nothing"))
    proxy = await start_proxy(address(without_database))
    answer, line = await proxy.send("POST", SIGNED_GET)
    assert (answer.status_code, answer.headers.get_list("retry-after"), answer.content) == (
        503,
        ["2"],
        error_page(FAILED_TRANSPORT[503], "status"),
    )
    assert line["upstream_status"] == "503"


async def test_who_guesses_is_refused_through_the_proxy_and_nobody_else_is(
    start_proxy: StartProxy, start_service: Any, demo_url: SecretStr
) -> None:
    service = await start_service(demo_url, guess_limit="1/day", trusted_proxies=(HERE,))
    proxy = await start_proxy(address(service))
    forged = {"X-Forwarded-For": "203.0.113.9"}
    await proxy.http.post(UPDATE, data={"u": "admin"}, headers=forged)
    answer = await proxy.http.post(SIGNED_GET)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (
        429,
        "application/xml; charset=utf-8",
        error_page(FAILED_TRANSPORT[429], "status"),
    )
    assert 1 <= int(answer.headers["retry-after"]) <= 24 * 60 * 60
    assert (await service.post(SIGNED_GET)).text == (await service.post(SIGNED_GET, headers=forged)).text == GET_PAGE


HEADERS = {name.decode(): [value.decode()] for name, value in SECURITY_HEADERS}


def security_headers(answer: httpx.Response) -> dict[str, list[str]]:
    return {name: answer.headers.get_list(name) for name in HEADERS}


@pytest.mark.parametrize("path", [UPDATE, "/billing/api/device_delete", "/switch/asterisk", "/health/ready"])
async def test_the_services_headers_come_once(proxy: Proxy, path: str) -> None:
    assert security_headers(await proxy.http.post(path)) == HEADERS


@pytest.mark.parametrize("path", [UPDATE, SIGNED_GET, "/switch/asterisk", "/nowhere", "/metrics"])
async def test_nginxs_own_pages_have_the_same_headers(lonely_proxy: Proxy, path: str) -> None:
    answer = await lonely_proxy.http.post(path, headers={"X-Request-ID": "order-4712"})
    assert security_headers(answer) == HEADERS
    assert answer.headers.get_list("x-request-id") == ["order-4712"]


async def raw_answer(proxy: Proxy, raw: bytes) -> tuple[str, str, str]:
    """Status line, content type and body of what nginx answers to these bytes before it closes the connection."""
    reader, writer = await asyncio.open_connection(HERE, proxy.http.base_url.port)
    writer.write(raw)
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    found = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
    assert {name: [found.get(name)] for name in HEADERS} == {
        name: [value[0].lower()] for name, value in HEADERS.items()
    }
    return head.partition("\r\n")[0], found["content-type"], body


@pytest.mark.parametrize(
    "rest",
    [b"?u=" + b"a" * 40_000 + b" HTTP/1.1", b" HTTP/1.1\r\nX: " + b"a" * 40_000, b" HTTP/1.1\r\nContent-Length: x"],
    ids=["address too long", "header too long", "no length"],
)
async def test_what_nginx_cannot_read_is_told_in_the_words_of_who_was_asked(proxy: Proxy, rest: bytes) -> None:
    host = b"Host: callflow.test\r\n\r\n"
    is_known = b"?u=" not in rest
    page = error_page(FAILED_TRANSPORT[400], "status").decode()
    for_mor = ("HTTP/1.1 400 Bad Request", "application/xml; charset=utf-8", page)
    for_others = ("HTTP/1.1 400 Bad Request", "text/plain; charset=utf-8", "Request cannot be read\n")
    assert await raw_answer(proxy, b"POST //billing/api/x" + rest + b"\r\n" + host) == (
        for_mor if is_known else for_others
    )
    assert await raw_answer(proxy, b"POST /switch/asterisk" + rest + b"\r\n" + host) == for_others


@pytest.mark.parametrize("body", [b"gzip\r\n\r\n", b"chunked\r\n\r\nzz\r\n"], ids=["unknown coding", "broken chunk"])
async def test_a_body_that_nginx_cannot_read_is_told_in_xml(proxy: Proxy, body: bytes) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: callflow.test\r\nConnection: close\r\n" % UPDATE.encode()
    page = error_page(FAILED_TRANSPORT[400], "status").decode()
    told = await raw_answer(proxy, head + b"Transfer-Encoding: " + body)
    assert told == ("HTTP/1.1 400 Bad Request", "application/xml; charset=utf-8", page)


async def test_who_asks_too_often_is_told_so_in_xml(lonely_proxy: Proxy) -> None:
    request = f"POST {SIGNED_GET} HTTP/1.1\r\nHost: callflow.test\r\nContent-Length: 0\r\n"
    reader, writer = await asyncio.open_connection(HERE, lonely_proxy.http.base_url.port, local_addr=("127.0.0.3", 0))
    # nginx takes a thousand over one connection.
    writer.write(f"{request}\r\n".encode() * 999 + f"{request}Connection: close\r\n\r\n".encode())
    answers = (await reader.read()).split(b"HTTP/1.1 ")[1:]
    writer.close()
    refused = [answer for answer in answers if answer.startswith(b"429 ")]
    assert 500 <= len(answers) - len(refused) < 1000
    page = error_page("Too many requests, try again later", "status")
    assert {answer.endswith(b"\r\n\r\n" + page) and b"\r\nRetry-After: 1\r\n" in answer for answer in refused} == {True}


@pytest.mark.parametrize("password", ["switch-secret", "another"])
async def test_a_switchs_question_and_its_answer_are_passed_on(
    proxy: Proxy, trusting_service: httpx.AsyncClient, password: str
) -> None:
    def asked(of: httpx.AsyncClient) -> Awaitable[httpx.Response]:
        question = {"called": "1002", "call_id": "a-call", "format": "json"}
        return of.post("/switch/asterisk", data=question, auth=("switch", password))

    through, direct = await asked(proxy.http), await asked(trusting_service)
    assert (through.status_code, through.content) == (direct.status_code, direct.content)
    assert through.headers.get("www-authenticate") == direct.headers.get("www-authenticate")
    assert through.status_code == (200 if password == "switch-secret" else 401)


async def test_a_switch_is_told_that_the_service_is_away(lonely_proxy: Proxy) -> None:
    answer = await lonely_proxy.http.post("/switch/asterisk", data={"called": "101"})
    assert (answer.status_code, answer.headers["retry-after"], answer.text) == (
        503,
        "2",
        "Service is temporarily unavailable\n",
    )


async def test_a_switch_does_not_wait_for_a_service_that_hangs(start_proxy: StartProxy) -> None:
    with socket.create_server((HERE, 0)) as hanging:
        proxy = await start_proxy(f"{HERE}:{hanging.getsockname()[1]}")
        answer = await proxy.http.post("/switch/asterisk", data={"called": "101"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


async def hang_up_on_requests(arrived: list[bytes]) -> asyncio.Server:
    """A server that reads a request and closes: nobody can tell whether it has acted on it."""

    async def read_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    return await asyncio.start_server(read_and_close, HERE, 0)


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_an_update_that_was_sent_is_not_sent_again(start_proxy: StartProxy, method: str) -> None:
    arrived: list[bytes] = []
    async with await hang_up_on_requests(arrived) as first, await hang_up_on_requests(arrived) as second:
        ports = [server.sockets[0].getsockname()[1] for server in (first, second)]
        proxy = await start_proxy(*(f"{HERE}:{port}" for port in ports))
        answer = await proxy.http.request(method, UPDATE, params=signed(CHANGE))
    assert (answer.status_code, answer.content) == (503, error_page(FAILED_TRANSPORT[503], "status"))
    assert len(arrived) == 1


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_call_that_only_asks_is_put_to_the_next_instance(
    start_proxy: StartProxy, trusting_service: httpx.AsyncClient, method: str
) -> None:
    arrived: list[bytes] = []
    async with await hang_up_on_requests(arrived) as first:
        proxy = await start_proxy(f"{HERE}:{first.sockets[0].getsockname()[1]}", address(trusting_service))
        answers = [await proxy.http.request(method, SIGNED_GET) for _ in range(4)]
    assert [answer.text for answer in answers] == [GET_PAGE] * 4
    assert arrived != []


async def test_an_update_goes_to_the_instance_that_is_there(
    start_proxy: StartProxy, trusting_service: httpx.AsyncClient
) -> None:
    proxy = await start_proxy(f"{HERE}:{free_port()}", address(trusting_service))
    answers = [await proxy.http.post(UPDATE, data=signed(CHANGE)) for _ in range(4)]
    assert [answer.text for answer in answers] == [UPDATE_PAGE] * 4


async def test_no_log_holds_a_signature_or_a_password(proxy: Proxy, lonely_proxy: Proxy) -> None:
    secrets = {**signed(CHANGE), "p": "admin1-secret", "API_Secret_Key": "key-secret"}
    referrer = {"Referer": f"http://billing.example/?{urlencode(secrets)}"}
    for somewhere in (proxy, lonely_proxy):
        for path in (UPDATE, "/switch/asterisk", "/docs", "/health/ready", "/nowhere"):
            for method in ("POST", "GET"):
                _, line = await somewhere.send(method, path, params=secrets, headers=referrer)
                assert line["path"] == path
        _, too_large = await somewhere.send("POST", UPDATE, params=secrets, content=b"a" * 1_000_000, headers=referrer)
        assert too_large["path"] == UPDATE
        for misspelt in ("%3F", "%253F", "&", ";"):
            _, line = await somewhere.send("POST", f"{UPDATE}{misspelt}{urlencode(secrets)}")
            assert line["path"] == UPDATE
        logs = somewhere.everything_logged()
        assert [told for told in (secrets["hash"], "admin1-secret", "key-secret", "device_id") if told in logs] == []


async def test_a_line_of_the_access_log_tells_what_an_operator_needs(proxy: Proxy) -> None:
    _, line = await proxy.send("POST", SIGNED_GET)
    assert {name: line[name] for name in ("client", "method", "path", "protocol", "status", "upstream_status")} == {
        "client": CALLER,
        "method": "POST",
        "path": "/billing/api/device_callflow_get",
        "protocol": "HTTP/1.1",
        "status": "200",
        "upstream_status": "200",
    }
    assert list(line) == [
        *("time", "client", "request_id", "method", "path", "protocol", "status", "bytes", "seconds"),
        *("upstream", "upstream_status", "upstream_seconds"),
    ]
