"""Calls as carriers send and want them: parameters in numbers, bytes of no known encoding, privacy, trunks."""

import json

import httpx
import pytest

from switch_questions import FLAT_FACES, NONE, SWITCH, Flows, answered, ask, ask_freeswitch, flat

FORWARDING = ("forwarding", SWITCH[1])
HEADERLESS = ("headerless", SWITCH[1])
DIVERTED = "<sip:2001@example.org>;reason=user-busy;counter=1;privacy=off"


@pytest.mark.parametrize("face", FLAT_FACES)
@pytest.mark.parametrize(
    "called",
    [
        "37052000001",
        "+37052000001;npdi;rn=+37052000000",
        "%2B37052000001",
        "37052000001;phone-context=example.org",
        " 37052000001;npdi",
    ],
)
async def test_a_number_is_found_whatever_a_carrier_writes_behind_it(
    service: httpx.AsyncClient, flows: Flows, face: str, called: str
) -> None:
    await flows.set(4, "before_call", "voicemail")
    assert await ask(service, face, called=called) == answered("voicemail", mailbox="1002", device="4", path="4_c1")


@pytest.mark.parametrize("name", ["*53#", "*53%23", "*53%23;npdi"])
async def test_a_name_with_a_number_sign_is_found_as_it_is_written_in_a_uri(
    service: httpx.AsyncClient, flows: Flows, name: str
) -> None:
    await flows.set(531, "before_call", "voicemail")
    told = await ask(service, called=name)
    assert (told["action"], told["mailbox"], told["path"]) == ("voicemail", "*53#", "531_c1")


