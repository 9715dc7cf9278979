"""FreeSWITCH: whole dialplans, whole requests, and the rules of its own XML reader."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import httpx
import pytest

from callflow_service.switch.freeswitch import POST_VARIABLES
from switch_questions import (
    FREESWITCH_REQUEST,
    NOT_FOUND,
    SWITCH,
    Actions,
    Flows,
    ask_freeswitch,
    explained,
    freeswitch_request,
    leg,
    read_dialplan,
    variables,
)

SHIPPED = Path(__file__).parents[2] / "switches" / "freeswitch" / "callflow.xml"
UUID = FREESWITCH_REQUEST["Unique-ID"]
RANG = f"uuid_setvar {UUID} callflow_rang true"
BACK = ("transfer", "callflow-next XML public")
OUTCOME = (
    "last_bridge_proto_specific_hangup_cause sip_reason originate_causes originate_disposition sip_redirected_to"
    " callflow_rang"
)
ENDS = ("multiunset", "last_bridge_proto_specific_hangup_cause sip_reason")
NO_IDENTITY = ("multiunset", "sip_h_identity sip_identity")


def start(path: str) -> list[tuple[str, str]]:
    return [
        ("set", "continue_on_fail=true"),
        ("set", "hangup_after_bridge=true"),
        ("set", f"callflow_path={path}"),
        ("set", "callflow_rejected=busy"),
        ("multiunset", OUTCOME),
    ]


def plain(seconds: int) -> dict[str, str]:
    """The variables of a leg that shows the caller as it came."""
    return {
        "leg_timeout": str(seconds),
        "originate_timeout": str(seconds),
        "ignore_early_media": "ring_ready",
        "ignore_q850_reason": "true",
        "outbound_redirect_fatal": "true",
        "api_on_ring": RANG,
        "api_on_pre_answer": RANG,
    }


def caller_id(number: str, name: str) -> dict[str, str]:
    return {
        "origination_caller_id_number": number,
        "origination_caller_id_name": name,
        "origination_privacy": "screen",
        "sip_cid_type": "none",
    }


def after(actions: Actions | None) -> Actions:
    """The actions without the log's line."""
    assert actions is not None
    explained(actions)
    return actions[1:]


async def diverted(service: httpx.AsyncClient, username: str = SWITCH[0], **changes: str) -> dict[str, str]:
    """What the leg of a diverted call shows."""
    actions = await ask_freeswitch(service, "5000", user=(username, SWITCH[1]), **changes)
    assert actions is not None
    shown = leg(actions)[0]
    return {name: shown[name] for name in shown if name.startswith(("origination_", "sip_"))}


async def test_a_leg_byte_for_byte(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(500, to=501, caller_id="custom", text='"A\'B" 111')
    response = await service.post("/switch/freeswitch", data=freeswitch_request("5000"), auth=SWITCH)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    lines = [
        ("log", "INFO callflow c1: SIP/5000 before call: forward to SIP/5001; SIP/5001 rings"),
        *start("500u.501_c1"),
        NO_IDENTITY,
        (
            "bridge",
            (
                "{^^!leg_timeout=21!originate_timeout=21!ignore_early_media=ring_ready!ignore_q850_reason=true"
                f"!outbound_redirect_fatal=true!api_on_ring={RANG}!api_on_pre_answer={RANG}"
                "!origination_caller_id_number=111!origination_caller_id_name=A'B!origination_privacy=screen"
                "!sip_cid_type=none"
                "!sip_h_Diversion=&lt;sip:5000@127.0.0.1&gt;;reason=unconditional;counter=1;privacy=off"
                "!sip_h_History-Info=&lt;sip:5000@127.0.0.1?Privacy=none&gt;;index=1, "
                "&lt;sip:5001@127.0.0.1;cause=302&gt;;index=1.1;mp=1}user/5001@127.0.0.1"
            ),
        ),
        BACK,
    ]
    actions = "".join(f'\t\t\t\t\t<action application="{name}" data="{data}"/>\n' for name, data in lines)
    assert re.sub(r"(?<=_c1)_t[0-9a-z]{6}\.n5000", "", response.text) == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<document type="freeswitch/xml">\n'
        '\t<section name="dialplan">\n'
        '\t\t<context name="public">\n'
        '\t\t\t<extension name="callflow">\n'
        "\t\t\t\t<condition>\n"
        f"{actions}"
        "\t\t\t\t</condition>\n"
        "\t\t\t</extension>\n"
        "\t\t</context>\n"
        "\t</section>\n"
        "</document>"
    )


