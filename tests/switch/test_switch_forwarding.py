"""Where a call goes: forwards before the call and after it, loops, the limit, and whose leg it is."""

import httpx
import pytest

from switch_questions import FLAT_FACES, Flows, StartService, answered, ask, ask_freeswitch, explained, leg, variables

ONCE = {"reason": "unconditional", "payer": "user1", "payer_device": "4", "leg": "2"}
"""What is said of a call that device 4 has forwarded."""

BY_1002 = "<sip:1002@127.0.0.1>;reason=unconditional;counter=1;privacy=off"
FROM_1002 = "<sip:1002@127.0.0.1?Privacy=none>;index=1"


def to_5000(**changes: str) -> dict[str, str]:
    """The answer where device 4 forwards to device 500."""
    history = f"{FROM_1002}, <sip:5000@127.0.0.1;cause=302>;index=1.1;mp=1"
    told = {"dial": "sip:5000@127.0.0.1", "ring_seconds": "20", "device": "500", "path": "4u.500_c1", **ONCE}
    return answered("forward", **(told | {"diversion": BY_1002, "history_info": history} | changes))


@pytest.mark.usefixtures("flows")
async def test_where_nothing_is_set_the_switch_carries_on(service: httpx.AsyncClient) -> None:
    for state in ("before_call", "no_answer", "busy", "failed"):
        assert await ask(service, device="4", state=state) == answered("none", device="4")


async def test_states_that_were_set_to_empty_again_are_untouched(service: httpx.AsyncClient, flows: Flows) -> None:
    for state in ("before_call", "no_answer", "busy", "failed"):
        await flows.set(4, state, "empty")
    assert await ask(service, device="4") == answered("none", device="4")
    assert await ask(service, device="4", state="busy") == answered("none", device="4")


