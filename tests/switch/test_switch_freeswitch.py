"""FreeSWITCH: whole dialplans, whole requests, and the rules of its own XML reader."""

import httpx
import pytest

from callflow_service.switch.freeswitch import POST_VARIABLES
from switch_questions import (
    FREESWITCH_REQUEST,
    NOT_FOUND,
    SWITCH,
    Flows,
    ask_freeswitch,
    explained,
    freeswitch_request,
    read_dialplan,
    variables,
)

SAME = [("unset", "effective_caller_id_number"), ("unset", "effective_caller_id_name")]
BACK = [("set", "callflow_state=${originate_disposition}"), ("transfer", "callflow-next XML public")]


def start(path: str, privacy: str = "off") -> list[tuple[str, str]]:
    return [
        ("set", "continue_on_fail=true"),
        ("set", "hangup_after_bridge=true"),
        ("set", f"callflow_path={path}"),
        ("set", f"callflow_privacy={privacy}"),
    ]


async def test_a_leg_byte_for_byte(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(500, to=501, caller_id="custom", text='"A\'B" 111')
    response = await service.post("/switch/freeswitch", data=freeswitch_request("5000"), auth=SWITCH)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    lines = [
        ("log", "INFO callflow c1: SIP/5000 before call: forward to SIP/5001; SIP/5001 rings"),
        ("set", "continue_on_fail=true"),
        ("set", "hangup_after_bridge=true"),
        ("set", "callflow_path=500u.501_c1"),
        ("set", "callflow_privacy=off"),
        ("set", "effective_caller_id_number=111"),
        ("set", "effective_caller_id_name=A'B"),
        ("unset", "sip_h_identity"),
        ("unset", "sip_identity"),
        ("privacy", "no"),
        (
            "export",
            "nolocal:sip_h_Diversion=&lt;sip:5000@127.0.0.1&gt;;reason=unconditional;counter=1;privacy=off",
        ),
        (
            "export",
            (
                "nolocal:sip_h_History-Info=&lt;sip:5000@127.0.0.1?Privacy=none&gt;;index=1, "
                "&lt;sip:5001@127.0.0.1;cause=302&gt;;index=1.1;mp=1"
            ),
        ),
        ("bridge", "[leg_timeout=21]user/5001@127.0.0.1"),
        ("set", "callflow_state=${originate_disposition}"),
        ("transfer", "callflow-next XML public"),
    ]
    actions = "".join(f'\t\t\t\t\t<action application="{name}" data="{data}"/>\n' for name, data in lines)
    assert response.text == (
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


async def test_a_device_that_we_do_not_divert_rings_as_the_call_came(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "busy", "voicemail")
    assert await ask_freeswitch(service, "5000") == [
        ("log", "INFO callflow c1: SIP/5000 rings"),
        *start("500_c1"),
        *SAME,
        ("privacy", "no"),
        ("unset", "sip_h_Diversion"),
        ("unset", "sip_h_History-Info"),
        ("bridge", "[leg_timeout=20]user/5000@127.0.0.1"),
        *BACK,
    ]


async def test_the_whole_real_request_to_a_did_is_answered(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(200, to="37069999999", caller_id="device")
    request = FREESWITCH_REQUEST | {"Hunt-Destination-Number": "37052000004"}
    response = await service.post("/switch/freeswitch", data=request, auth=SWITCH)
    assert read_dialplan(response.content, context="public") == [
        (
            "log",
            "INFO callflow b86c53b7f988402286f24c7ca484ea6e: SIP/2001 before call: forward to 37069999999",
        ),
        *start("200u.x_b86c53b7f988402286f24c7ca484ea6e"),
        ("set", "effective_caller_id_number=37060002001"),
        ("set", "effective_caller_id_name=37060002001"),
        ("unset", "sip_h_identity"),
        ("unset", "sip_identity"),
        ("privacy", "no"),
        (
            "export",
            (
                "nolocal:sip_h_Diversion=<sip:37052000004@127.0.0.1>;reason=unconditional;counter=1;privacy=off, "
                "<sip:2001@example.org>;reason=user-busy;counter=1;privacy=off"
            ),
        ),
        (
            "export",
            (
                "nolocal:sip_h_History-Info=<sip:2001@example.org>;index=1, "
                "<sip:2002@example.org;cause=486>;index=1.1, "
                "<sip:37052000004@127.0.0.1?Privacy=none>;index=1.1.1;mp=1.1, "
                "<sip:37069999999@127.0.0.1;cause=302>;index=1.1.1.1;mp=1.1.1"
            ),
        ),
        ("bridge", "[leg_timeout=60]sofia/gateway/trunk/37069999999"),
        *BACK,
    ]


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
    }
    fresh = freeswitch_request("5000", **headers)
    later = freeswitch_request(
        "callflow-next",
        **headers,
        variable_callflow_path="500u.501_c1",
        variable_callflow_state="USER_BUSY",
        variable_callflow_privacy="name",
    )
    leading = ("hostname", "section", "tag_name", "key_name", "key_value")
    for request in (fresh, later):
        cut = {name: value for name, value in request.items() if name in POST_VARIABLES or name in leading}
        assert len(cut) < len(request)
        whole = await service.post("/switch/freeswitch", data=request, auth=SWITCH)
        less = await service.post("/switch/freeswitch", data=cut, auth=SWITCH)
        assert whole.content == less.content != NOT_FOUND


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
        "variable_callflow_state": "USER_BUSY",
    }
    response = await service.post("/switch/freeswitch", data=request, auth=("switch", "wrong"))
    assert read_dialplan(response.content, context="public") == [("hangup", "USER_BUSY")]


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


DISPOSITIONS = {
    "USER_BUSY": "busy",
    "CALL_REJECTED": "busy",
    "NO_ANSWER": "no_answer",
    "ALLOTTED_TIMEOUT": "no_answer",
    "NO_USER_RESPONSE": "no_answer",
    "PROGRESS_TIMEOUT": "no_answer",
    "USER_NOT_REGISTERED": "failed",
    "SUBSCRIBER_ABSENT": "failed",
    "UNALLOCATED_NUMBER": "failed",
    "NORMAL_TEMPORARY_FAILURE": "failed",
    "RECOVERY_ON_TIMER_EXPIRE": "failed",
    "NETWORK_OUT_OF_ORDER": "failed",
    "": "failed",
    "something else": "failed",
}


@pytest.mark.parametrize("disposition", DISPOSITIONS)
async def test_what_became_of_a_leg_says_which_flow_is_asked_for(
    service: httpx.AsyncClient, flows: Flows, disposition: str
) -> None:
    for place, state in enumerate(("no_answer", "busy", "failed"), 501):
        await flows.forward(500, state, to=place)
    actions = await ask_freeswitch(
        service, "callflow-next", variable_callflow_path="500_c1", variable_callflow_state=disposition
    )
    assert actions is not None
    letter = DISPOSITIONS[disposition][0]
    expected = {"n": "500n.501_c1", "b": "500b.502_c1", "f": "500f.503_c1"}[letter]
    assert variables(actions)["callflow_path"] == expected


@pytest.mark.parametrize(
    ("came", "cause"),
    [
        ("USER_BUSY", "USER_BUSY"),
        ("CALL_REJECTED", "CALL_REJECTED"),
        ("ALLOTTED_TIMEOUT", "ALLOTTED_TIMEOUT"),
        ("UNALLOCATED_NUMBER", "UNALLOCATED_NUMBER"),
        ("", "NORMAL_TEMPORARY_FAILURE"),
        ("${x}", "NORMAL_TEMPORARY_FAILURE"),
    ],
)
@pytest.mark.usefixtures("flows")
async def test_a_call_with_nothing_set_for_it_ends_with_the_cause_that_came(
    service: httpx.AsyncClient, came: str, cause: str
) -> None:
    actions = await ask_freeswitch(
        service, "callflow-next", variable_callflow_path="500_c1", variable_callflow_state=came
    )
    assert actions is not None
    assert actions[1:] == [("hangup", cause)]


@pytest.mark.parametrize("came", ["SUCCESS", "NORMAL_CLEARING", "ORIGINATOR_CANCEL"])
async def test_a_call_that_was_answered_or_given_up_is_not_diverted_once_more(
    service: httpx.AsyncClient, flows: Flows, came: str
) -> None:
    await flows.forward(500, "failed", to=501)
    assert await ask_freeswitch(
        service, "callflow-next", variable_callflow_path="500_c1", variable_callflow_state=came
    ) == [("hangup", "NORMAL_CLEARING")]


@pytest.mark.usefixtures("flows")
async def test_carrying_on_in_a_call_of_ours_is_hanging_up_with_the_cause_that_came(service: httpx.AsyncClient) -> None:
    request = freeswitch_request("callflow-next", variable_callflow_path="500_c1", variable_callflow_state="USER_BUSY")
    response = await service.post("/switch/freeswitch", data=request, auth=("switch", "wrong"))
    assert response.status_code == 401
    assert read_dialplan(response.content, context="public") == [("hangup", "USER_BUSY")]
    response = await service.post("/switch/freeswitch", data=request | {"Hunt-Context": "a b"}, auth=SWITCH)
    assert (response.status_code, response.content) == (200, NOT_FOUND)


async def test_voicemail_is_freeswitchs_own_where_there_is_no_template(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(500, "before_call", "voicemail")
    assert await ask_freeswitch(service, "5000") == [
        ("log", "INFO callflow c1: SIP/5000 before call: voicemail"),
        *SAME,
        ("privacy", "no"),
        ("answer", ""),
        ("sleep", "1000"),
        ("voicemail", "default 127.0.0.1 5000"),
    ]


async def test_voicemail_is_where_the_template_says(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "before_call", "voicemail")
    actions = await ask_freeswitch(service, "5000", user=("templated", "switch-secret"))
    assert actions is not None
    assert actions[-4:] == [
        ("privacy", "no"),
        ("unset", "sip_h_Diversion"),
        ("unset", "sip_h_History-Info"),
        ("bridge", "sip:vm-sip-5000@pbx.example"),
    ]


async def test_voicemail_that_is_bridged_to_is_told_of_the_whole_chain(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(500, to=501)
    await flows.set(501, "before_call", "voicemail")
    actions = await ask_freeswitch(service, "5000", user=("templated", "switch-secret"))
    assert actions is not None
    assert actions[-3:] == [
        ("export", "nolocal:sip_h_Diversion=<sip:5000@pbx.example>;reason=unconditional;counter=1;privacy=off"),
        (
            "export",
            (
                "nolocal:sip_h_History-Info=<sip:5000@pbx.example?Privacy=none>;index=1, "
                "<sip:5001@pbx.example;cause=302>;index=1.1;mp=1"
            ),
        ),
        ("bridge", "sip:vm-sip-5001@pbx.example"),
    ]


async def test_a_fax_is_listened_for_before_the_device_rings(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "before_call", "fax_detect", target=2)
    assert await ask_freeswitch(service, "5000") == [
        ("log", "INFO callflow c1: SIP/5000 before call: fax detection, to FAX/102"),
        ("set", "callflow_fax=user/102@127.0.0.1"),
        ("answer", ""),
        ("spandsp_start_fax_detect", "transfer 'callflow-fax XML public' 30"),
        *start("500_c1"),
        *SAME,
        ("privacy", "no"),
        ("unset", "sip_h_Diversion"),
        ("unset", "sip_h_History-Info"),
        ("bridge", "[leg_timeout=20]user/5000@127.0.0.1"),
        *BACK,
    ]


@pytest.mark.parametrize(
    ("number", "name", "privacy"),
    [("false", "false", "off"), ("true", "false", "number"), ("false", "true", "name"), ("true", "true", "full")],
)
async def test_the_callers_privacy_is_kept_for_the_questions_to_come(
    service: httpx.AsyncClient, flows: Flows, number: str, name: str, privacy: str
) -> None:
    await flows.forward(500, "busy", to=501)
    await flows.forward(501, "busy", to=502, caller_id="custom", text="111")
    flags = {"Caller-Privacy-Hide-Number": number, "Caller-Privacy-Hide-Name": name}
    first = await ask_freeswitch(service, "5000", **flags)
    assert first is not None
    assert variables(first)["callflow_privacy"] == privacy
    assert ("privacy", {"off": "no"}.get(privacy, privacy)) in first
    # The flags are those of the last leg by now.
    second = await ask_freeswitch(
        service,
        "callflow-next",
        variable_callflow_path="500_c1",
        variable_callflow_state="USER_BUSY",
        variable_callflow_privacy=privacy,
    )
    assert second is not None
    assert ("privacy", {"off": "no"}.get(privacy, privacy)) in second


async def test_each_leg_resets_the_caller_id_of_the_leg_before(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.forward(500, "busy", to=501, caller_id="custom", text='"X" 111')
    await flows.forward(501, "busy", to=502, caller_id="source")
    asked = {"variable_callflow_state": "USER_BUSY"}
    second = await ask_freeswitch(service, "callflow-next", variable_callflow_path="500_c1", **asked)
    assert second is not None
    assert variables(second)["effective_caller_id_name"] == "X"
    await flows.forward(500, "busy", to=501, caller_id="source")
    third = await ask_freeswitch(service, "callflow-next", variable_callflow_path="500b.501_c1", **asked)
    assert third is not None
    assert [action for action in SAME if action in third] == SAME


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
    assert dict(actions)["export"].startswith("nolocal:sip_h_History-Info=<sip:b@h?Privacy=none>;index=1, ")
    assert (
        "export",
        (
            "nolocal:sip_h_Diversion=<sip:5000@127.0.0.1>;reason=unconditional;counter=1;privacy=off, "
            "<sip:b@h>;reason=no-answer;counter=1;privacy=off"
        ),
    ) in actions


async def test_of_several_diversion_headers_all_are_continued_where_the_profile_keeps_them(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.forward(500, to=501)
    both = "ARRAY::<sip:b@h>;reason=no-answer|:<sip:a@h>;reason=user-busy"
    actions = await ask_freeswitch(
        service, "5000", variable_sip_i_diversion=both, variable_sip_h_Diversion="<sip:a@h>;reason=user-busy"
    )
    assert actions is not None
    assert (
        "export",
        (
            "nolocal:sip_h_Diversion=<sip:5000@127.0.0.1>;reason=unconditional;counter=1;privacy=off, "
            "<sip:b@h>;reason=no-answer;counter=1;privacy=off, <sip:a@h>;reason=user-busy;counter=1;privacy=off"
        ),
    ) in actions


async def test_headers_that_are_not_believed_do_not_pass_through_unread(
    service: httpx.AsyncClient, flows: Flows
) -> None:
    await flows.set(500, "busy", "voicemail")
    actions = await ask_freeswitch(
        service, "5000", user=("untrusted", "switch-secret"), variable_sip_h_Diversion="<sip:a@h>;reason=user-busy"
    )
    assert actions is not None
    assert ("unset", "sip_h_Diversion") in actions


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
