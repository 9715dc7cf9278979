"""What goes wrong, in which order it is found, and how it is told."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from callflow_service.credentials.passwords import hash_password
from callflow_service.domain.errors import CallFlowError
from callflow_service.mor.face import ERROR_TEXTS, GET_ERROR_TEXTS
from mor_requests import (
    ADMIN_KEY,
    ERRORS,
    GET,
    GET_ERRORS,
    GOOD,
    UPDATE,
    Answer,
    StartService,
    answer,
    get,
    page,
    refused,
    signed,
    update,
    with_changes,
)
from own_demo import OwnDemo, open_own_demo

DEAD = SecretStr("postgresql://postgres:canary-password@127.0.0.1:1/callflow")
LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with a request: what is sent otherwise, and which service it is sent to."""

    sent: dict[str, str | None] = field(default_factory=dict)
    api_off: bool = False
    by_get: bool = False
    badly_signed: bool = False


WRONG = {
    1: Wrong(api_off=True),
    2: Wrong(by_get=True),
    3: Wrong({"p": "wrong"}),
    4: Wrong(badly_signed=True),
    5: Wrong({"u": "accountant"}),
    6: Wrong({"device_id": "999"}),
    7: Wrong({"state": "nowhere"}),
    8: Wrong({"callflow_action": "fax_detect", "state": "busy"}),
    9: Wrong({"callflow_action": "forward", "forward_to_device": None}),
    10: Wrong({"callflow_action": "forward", "forward_to_device": "999"}),
    11: Wrong({"callflow_action": "forward", "forward_to_device": None, "external_number": "no number"}),
    12: Wrong({"callflow_action": "fax_detect", "fax_device": "5"}),
    13: Wrong({"did_id": "2"}),
}
"""A way to provoke each error of an update; 3 and 5 need accounts that have a password."""

IMPOSSIBLE = {
    # What is wrong with the action leaves no forward whose target could be wrong.
    (8, 9),
    (8, 10),
    (8, 11),
    # A forward with neither target has no target that could be wrong.
    (9, 10),
    (9, 11),
    # A request has one action: it forwards or it detects a fax.
    (9, 12),
    (10, 12),
    (11, 12),
}


def together(first: Wrong, second: Wrong) -> Wrong:
    """A request with which both are wrong; where they are about one value, the first has it its way."""
    return Wrong(
        {**second.sent, **first.sent},
        api_off=first.api_off or second.api_off,
        by_get=first.by_get or second.by_get,
        badly_signed=first.badly_signed or second.badly_signed,
    )


@pytest_asyncio.fixture(scope="module")
async def with_passwords(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> AsyncIterator[OwnDemo]:
    """A demo in which every account has the password `right`."""
    async with open_own_demo(create_database, migrated_url) as demo:
        await demo.database.execute("UPDATE account SET password_hash = $1", hash_password("right"))
        yield demo


@pytest_asyncio.fixture(scope="module")
async def services(start_service: StartService, with_passwords: OwnDemo) -> dict[bool, httpx.AsyncClient]:
    """The service with the API switched off, or not."""
    return {off: await start_service(with_passwords.url, api_enabled=not off) for off in (True, False)}


async def provoke(services: dict[bool, httpx.AsyncClient], call: str, wrong: Wrong) -> Answer:
    good = GOOD if call == UPDATE else {"u": "admin", "device_id": "4"}
    key = "another key" if wrong.badly_signed else ADMIN_KEY
    values = signed(with_changes({**good, "p": "right"}, wrong.sent), key)
    service = services[wrong.api_off]
    return answer(await (service.get(call, params=values) if wrong.by_get else service.post(call, data=values)))


@pytest.mark.parametrize("number", ERRORS)
async def test_each_error_of_an_update_has_its_text(services: dict[bool, httpx.AsyncClient], number: int) -> None:
    assert await provoke(services, UPDATE, WRONG[number]) == refused(ERRORS[number])


@pytest.mark.parametrize("number", GET_ERRORS)
async def test_each_error_of_a_get_has_its_text(services: dict[bool, httpx.AsyncClient], number: int) -> None:
    assert await provoke(services, GET, WRONG[number]) == refused(GET_ERRORS[number])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(first, second, id=f"{first} before {second}")
        for first in ERRORS
        for second in ERRORS
        if first < second and (first, second) not in IMPOSSIBLE
    ],
)
async def test_of_two_errors_of_an_update_the_first_of_the_table_is_told(
    services: dict[bool, httpx.AsyncClient], first: int, second: int
) -> None:
    assert await provoke(services, UPDATE, together(WRONG[first], WRONG[second])) == refused(ERRORS[first])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(first, second, id=f"{first} before {second}")
        for first in GET_ERRORS
        for second in GET_ERRORS
        if first < second
    ],
)
async def test_of_two_errors_of_a_get_the_first_of_the_table_is_told(
    services: dict[bool, httpx.AsyncClient], first: int, second: int
) -> None:
    assert await provoke(services, GET, together(WRONG[first], WRONG[second])) == refused(GET_ERRORS[first])


