"""The bytes that Asterisk, Kamailio and OpenSIPS are sent."""

import json
import re
from urllib.parse import parse_qsl

import httpx
import pytest

from switch_questions import ALICE, NAMES, NONE, SWITCH, Flows, flat

QUESTION = {**ALICE, "device": "4", "caller_name": "Ona Ą"}
TO_DEVICE = {
    "action": "forward",
    "dial": "sip:5000@127.0.0.1",
    "ring_seconds": "20",
    "fax_dial": "",
    "mailbox": "",
    "cause": "",
    "caller_number": "37061111111",
    "caller_name": "Ona Ą",
    "privacy": "off",
    "reason": "unconditional",
    "device": "500",
    "payer": "user1",
    "payer_device": "4",
    "leg": "2",
    "flow_id": "c1",
    "path": "4u.500_c1",
    "diversion": "<sip:1002@127.0.0.1>;reason=unconditional;counter=1;privacy=off",
    "history_info": "<sip:1002@127.0.0.1?Privacy=none>;index=1, <sip:5000@127.0.0.1;cause=302>;index=1.1;mp=1",
    "explain": "",
}


def one_line(answer: dict[str, str]) -> bytes:
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


MARKER_DETAILS = re.compile(rb"(?<=_c1)_t[0-9a-z]{6}")


