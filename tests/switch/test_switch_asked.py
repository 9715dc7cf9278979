"""What the switches ask: each name of a question, and what it does."""

import httpx
import pytest

from switch_questions import FLAT_FACES, NONE, Flows, StartService, answered, ask, ask_freeswitch, flat, leg, variables

FRONT_DESK = answered("ring", dial="sip:iax2-1002@127.0.0.1", ring_seconds="60", device="4", path="4_c1")
"""Device 4 rings, since something is set for when it is busy."""


@pytest.mark.parametrize("called", ["37052000001", "+37052000001"])
async def test_a_did_reaches_its_device_with_and_without_a_plus(
    service: httpx.AsyncClient, flows: Flows, called: str
) -> None:
    await flows.set(4, "busy", "voicemail")
    assert await ask(service, called=called) == FRONT_DESK


@pytest.mark.parametrize("called", ["37052000010", "+37052000010"])
async def test_a_did_that_is_stored_with_a_plus_is_reached_without_one(
    service: httpx.AsyncClient, flows: Flows, called: str
) -> None:
    await flows.set(500, "busy", "voicemail")
    assert await ask(service, called=called) == answered(
        "ring", dial="sip:5000@127.0.0.1", ring_seconds="20", device="500", path="500_c1"
    )


async def test_a_plus_that_was_not_escaped_in_a_form_is_a_plus(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(4, "busy", "voicemail")
    response = await service.get(
        "/switch/opensips?called=+37052000001&caller_number=+37061111111&call_id=c1", auth=("switch", "switch-secret")
    )
    assert flat("opensips", response) == FRONT_DESK | {"caller_number": "+37061111111", "caller_name": ""}


@pytest.mark.usefixtures("flows")
@pytest.mark.parametrize("called", ["37052000003", "+37052000003"])
async def test_a_did_without_a_device_is_unknown(service: httpx.AsyncClient, called: str) -> None:
    assert await ask(service, called=called) == answered("none")


async def test_a_did_without_a_device_is_not_taken_for_the_device_of_that_name(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.connection.execute("UPDATE device SET name = '37052000003' WHERE id = 511")
    await flows.set(511, "busy", "voicemail")
    try:
        assert await ask(service, called="37052000003") == answered("none")
    finally:
        await flows.connection.execute("UPDATE device SET name = '5011' WHERE id = 511")


async def test_a_did_wins_over_the_device_of_that_name(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.connection.execute("UPDATE device SET name = '37052000001' WHERE id = 511")
    await flows.set(4, "busy", "voicemail")
    await flows.set(511, "busy", "voicemail")
    try:
        assert await ask(service, called="37052000001") == FRONT_DESK
    finally:
        await flows.connection.execute("UPDATE device SET name = '5011' WHERE id = 511")


async def test_a_device_is_called_by_its_name(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(4, "busy", "voicemail")
    assert await ask(service, called="1002") == FRONT_DESK


@pytest.mark.usefixtures("flows")
@pytest.mark.parametrize("called", ["1003", "+1002", "101 ", "%", "", "1002\x00", "1002\ud800", "1" * 10_000])
async def test_a_number_that_names_nothing_is_unknown(service: httpx.AsyncClient, called: str) -> None:
    expected = answered("none") if called else NONE
    assert await ask(service, called=called) == expected


async def test_a_name_that_is_too_long_is_not_cut_to_one_that_fits(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.connection.execute("UPDATE device SET name = $1 WHERE id = 511", "7" * 64)
    await flows.set(511, "busy", "voicemail")
    try:
        assert (await ask(service, called="7" * 64))["action"] == "ring"
        assert await ask(service, called="7" * 65) == answered("none")
    finally:
        await flows.connection.execute("UPDATE device SET name = '5011' WHERE id = 511")


async def test_of_devices_that_share_a_name_sip_wins(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(5, "busy", "voicemail")
    await flows.set(100, "busy", "voicemail")
    assert await ask(service, called="101") == answered(
        "ring", dial="sip:101@127.0.0.1", ring_seconds="60", device="100", path="100_c1"
    )


async def test_technologies_that_are_not_listed_come_in_the_order_of_their_names(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(520, "busy", "voicemail")
    await flows.set(521, "busy", "voicemail")
    assert await ask(service, called="7000") == answered(
        "ring", dial="sip:h323-7000@127.0.0.1", ring_seconds="60", device="521", path="521_c1"
    )


async def test_the_operator_says_which_technology_wins(start_switch_service: StartService, flows: Flows) -> None:
    service = await start_switch_service(technologies="ZAP,IAX2")
    for device in (5, 100, 520, 521):
        await flows.set(device, "busy", "voicemail")
    assert (await ask(service, called="101"))["device"] == "5"
    assert (await ask(service, called="7000"))["device"] == "520"


async def test_a_device_is_asked_about_by_its_id(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(4, "busy", "voicemail")
    assert await ask(service, device="4") == FRONT_DESK
    assert await ask(service, device="0004") == FRONT_DESK


async def test_the_device_wins_over_the_number(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(4, "busy", "voicemail")
    assert await ask(service, device="4", called="101") == FRONT_DESK


@pytest.mark.usefixtures("flows")
@pytest.mark.parametrize(
    "device", ["999", "-1", "4.0", "0x4", "٤", " 4", "4 ", "4;", "9" * 19, "9" * 10_000, "SIP/101", "4\x00"]
)
async def test_an_id_that_names_nothing_is_unknown(service: httpx.AsyncClient, device: str) -> None:
    assert await ask(service, device=device) == answered("none")


@pytest.mark.parametrize("face", FLAT_FACES)
async def test_without_device_number_and_path_there_is_nothing_to_answer(service: httpx.AsyncClient, face: str) -> None:
    assert await ask(service, face) == NONE
    assert await ask(service, face, device="", called="", path="") == NONE


async def test_the_state_is_before_the_call_where_none_is_said(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(4, "before_call", "voicemail")
    expected = answered("voicemail", mailbox="1002", device="4", path="4_c1")
    assert await ask(service, device="4") == expected
    assert await ask(service, device="4", state="") == expected
    assert await ask(service, device="4", state="before_call") == expected


@pytest.mark.parametrize("state", ["no_answer", "busy", "failed"])
async def test_each_state_has_a_flow_of_its_own(service: httpx.AsyncClient, flows: Flows, state: str) -> None:
    await flows.set(4, state, "voicemail")
    assert await ask(service, device="4", state=state) == answered("voicemail", mailbox="1002", device="4", path="4_c1")
    assert await ask(service, device="4") == FRONT_DESK


@pytest.mark.parametrize(("state", "cause"), [("no_answer", "480"), ("busy", "486"), ("failed", "503")])
async def test_a_state_with_nothing_set_ends_the_call_where_another_one_is_set(
    service: httpx.AsyncClient, flows: Flows, state: str, cause: str
) -> None:
    await flows.set(4, "before_call", "voicemail")
    expected = answered("end", cause=cause, device="4", path="4_c1")
    assert await ask(service, device="4", state=state) == expected


async def test_a_state_that_does_not_exist_makes_no_sense(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(4, "busy", "voicemail")
    assert await ask(service, device="4", state="BUSY") == NONE


@pytest.mark.parametrize("state", ["BUSY", "answered", "\x00"])
async def test_a_call_on_its_way_in_a_state_that_does_not_exist_has_failed(
    service: httpx.AsyncClient, flows: Flows, state: str
) -> None:
    await flows.set(4, "failed", "voicemail")
    assert await ask(service, path="4_c1", state=state) == answered(
        "voicemail", mailbox="1002", device="4", path="4_c1"
    )


async def test_a_path_alone_asks_about_the_device_that_it_ends_in(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    await flows.set(500, "busy", "voicemail")
    assert await ask(service, path="4u.500_c1", state="busy", call_id="") == answered(
        "voicemail",
        mailbox="5000",
        device="500",
        path="4u.500_c1",
        reason="unconditional",
        payer="user1",
        payer_device="4",
        leg="2",
        diversion="<sip:1002@127.0.0.1>;reason=unconditional;counter=1;privacy=off",
        history_info="<sip:1002@127.0.0.1?Privacy=none>;index=1, <sip:5000@127.0.0.1;cause=302>;index=1.1;mp=1",
    )


@pytest.mark.parametrize("question", [{"device": "501"}, {"called": "5001"}])
async def test_beside_a_device_or_a_number_the_path_is_history(
    service: httpx.AsyncClient, flows: Flows, question: dict[str, str]
) -> None:
    await flows.forward(4, to=500)
    await flows.set(500, "busy", "voicemail")
    assert await ask(service, path="4u.500_c1", state="busy", **question) == answered(
        "end",
        cause="486",
        device="501",
        path="4u.501_c1",
        reason="unconditional",
        payer="user1",
        payer_device="4",
        leg="2",
        diversion="<sip:1002@127.0.0.1>;reason=unconditional;counter=1;privacy=off",
        history_info="<sip:1002@127.0.0.1?Privacy=none>;index=1, <sip:5001@127.0.0.1;cause=302>;index=1.1;mp=1",
    )


@pytest.mark.usefixtures("flows")
@pytest.mark.parametrize(
    ("question", "cause"),
    [
        ({"path": "999_c1", "state": "busy"}, "486"),
        ({"path": "x_c1", "state": "no_answer"}, "480"),
        ({"path": "x_c1"}, "503"),
        ({"path": "4_c1", "called": "nobody", "state": "busy"}, "486"),
        ({"path": "4_c1", "device": "999"}, "503"),
        ({"path": "4_c1", "state": "busy"}, "486"),
        ({"path": "4_c1", "state": "failed"}, "503"),
    ],
)
async def test_a_call_on_its_way_is_never_told_to_carry_on(
    service: httpx.AsyncClient, question: dict[str, str], cause: str
) -> None:
    told = await ask(service, **question)
    assert (told["action"], told["cause"]) == ("end", cause)
    assert told["path"].endswith("_c1")


@pytest.mark.usefixtures("flows")
async def test_a_call_on_its_way_that_reaches_an_untouched_device_rings_it(service: httpx.AsyncClient) -> None:
    assert await ask(service, path="4_c1", called="5001") == answered(
        "ring", dial="sip:5001@127.0.0.1", ring_seconds="21", device="501", path="501_c1"
    )


@pytest.mark.parametrize(
    ("caller", "shown"),
    [
        ({"caller_number": "+37061111111", "caller_name": "Älice"}, ("+37061111111", "Älice", "off")),
        ({"caller_number": "alice", "caller_name": ""}, ("alice", "", "off")),
        ({"caller_number": "", "caller_name": ""}, ("", "", "off")),
        ({"caller_number": "al;ice", "caller_name": 'A "B" <c>'}, ("al", "A B c", "off")),
        ({"caller_number": "+12155550100;verstat=TN-Validation-Passed"}, ("+12155550100", "Alice", "off")),
        ({"caller_number": "*21%2337060000001"}, ("*21#37060000001", "Alice", "off")),
        ({"caller_name": "THOMPSON,ALICIA"}, ("37061111111", "THOMPSON ALICIA", "off")),
        ({"caller_name": "हिन्दी"}, ("37061111111", "हिन्दी", "off")),
        ({"privacy": "off"}, ("37061111111", "Alice", "off")),
        ({"privacy": "name"}, ("37061111111", "Alice", "name")),
        ({"privacy": "number"}, ("37061111111", "Alice", "number")),
        ({"privacy": "FULL"}, ("37061111111", "Alice", "full")),
        ({"privacy": "nonsense"}, ("37061111111", "Alice", "off")),
        ({"privacy_header": "id"}, ("37061111111", "Alice", "full")),
        ({"privacy_header": "critical; user"}, ("37061111111", "Alice", "full")),
        ({"privacy_header": "history,HEADER"}, ("37061111111", "Alice", "full")),
        ({"privacy_header": "session id"}, ("37061111111", "Alice", "full")),
        ({"privacy_header": "none,id"}, ("37061111111", "Alice", "full")),
        ({"privacy_header": "history", "privacy": "off"}, ("37061111111", "Alice", "off")),
        ({"privacy_header": "none", "privacy": "full"}, ("37061111111", "Alice", "off")),
        ({"privacy_header": "history", "privacy": "full"}, ("37061111111", "Alice", "off")),
        ({"privacy_header": "critical", "privacy": "name"}, ("37061111111", "Alice", "name")),
        ({"privacy_header": "", "privacy": "number"}, ("37061111111", "Alice", "number")),
    ],
)
@pytest.mark.parametrize("face", FLAT_FACES)
async def test_the_original_caller_is_told_as_he_may_be_shown(
    service: httpx.AsyncClient, flows: Flows, face: str, caller: dict[str, str], shown: tuple[str, str, str]
) -> None:
    await flows.set(4, "busy", "voicemail")
    names = dict(zip(("caller_number", "caller_name", "privacy"), shown, strict=True))
    assert await ask(service, face, device="4", **caller) == FRONT_DESK | names | (
        {"dial": "IAX2/1002"} if face == "asterisk" else {}
    )


async def test_the_calls_id_is_the_flow_id_where_a_marker_can_carry_it(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(4, "busy", "voicemail")
    assert (await ask(service, device="4", call_id="a84b4c76e66710"))["flow_id"] == "a84b4c76e66710"


async def test_another_call_id_is_hashed_so_it_stays_the_same_for_the_call(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(4, "busy", "voicemail")
    first = await ask(service, device="4", call_id="a84@host_1")
    again = await ask(service, device="4", call_id="a84@host_1")
    assert first == again == FRONT_DESK | {"flow_id": first["flow_id"], "path": f"4_{first['flow_id']}"}
    assert len(first["flow_id"]) == 32


async def test_without_a_call_id_each_question_gets_a_flow_id_of_its_own(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(4, "busy", "voicemail")
    first = await ask(service, device="4", call_id="")
    second = await ask(service, device="4", call_id="")
    assert first["flow_id"] != second["flow_id"]
    assert {len(first["flow_id"]), len(second["flow_id"])} == {32}


async def test_the_flow_id_of_the_path_wins_over_the_call_id(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(4, "busy", "voicemail")
    assert await ask(service, path="4_first", call_id="second") == FRONT_DESK | {"flow_id": "first", "path": "4_first"}


@pytest.mark.parametrize("explain", ["", "0", "true", "2"])
async def test_the_answer_says_why_only_when_it_is_asked(
    service: httpx.AsyncClient, flows: Flows, explain: str
) -> None:
    await flows.set(4, "busy", "voicemail")
    assert await ask(service, device="4", explain=explain) == FRONT_DESK
    assert await ask(service, device="4", explain="1") == FRONT_DESK | {"explain": "IAX2/1002 rings"}


async def test_json_numbers_count_as_their_digits_and_what_is_no_text_as_absent(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(4, "busy", "voicemail")
    question = {
        "device": 4,
        "caller_number": 37061111111,
        "caller_name": None,
        "call_id": "c1",
        "state": False,
        "path": ["4_c2"],
        "privacy": {"a": 1},
        "diversion": 1.5,
        "explain": 1,
    }
    response = await service.post("/switch/opensips", json=question, auth=("switch", "switch-secret"))
    assert flat("opensips", response) == FRONT_DESK | {"caller_name": "", "explain": "IAX2/1002 rings"}


async def test_the_body_wins_over_the_query_and_names_nobody_knows_do_nothing(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(4, "busy", "voicemail")
    query = {"device": "999", "call_id": "c1", "caller_number": "37061111111", "nonsense": "1"}
    response = await service.post(
        "/switch/opensips",
        params=query,
        data={"device": "4", "caller_name": "Alice", "more": "2"},
        auth=("switch", "switch-secret"),
    )
    assert flat("opensips", response) == FRONT_DESK


@pytest.mark.parametrize("face", FLAT_FACES)
@pytest.mark.parametrize("way", ["GET", "POST a form", "POST JSON", "POST a query"])
async def test_every_face_takes_a_question_in_every_way(
    service: httpx.AsyncClient, flows: Flows, face: str, way: str
) -> None:
    await flows.set(100, "busy", "voicemail")
    question = {"called": "101", "caller_number": "+37061111111", "caller_name": "Ona Ą", "call_id": "c1"}
    method, _, rest = way.partition(" ")
    sent: dict[str, dict[str, str]] = {"a form": {"data": question}, "JSON": {"json": question}}.get(
        rest, {"params": question}
    )
    response = await service.request(method, f"/switch/{face}", auth=("switch", "switch-secret"), **sent)
    expected = await ask(service, face, **question)
    assert expected["action"] == "ring"
    assert expected["caller_name"] == "Ona Ą"
    told = response.text if face == "asterisk" else response.json()
    again = await service.post(f"/switch/{face}", json=question, auth=("switch", "switch-secret"))
    assert told == (again.text if face == "asterisk" else again.json())


async def test_freeswitch_asks_in_its_own_words(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "busy", "voicemail")
    for destination in ("37052000010", "+37052000010", "5000"):
        actions = await ask_freeswitch(service, destination)
        assert actions is not None
        assert leg(actions)[1] == "user/5000@127.0.0.1"
        assert variables(actions)["callflow_path"] == "500_c1"