async def test_later_priorities_are_not_followed(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.connection.execute(
        "INSERT INTO callflow (device_id, state, priority, action) VALUES (4, 'before_call', 2, 'voicemail')"
    )
    assert await ask(service, device="4") == answered("none", device="4")


async def test_a_forward_to_a_device_rings_it(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    assert await ask(service, device="4") == to_5000()
    assert await ask(service, called="37052000001") == to_5000()


async def test_a_forward_to_a_number_rings_it_for_the_time_that_numbers_ring(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(4, to="+37069999999")
    assert await ask(service, device="4") == answered(
        "forward",
        dial="sip:+37069999999@127.0.0.1",
        ring_seconds="60",
        device="4",
        path="4u.x_c1",
        diversion="<sip:37052000001@127.0.0.1>;reason=unconditional;counter=1;privacy=off",
        history_info="<sip:37052000001@127.0.0.1?Privacy=none>;index=1, "
        "<sip:+37069999999@127.0.0.1;cause=302>;index=1.1;mp=1",
        **ONCE,
    )


async def test_the_operator_says_how_long_numbers_ring(start_switch_service: StartService, flows: Flows) -> None:
    service = await start_switch_service(ring_seconds=7)
    await flows.forward(4, to="37069999999")
    assert (await ask(service, device="4"))["ring_seconds"] == "7"
    await flows.forward(4, to=505)
    assert (await ask(service, device="4"))["ring_seconds"] == "25"


async def test_a_number_of_our_own_is_its_device(service: httpx.AsyncClient, flows: Flows) -> None:
    for number in ("37052000010", "+37052000010"):
        await flows.forward(4, to=number)
        assert await ask(service, device="4") == to_5000()


async def test_a_number_of_our_own_without_a_device_is_a_number(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to="37052000003")
    told = await ask(service, device="4")
    assert (told["action"], told["dial"], told["path"]) == ("forward", "sip:37052000003@127.0.0.1", "4u.x_c1")


@pytest.mark.parametrize(
    ("state", "letter", "reason", "cause"),
    [("no_answer", "n", "no-answer", 408), ("busy", "b", "user-busy", 486), ("failed", "f", "unavailable", 503)],
)
async def test_a_forward_after_the_call_tells_its_reason(
    service: httpx.AsyncClient, flows: Flows, *, state: str, letter: str, reason: str, cause: int
) -> None:
    await flows.forward(4, state, to=500)
    first = await ask(service, device="4")
    assert first == answered("ring", dial="sip:iax2-1002@127.0.0.1", ring_seconds="60", device="4", path="4_c1")
    assert await ask(service, path=first["path"], state=state) == to_5000(
        path=f"4{letter}.500_c1",
        reason=reason,
        diversion=f"<sip:1002@127.0.0.1>;reason={reason};counter=1;privacy=off",
        history_info=f"{FROM_1002}, <sip:5000@127.0.0.1;cause={cause}>;index=1.1;mp=1",
    )


async def test_a_chain_before_the_call_is_followed_in_one_answer(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    await flows.forward(500, to="37052000002")
    await flows.forward(5, to=501)
    await flows.set(501, "busy", "voicemail")
    told = await ask(service, device="4", explain="1")
    assert told == answered(
        "forward",
        dial="sip:5001@127.0.0.1",
        ring_seconds="21",
        device="501",
        path="4u.500u.5u.501_c1",
        reason="unconditional",
        payer="user1",
        payer_device="5",
        leg="4",
        diversion="<sip:101@127.0.0.1>;reason=unconditional;counter=1;privacy=off, "
        f"<sip:5000@127.0.0.1>;reason=unconditional;counter=1;privacy=off, {BY_1002}",
        history_info=f"{FROM_1002}, <sip:5000@127.0.0.1;cause=302?Privacy=none>;index=1.1;mp=1, "
        "<sip:101@127.0.0.1;cause=302?Privacy=none>;index=1.1.1;mp=1.1, "
        "<sip:5001@127.0.0.1;cause=302>;index=1.1.1.1;mp=1.1.1",
        explain="IAX2/1002 before call: forward to SIP/5000; SIP/5000 before call: forward to 37052000002; "
        "IAX2/101 before call: forward to SIP/5001; SIP/5001 rings",
    )


async def test_a_chain_ends_in_voicemail_or_fax_detection(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=500)
    await flows.set(500, "before_call", "voicemail")
    history = f"{FROM_1002}, <sip:5000@127.0.0.1;cause=302>;index=1.1;mp=1"
    chain = {"device": "500", "path": "4u.500_c1", "diversion": BY_1002, "history_info": history, **ONCE}
    assert await ask(service, device="4") == answered("voicemail", mailbox="5000", **chain)
    await flows.set(500, "before_call", "fax_detect", target=2)
    assert await ask(service, device="4") == answered(
        "fax", dial="sip:5000@127.0.0.1", fax_dial="sip:fax-102@127.0.0.1", ring_seconds="20", **chain
    )


async def test_a_call_is_followed_over_several_questions(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, "busy", to=500)
    await flows.forward(500, "no_answer", to=200)
    await flows.forward(200, "failed", to="37069999999")
    first = await ask(service, called="37052000001")
    second = await ask(service, path=first["path"], state="busy", call_id="another leg's")
    third = await ask(service, path=second["path"], state="no_answer", call_id="")
    last = await ask(service, path=third["path"], state="failed", call_id="")
    assert [told["path"] for told in (first, second, third, last)] == [
        "4_c1",
        "4b.500_c1",
        "4b.500n.200_c1",
        "4b.500n.200f.x_c1",
    ]
    assert last == answered(
        "forward",
        dial="sip:37069999999@127.0.0.1",
        ring_seconds="60",
        device="200",
        path="4b.500n.200f.x_c1",
        reason="unavailable",
        payer="user2",
        payer_device="200",
        leg="4",
        diversion="<sip:37052000004@127.0.0.1>;reason=unavailable;counter=1;privacy=off, "
        "<sip:+37052000010@127.0.0.1>;reason=no-answer;counter=1;privacy=off, "
        "<sip:37052000001@127.0.0.1>;reason=user-busy;counter=1;privacy=off",
        history_info="<sip:37052000001@127.0.0.1?Privacy=none>;index=1, "
        "<sip:+37052000010@127.0.0.1;cause=486?Privacy=none>;index=1.1;mp=1, "
        "<sip:37052000004@127.0.0.1;cause=408?Privacy=none>;index=1.1.1;mp=1.1, "
        "<sip:37069999999@127.0.0.1;cause=503>;index=1.1.1.1;mp=1.1.1",
    )
    end = await ask(service, path=last["path"], state="busy")
    assert (end["action"], end["cause"], end["device"], end["leg"]) == ("end", "486", "200", "4")


async def test_a_forward_to_itself_rings_the_device(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(4, to=4)
    assert await ask(service, device="4", explain="1") == answered(
        "ring",
        dial="sip:iax2-1002@127.0.0.1",
        ring_seconds="60",
        device="4",
        path="4_c1",
        explain="IAX2/1002 before call: forward to IAX2/1002; refused: the call has been there, a loop; "
        "IAX2/1002 rings",
    )


@pytest.mark.parametrize("back_to", [4, "37052000001", "+37052000001"])
async def test_in_a_ring_of_two_the_one_that_would_close_it_rings(
    service: httpx.AsyncClient, flows: Flows, back_to: int | str
) -> None:
    await flows.forward(4, to=500)
    await flows.forward(500, to=back_to)
    assert await ask(service, device="4") == to_5000()


@pytest.mark.parametrize(("state", "cause"), [("no_answer", "480"), ("busy", "486"), ("failed", "503")])
async def test_a_loop_after_the_call_ends_as_if_nothing_were_set(
    service: httpx.AsyncClient, flows: Flows, state: str, cause: str
) -> None:
    await flows.forward(4, state, to=4)
    expected = answered("end", cause=cause, device="4", path="4_c1")
    assert await ask(service, path="4_c1", state=state) == expected
    await flows.forward(500, state, to=4)
    told = await ask(service, path="4u.500_c1", state=state)
    assert (told["action"], told["cause"], told["path"]) == ("end", cause, "4u.500_c1")


async def test_the_limit_makes_the_last_device_ring(service: httpx.AsyncClient, flows: Flows) -> None:
    for device in range(500, 508):
        await flows.forward(device, to=device + 1)
    told = await ask(service, device="500", explain="1")
    assert (told["action"], told["path"], told["leg"]) == ("forward", "500u.501u.502u.503u.504u.505_c1", "6")
    assert told["explain"].endswith(
        "SIP/5005 before call: forward to SIP/5006; refused: the call has been diverted as often as the limit lets it; "
        "SIP/5005 rings"
    )


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_the_operator_sets_the_limit(start_switch_service: StartService, flows: Flows, limit: int) -> None:
    service = await start_switch_service(max_diversions=limit)
    for device in range(500, 508):
        await flows.forward(device, to=device + 1)
    told = await ask(service, device="500")
    assert (told["leg"], told["device"]) == (str(limit + 1), str(500 + limit))
    assert told["action"] == ("forward" if limit else "ring")


async def test_the_limit_holds_over_all_questions_of_a_call(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(510, "busy", to=511)
    told = await ask(service, path="500u.501u.502b.503n.504f.510_c1", state="busy")
    assert (told["action"], told["cause"], told["leg"]) == ("end", "486", "6")
    told = await ask(service, path="500u.501u.502b.503n.510_c1", state="busy")
    assert (told["action"], told["device"], told["leg"]) == ("forward", "511", "6")


@pytest.mark.parametrize(
    "headers",
    [
        {"diversion": "<sip:a@h>;reason=user-busy;counter=5"},
        {"diversion": ", ".join(["<sip:a@h>;reason=user-busy"] * 5)},
        {"diversion": "<sip:a@h>;counter=3, <sip:b@h>;counter=2"},
        {"history_info": "<sip:a@h>;index=1" + "".join(f", <sip:b{i}@h;cause=302>;index=1.{i}" for i in range(1, 6))},
        {"diversion": "<sip:a@h>;counter=1", "history_info": ", ".join(["<sip:b@h;cause=486>;index=1"] * 5)},
    ],
)
async def test_diversions_before_us_count_towards_the_limit(
    service: httpx.AsyncClient, flows: Flows, headers: dict[str, str]
) -> None:
    await flows.forward(4, to=500)
    await flows.forward(4, "busy", to=500)
    told = await ask(service, device="4", **headers)
    assert (told["action"], told["device"], told["path"], told["leg"]) == ("ring", "4", "4_c1", "1")
    told = await ask(service, path="4_c1", state="busy", **headers)
    assert (told["action"], told["cause"]) == ("end", "486")


async def test_of_path_and_headers_the_largest_counts_and_not_the_sum(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(510, to=511)
    headers = {
        "diversion": "<sip:a@h>;reason=user-busy;counter=4",
        "history_info": "<sip:a@h>;index=1, <sip:b@h;cause=302>;index=1.1",
    }
    told = await ask(service, path="500u.501u.502u.510_c1", **headers)
    assert (told["action"], told["device"], told["leg"]) == ("forward", "511", "5")


async def test_the_headers_of_a_switch_that_is_not_trusted_are_not_read(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(4, to=500)
    told = await ask(
        service,
        user=("untrusted", "switch-secret"),
        device="4",
        diversion="<sip:a@h>;reason=user-busy;counter=99",
        history_info="<sip:a@h>;index=1, <sip:b@h;cause=302>;index=1.1",
    )
    assert told == {name: text.replace("127.0.0.1", "pbx.example") for name, text in to_5000().items()}


async def test_a_forward_to_a_device_that_left_falls_back_to_ringing(service: httpx.AsyncClient, flows: Flows) -> None:
    # A path can name a device that was deleted in mid-call.
    await flows.forward(4, "busy", to=500)
    told = await ask(service, path="999u.4_c1", state="busy")
    assert (told["action"], told["device"], told["payer"], told["payer_device"]) == ("forward", "500", "user1", "4")
    told = await ask(service, path="999u.4_c1", state="failed")
    assert (told["action"], told["payer"], told["payer_device"], told["leg"]) == ("end", "", "999", "2")


@pytest.mark.parametrize("face", FLAT_FACES)
async def test_every_action_in_every_flat_face(service: httpx.AsyncClient, flows: Flows, face: str) -> None:
    dial = {"asterisk": "PJSIP/5000"}.get(face, "sip:5000@127.0.0.1")
    fax_dial = {"asterisk": "PJSIP/102"}.get(face, "sip:fax-102@127.0.0.1")
    at_500 = {"device": "500", "path": "500_c1"}
    assert await ask(service, face, device="500") == answered("none", device="500")
    await flows.set(500, "busy", "voicemail")
    assert await ask(service, face, device="500") == answered("ring", dial=dial, ring_seconds="20", **at_500)
    assert await ask(service, face, path="500_c1", state="busy") == answered("voicemail", mailbox="5000", **at_500)
    assert await ask(service, face, path="500_c1", state="failed") == answered("end", cause="503", **at_500)
    await flows.set(500, "before_call", "fax_detect", target=2)
    assert await ask(service, face, device="500") == answered(
        "fax", dial=dial, ring_seconds="20", fax_dial=fax_dial, **at_500
    )
    await flows.forward(4, to=500)
    await flows.set(500, "before_call", "empty")
    assert await ask(service, face, device="4") == to_5000(dial=dial)


async def test_freeswitch_keeps_the_path_over_the_questions_of_a_call(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(500, "busy", to=501)
    await flows.forward(501, "no_answer", to="37069999999")
    first = await ask_freeswitch(service, "5000")
    assert first is not None
    kept = {f"variable_{name}": value for name, value in variables(first).items()}
    second = await ask_freeswitch(service, "callflow-next", **kept | {"variable_originate_disposition": "USER_BUSY"})
    assert second is not None
    assert variables(second)["callflow_path"] == "500b.501_c1"
    assert explained(second) == "SIP/5000 busy: forward to SIP/5001; SIP/5001 rings"
    kept = {f"variable_{name}": value for name, value in variables(second).items()}
    third = await ask_freeswitch(
        service, "callflow-next", **kept | {"variable_originate_disposition": "NO_USER_RESPONSE"}
    )
    assert third is not None
    assert leg(third)[1] == "sofia/gateway/trunk/37069999999"
    kept = {f"variable_{name}": value for name, value in variables(third).items()}
    last = await ask_freeswitch(
        service, "callflow-next", **kept | {"variable_originate_disposition": "UNALLOCATED_NUMBER"}
    )
    assert last == [
        ("log", "INFO callflow c1: the call is at no device of ours; ends with 503"),
        ("multiunset", "last_bridge_proto_specific_hangup_cause sip_reason"),
        ("hangup", "NORMAL_TEMPORARY_FAILURE"),
    ]