async def test_an_error_changes_nothing(services: dict[bool, httpx.AsyncClient], with_passwords: OwnDemo) -> None:
    count = "SELECT (SELECT count(*) FROM callflow), (SELECT count(*) FROM callflow_history)"
    for wrong in WRONG.values():
        await provoke(services, UPDATE, wrong)
    assert tuple(await with_passwords.database.fetchrow(count)) == (0, 0)
    assert (await provoke(services, UPDATE, Wrong()))[0] == 200
    assert tuple(await with_passwords.database.fetchrow(count)) == (1, 1)
    after = "SELECT to_jsonb(callflow) FROM callflow"
    before = await with_passwords.database.fetch(after)
    for wrong in WRONG.values():
        await provoke(services, UPDATE, replace(wrong, sent={"custom": "changed", **wrong.sent}))
    assert await with_passwords.database.fetch(after) == before
    await with_passwords.database.execute("TRUNCATE callflow, callflow_history")


def leaves(error: type[CallFlowError]) -> set[type[CallFlowError]]:
    below = error.__subclasses__()
    return set().union(*(leaves(each) for each in below)) if below else {error}


def test_every_error_has_a_text_of_its_own_in_both_calls() -> None:
    assert set(ERROR_TEXTS) == set(GET_ERROR_TEXTS) == leaves(CallFlowError)
    # The two last have no text of their own: MOR knows neither refused targets nor rules.
    assert list(ERROR_TEXTS.values())[:-2] == list(ERRORS.values())
    assert list(GET_ERROR_TEXTS.values())[:-2] == list((ERRORS | GET_ERRORS).values())


DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
ENVELOPES = {
    "status": "<page>\n  <status>\n    <error>{}</error>\n  </status>\n</page>\n",
    "page": "<page>\n  <error>{}</error>\n</page>\n",
    "bare": "<error>{}</error>\n",
}


