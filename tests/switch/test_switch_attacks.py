"""Texts that a switch would take for commands: none of them comes out, whatever face is asked."""

import re
import unicodedata

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switch_questions import (
    ALICE,
    FACES,
    FLAT_FACES,
    NAMES,
    NOT_FOUND,
    SWITCH,
    Flows,
    flat,
    freeswitch_request,
    leg,
    read_dialplan,
)

ATTACKS = (
    "${system(touch /tmp/x)}",
    '"${system(id)}" <3706>',
    "\\${system(id)}",
    "$${system(id)}",
    "`id`",
    "3706\r\nX-Evil: 1",
    '"A\r\nX-Evil: 1" 3706',
    '"A\nB" <3706>',
    '"quoted" "twice" 3706',
    "a,b;c|d",
    "3706]user/evil",
    "x' onclick='y",
    "<action application='system' data='id'/>",
    "]]><!--&lt;&amp;&#0;",
    '"/><action application="system" data="id"/>',
    "a&b=c%20%0d%0a",
    "PJSIP/1&Local/2@evil",
    "{sip_h_X=1}[a=b]",
    "back\\slash",
    "x" * 255,
    "\U0001f525 fire \U0001f525",
    "\u202eevil\u2066",
    "\ufffe\uffff\u0085\u2028",
    "e\u0301" * 100,
    "%00 \\0 \\u0000",
    "#{system('id')}",
    "$(id)",
    "<sip:evil@evil>;reason=x",
    " 3706 ",
)

KEPT_IN_NAMES = frozenset("0123456789 .-_'")
KEPT_IN_LINES = KEPT_IN_NAMES | frozenset("/;:,()+*#")
NUMBER = r"\+?[0-9*#]{1,32}|[A-Za-z0-9._-]{1,64}|"
HOST = r"(?:[A-Za-z0-9.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
USER = r"(?:[A-Za-z0-9.+*_-]|%23){1,192}"
DIVERSION = rf"<sip:{USER}@{HOST}>;reason=[a-z-]+;counter=[0-9]{{1,2}};privacy=(?:off|full|name|uri)"
HISTORY = (
    rf"<sip:{USER}@{HOST}(?:;cause=[1-6][0-9]{{2}})?(?:\?Privacy=(?:none|history))?>;index=[0-9.]+(?:;mp=[0-9.]+)?"
)
PATH = r"(?:[0-9]+[unbf]\.)*(?:[0-9]+|x)_[A-Za-z0-9.-]{1,64}"
NAMED = r"[A-Za-z0-9._+*#-]{1,64}"
IN_URI = r"(?:[A-Za-z0-9._+*-]|%23){1,192}"
ALLOWED = {
    "action": "ring|forward|voicemail|fax|end|none",
    "dial": rf"|PJSIP/{NAMED}(?:@trunk)?|IAX2/{NAMED}|sip:{IN_URI}@127\.0\.0\.1",
    "ring_seconds": "[0-9]{0,4}",
    "fax_dial": rf"|PJSIP/{NAMED}|sip:{IN_URI}@127\.0\.0\.1",
    "mailbox": f"|{NAMED}",
    "cause": "|486|480|503",
    "caller_number": NUMBER,
    "privacy": "off|name|number|full|",
    "diversion": rf"|{DIVERSION}(?:, {DIVERSION})*",
    "history_info": rf"|{HISTORY}(?:, {HISTORY})*",
    "reason": "|unconditional|no-answer|user-busy|unavailable",
    "device": "[0-9]*",
    "payer": "|user1|user2",
    "payer_device": "[0-9]*",
    "leg": "[0-9]*",
    "flow_id": "[A-Za-z0-9.-]{0,64}",
    "path": rf"|{PATH}",
}
"""What each value of the flat names is let to be; names and explanations are checked letter by letter."""

