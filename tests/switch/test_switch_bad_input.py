"""Questions that make no sense and credentials that are wrong: the call goes on, and nothing breaks."""

import base64
import json
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switch_questions import (
    ALICE,
    FACES,
    FLAT_FACES,
    NONE,
    NOT_FOUND,
    SWITCH,
    Flows,
    answered,
    ask,
    flat,
    freeswitch_request,
)

MEGABYTE = 1024 * 1024
TIMES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)


def carries_on(face: str, response: httpx.Response, status: int = 200) -> None:
    assert response.status_code == status
    if face == "freeswitch":
        assert response.headers["content-type"] == "text/xml; charset=utf-8"
        assert response.content == NOT_FOUND
    else:
        assert flat(face, response) == NONE


def outcomes(caplog: pytest.LogCaptureFixture) -> list[object]:
    """How each request came out, after the log; none of them may be a defect."""
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    lines = [record.fields for record in caplog.records if record.name == "callflow_service.request"]
    return [line.get("outcome") for line in lines]


@pytest.mark.usefixtures("flows")
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    ("content_type", "body", "outcome"),
    [
        ("application/json", b'{"device": 4', "body is no JSON"),
        ("application/json", b"\xff\xfe\x00", "body is no JSON"),
        ("application/json", b"[" * 60_000, "body is no JSON"),
        ("application/json", b'{"a":' * 10_000, "body is no JSON"),
        ("application/json", b'{"device": ' + b"4" * 10_000 + b"}", "body is no JSON"),
        ("application/json; charset=utf-8", b"[4]", "body is no JSON object"),
        ("Application/JSON", b'"4"', "body is no JSON object"),
        ("application/json", b"null", "body is no JSON object"),
        ("application/json", b"{" + b" " * MEGABYTE + b"}", "body too large"),
        ("application/x-www-form-urlencoded", b"device=" + b"4" * MEGABYTE, "body too large"),
        ("application/x-www-form-urlencoded", b"&" * 60_000, None),
        ("application/x-www-form-urlencoded", b"\x00\xff=\xfe&%ff%00=%", None),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="device"\r\n\r\n4', None),
        ("text/plain", b"hello", None),
        ("", b"", None),
    ],
)
async def test_a_body_that_makes_no_sense_carries_on(
    service: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    *,
    face: str,
    content_type: str,
    body: bytes,
    outcome: str | None,
) -> None:
    caplog.set_level(logging.INFO, "callflow_service")
    headers = {"content-type": content_type} if content_type else {}
    response = await service.post(f"/switch/{face}", content=body, headers=headers, auth=SWITCH)
    carries_on(face, response)
    missing = "no dialplan request" if face == "freeswitch" else "no device, number or path"
    assert outcomes(caplog) == [f"carry on: {outcome or missing}"]


@pytest.mark.parametrize("size", [64 * 1024, 64 * 1024 + 1])
async def test_a_body_of_64_kib_is_read_and_no_larger_one(service: httpx.AsyncClient, flows: Flows, size: int) -> None:
    await flows.set(500, "before_call", "voicemail")
    body = json.dumps({"device": "500", "padding": ""}).encode()
    body = body.replace(b'""', b'"' + b"x" * (size - len(body)) + b'"')
    headers = {"content-type": "application/json"}
    response = await service.post("/switch/opensips", content=body, headers=headers, auth=SWITCH)
    assert response.json()["action"] == ("voicemail" if size == 64 * 1024 else "none")


async def test_a_body_that_comes_in_pieces_is_read_whole(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "before_call", "voicemail")

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"dev", b"ice=", b"500", b"&call_id=c1"):
            yield piece

    response = await service.post("/switch/opensips", content=pieces(), auth=SWITCH)
    assert response.json()["action"] == "voicemail"


CREDENTIALS = {
    "none": None,
    "another password": "Basic " + base64.b64encode(b"switch:wrong").decode(),
    "no password": "Basic " + base64.b64encode(b"switch:").decode(),
    "no colon": "Basic " + base64.b64encode(b"switch").decode(),
    "nobody": "Basic " + base64.b64encode(b"nobody:switch-secret").decode(),
    "an account of the MOR calls": "Basic " + base64.b64encode(b"admin:admin1").decode(),
    "no base64": "Basic switch:switch-secret",
    "half of it": "Basic",
    "another scheme": "Bearer " + base64.b64encode(b"switch:switch-secret").decode(),
    "no UTF-8": "Basic " + base64.b64encode(b"switch:\xff").decode(),
    "zero bytes": "Basic " + base64.b64encode(b"switch\x00:switch-secret\x00").decode(),
    "very much": "Basic " + base64.b64encode(b"a" * 20_000 + b":b").decode(),
}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("credentials", CREDENTIALS)
async def test_without_the_right_credentials_a_call_carries_on(
    service: httpx.AsyncClient, flows: Flows, caplog: pytest.LogCaptureFixture, face: str, credentials: str
) -> None:
    caplog.set_level(logging.INFO, "callflow_service")
    await flows.set(500, "before_call", "voicemail")
    value = CREDENTIALS[credentials]
    headers = {"authorization": value} if value is not None else {}
    question = freeswitch_request("5000") if face == "freeswitch" else {"device": "500", **ALICE}
    response = await service.post(f"/switch/{face}", data=question, headers=headers)
    carries_on(face, response, 401)
    assert response.headers["www-authenticate"] == 'Basic realm="callflow-service"'
    assert outcomes(caplog) == ["wrong credentials"]


