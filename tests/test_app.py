"""What is around every request: its id, its log line, whom it came from, and the health of the service."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from callflow_service.watching.logs import JsonLines
from callflow_service.web.faces import Faces
from callflow_service.web.middleware import EachRequest
from clusters import until
from mor_requests import GET, UPDATE, StartService, answer, get, refused, update
from own_demo import open_own_demo
from statements import statements


@pytest_asyncio.fixture(scope="module")
async def proxied_service(start_service: StartService, demo_url: SecretStr) -> httpx.AsyncClient:
    """Behind a proxy that it trusts: the tests themselves."""
    return await start_service(demo_url, trusted_proxies=("127.0.0.1",))


DEAD = SecretStr("postgresql://postgres@127.0.0.1:1/callflow")


async def test_a_live_and_ready_service_says_so(demo_service: httpx.AsyncClient) -> None:
    for path in ("/health/live", "/health/ready"):
        response = await demo_service.get(path)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_a_service_without_its_database_lives_but_is_not_ready(start_service: StartService) -> None:
    service = await start_service(DEAD)
    assert (await service.get("/health/live")).status_code == 200
    response = await service.get("/health/ready")
    expected = {"status": "unavailable", "detail": "The database cannot be reached."}
    assert (response.status_code, response.json()) == (503, expected)


async def test_a_service_on_another_schema_says_what_to_do(
    start_service: StartService, create_database: Callable[..., SecretStr], migrated_url: SecretStr
) -> None:
    async with open_own_demo(create_database, migrated_url) as demo:
        service = await start_service(demo.url)
        older = "The database has an older schema than this release; run 'callflow-service migrate'."
        none = "The database has no tables yet; run 'callflow-service migrate'."
        for statement, status, detail in (
            ("UPDATE alembic_version SET version_num = 'a newer one'", 200, None),
            ("DELETE FROM alembic_version", 503, older),
            ("DROP TABLE alembic_version", 503, none),
        ):
            await demo.database.execute(statement)
            await until(lambda status=status, detail=detail: is_told(service, status, detail))


async def is_told(service: httpx.AsyncClient, status: int, detail: str | None) -> bool:
    response = await service.get("/health/ready")
    return (response.status_code, response.json().get("detail")) == (status, detail)


async def test_readiness_costs_the_database_next_to_nothing_however_often_it_is_asked(
    start_service: StartService, demo_url: SecretStr
) -> None:
    service = await start_service(demo_url)
    async with statements() as executed:
        began = time.monotonic()
        for _ in range(50):
            assert (await service.get("/health/ready")).status_code == 200
        most = 1 + int(time.monotonic() - began)
    assert executed.count("SELECT version_num FROM alembic_version") <= most


async def test_a_worker_that_is_full_is_ready_all_the_same(
    start_service: StartService, create_database: Callable[..., SecretStr], migrated_url: SecretStr
) -> None:
    async with open_own_demo(create_database, migrated_url) as demo:
        service = await start_service(demo.url, max_in_flight=1, database_timeout_ms=20_000)
        async with demo.database.transaction():
            await demo.database.execute("LOCK TABLE device")
            waiting = asyncio.create_task(service.post(GET, data=get()))
            await until(lambda: waits_for_a_lock(demo.database))
            assert (await service.post(GET, data=get())).status_code == 503
            response = await service.get("/health/ready")
            assert (response.status_code, response.json()) == (200, {"status": "ok"})
        assert (await waiting).status_code == 200


async def waits_for_a_lock(database: asyncpg.Connection) -> bool:
    # Not `pg_stat_activity`, which within a transaction shows what it showed first.
    statement = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'device'::regclass AND NOT granted)"
    return bool(await database.fetchval(statement))


async def test_what_is_none_of_the_calls_is_not_found_in_json(demo_service: httpx.AsyncClient) -> None:
    for path in ("/nothing", "/billing", "/apix/device_callflow_get"):
        response = await demo_service.get(path)
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("request_id", ["a.B-c_9", "a" * 64])
async def test_a_request_keeps_the_id_that_a_trusted_proxy_gave_it(
    proxied_service: httpx.AsyncClient, demo_database: asyncpg.Connection, request_id: str
) -> None:
    response = await proxied_service.post(UPDATE, data=update(), headers={"X-Request-ID": request_id})
    assert response.headers["x-request-id"] == request_id
    assert await demo_database.fetchval("SELECT request_id FROM callflow_history") == request_id


@pytest.mark.usefixtures("untouched")
async def test_a_client_does_not_choose_the_id_under_which_its_change_is_remembered(
    demo_service: httpx.AsyncClient, demo_database: asyncpg.Connection
) -> None:
    response = await demo_service.post(UPDATE, data=update(), headers={"X-Request-ID": "somebody-elses"})
    given = response.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{16}", given)
    assert await demo_database.fetchval("SELECT request_id FROM callflow_history") == given


@pytest.mark.parametrize("request_id", ["", "a b", "a" * 65, "é", "a;b"])
async def test_a_request_gets_an_id_where_its_own_is_none(proxied_service: httpx.AsyncClient, request_id: str) -> None:
    response = await proxied_service.post(UPDATE, headers={"X-Request-ID": request_id.encode("latin-1")})
    assert re.fullmatch("[0-9a-f]{16}", response.headers["x-request-id"])


@pytest.mark.usefixtures("untouched")
async def test_each_request_is_one_log_line_with_the_path_without_the_query(
    proxied_service: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    headers = {"X-Request-ID": "the-id", "Content-Type": "application/json"}
    for url, username, account, outcome in (
        (UPDATE, "admin", "admin", "ok"),
        (UPDATE, "a\ud800", "a", "Bad login"),
        (UPDATE, "admin;p=secret", "admin", "Bad login"),
        (UPDATE, "ad min@a.example", "ad min@a.example", "Bad login"),
    ):
        caplog.clear()
        body = json.dumps({**update(), "p": "", "u": username})
        await proxied_service.post(f"{url}?p=secret&test=1", content=body, headers=headers)
        (record,) = [record for record in caplog.records if record.name == "callflow_service.request"]
        line = json.loads(JsonLines().format(record).encode())
        assert {name: line[name] for name in sorted(set(line) - {"time", "duration_ms"})} == {
            "account": account,
            "call": "device_callflow_update",
            "client": "127.0.0.1",
            "event": "request",
            "level": "info",
            "method": "POST",
            "outcome": outcome,
            "path": UPDATE,
            "request_id": "the-id",
            "status": 200,
        }


@pytest.mark.parametrize("misspelt", ["%3F", "%253F", "&", ";", "=", "%0A", "é"])
async def test_a_path_is_logged_up_to_the_first_character_that_none_of_ours_holds(
    demo_service: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, misspelt: str
) -> None:
    caplog.set_level(logging.INFO)
    await demo_service.post(f"{UPDATE}{misspelt}u=admin&p=canary")
    (record,) = [record for record in caplog.records if record.name == "callflow_service.request"]
    assert json.loads(JsonLines().format(record))["path"] == UPDATE


SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


def test_a_logged_defect_tells_where_it_was_and_not_with_what() -> None:
    try:
        int("secret")
    except ValueError as error:
        record = logging.makeLogRecord(
            {"msg": "defect", "levelname": "ERROR", "exc_info": (type(error), error, error.__traceback__)}
        )
    line = json.loads(JsonLines().format(record))
    assert (line["event"], line["level"], line["error"]) == ("defect", "error", "ValueError")
    assert len(line["trace"]) == 1
    assert "test_a_logged_defect" in line["trace"][0]
    assert "secret" not in JsonLines().format(record)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        ((), "192.0.2.7", "127.0.0.1"),
        (("192.0.2.0/24",), "192.0.2.7", "127.0.0.1"),
        (("127.0.0.1",), "192.0.2.7", "192.0.2.7"),
        (("127.0.0.0/8",), "192.0.2.9, 192.0.2.7", "192.0.2.7"),
        (("127.0.0.1",), "2001:db8::7", "2001:db8::7"),
        (("127.0.0.1",), "unknown", None),
    ],
)
async def test_the_history_has_the_address_that_a_trusted_proxy_tells(
    start_service: StartService,
    demo_url: SecretStr,
    demo_database: asyncpg.Connection,
    *,
    trusted: tuple[str, ...],
    forwarded: str,
    address: str | None,
) -> None:
    service = await start_service(demo_url, trusted_proxies=trusted)
    await service.post(UPDATE, data=update(), headers={"X-Forwarded-For": forwarded})
    assert await demo_database.fetchval("SELECT host(address) FROM callflow_history") == address


async def test_a_post_without_anything_is_answered(demo_service: httpx.AsyncClient) -> None:
    assert answer(await demo_service.post(UPDATE)) == refused("Bad login")


@pytest.mark.parametrize("path", [GET, "/switch/asterisk", "/health/live", "/nowhere", "/openapi.json"])
async def test_every_answer_tells_browsers_to_do_nothing_with_it(demo_service: httpx.AsyncClient, path: str) -> None:
    headers = (await demo_service.get(path)).headers
    assert {name: headers.get_list(name) for name in SECURITY} == {name: [value] for name, value in SECURITY.items()}


async def test_the_explorer_may_run_its_own_scripts_alone(demo_service: httpx.AsyncClient) -> None:
    headers = (await demo_service.get("/docs")).headers
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    own = {"content-security-policy": policy}
    expected = {name: value for name, value in SECURITY.items() if name != "cache-control"} | own
    assert {name: headers[name] for name in expected} == expected


async def test_a_cancelled_request_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    observed: list[tuple[object, float | None]] = []
    is_in_work = asyncio.Event()

    async def never_answers(_scope: Scope, _receive: Receive, _send: Send) -> None:
        is_in_work.set()
        await asyncio.Event().wait()

    async def unused(*_: object) -> Any:
        raise NotImplementedError

    app = EachRequest(
        never_answers,
        Faces([]),
        lambda fields, seconds: observed.append((fields["outcome"], seconds)),
    )
    scope = {"type": "http", "method": "POST", "path": UPDATE, "headers": [], "client": ("::ffff:192.0.2.7", 5)}
    request = asyncio.create_task(app(scope, unused, unused))
    await is_in_work.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    ((outcome, seconds),) = observed
    (record,) = [record for record in caplog.records if record.name == "callflow_service.request"]
    line = json.loads(JsonLines().format(record))
    assert (outcome, line["outcome"], line["client"]) == ("cancelled", "cancelled", "192.0.2.7")
    assert seconds is not None