async def test_freeswitch_finds_a_number_with_parameters_too(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(4, "before_call", "voicemail")
    for destination in ("37052000001", "+37052000001;npdi;rn=+37052000000", "%2B37052000001"):
        actions = await ask_freeswitch(service, destination)
        assert actions is not None
        assert dict(actions)["voicemail"] == "default 127.0.0.1 1002"


async def test_a_caller_id_of_letters_is_shown(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(532, to=500, caller_id="device")
    told = await ask(service, device="532")
    assert (told["caller_number"], told["caller_name"]) == ("anna.k", "Anna")


@pytest.mark.parametrize("face", FLAT_FACES)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("form", [True, False])
async def test_a_question_in_no_known_encoding_is_read_as_latin_1(
    service: httpx.AsyncClient, flows: Flows, face: str, encoding: str, *, form: bool
) -> None:
    await flows.set(4, "busy", "voicemail")
    if form:
        body = "device=4&caller_name=J\u00f6rg&diversion=".encode(encoding) + f'"J\u00f6rg" {DIVERTED}'.encode(encoding)
        headers = {"content-type": "application/x-www-form-urlencoded"}
    else:
        question = {"device": "4", "caller_name": "J\u00f6rg", "diversion": f'"J\u00f6rg" {DIVERTED}'}
        body = json.dumps(question, ensure_ascii=False).encode(encoding)
        headers = {"content-type": "application/json"}
    body = body.replace(b";", b"%3B") if form else body
    told = flat(face, await service.post(f"/switch/{face}", content=body, headers=headers, auth=SWITCH))
    assert (told["caller_name"], told["diversion"]) == ("J\u00f6rg", DIVERTED)


@pytest.mark.parametrize("header", ["history", "Header", "id;session"])
async def test_diversions_that_came_in_are_marked_private_where_the_caller_wants_it(
    service: httpx.AsyncClient, flows: Flows, header: str
) -> None:
    await flows.forward(4, to=500)
    told = await ask(service, device="4", diversion=DIVERTED, privacy_header=header)
    assert told["diversion"] == (
        "<sip:1002@127.0.0.1>;reason=unconditional;counter=1;privacy=off, "
        "<sip:2001@example.org>;reason=user-busy;counter=1;privacy=full"
    )
    assert told["history_info"] == (
        "<sip:2001@example.org?Privacy=history>;index=1, <sip:1002@127.0.0.1;cause=486?Privacy=none>;index=1.1;mp=1, "
        "<sip:5000@127.0.0.1;cause=302>;index=1.1.1;mp=1.1"
    )


@pytest.mark.parametrize("header", ["id", "none", "critical", ""])
async def test_other_wishes_leave_the_diversions_that_came_in_as_they_are(
    service: httpx.AsyncClient, flows: Flows, header: str
) -> None:
    await flows.forward(4, to=500)
    told = await ask(service, device="4", diversion=DIVERTED, privacy_header=header)
    assert told["diversion"].endswith(DIVERTED)


@pytest.mark.parametrize("face", FLAT_FACES)
async def test_a_callback_from_an_emergency_centre_is_diverted_by_nothing(
    service: httpx.AsyncClient, flows: Flows, face: str
) -> None:
    await flows.forward(4, to=500)
    await flows.set(4, "busy", "voicemail")
    alice = {"caller_number": "37061111111", "caller_name": "Alice", "privacy": "off", "leg": "1", "flow_id": "c1"}
    for question in ({}, {"state": "busy"}):
        told = await ask(service, face, device="4", priority=" PSAP-Callback", **question)
        assert told == NONE | alice | {"device": "4"}
    assert (await ask(service, face, device="4", priority="emergency"))["action"] == "forward"


async def route(service: httpx.AsyncClient, *, user: tuple[str, str] = SWITCH, **question: str) -> dict[str, object]:
    body = {"call_id": "c1", "caller_number": "37061111111", "caller_name": "Alice", **question}
    (one,) = (await service.post("/switch/kamailio", json=body, auth=user)).json()["routes"]
    headers: dict[str, object] = one["headers"]
    return headers


async def test_a_leg_that_was_not_diverted_leaves_the_caller_as_it_came(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(4, "busy", "voicemail")
    assert await route(service, device="4", caller_name="A<l>ice", privacy="full") == {}


async def test_a_withheld_caller_is_anonymous_on_a_diverted_leg(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    headers = await route(service, device="4", privacy_header="id")
    assert headers["from"] == {"display": '"Anonymous"', "uri": "sip:anonymous@anonymous.invalid"}


async def test_a_caller_that_stays_the_same_keeps_its_own_from(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    assert list(await route(service, device="4")) == ["extra"]


async def test_a_trunk_that_wants_the_forwarder_gets_the_caller_asserted(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(4, to="37069999999")
    headers = await route(service, device="4", user=FORWARDING)
    assert headers == {
        "from": {"display": '"Front desk"', "uri": "sip:37052000001@carrier.example"},
        "extra": "Diversion: <sip:37052000001@pbx.example>;reason=unconditional;counter=1;privacy=off\r\n"
        'P-Asserted-Identity: "Alice" <sip:37061111111@carrier.example>\r\n',
    }
    headers = await route(service, device="4", user=FORWARDING, privacy="full")
    assert str(headers["extra"]).endswith("<sip:37061111111@carrier.example>\r\nPrivacy: id\r\n")


async def test_a_trunks_wishes_stand_in_every_answer_of_its_switch(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to="37069999999")
    names = ("caller_number", "caller_name", "from_host", "asserted_number", "asserted_name", "asserted_privacy")
    body = {"device": "4", "caller_number": "37061111111", "caller_name": "Alice", "privacy": "number"}
    told = (await service.post("/switch/opensips", json=body, auth=FORWARDING)).json()
    assert [told[name] for name in names] == [
        "37052000001",
        "Front desk",
        "carrier.example",
        "37061111111",
        "Alice",
        "number",
    ]
    await flows.forward(4, to=500)
    told = (await service.post("/switch/opensips", json=body, auth=FORWARDING)).json()
    assert [told[name] for name in names] == ["37061111111", "Alice", "", "", "", ""]


async def test_a_trunk_is_told_of_diversions_by_the_headers_that_it_wants(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(4, to="37069999999")
    body = {"device": "4", "caller_number": "37061111111"}
    told = (await service.post("/switch/asterisk?format=json", data=body, auth=HEADERLESS)).json()
    assert (told["caller_number"], told["diversion"], told["history_info"]) == ("37061111111", "", "")
    await flows.forward(4, to=500)
    told = (await service.post("/switch/asterisk?format=json", data=body, auth=HEADERLESS)).json()
    assert told["diversion"] == "<sip:1002@pbx.example>;reason=unconditional;counter=1;privacy=off"