APPLICATIONS = {
    "bridge": rf"\{{\^\^![^{{}}]*\}}(?:user/{NAMED}@127\.0\.0\.1|sofia/gateway/trunk/\+?(?:[0-9*]|%23){{1,32}})",
    "hangup": "USER_BUSY|NO_ANSWER|NORMAL_TEMPORARY_FAILURE",
    "set": "continue_on_fail=true|hangup_after_bridge=true|callflow_rejected=busy|callflow_fax=user/102@127\\.0\\.0\\.1"
    rf"|transfer_ringback=%\(1000,4000,425\)|callflow_path={PATH}",
    "transfer": r"callflow-next XML [A-Za-z0-9._-]{1,64}",
    "multiunset": "[a-z_]+(?: [a-z_]+)*",
    "answer": "",
    "sleep": "1000",
    "spandsp_start_fax_detect": r"transfer 'callflow-fax XML public' 30",
    "voicemail": rf"default 127\.0\.0\.1 (?:{NAMED})?",
    "log": r"INFO callflow [A-Za-z0-9.-]{1,64}: .*",
}
"""What each application is let to be given."""

LEG_VARIABLES = {
    "leg_timeout": "[0-9]{1,4}",
    "originate_timeout": "[0-9]{1,4}",
    "ignore_early_media": "ring_ready",
    "ignore_q850_reason": "true",
    "outbound_redirect_fatal": "true",
    "api_on_ring": "uuid_setvar [A-Za-z0-9-]{1,64} callflow_rang true",
    "api_on_pre_answer": "uuid_setvar [A-Za-z0-9-]{1,64} callflow_rang true",
    "origination_caller_id_number": NUMBER,
    "origination_caller_id_name": r"[^!={}\[\]\"<>]*",
    "origination_privacy": "screen",
    "sip_cid_type": "none",
    "sip_force_full_from": '"Anonymous" <sip:anonymous@anonymous.invalid>',
    "sip_h_P-Asserted-Identity": rf'(?:"[^!={{}}"<>]*" )?<sip:{USER}@127\.0\.0\.1>',
    "sip_h_Privacy": "id",
    "sip_h_Diversion": rf"{DIVERSION}(?:, {DIVERSION})*",
    "sip_h_History-Info": rf"{HISTORY}(?:, {HISTORY})*",
}
"""What each variable of a leg is let to be."""

READ = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)
TOKENS = st.sampled_from(
    ("${", "}", "\\", "`", '"', "'", "<", ">", "&", ",", ";", "\r\n", "\n", "[", "]", "|", "%0d%0a")
)
HOSTILE = st.one_of(
    st.sampled_from(ATTACKS),
    st.lists(st.one_of(TOKENS, st.text(max_size=6), st.from_regex(r"\A[0-9+*#]{1,9}\Z")), max_size=12).map("".join),
)
STORED = HOSTILE.map(lambda text: re.sub("[\x00\ud800-\udfff]", "", text)[:255])
"""What a column of text can hold."""


def allowed(text: str, signs: frozenset[str]) -> bool:
    return all(sign in signs or unicodedata.category(sign).startswith("L") for sign in text)


def check_flat(told: dict[str, str]) -> None:
    for name in NAMES:
        if name == "caller_name":
            assert len(told[name]) <= 64
            assert allowed(told[name], KEPT_IN_NAMES), told[name]
        elif name == "explain":
            assert len(told[name]) <= 1000
            assert allowed(told[name], KEPT_IN_LINES), told[name]
        else:
            assert re.fullmatch(ALLOWED[name], told[name], re.ASCII), (name, told[name])


def check_kamailio(document: dict[str, object], told: dict[str, str]) -> None:
    assert set(document) == {"version", "routing", "routes", *NAMES}
    for route in document["routes"]:
        assert set(route) <= {"uri", "fr_inv_timer", "headers"}
        assert route["uri"] == told["dial"]
        assert set(route["headers"]) <= {"from", "extra"}
        chain = [("Diversion", told["diversion"]), ("History-Info", told["history_info"])]
        lines = "".join(f"{name}: {value}\r\n" for name, value in chain if value)
        assert route["headers"].get("extra", "") == lines
        if shown := route["headers"].get("from"):
            assert set(shown) == {"display", "uri"}
            display = shown["display"]
            assert (display[0], display[-1]) == ('"', '"')
            assert allowed(display[1:-1], KEPT_IN_NAMES | frozenset("+*#"))
            assert re.fullmatch(rf"sip:(?:{USER}@127\.0\.0\.1|anonymous@anonymous\.invalid)", shown["uri"], re.ASCII)