@pytest_asyncio.fixture(scope="module", params=ENVELOPES)
async def envelope(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(scope="module")
async def broken(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> AsyncIterator[OwnDemo]:
    """A demo whose table of call flows is gone."""
    async with open_own_demo(create_database, migrated_url) as demo:
        await demo.database.execute("DROP TABLE callflow")
        yield demo


@pytest_asyncio.fixture(scope="module")
async def enveloped(start_service: StartService, broken: OwnDemo, envelope: str) -> httpx.AsyncClient:
    return await start_service(broken.url, error_envelope=envelope)


@pytest_asyncio.fixture(scope="module")
async def without_database(start_service: StartService, envelope: str) -> httpx.AsyncClient:
    return await start_service(DEAD, error_envelope=envelope)


FORM, JSON = "application/x-www-form-urlencoded", "application/json"
MULTIPART = "multipart/form-data; boundary=b"
NOT_JSON = "Request body is not the JSON that its Content-Type says"
NOT_MULTIPART = "Request body is not the multipart form that its Content-Type says"
UNREADABLE = [
    pytest.param("text/plain", b"x", "Request body is of a type that is not read here", id="another type"),
    pytest.param("text/xml", b"<a/>", "Request body is of a type that is not read here", id="XML"),
    pytest.param("nonsense", b"x", "Request body is of a type that is not read here", id="no type at all"),
    pytest.param(JSON, b"{", NOT_JSON, id="JSON cut short"),
    pytest.param(JSON, b"u=admin", NOT_JSON, id="a form as JSON"),
    pytest.param(JSON, b'{"a": NaN}', NOT_JSON, id="JSON with what is none"),
    pytest.param(JSON, b"[" * 50_000, NOT_JSON, id="JSON too deep"),
    pytest.param(JSON, '{"a": 1}'.encode("utf-16"), NOT_JSON, id="JSON as UTF-16"),
    pytest.param(JSON, b" ", NOT_JSON, id="a blank as JSON"),
    pytest.param(JSON, b'"a"', "Request body is not a JSON object", id="a JSON text"),
    pytest.param(JSON, b"null", "Request body is not a JSON object", id="a JSON null"),
    pytest.param(JSON, b"[1]", "Request body is not a JSON object", id="a JSON list"),
    pytest.param(JSON, b"[{}]", "Request body is not a JSON object", id="a JSON list of an object"),
    pytest.param(MULTIPART, b"u=admin", NOT_MULTIPART, id="a form as multipart"),
    pytest.param(MULTIPART, b"--b\r\nContent-Disposition: form-data; name=u\r\n\r\nx", NOT_MULTIPART, id="cut short"),
    pytest.param("multipart/form-data", b"--b--\r\n", NOT_MULTIPART, id="multipart without a boundary"),
    pytest.param(MULTIPART + "b" * 300, b"--b--\r\n", NOT_MULTIPART, id="multipart with a boundary too long"),
]


@pytest.mark.parametrize("call", [UPDATE, GET])
@pytest.mark.parametrize(("content_type", "body", "text"), UNREADABLE)
async def test_a_body_that_cannot_be_read_is_told_apart(
    demo_service: httpx.AsyncClient, call: str, content_type: str, body: bytes, text: str
) -> None:
    response = await demo_service.post(call, content=body, headers={"Content-Type": content_type})
    assert answer(response) == refused(text, 400)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("action", ["forward", "empty"])
async def test_a_custom_text_that_is_too_long_is_told_apart(demo_service: httpx.AsyncClient, action: str) -> None:
    for custom in ("a" * 256, "😀" * 256, "\x00" * 256):
        response = await demo_service.post(UPDATE, data=update(callflow_action=action, custom=custom))
        assert answer(response) == refused("Custom caller ID is longer than 255 characters", 400)
    assert (await demo_service.post(GET, data={**get(), "custom": "a" * 256})).status_code == 200


async def test_a_body_may_have_64_kib_and_no_more(demo_service: httpx.AsyncClient) -> None:
    async def in_pieces(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 1000):
            yield b"x" * min(1000, size - start)

    headers = {"Content-Type": FORM}
    for call, missing in ((UPDATE, ERRORS[3]), (GET, GET_ERRORS[3])):
        for largest, larger in ((b"x" * LIMIT, b"x" * (LIMIT + 1)), (in_pieces(LIMIT), in_pieces(LIMIT + 1))):
            response = await demo_service.post(call, content=largest, headers=headers)
            assert answer(response) == refused(missing)
            response = await demo_service.post(call, content=larger, headers=headers)
            assert answer(response) == refused("Request body is larger than 64 KiB", 413)


@pytest.mark.parametrize("prefix", ["/billing/api", "/api"])
async def test_a_failed_transport_is_told_in_the_envelope_of_the_setting(
    enveloped: httpx.AsyncClient,
    without_database: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    envelope: str,
    prefix: str,
) -> None:
    def told(text: str, status: int) -> Answer:
        return page(DECLARATION + ENVELOPES[envelope].format(text), status)

    for name, values in (("device_callflow_update", update()), ("device_callflow_get", get())):
        call = f"{prefix}/{name}"
        response = await enveloped.post(call, content=b"{", headers={"Content-Type": JSON})
        assert answer(response) == told(NOT_JSON, 400)
        response = await enveloped.post(call, content=b"x" * (LIMIT + 1))
        assert answer(response) == told("Request body is larger than 64 KiB", 413)
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
            response = await enveloped.request(method, call)
            assert answer(response) == told("This call takes POST, and GET where that is allowed", 405)
            assert response.headers["allow"] == "GET, POST"
        assert (await enveloped.head(call)).status_code == 405
        response = await without_database.post(call, data=values)
        assert answer(response) == told("Service is temporarily unavailable", 503)
        assert response.headers["retry-after"] == "2"
        caplog.clear()
        assert answer(await enveloped.post(call, data=values)) == told("Internal error", 500)
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert errors == ["defect"]
    for other in ("device_callflow_delete", "user_details_get", "x/y", ""):
        assert answer(await enveloped.post(f"{prefix}/{other}")) == told("There is no such call", 404)
    assert answer(await enveloped.post("/billing//api")) == told("There is no such call", 404)
    assert answer(await enveloped.get(prefix)) == told("There is no such call", 404)


async def test_the_thirteen_errors_are_told_in_the_envelope_of_the_setting(
    enveloped: httpx.AsyncClient, envelope: str
) -> None:
    response = await enveloped.post(UPDATE, data={"u": "nobody"})
    assert answer(response) == page(DECLARATION + ENVELOPES[envelope].format("Bad login"))


async def test_a_database_that_takes_no_changes_is_one_that_cannot_be_reached(
    start_service: StartService, create_database: Callable[..., SecretStr], migrated_url: SecretStr
) -> None:
    async with open_own_demo(create_database, migrated_url) as demo:
        name = await demo.database.fetchval("SELECT current_database()")
        await demo.database.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        service = await start_service(demo.url)
        assert answer(await service.post(GET, data=get()))[0] == 200
        response = await service.post(UPDATE, data=update())
        assert answer(response) == refused("Service is temporarily unavailable", 503)


async def test_a_database_that_does_not_answer_in_time_is_one_that_cannot_be_reached(
    start_service: StartService, create_database: Callable[..., SecretStr], migrated_url: SecretStr
) -> None:
    async with open_own_demo(create_database, migrated_url) as demo:
        service = await start_service(demo.url, database_timeout_ms=300)
        assert (await service.post(GET, data=get())).status_code == 200
        async with demo.database.transaction():
            await demo.database.execute("LOCK TABLE callflow, callflow_history")
            response = await service.post(UPDATE, data=update())
            assert answer(response) == refused("Service is temporarily unavailable", 503)
        assert (await service.post(UPDATE, data=update())).status_code == 200
        assert await demo.database.fetchval("SELECT count(*) FROM callflow_history") == 1