async def test_asterisk_gets_a_form_with_spaces_escaped(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    response = await service.get("/switch/asterisk", params=QUESTION, auth=SWITCH)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-www-form-urlencoded")
    assert MARKER_DETAILS.sub(b"", response.content) == (
        b"action=forward&dial=PJSIP%2F5000&ring_seconds=20&fax_dial=&mailbox=&cause=&caller_number=37061111111"
        b"&caller_name=Ona%20%C4%84&privacy=off"
        b"&reason=unconditional&device=500&payer=user1&payer_device=4&leg=2&flow_id=c1&path=4u.500_c1"
        b"&diversion=%3Csip%3A1002%40127.0.0.1%3E%3Breason%3Dunconditional%3Bcounter%3D1%3Bprivacy%3Doff"
        b"&history_info=%3Csip%3A1002%40127.0.0.1%3FPrivacy%3Dnone%3E%3Bindex%3D1%2C%20"
        b"%3Csip%3A5000%40127.0.0.1%3Bcause%3D302%3E%3Bindex%3D1.1%3Bmp%3D1"
        b"&explain="
    )


async def test_asterisk_gets_flat_json_where_it_asks_for_it(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    response = await service.post("/switch/asterisk", data=QUESTION | {"format": "json"}, auth=SWITCH)
    assert response.headers["content-type"] == "application/json"
    assert MARKER_DETAILS.sub(b"", response.content) == one_line(TO_DEVICE | {"dial": "PJSIP/5000"})


async def test_whatever_the_chain_asterisk_reads_its_path_within_4096_characters(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(4, to=500)
    chain = ", ".join(f"<sip:{user}@{'a-long-name.' * 3}example>;index=1.{user}" for user in range(100, 160))
    response = await service.post("/switch/asterisk", data=QUESTION | {"history_info": chain}, auth=SWITCH)
    pairs = parse_qsl(response.text, keep_blank_values=True)
    joined = ",".join(value.replace(",", "\\,") for _, value in pairs)
    assert len(joined) > 4096
    assert MARKER_DETAILS.sub(b"", joined.encode()).startswith(
        "forward,PJSIP/5000,20,,,,37061111111,Ona Ą,off,unconditional,500,user1,4,2,c1,4u.500_c1,<sip:1002@".encode()
    )


@pytest.mark.usefixtures("flows")
async def test_asterisk_gets_json_even_where_there_is_nothing_to_say(service: httpx.AsyncClient) -> None:
    response = await service.post("/switch/asterisk", data={"format": "json"}, auth=SWITCH)
    assert (response.status_code, response.json()) == (200, NONE)


async def test_opensips_gets_flat_json_on_one_line(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    response = await service.post("/switch/opensips", json=QUESTION, auth=SWITCH)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert MARKER_DETAILS.sub(b"", response.content) == one_line(TO_DEVICE)


async def test_kamailio_gets_a_route_and_every_name_on_one_line(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500, caller_id="device")
    response = await service.post("/switch/kamailio", json=QUESTION, auth=SWITCH)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    routes = [
        {
            "uri": "sip:5000@127.0.0.1",
            "fr_inv_timer": 20_000,
            "headers": {
                "from": {"display": '"Front desk"', "uri": "sip:37060001002@127.0.0.1"},
                "extra": f"Diversion: {TO_DEVICE['diversion']}\r\nHistory-Info: {TO_DEVICE['history_info']}\r\n",
            },
        }
    ]
    shown = {"caller_number": "37060001002", "caller_name": "Front desk"}
    document = {"version": "1.0", "routing": "serial", "routes": routes, **TO_DEVICE, **shown}
    assert flat("kamailio", response) == TO_DEVICE | shown
    assert response.json() | {"path": TO_DEVICE["path"]} == document


async def routes(service: httpx.AsyncClient, **question: str) -> object:
    response = await service.post("/switch/kamailio", json={**ALICE, **question}, auth=SWITCH)
    flat("kamailio", response)
    return response.json()["routes"]


async def test_kamailio_keeps_from_and_headers_where_we_change_nothing(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(500, "busy", "voicemail")
    assert await routes(service, device="500") == [{"uri": "sip:5000@127.0.0.1", "fr_inv_timer": 20_000, "headers": {}}]


async def test_kamailio_rings_the_device_itself_where_a_fax_may_come(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "before_call", "fax_detect", target=2)
    assert await routes(service, device="500") == [{"uri": "sip:5000@127.0.0.1", "fr_inv_timer": 20_000, "headers": {}}]


async def test_kamailio_gets_no_route_where_nothing_is_dialled(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "busy", "voicemail")
    assert await routes(service, device="501") == []
    assert await routes(service, device="999") == []
    assert await routes(service, path="500_c1", state="busy") == []
    assert await routes(service, path="500_c1", state="failed") == []
    assert await routes(service) == []


async def test_kamailio_gets_a_route_to_the_voicemail_that_its_user_names(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(500, "before_call", "voicemail")
    response = await service.post(
        "/switch/kamailio", json={**ALICE, "device": "500"}, auth=("templated", "switch-secret")
    )
    assert response.json()["routes"] == [{"uri": "sip:vm-sip-5000@pbx.example", "headers": {}}]


@pytest.mark.parametrize(
    ("caller", "text", "expected"),
    [
        ({}, "X", {"display": '"X"', "uri": "sip:37061111111@127.0.0.1"}),
        ({"privacy": "name"}, "X", {"display": '"37061111111"', "uri": "sip:37061111111@127.0.0.1"}),
        ({"privacy": "number"}, "X", {"display": '"Anonymous"', "uri": "sip:anonymous@anonymous.invalid"}),
        ({"privacy": "full"}, "X", {"display": '"Anonymous"', "uri": "sip:anonymous@anonymous.invalid"}),
        ({"caller_number": ""}, "X", {"display": '"Anonymous"', "uri": "sip:anonymous@anonymous.invalid"}),
        ({"privacy": "full"}, '"O\'Neil" <*11#>', {"display": '"O\'Neil"', "uri": "sip:*11%23@127.0.0.1"}),
        ({}, "+370", {"display": '"+370"', "uri": "sip:+370@127.0.0.1"}),
    ],
)
async def test_kamailios_from_shows_no_more_than_privacy_lets_it(
    service: httpx.AsyncClient, flows: Flows, caller: dict[str, str], text: str, expected: dict[str, str]
) -> None:
    await flows.forward(500, to=501, caller_id="custom", text=text)
    (route,) = await routes(service, device="500", **caller)
    assert route["headers"]["from"] == expected


@pytest.mark.parametrize("face", ["kamailio", "opensips", "asterisk"])
@pytest.mark.parametrize("question", [{}, {"path": "4_c1", "state": "busy"}])
async def test_every_name_is_always_there_and_every_value_a_text(
    service: httpx.AsyncClient, flows: Flows, face: str, question: dict[str, str]
) -> None:
    await flows.set(4, "busy", "empty")
    response = await service.post(f"/switch/{face}", data=question, auth=SWITCH)
    assert tuple(flat(face, response)) == NAMES