def check_dialplan(body: bytes, context: str) -> None:
    actions = read_dialplan(body, context=context)
    if actions is None:
        return
    for application, data in actions:
        assert re.fullmatch(APPLICATIONS[application], data, re.ASCII), (application, data)
    if "bridge" in dict(actions):
        told, _ = leg(actions)
        for name, value in told.items():
            assert re.fullmatch(LEG_VARIABLES[name], value), (name, value)
        shown = told.get("origination_caller_id_name", "")
        assert allowed(shown, KEPT_IN_NAMES | frozenset("+*#\u2019"))
        assert dict(actions)["bridge"].count("'") < 2
    if actions[0][0] == "log":
        assert allowed(actions[0][1], KEPT_IN_LINES)


def check(face: str, response: httpx.Response, context: str = "public") -> None:
    """Nothing but what is meant is in the answer."""
    assert response.status_code == 200
    text = re.sub(r"(?<=data=.)\{(\^\^![^{}]*)\}", r"\1", response.text)
    assert not re.search(r"[$`\\{}]" if face == "freeswitch" else r"[$`]|\\(?![\"nrut])", text), text
    if face == "freeswitch":
        check_dialplan(response.content, context)
        return
    assert response.text.isprintable()
    told = flat(face, response)
    check_flat(told)
    if face == "kamailio":
        check_kamailio(response.json(), told)


async def ask_all(
    service: httpx.AsyncClient, name: str, faces: tuple[str, ...] = FACES, **question: str
) -> dict[str, httpx.Response]:
    """What each face answers about a call that goes to the device of that name."""
    answers = {}
    for face in faces:
        asked = {**ALICE, "called": name, "explain": "1", **question}
        request = freeswitch_request(name) if face == "freeswitch" else asked
        answers[face] = await service.post(f"/switch/{face}", data=request, auth=SWITCH)
        check(face, answers[face])
    return answers


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_hostile_custom_caller_id_reaches_no_switch(
    service: httpx.AsyncClient, flows: Flows, attack: str
) -> None:
    await flows.forward(500, to="37069999999", caller_id="custom", text=attack[:255])
    answers = await ask_all(service, "5000")
    assert {flat(face, answers[face])["action"] for face in FLAT_FACES} == {"forward"}
    assert "bridge" in dict(read_dialplan(answers["freeswitch"].content, context="public"))


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_hostile_device_reaches_no_switch(service: httpx.AsyncClient, flows: Flows, attack: str) -> None:
    rename = "UPDATE device SET name = $1, caller_name = $1, caller_number = $1, technology = $2 WHERE id = 511"
    await flows.connection.execute(rename, attack, attack)
    try:
        await flows.forward(501, to=511)
        await flows.forward(511, to="37069999999", caller_id="device")
        answers = await ask_all(service, "5001")
        assert {flat(face, answers[face])["payer_device"] for face in FLAT_FACES} == {"511"}
        await flows.set(511, "before_call", "voicemail")
        await ask_all(service, "5001")
        await flows.set(511, "before_call", "fax_detect", target=2)
        answers = await ask_all(service, "5001")
        assert {flat(face, answers[face])["device"] for face in FLAT_FACES} == {"501"}
    finally:
        await flows.connection.execute(
            "UPDATE device SET name = '5011', caller_name = '', caller_number = '', technology = 'SIP' WHERE id = 511"
        )


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_hostile_question_gets_a_harmless_answer(service: httpx.AsyncClient, flows: Flows, attack: str) -> None:
    await flows.forward(500, to=501)
    names = ("caller_number", "caller_name", "privacy", "call_id", "diversion", "history_info", "path")
    answers = await ask_all(service, "5000", FLAT_FACES, **dict.fromkeys(names, attack))
    assert {flat(face, answers[face])["dial"] for face in FLAT_FACES} == {"PJSIP/5001", "sip:5001@127.0.0.1"}
    answers = await ask_all(service, attack, FLAT_FACES, state=attack)
    assert {flat(face, answers[face])["action"] for face in FLAT_FACES} == {"none"}