@pytest.mark.parametrize(
    "came",
    [
        {},
        {"Caller-Caller-ID-Name": "A<l>ice"},
        {"variable_sip_Privacy": "id"},
        {"variable_sip_h_Diversion": "<sip:a@h>"},
    ],
)
async def test_a_device_that_we_do_not_divert_rings_as_the_call_came(
    service: httpx.AsyncClient, flows: Flows, came: dict[str, str]
) -> None:
    await flows.set(500, "busy", "voicemail")
    actions = await ask_freeswitch(service, "5000", **came)
    assert actions is not None
    assert explained(actions) == "SIP/5000 rings"
    assert actions[1:-2] == start("500_c1")
    assert leg(actions) == (plain(20), "user/5000@127.0.0.1")
    assert actions[-1] == BACK


async def test_the_whole_real_request_to_a_did_is_answered(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(200, to="37069999999", caller_id="device")
    request = FREESWITCH_REQUEST | {"Hunt-Destination-Number": "37052000004"}
    response = await service.post("/switch/freeswitch", data=request, auth=SWITCH)
    actions = read_dialplan(response.content, context="public")
    assert actions is not None
    assert explained(actions) == "SIP/2001 before call: forward to 37069999999"
    assert actions[1:-2] == [*start("200u.x_b86c53b7f988402286f24c7ca484ea6e"), NO_IDENTITY]
    assert leg(actions) == (
        plain(60)
        | caller_id("37060002001", "37060002001")
        | {
            "sip_h_Diversion": "<sip:37052000004@127.0.0.1>;reason=unconditional;counter=1;privacy=off, "
            "<sip:2001@example.org>;reason=user-busy;counter=1;privacy=off",
            "sip_h_History-Info": "<sip:2001@example.org>;index=1, <sip:2002@example.org;cause=486>;index=1.1, "
            "<sip:37052000004@127.0.0.1?Privacy=none>;index=1.1.1;mp=1.1, "
            "<sip:37069999999@127.0.0.1;cause=302>;index=1.1.1.1;mp=1.1.1",
        },
        "sofia/gateway/trunk/37069999999",
    )
    assert actions[-1] == BACK


@pytest.mark.usefixtures("flows")
async def test_the_real_request_as_it_came_is_not_ours(service: httpx.AsyncClient) -> None:
    response = await service.post("/switch/freeswitch", data=FREESWITCH_REQUEST, auth=SWITCH)
    assert (response.status_code, response.content) == (200, NOT_FOUND)


async def test_the_variables_that_the_shipped_configuration_sends_are_enough(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(500, to=501, caller_id="custom", text="111")
    await flows.set(501, "busy", "voicemail")
    headers = {
        "variable_sip_h_Diversion": "<sip:a@h>;reason=user-busy",
        "variable_sip_history_info": "<sip:a@h>;index=1, <sip:5000@h;cause=486>;index=1.1",
        "variable_sip_Privacy": "history",
    }
    fresh = freeswitch_request("5000", **headers)
    later = freeswitch_request(
        "callflow-next",
        **headers,
        variable_callflow_path="500u.501_c1",
        variable_callflow_rejected="busy",
        variable_originate_disposition="CALL_REJECTED",
        variable_last_bridge_proto_specific_hangup_cause="sip:603",
    )
    leading = ("hostname", "section", "tag_name", "key_name", "key_value")
    for request in (fresh, later):
        cut = {name: value for name, value in request.items() if name in POST_VARIABLES or name in leading}
        assert len(cut) < len(request)
        whole, less = [
            # The second of the one question may be over when the other comes.
            re.sub(rb"_t[0-9a-z]{6}", b"", (await service.post("/switch/freeswitch", data=sent, auth=SWITCH)).content)
            for sent in (request, cut)
        ]
        assert whole == less != NOT_FOUND


async def test_freeswitch_may_ask_by_get(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "busy", "voicemail")
    request = freeswitch_request("5000")
    response = await service.get("/switch/freeswitch", params=request, auth=SWITCH)
    assert read_dialplan(response.content, context="public") == await ask_freeswitch(service, "5000")


@pytest.mark.parametrize("context", ["default", "from-trunk.1", "global_x", "A" * 64])
async def test_the_context_that_asked_is_the_one_that_is_answered(
    service: httpx.AsyncClient, flows: Flows, context: str
) -> None:
    await flows.set(500, "busy", "voicemail")
    actions = await ask_freeswitch(service, "5000", **{"Hunt-Context": context})
    assert actions is not None
    assert actions[-1] == ("transfer", f"callflow-next XML {context}")


async def test_before_the_first_hunt_the_callers_own_context_and_number_count(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(500, "busy", "voicemail")
    request = freeswitch_request("5000")
    for name in [name for name in request if name.startswith("Hunt-")]:
        request.pop(name)
    response = await service.post("/switch/freeswitch", data=request, auth=SWITCH)
    assert read_dialplan(response.content, context="public") is not None
    request = request | {
        "Caller-Destination-Number": "callflow-next",
        "variable_callflow_path": "501_c1",
        "variable_originate_disposition": "USER_BUSY",
    }
    response = await service.post("/switch/freeswitch", data=request, auth=("switch", "wrong"))
    assert read_dialplan(response.content, context="public") == [ENDS, ("hangup", "USER_BUSY")]


@pytest.mark.parametrize(
    "changes",
    [
        {"section": "directory"},
        {"section": "configuration"},
        {"section": ""},
        {"Hunt-Destination-Number": "nobody"},
        {"Hunt-Destination-Number": "37052000003"},
        {"Hunt-Destination-Number": "callflow-next"},
        {"Hunt-Destination-Number": "callflow-next", "variable_callflow_path": "nonsense"},
        {"Hunt-Destination-Number": "callflow-fax"},
        {"Hunt-Destination-Number": "", "Caller-Destination-Number": ""},
        {"Hunt-Context": "two words"},
        {"Hunt-Context": "${system(x)}"},
        {"Hunt-Context": "", "Caller-Context": ""},
    ],
)
async def test_what_is_not_ours_is_not_found(service: httpx.AsyncClient, flows: Flows, changes: dict[str, str]) -> None:
    await flows.set(500, "busy", "voicemail")
    response = await service.post("/switch/freeswitch", data=freeswitch_request("5000") | changes, auth=SWITCH)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    assert response.content == NOT_FOUND


def became(
    *causes: str, status: str = "", rang: bool = False, disposition: str = "", rejected: str = "busy"
) -> dict[str, str]:
    """What a leg leaves on the caller's channel, as a real FreeSWITCH was seen to: a cause for each target."""
    each = [f"5f33f851-1897-4121-8de3-875a7f4c75f{number};{cause}" for number, cause in enumerate(causes)]
    values = {
        "variable_originate_disposition": disposition or (causes[-1] if causes else ""),
        "variable_originate_causes": each[0] if len(each) == 1 else f"ARRAY::{'|:'.join(each)}" if each else "",
        "variable_last_bridge_proto_specific_hangup_cause": f"sip:{status}" if status else "",
        "variable_callflow_rang": "true" if rang else "",
        "variable_callflow_rejected": rejected,
    }
    return {name: value for name, value in values.items() if value}


# FreeSWITCH does not run here. These are the variables that a real one (1.11) set for each event, with our legs'
# `ignore_q850_reason` and `ignore_early_media`: a Q.850 cause and early media leave no trace in them.
OUTCOMES = {
    "486 or 600": (became("USER_BUSY", status="486"), "busy"),
    "486 after ringing": (became("USER_BUSY", status="486", rang=True), "busy"),
    "603 or 403": (became("CALL_REJECTED", status="603", rang=True), "busy"),
    "607": (became("UNWANTED", status="607"), "busy"),
    "603, where it is to be a failure": (became("CALL_REJECTED", status="603", rejected="failed"), "failed"),
    "607, where it is to be a failure": (became("UNWANTED", status="607", rejected="failed"), "failed"),
    "the ring time is over": (became("NO_ANSWER", rang=True), "no_answer"),
    "the ring time of one target is over": (became("ALLOTTED_TIMEOUT", rang=True), "no_answer"),
    "480": (became("NO_USER_RESPONSE", status="480"), "no_answer"),
    "408 after ringing": (became("RECOVERY_ON_TIMER_EXPIRE", status="408", rang=True), "no_answer"),
    "487 after ringing": (became("ORIGINATOR_CANCEL", status="487", rang=True), "no_answer"),
    "no reply in the ring time": (became("NO_ANSWER"), "failed"),
    "no reply": (became("RECOVERY_ON_TIMER_EXPIRE"), "failed"),
    "408 without ringing": (became("RECOVERY_ON_TIMER_EXPIRE", status="408"), "failed"),
    "487 without ringing": (became("ORIGINATOR_CANCEL", status="487"), "failed"),
    "504 after ringing": (became("RECOVERY_ON_TIMER_EXPIRE", status="504", rang=True), "failed"),
    "not registered": (became(disposition="USER_NOT_REGISTERED"), "failed"),
    "not in the directory": (became(disposition="SUBSCRIBER_ABSENT"), "failed"),
    "404": (became("UNALLOCATED_NUMBER", status="404"), "failed"),
    "410": (became("NUMBER_CHANGED", status="410"), "failed"),
    "488 or 606": (became("INCOMPATIBLE_DESTINATION", status="488"), "failed"),
    "604": (became("NO_ROUTE_DESTINATION", status="604"), "failed"),
    "503 after ringing": (became("NORMAL_TEMPORARY_FAILURE", status="503", rang=True), "failed"),
    "the gateway is down": (became(disposition="GATEWAY_DOWN"), "failed"),
    "302": (became("REQUESTED_CHAN_UNAVAIL", status="302"), "failed"),
    "380": (became("NORMAL_UNSPECIFIED", status="380"), "failed"),
    "401": (became("CALL_REJECTED", status="401"), "failed"),
    "407": (became("CALL_REJECTED", status="407"), "failed"),
    "401 with a challenge": (became("MANDATORY_IE_MISSING"), "failed"),
    "one busy, one rings out": (became("USER_BUSY", "NO_ANSWER", status="487", rang=True), "no_answer"),
    "one rings out, one busy": (became("NO_ANSWER", "USER_BUSY", status="486", rang=True), "no_answer"),
    "one busy, one away": (became("USER_BUSY", "NORMAL_TEMPORARY_FAILURE", status="503"), "busy"),
    "nothing is known": ({}, "failed"),
    "nonsense": (became("${x}", disposition="${x}"), "failed"),
}
CAUSES = {"busy": "USER_BUSY", "no_answer": "NO_ANSWER", "failed": "NORMAL_TEMPORARY_FAILURE"}


@pytest.mark.parametrize("event", OUTCOMES)
async def test_what_became_of_a_leg_says_which_flow_is_asked_for(
    service: httpx.AsyncClient, flows: Flows, event: str
) -> None:
    left, state = OUTCOMES[event]
    for place, each in enumerate(("no_answer", "busy", "failed"), 501):
        await flows.forward(500, each, to=place)
    actions = await ask_freeswitch(service, "callflow-next", variable_callflow_path="500_c1", **left)
    assert actions is not None
    expected = {"no_answer": "500n.501_c1", "busy": "500b.502_c1", "failed": "500f.503_c1"}[state]
    assert variables(actions)["callflow_path"] == expected


@pytest.mark.parametrize("event", OUTCOMES)
@pytest.mark.usefixtures("flows")
async def test_a_call_with_nothing_set_for_it_ends_with_the_cause_of_its_last_leg(
    service: httpx.AsyncClient, event: str
) -> None:
    left, state = OUTCOMES[event]
    actions = await ask_freeswitch(service, "callflow-next", variable_callflow_path="500_c1", **left)
    assert after(actions) == [ENDS, ("hangup", CAUSES[state])]


@pytest.mark.parametrize("event", OUTCOMES)
async def test_what_the_service_cannot_say_any_more_the_shipped_dialplan_says(
    service: httpx.AsyncClient, event: str
) -> None:
    left, state = OUTCOMES[event]
    request = freeswitch_request("callflow-next", variable_callflow_path="500_c1", **left)
    response = await service.post("/switch/freeswitch", data=request, auth=("switch", "wrong"))
    assert response.status_code == 401
    assert read_dialplan(response.content, context="public") == [ENDS, ("hangup", CAUSES[state])]
    assert static_dialplan(request) == [ENDS, ("hangup", CAUSES[state])]


def static_dialplan(request: dict[str, str]) -> Actions:
    """What the shipped file does with a call, by FreeSWITCH's rules: the first extension whose conditions all hold."""

    def value(field: str) -> str:
        if field == "destination_number":
            return request["Hunt-Destination-Number"]
        return re.sub(r"\$\{(\w+)\}", lambda found: request.get(f"variable_{found[1]}", ""), field)

    for extension in ET.parse(SHIPPED).getroot().iter("extension"):  # noqa: S314 - ours
        for condition in extension.iter("condition"):
            holds = re.search(condition.attrib["expression"], value(condition.attrib["field"]))
            kind = "action" if holds else "anti-action"
            actions = [(each.attrib["application"], each.attrib["data"]) for each in condition.iter(kind)]
            if actions:
                return actions
            if not holds:
                break
    return []


def test_the_shipped_dialplan_knows_a_call_that_is_over_and_one_from_outside() -> None:
    over = freeswitch_request(
        "callflow-next", variable_callflow_path="500_c1", variable_originate_disposition="SUCCESS"
    )
    assert static_dialplan(over) == [("hangup", "NORMAL_CLEARING")]
    assert static_dialplan(freeswitch_request("callflow-next")) == [("hangup", "UNALLOCATED_NUMBER")]
    assert static_dialplan(freeswitch_request("callflow-fax")) == [("hangup", "UNALLOCATED_NUMBER")]
    fax = freeswitch_request("callflow-fax", variable_callflow_fax="user/102@127.0.0.1")
    assert static_dialplan(fax) == [("set", "hangup_after_bridge=true"), ("bridge", "${callflow_fax}")]


@pytest.mark.parametrize("came", ["SUCCESS", "PICKED_OFF", "ATTENDED_TRANSFER"])
async def test_a_call_that_was_answered_or_taken_elsewhere_is_not_diverted_once_more(
    service: httpx.AsyncClient, flows: Flows, came: str
) -> None:
    await flows.forward(500, "failed", to=501)
    assert await ask_freeswitch(
        service, "callflow-next", variable_callflow_path="500_c1", variable_originate_disposition=came
    ) == [("hangup", "NORMAL_CLEARING")]


@pytest.mark.usefixtures("flows")
async def test_carrying_on_is_for_no_call_of_ours_where_the_context_has_no_name(service: httpx.AsyncClient) -> None:
    request = freeswitch_request("callflow-next", variable_callflow_path="500_c1", **became("USER_BUSY"))
    response = await service.post("/switch/freeswitch", data=request | {"Hunt-Context": "a b"}, auth=SWITCH)
    assert (response.status_code, response.content) == (200, NOT_FOUND)


async def test_early_media_is_let_through_where_the_switch_user_wants_it(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(500, "busy", "voicemail")
    actions = await ask_freeswitch(service, "5000", user=("early", SWITCH[1]))
    assert actions is not None
    expected = plain(20)
    del expected["ignore_early_media"]
    assert leg(actions)[0] == expected


async def test_a_switch_user_may_want_a_phones_no_to_be_a_failure(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "busy", "voicemail")
    actions = await ask_freeswitch(service, "5000", user=("rejected", SWITCH[1]))
    assert actions is not None
    assert variables(actions)["callflow_rejected"] == "failed"


async def test_a_switch_user_may_want_redirections_to_go_to_the_caller(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    user = ("redirected", SWITCH[1])
    await flows.forward(500, "failed", to=501)
    actions = await ask_freeswitch(service, "5000", user=user)
    assert actions is not None
    shown = leg(actions)[0]
    assert ("outbound_redirect_info" in shown, "outbound_redirect_fatal" in shown) == (True, False)
    left = became("REDIRECTION_TO_NEW_DESTINATION", status="302") | {"variable_callflow_path": "500_c1"}
    for contact, expected in {
        '"B" <sip:+3706@192.0.2.1:5080;transport=udp>;q=1': "sip:+3706@192.0.2.1:5080",
        "<sips:b@[2001:db8::1]>": "sips:b@[2001:db8::1]",
    }.items():
        told = await ask_freeswitch(service, "callflow-next", user=user, variable_sip_redirected_to=contact, **left)
        assert told == [("log", "INFO callflow c1: redirected"), ("redirect", expected)]
    for contact in ("<sip:${system(id)}@h>", "<tel:+3706>", ""):
        told = await ask_freeswitch(service, "callflow-next", user=user, variable_sip_redirected_to=contact, **left)
        assert told is not None
        assert variables(told)["callflow_path"] == "500f.501_c1"


async def test_voicemail_is_freeswitchs_own_where_there_is_no_template(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(500, "before_call", "voicemail")
    own = [("answer", ""), ("sleep", "1000"), ("voicemail", "default 127.0.0.1 5000")]
    assert after(await ask_freeswitch(service, "5000")) == own
    await flows.forward(501, to=500)
    assert after(await ask_freeswitch(service, "5001")) == own


async def test_voicemail_is_where_the_template_says(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "before_call", "voicemail")
    actions = await ask_freeswitch(service, "5000", user=("templated", "switch-secret"))
    assert after(actions) == [("bridge", "sip:vm-sip-5000@pbx.example")]


async def test_voicemail_that_is_bridged_to_is_told_of_the_whole_chain(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(500, to=501)
    await flows.set(501, "before_call", "voicemail")
    actions = await ask_freeswitch(service, "5000", user=("templated", "switch-secret"))
    assert actions is not None
    assert leg(actions) == (
        {
            "sip_h_Diversion": "<sip:5000@pbx.example>;reason=unconditional;counter=1;privacy=off",
            "sip_h_History-Info": "<sip:5000@pbx.example?Privacy=none>;index=1, "
            "<sip:5001@pbx.example;cause=302>;index=1.1;mp=1",
        },
        "sip:vm-sip-5001@pbx.example",
    )


async def test_a_fax_is_listened_for_before_the_device_rings(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "before_call", "fax_detect", target=2)
    actions = await ask_freeswitch(service, "5000")
    assert actions is not None
    assert actions[:-2] == [
        ("log", "INFO callflow c1: SIP/5000 before call: fax detection, to FAX/102"),
        ("set", "callflow_fax=user/102@127.0.0.1"),
        ("set", "transfer_ringback=%(1000,4000,425)"),
        ("answer", ""),
        ("spandsp_start_fax_detect", "transfer 'callflow-fax XML public' 30"),
        *start("500_c1"),
    ]
    assert leg(actions) == (plain(20), "user/5000@127.0.0.1")
    assert actions[-1] == BACK


@pytest.mark.parametrize(
    ("came", "is_withheld"),
    [
        ({}, False),
        ({"Caller-Privacy-Hide-Number": "true"}, True),
        ({"Caller-Privacy-Hide-Number": "true", "Caller-Privacy-Hide-Name": "true"}, True),
        ({"variable_sip_Privacy": "id;user"}, True),
        ({"variable_sip_Privacy": "none", "Caller-Privacy-Hide-Number": "true"}, False),
    ],
)
async def test_a_caller_that_is_withheld_is_anonymous_on_a_diverted_leg_alone(
    service: httpx.AsyncClient, flows: Flows, came: dict[str, str], *, is_withheld: bool
) -> None:
    anonymous = caller_id("anonymous", "Anonymous") | {
        "sip_force_full_from": '"Anonymous" <sip:anonymous@anonymous.invalid>'
    }
    await flows.set(500, "busy", "voicemail")
    assert await diverted(service, **came) == {}
    await flows.forward(500, to=501)
    chain = {
        "sip_h_Diversion": "<sip:5000@127.0.0.1>;reason=unconditional;counter=1;privacy=off",
        "sip_h_History-Info": "<sip:5000@127.0.0.1?Privacy=none>;index=1, "
        "<sip:5001@127.0.0.1;cause=302>;index=1.1;mp=1",
    }
    assert await diverted(service, **came) == (anonymous if is_withheld else {}) | chain
    await flows.forward(500, to=501, caller_id="custom", text='"X" 111')
    assert await diverted(service, **came) == caller_id("111", "X") | chain


async def test_a_name_that_is_withheld_is_not_shown(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(500, to=501, caller_id="custom", text='"X" 37061111111')
    shown = await diverted(service, **{"Caller-Privacy-Hide-Name": "true"})
    assert shown["origination_caller_id_name"] == "37061111111"


async def test_a_trunk_gets_what_it_wants(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(500, to="37069999999")
    came = {"Caller-Caller-ID-Number": "*5#", "Caller-Caller-ID-Name": "D'Arc", "variable_sip_Privacy": "id"}
    expected = caller_id("+37052000010", "+37052000010") | {
        "sip_force_full_from": '"+37052000010" <sip:+37052000010@carrier.example>',
        "sip_h_P-Asserted-Identity": '"D\'Arc" <sip:*5%23@carrier.example>',
        "sip_h_Privacy": "id",
        "sip_h_Diversion": "<sip:+37052000010@pbx.example>;reason=unconditional;counter=1;privacy=off",
    }
    assert await diverted(service, "forwarding", **came) == expected
    del came["variable_sip_Privacy"], expected["sip_h_Privacy"]
    assert await diverted(service, "forwarding", **came) == expected


async def test_a_header_that_a_trunk_does_not_want_does_not_pass_through(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(500, to="37069999999")
    came = {"variable_sip_h_Diversion": "<sip:a@h>;reason=user-busy"}
    actions = await ask_freeswitch(service, "5000", user=("headerless", SWITCH[1]), **came)
    assert actions is not None
    assert ("multiunset", "sip_h_Diversion") in actions
    assert leg(actions)[0] == plain(60)


async def test_apostrophes_between_which_freeswitch_would_read_one_value_are_others(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(500, to=501, caller_id="custom", text="\"'O' Brien\" 111")
    assert (await diverted(service))["origination_caller_id_name"] == "\u2019O\u2019 Brien"


async def test_a_template_with_a_comma_rings_all_its_targets_for_the_same_time(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(500, "busy", "voicemail")
    actions = await ask_freeswitch(service, "5000", user=("twice", SWITCH[1]))
    assert actions is not None
    told, dialled = leg(actions)
    assert (told["leg_timeout"], dialled) == ("20", "user/5000@a.example,user/5000@b.example")


@pytest.mark.parametrize("channel", ["${uuid}", "a b", "a!b=c", "", "x" * 65])
async def test_a_channel_without_a_plain_id_is_not_told_that_it_rang(
    service: httpx.AsyncClient, flows: Flows, channel: str
) -> None:
    await flows.set(500, "busy", "voicemail")
    actions = await ask_freeswitch(service, "5000", **{"Unique-ID": channel})
    assert actions is not None
    expected = plain(20)
    del expected["api_on_ring"], expected["api_on_pre_answer"]
    assert leg(actions)[0] == expected


async def test_a_callback_from_an_emergency_centre_is_not_ours(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(500, to=501)
    assert await ask_freeswitch(service, "5000", variable_sip_i_priority="psap-callback") is None


@pytest.mark.parametrize(
    "headers",
    [
        {"variable_sip_h_Diversion": "<sip:b@h>;reason=no-answer"},
        {"variable_sip_i_diversion": "<sip:b@h>;reason=no-answer"},
        {
            "variable_sip_i_diversion": "ARRAY::<sip:b@h>;reason=no-answer",
            "variable_sip_h_Diversion": "<sip:a@h>;reason=user-busy",
        },
    ],
)
async def test_the_diversion_that_came_is_continued(
    service: httpx.AsyncClient, flows: Flows, headers: dict[str, str]
) -> None:
    await flows.forward(500, to=501)
    actions = await ask_freeswitch(service, "5000", **headers)
    assert actions is not None
    shown = leg(actions)[0]
    assert shown["sip_h_History-Info"].startswith("<sip:b@h?Privacy=none>;index=1, ")
    assert shown["sip_h_Diversion"] == (
        "<sip:5000@127.0.0.1>;reason=unconditional;counter=1;privacy=off, "
        "<sip:b@h>;reason=no-answer;counter=1;privacy=off"
    )


async def test_of_several_diversion_headers_all_are_continued_where_the_profile_keeps_them(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(500, to=501)
    both = "ARRAY::<sip:b@h>;reason=no-answer|:<sip:a@h>;reason=user-busy"
    actions = await ask_freeswitch(
        service, "5000", variable_sip_i_diversion=both, variable_sip_h_Diversion="<sip:a@h>;reason=user-busy"
    )
    assert actions is not None
    assert leg(actions)[0]["sip_h_Diversion"] == (
        "<sip:5000@127.0.0.1>;reason=unconditional;counter=1;privacy=off, "
        "<sip:b@h>;reason=no-answer;counter=1;privacy=off, <sip:a@h>;reason=user-busy;counter=1;privacy=off"
    )


async def test_headers_that_are_not_believed_are_not_continued(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(500, to=501)
    shown = await diverted(service, "untrusted", variable_sip_h_Diversion="<sip:a@h>;reason=user-busy")
    assert shown["sip_h_Diversion"] == "<sip:5000@pbx.example>;reason=unconditional;counter=1;privacy=off"


async def test_freeswitch_is_told_why_without_asking(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(500, to=500)
    actions = await ask_freeswitch(service, "5000")
    assert actions is not None
    assert explained(actions) == (
        "SIP/5000 before call: forward to SIP/5000; refused: the call has been there, a loop; SIP/5000 rings"
    )


async def test_without_a_sip_call_id_the_channels_own_id_counts(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "busy", "voicemail")
    actions = await ask_freeswitch(service, "5000", variable_sip_call_id="")
    assert actions is not None
    assert variables(actions)["callflow_path"] == f"500_{FREESWITCH_REQUEST['Unique-ID']}"