@pytest.mark.parametrize("face", FLAT_FACES)
async def test_without_them_a_call_on_its_way_ends_with_the_cause_that_came(
    service: httpx.AsyncClient, flows: Flows, face: str
) -> None:
    await flows.set(500, "busy", "voicemail")
    for state, cause in (("busy", "486"), ("no_answer", "480"), ("failed", "503"), ("", "503"), ("odd", "503")):
        question = {"path": "4u.500_c1", "state": state}
        response = await service.post(f"/switch/{face}", data=question, auth=("switch", "wrong"))
        assert response.status_code == 401
        expected = NONE | {"action": "end", "cause": cause, "flow_id": "c1", "path": "4u.500_c1"}
        assert flat(face, response) == expected


@pytest.mark.usefixtures("flows")
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("body", [b"", b"[4]", b'{"device": 4', b"{" + b" " * MEGABYTE + b"}"])
async def test_wrong_credentials_are_refused_whatever_the_body_is(
    service: httpx.AsyncClient, face: str, body: bytes
) -> None:
    headers = {"content-type": "application/json"}
    response = await service.post(f"/switch/{face}", content=body, headers=headers, auth=("switch", "wrong"))
    carries_on(face, response, 401)


async def test_the_scheme_of_the_credentials_may_be_in_any_case(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "before_call", "voicemail")
    headers = {"authorization": "bAsIc " + base64.b64encode(b"switch:switch-secret").decode()}
    response = await service.post("/switch/opensips", data={"device": "500"}, headers=headers)
    assert response.json()["action"] == "voicemail"


async def test_a_username_is_not_logged_before_its_password_was_right(
    service: httpx.AsyncClient, flows: Flows, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "callflow_service")
    await flows.set(500, "before_call", "voicemail")
    for password in ("wrong", "switch-secret"):
        await service.post("/switch/opensips", data={"device": "500"}, auth=("switch", password))
    first, second = [record.fields for record in caplog.records if record.name == "callflow_service.request"]
    assert (first["call"], first.get("account"), first["outcome"]) == ("switch.opensips", None, "wrong credentials")
    assert (second["call"], second["account"], second["outcome"]) == ("switch.opensips", "switch", "voicemail")
    assert "switch-secret" not in caplog.text


@pytest.mark.parametrize(
    "path",
    [
        "",
        "4",
        "_",
        "4_",
        "_c1",
        "4_c1\n",
        " 4_c1",
        "4_c_1",
        "-1_c1",
        "04_c1",
        "4u5_c1",
        "4z.5_c1",
        "xu.4_c1",
        "9223372036854775808_c1",
        "9" * 10_000 + "_c1",
        "4u." * 65 + "5_c1",
        "4u." * 10_000 + "5_c1",
        "٤_c1",
        "4_" + "c" * 65,
        "4_${x}",
        "' OR 1=1 --",
    ],
)
async def test_what_is_no_marker_of_ours_is_as_if_it_were_not_there(
    service: httpx.AsyncClient, flows: Flows, path: str
) -> None:
    await flows.set(500, "busy", "voicemail")
    assert await ask(service, path=path, state="busy") == NONE
    assert await ask(service, path=path, device="500") == answered(
        "ring", dial="sip:5000@127.0.0.1", ring_seconds="20", device="500", path="500_c1"
    )


async def test_a_marker_that_somebody_made_up_opens_nothing(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "busy", "voicemail")
    longest = "".join(f"{2**63 - 1 - i}b." for i in range(64))
    told = await ask(service, path=f"{longest}500_c1", state="busy")
    assert (told["action"], told["leg"], told["payer"]) == ("voicemail", "65", "")
    told = await ask(service, path="9223372036854775807_c1", state="busy")
    assert told == answered("end", cause="486", path="x_c1")


@TIMES
@given(
    body=st.binary(max_size=200),
    content_type=st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain"]),
    face=st.sampled_from(FACES),
)
async def test_any_bytes_are_answered(
    service: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, body: bytes, content_type: str, face: str
) -> None:
    caplog.clear()
    response = await service.post(f"/switch/{face}", content=body, headers={"content-type": content_type}, auth=SWITCH)
    assert response.status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
ASKED = ("device", "called", "path", "state", "caller_number", "caller_name", "privacy", "call_id", "privacy_header")


@TIMES
@given(question=st.dictionaries(st.sampled_from(ASKED), JSON), face=st.sampled_from(FLAT_FACES))
async def test_any_json_is_answered(
    service: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, question: dict[str, object], face: str
) -> None:
    caplog.clear()
    headers = {"content-type": "application/json"}
    response = await service.post(f"/switch/{face}", content=json.dumps(question), headers=headers, auth=SWITCH)
    assert response.status_code == 200
    flat(face, response)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)


@TIMES
@given(authorization=HEADER | HEADER.map("Basic {}".format), content_type=HEADER, face=st.sampled_from(FACES))
async def test_any_header_is_answered(
    service: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, authorization: str, content_type: str, face: str
) -> None:
    caplog.clear()
    headers = {
        "authorization": authorization.strip().encode("latin-1"),
        "content-type": content_type.strip().encode("latin-1"),
    }
    response = await service.post(f"/switch/{face}", content=b"device=4", headers=headers)
    carries_on(face, response, 401)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
