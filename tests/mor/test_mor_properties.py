"""Whatever is sent, the answer is a page, and an error changes nothing."""

import json
import logging
import xml.etree.ElementTree as ET
from urllib.parse import quote, urlencode

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callflow_service.mor.face import FAILED_TRANSPORT
from mor_requests import ADMIN_KEY, ERRORS, GET, GET_ERRORS, GOOD, ORDER, UPDATE, get, sha1_hex, update

OURS = {
    "Request body is of a type that is not read here",
    "Request body is not the JSON that its Content-Type says",
    "Request body is not a JSON object",
    "Request body is not the multipart form that its Content-Type says",
    "Custom caller ID is longer than 255 characters",
}
TEXTS = {200: {*ERRORS.values(), *GET_ERRORS.values()}, 400: OURS, 413: {FAILED_TRANSPORT[413]}}
CONTENTS = "SELECT (SELECT jsonb_agg(callflow) FROM callflow), (SELECT count(*) FROM callflow_history)"

moderate = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
names = st.sampled_from([*ORDER, "u", "p", "hash", "action", "foward_to_device"])
words = st.sampled_from(["4", "5", "2", "1", "true", "busy", "forward", "empty", "+370"])
values = st.one_of(st.text(max_size=20), words)
sent_values = st.dictionaries(names, values, max_size=6).map(lambda changed: {**GOOD, **changed})
content_types = st.one_of(
    st.sampled_from(
        ["", "application/x-www-form-urlencoded", "application/json", "multipart/form-data; boundary=b", "text/plain"]
    ),
    st.text(st.characters(max_codepoint=0xFF), max_size=30).filter(
        lambda text: text.isprintable() and text == text.strip()
    ),
)


async def check(service: httpx.AsyncClient, database: asyncpg.Connection, request: httpx.Request) -> None:
    before = tuple(await database.fetchrow(CONTENTS))
    response = await service.send(request)
    root = ET.fromstring(response.content)  # noqa: S314 - our own page
    error = root.findtext("status/error")
    if error is None:
        assert response.status_code == 200
        assert root.findtext("status") == "Callflow was successfully updated" or root.findtext("device") == "IAX2/1002"
    else:
        assert error in TEXTS[response.status_code]
        assert tuple(await database.fetchrow(CONTENTS)) == before


@moderate
@given(sent=sent_values, encoding=st.sampled_from(["form", "query", "json", "multipart"]), right=st.booleans())
async def test_any_text_in_any_parameter_gives_a_page(
    demo_service: httpx.AsyncClient,
    demo_database: asyncpg.Connection,
    *,
    sent: dict[str, str],
    encoding: str,
    right: bool,
) -> None:
    if right:
        string = "".join(sent.get(name, "") for name in ORDER) + ADMIN_KEY
        digest = sha1_hex("", string.encode("utf-8", "surrogatepass").decode("latin-1"), encoding="latin-1")
        sent = {**sent, "u": "admin", "hash": digest}
    form = urlencode(sent, errors="surrogatepass")
    match encoding:
        case "query":
            request = demo_service.build_request("POST", f"{UPDATE}?{form}")
        case "json":
            headers = {"Content-Type": "application/json"}
            request = demo_service.build_request("POST", UPDATE, content=json.dumps(sent), headers=headers)
        case "multipart":
            part = 'Content-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
            text = "".join("--b\r\n" + part.format(name, value) for name, value in sent.items()) + "--b--\r\n"
            request = demo_service.build_request(
                "POST",
                UPDATE,
                content=text.encode("utf-8", "surrogatepass"),
                headers={"Content-Type": "multipart/form-data; boundary=b"},
            )
        case _:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            request = demo_service.build_request("POST", UPDATE, content=form, headers=headers)
    await check(demo_service, demo_database, request)


@moderate
@given(
    body=st.binary(max_size=200), content_type=content_types, call=st.sampled_from([UPDATE, GET]), good=st.booleans()
)
async def test_any_body_of_any_type_gives_a_page(
    demo_service: httpx.AsyncClient,
    demo_database: asyncpg.Connection,
    *,
    body: bytes,
    content_type: str,
    call: str,
    good: bool,
) -> None:
    query = urlencode(update() if call == UPDATE else get()) if good else ""
    headers = {"Content-Type": content_type.encode("latin-1")}
    request = demo_service.build_request("POST", f"{call}?{query}", content=body, headers=headers)
    await check(demo_service, demo_database, request)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), values),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=6,
)


@moderate
@given(
    body=st.one_of(json_values, st.dictionaries(names, json_values)),
    damage=st.sampled_from([b"", b"\xe9", b"\xff\x00"]),
)
async def test_any_json_gives_a_page(
    demo_service: httpx.AsyncClient, demo_database: asyncpg.Connection, *, body: object, damage: bytes
) -> None:
    content = json.dumps({"x": "DAMAGE", "body": body} | (body if isinstance(body, dict) else {})).encode()
    headers = {"Content-Type": "application/json"}
    url = f"{UPDATE}?{urlencode(update())}"
    content = content.replace(b"DAMAGE", damage)
    await check(demo_service, demo_database, demo_service.build_request("POST", url, content=content, headers=headers))


@moderate
@given(path=st.text("/abz%_-é", max_size=20))
async def test_any_path_below_the_calls_gives_a_page(demo_service: httpx.AsyncClient, path: str) -> None:
    response = await demo_service.post(f"/billing/api/{quote(path)}")
    assert response.status_code == 404
    assert ET.fromstring(response.content).findtext("status/error") == FAILED_TRANSPORT[404]  # noqa: S314 - our own page


@pytest.mark.usefixtures("untouched")
async def test_no_secret_reaches_a_log(demo_service: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = {"p": "canary-password", "hash": "canary-hash", "API_Secret_Key": "canary-key"}
    good = {"p": "admin1", "API_Secret_Key": "456789"}
    json_type = {"Content-Type": "application/json"}
    seen = []
    for call, right in ((UPDATE, update()), (GET, get())):
        for sent in ({**right, **secrets}, {**right, **good}, {"u": "nobody", **secrets}, {**secrets, "u": "open"}):
            seen += [
                await demo_service.post(call, data=sent),
                await demo_service.post(call, json=sent),
                await demo_service.post(f"{call}?{urlencode(sent)}"),
                await demo_service.get(call, params=sent),
                await demo_service.put(call, params=sent),
                await demo_service.post(f"{call}/x?{urlencode(sent)}"),
                *[await demo_service.post(f"{call}{query}{urlencode(sent)}") for query in ("%3F", "%253F", "&", ";")],
                await demo_service.post(call, content=json.dumps(sent)[:-1], headers=json_type),
                await demo_service.post(call, data={**sent, "custom": "c" * 70_000}),
            ]
    # The client's and the server's access lines are no logs of ours; the program switches the latter off.
    not_ours = ("httpx", "httpcore", "uvicorn.access")
    records = [record for record in caplog.records if not record.name.startswith(not_ours)]
    told = "".join(f"{record.getMessage()} {vars(record)} {record.exc_text}" for record in records)
    told += "".join(response.text for response in seen)
    assert "device_callflow_update" in told
    for secret in ("canary", "admin1", "456789", update()["hash"], get()["hash"]):
        assert secret not in told