FREESWITCH_WORDS = (
    "Hunt-Destination-Number",
    "Hunt-Context",
    "Caller-Caller-ID-Number",
    "Caller-Caller-ID-Name",
    "Unique-ID",
    "variable_sip_call_id",
    "variable_sip_h_Diversion",
    "variable_sip_i_diversion",
    "variable_sip_history_info",
    "variable_callflow_path",
    "variable_callflow_state",
    "variable_callflow_privacy",
)


ROUTED_BY = ("Hunt-Destination-Number", "variable_callflow_path")


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("destination", ["5000", "callflow-next"])
async def test_a_hostile_channel_gets_a_harmless_dialplan(
    service: httpx.AsyncClient, flows: Flows, destination: str, attack: str
) -> None:
    await flows.forward(500, to=501)
    await flows.forward(500, "failed", to=501)
    request = freeswitch_request(destination, variable_callflow_path="500_c1")
    everywhere = {name: attack for name in FREESWITCH_WORDS if name not in {"Hunt-Context", *ROUTED_BY}}
    response = await service.post("/switch/freeswitch", data=request | everywhere, auth=SWITCH)
    assert read_dialplan(response.content, context="public") is not None
    check("freeswitch", response)
    for name in ROUTED_BY:
        response = await service.post("/switch/freeswitch", data=request | {name: attack}, auth=SWITCH)
        check("freeswitch", response)
    # Nothing is set for device 501, so the call ends with the cause that came.
    over = request | {"variable_callflow_path": "501_c1", "variable_originate_disposition": attack}
    check("freeswitch", await service.post("/switch/freeswitch", data=over, auth=SWITCH))
    response = await service.post("/switch/freeswitch", data=request | {"Hunt-Context": attack}, auth=SWITCH)
    assert response.content == NOT_FOUND


@READ
@given(custom=STORED, name=STORED.filter(bool), number=STORED, caller=HOSTILE, header=HOSTILE)
async def test_whatever_is_stored_and_asked_nothing_but_what_is_meant_comes_out(
    service: httpx.AsyncClient, flows: Flows, *, custom: str, name: str, number: str, caller: str, header: str
) -> None:
    await flows.connection.execute(
        "UPDATE device SET name = $1, caller_name = $2, caller_number = $3 WHERE id = 510", name, custom, number
    )
    await flows.forward(501, to=510, caller_id="custom", text=custom)
    await flows.forward(510, to="37069999999", caller_id="device")
    asked = {
        "called": "5001",
        "caller_number": caller,
        "caller_name": caller,
        "privacy": caller,
        "call_id": caller,
        "diversion": header,
        "history_info": header,
        "explain": "1",
    }
    for face in FLAT_FACES:
        encoded = {key: text.encode("utf-8", "surrogatepass") for key, text in asked.items()}
        check(face, await service.post(f"/switch/{face}", data=encoded, auth=SWITCH))
    request = freeswitch_request(
        "5001",
        variable_sip_h_Diversion=header.encode("utf-8", "surrogatepass"),
        variable_sip_call_id=caller.encode("utf-8", "surrogatepass"),
    )
    check("freeswitch", await service.post("/switch/freeswitch", data=request, auth=SWITCH))


@READ
@given(values=st.dictionaries(st.sampled_from(FREESWITCH_WORDS), HOSTILE), next_one=st.booleans())
async def test_whatever_a_channel_says_nothing_but_what_is_meant_comes_out(
    service: httpx.AsyncClient, flows: Flows, values: dict[str, str], *, next_one: bool
) -> None:
    await flows.forward(500, "failed", to=501, caller_id="custom", text="Acme")
    request = freeswitch_request("callflow-next" if next_one else "5000", variable_callflow_path="500_c1")
    request |= {name: text.encode("utf-8", "surrogatepass") for name, text in values.items()}
    response = await service.post("/switch/freeswitch", data=request, auth=SWITCH)
    context = values.get("Hunt-Context", "public")
    check("freeswitch", response, context or "public")
