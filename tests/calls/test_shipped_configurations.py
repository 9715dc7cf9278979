"""The shipped switch configurations hold the names that the service knows. No switch is needed here."""

import re
from base64 import b64encode
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from callflow_service.domain.routing import RouteAction
from callflow_service.switch.answers import NAMES, TRUNK_NAMES
from callflow_service.switch.freeswitch import FAX, NEXT, POST_VARIABLES

SWITCHES = Path(__file__).parents[2] / "switches"
ASKED = {
    "called",
    "path",
    "state",
    "call_id",
    "caller_number",
    "caller_name",
    "diversion",
    "history_info",
}
"""What every switch tells; a device's id is known to none of them."""


def code(name: str, comment: str) -> str:
    """The text of a configuration without its comments, each of which begins with `comment` after a blank or a line."""
    return re.sub(rf"(?m)(^|\s){comment}.*$", "", (SWITCHES / name).read_text())


def test_freeswitch_sends_just_what_is_read_and_waits_a_second() -> None:
    (binding,) = ET.parse(SWITCHES / "freeswitch" / "xml_curl.conf.xml").iter("binding")  # noqa: S314 - ours
    parameters = [(each.attrib["name"], each.attrib["value"]) for each in binding.iter("param")]

    assert tuple(value for name, value in parameters if name == "enable-post-var") == POST_VARIABLES
    assert {name: value for name, value in parameters if name != "enable-post-var"} == {
        "gateway-url": "http://127.0.0.1:8000/switch/freeswitch",
        "gateway-credentials": "switch:switch-secret",
        "auth-scheme": "basic",
        "timeout": "1",
    }
    (url,) = (each for each in binding.iter("param") if each.attrib["name"] == "gateway-url")
    assert url.attrib["bindings"] == "dialplan"


def test_freeswitchs_static_dialplan_has_the_extensions_that_answers_lead_to() -> None:
    dialplan = ET.parse(SWITCHES / "freeswitch" / "callflow.xml").getroot()  # noqa: S314 - ours
    dialled = [next(each.iter("condition")).attrib for each in dialplan.iter("extension")]

    # What each extension does is read in tests/switch, where the answers are that lead to it.
    assert [each["field"] for each in dialled] == ["destination_number"] * len(dialled)
    assert {each["expression"] for each in dialled} == {f"^{name}$" for name in (NEXT, FAX)}
    used = set(re.findall(r"\$\{(\w+)\}", ET.tostring(dialplan, "unicode")))
    sent = {name.removeprefix("variable_") for name in POST_VARIABLES}
    assert used - sent == {"callflow_fax"}


@pytest.mark.parametrize(
    ("name", "comment", "asked", "read"),
    [
        ("kamailio/callflow.cfg", "#[^!]", r'jansson_set\("string", "(\w+)"', r'jansson_get\("(\w+)",'),
        ("opensips/opensips.cfg", "#", r"\$json\(question/(\w+)\)", r"\$json\(answer/(\w+)\)"),
        (
            "asterisk/extensions.conf",
            ";",
            r"(?:[?&:=]|came,1\([\w-]+,)([a-z_]+)(?:=(?=[$:]|full|n)|\)\))",
            r"\$\{HASH\(cf,(\w+)\)",
        ),
    ],
)
def test_what_a_switch_tells_and_takes_has_the_services_names(name: str, comment: str, asked: str, read: str) -> None:
    text = code(name, comment)

    told = set(re.findall(asked, text))
    assert told >= ASKED
    assert told & {"privacy", "privacy_header"}
    assert set(re.findall(read, text)) <= {*NAMES, *TRUNK_NAMES}


def test_asterisk_has_an_extension_for_every_action_and_for_no_answer() -> None:
    text = code("asterisk/extensions.conf", ";")
    extensions = set(re.findall(r"(?m)^exten => (\w+),1,", text))

    assert {f"do_{action.value}" for action in RouteAction} <= extensions
    assert set(re.findall(r"(?:\(callflow(?:-fax)?,|Goto\(|\]\?)(\w+),(?=1|ask)", text)) <= extensions


def test_asterisk_takes_no_refusal_for_an_answer_and_does_not_wait_for_ever() -> None:
    text = code("asterisk/extensions.conf", ";")

    assert dict(re.findall(r"Set\(CURLOPT\((\w+)\)=([^)]*)\)", text)) == {
        "conntimeout": "1",
        "httptimeout": "1.5",
        "failurecodes": "400,401,403,404,405,413,429,500,502,503,504",
        "hashcompat": "yes",
    }


# No Asterisk runs in the tests: it is in no package of Debian's. What its file says is read instead, and each of the
# following was seen with real calls when the file was written.


@pytest.mark.parametrize(
    ("ends", "dialled", "rang", "state"),
    [
        (["486"], "BUSY", False, "busy"),
        (["600"], "BUSY", True, "busy"),
        (["603"], "CONGESTION", False, "busy"),
        (["403"], "CHANUNAVAIL", True, "busy"),
        (["607"], "CONGESTION", False, "busy"),
        (["180"], "NOANSWER", True, "no_answer"),
        (["183"], "NOANSWER", True, "no_answer"),
        (["480"], "BUSY", False, "no_answer"),
        (["408"], "CHANUNAVAIL", True, "no_answer"),
        (["487"], "CHANUNAVAIL", True, "no_answer"),
        (["486", "180"], "NOANSWER", True, "no_answer"),
        (["486", "480"], "BUSY", True, "no_answer"),
        (["404", "486"], "BUSY", False, "busy"),
        ([], "CHANUNAVAIL", False, "failed"),
        ([], "NOANSWER", False, "failed"),
        (["100"], "NOANSWER", False, "failed"),
        (["408"], "CHANUNAVAIL", False, "failed"),
        *(([status], "BUSY", True, "failed") for status in ("401", "404", "407", "410", "484", "488", "500", "503")),
        *(([status], "CONGESTION", False, "failed") for status in ("604", "606")),
        # A phone's 3xx: Asterisk keeps the last provisional status, and calls it busy.
        ([], "BUSY", False, "failed"),
        (["180"], "BUSY", True, "failed"),
    ],
)
def test_asterisk_tells_by_the_sip_statuses_how_a_leg_ended(
    ends: list[str], dialled: str, *, rang: bool, state: str
) -> None:
    assert state_in_asterisk(ends, dialled, rang=rang) == state


def test_asterisk_takes_a_persons_no_for_a_failure_where_it_is_set_so() -> None:
    assert {
        status: state_in_asterisk([status], "CONGESTION", rang=True, rejected="failed")
        for status in ("603", "403", "607", "486")
    } == {"603": "failed", "403": "failed", "607": "failed", "486": "busy"}


@pytest.mark.parametrize(
    ("dialled", "rang", "state"),
    [
        ("BUSY", False, "busy"),
        ("NOANSWER", True, "no_answer"),
        ("NOANSWER", False, "failed"),
        ("CONGESTION", True, "failed"),
    ],
)
def test_asterisk_tells_by_dialstatus_how_a_leg_ended_that_is_not_sip(dialled: str, *, rang: bool, state: str) -> None:
    assert state_in_asterisk([], dialled, rang=rang, dial="IAX2/desk") == state


def state_in_asterisk(
    ends: list[str], dialled: str, *, rang: bool, rejected: str = "busy", dial: str = "PJSIP/desk"
) -> str:
    """What the lines between Dial and the next question make of a leg, worked through one after the other."""
    text = code("asterisk/extensions.conf", ";")
    values = {
        "CALLFLOW_ENDS": "".join(f" {status}" for status in ends),
        "DIALSTATUS": dialled,
        "CALLFLOW_RANG": str(int(rang)),
        "AST_CONFIG(callflow.conf,callflow,rejected)": rejected,
        "CALLFLOW_DIAL:0:6": dial[:6],
    }
    _, _, judged = text.partition("same => n,Set(CALLFLOW_STATE=failed)\n")
    state = "failed"
    for condition, then, known in re.findall(
        r"n,(?:ExecIf|GotoIf)\(\$\[(.+)\]\?(?:(next)|Set\(CALLFLOW_STATE=(\w+)\))\)", judged
    ):
        filled = re.sub(r"\$\{([^}]+)\}", lambda name: values[name[1]], condition)
        if all(_holds(term) for term in filled.split(" & ")):
            if then:
                break
            state = known
    return state


def _holds(term: str) -> bool:
    match re.fullmatch(r'"(.*)" (=~|=|!=) "(.*)"', term):
        case None:
            return term == "1"
        case found:
            left, operator, right = found.groups()
    if operator == "=~":
        return bool(re.search(right, left))
    return (left == right) == (operator == "=")


def test_asterisk_forgets_the_causes_of_earlier_legs_and_ends_with_that_of_the_last() -> None:
    text = code("asterisk/extensions.conf", ";")

    assert re.search(r"HangupCauseClear\(\)\n.*\n same => n,Dial\(", text)
    _, _, end = text.partition("exten => over,1,")
    assert end.splitlines()[:3] == [
        'ExecIf($["${CALLFLOW_STATE}" = "busy"]?Hangup(17))',
        ' same => n,ExecIf($["${CALLFLOW_STATE}" = "no_answer"]?Hangup(19))',
        " same => n,Hangup(34)",
    ]


def test_asterisk_ends_a_call_with_the_cause_of_the_answer() -> None:
    _, _, end = code("asterisk/extensions.conf", ";").partition("exten => do_end,1,")

    # 21 becomes 403: chan_pjsip has no cause that becomes 603.
    assert end.splitlines()[:5] == [
        'ExecIf($["${HASH(cf,cause)}" = "486"]?Hangup(17))',
        ' same => n,ExecIf($["${HASH(cf,cause)}" = "480"]?Hangup(19))',
        ' same => n,ExecIf($["${HASH(cf,cause)}" = "603"]?Hangup(21))',
        ' same => n,ExecIf($["${HASH(cf,cause)}" = "404"]?Hangup(1))',
        " same => n,Hangup(34)",
    ]


def test_asterisk_sends_what_the_original_invite_said() -> None:
    text = code("asterisk/extensions.conf", ";")

    assert dict(re.findall(r"Gosub\(callflow,came,1\(([\w-]+),(\w+)\)\)", text)) == {
        "Privacy": "privacy_header",
        "Priority": "priority",
        "Diversion": "diversion",
        "History-Info": "history_info",
    }


def test_asterisk_obeys_no_answer_that_was_cut_on_its_way() -> None:
    text = code("asterisk/extensions.conf", ";")

    # The last name says that all of the answer came; what an earlier answer said is gone before.
    assert f"FIELDNUM(CALLFLOW_NAMES,\\,,{NAMES[-1]})}} = 0" in text
    assert re.search(r"ClearHash\(cf\)\n same => n,ClearHash\(_cf\)\n same => n,Set\(HASH\(_cf\)=\$\{CURL", text)


def test_asterisk_leaves_the_password_out_of_everything_that_is_logged() -> None:
    text = code("asterisk/extensions.conf", ";")
    settings = code("asterisk/callflow.conf", ";")

    assert dict(re.findall(r"(?m)^(\w+)=(.*)$", settings)) == {
        "url": "http://127.0.0.1:8000/switch/asterisk",
        "login": "switch:switch-secret",
        "rejected": "busy",
        "redirected": "failed",
    }
    # An application's arguments, a global variable and the address of a question are logged; a nested function is not.
    assert "switch-secret" not in text
    assert re.findall(r".*callflow,login.*", text) == [
        " same => n,NoOp(${LEN(${SET(CURLOPT(userpwd)=${AST_CONFIG(callflow.conf,callflow,login)})})})"
    ]


def test_asterisk_changes_what_a_leg_shows_on_diverted_legs_and_on_them_alone() -> None:
    text = code("asterisk/extensions.conf", ";")
    _, _, leg = text.partition("[callflow-leg]\n")
    leg, _, _ = leg.partition("\n[")

    assert text.count("b(callflow-leg^s^1)") == 1
    before, untouched, _ = leg.partition('GotoIf($["${HASH(cf,reason)}" = ""]?done)')
    assert untouched
    assert re.findall(r"Set\((\w+)", before) == ["FORWARD_CONTEXT"]
    # On the caller's channel a transfer would inherit it. Nothing follows a mailbox.
    on_the_caller = text.replace(leg, "")
    assert not re.findall(r"Set\((?:CONNECTEDLINE|REDIRECTING|PJSIP_HEADER)", on_the_caller)
    _, _, voicemail = on_the_caller.partition("exten => do_voicemail,1,")
    assert on_the_caller.count("Set(CALLERID(") == voicemail.partition("VoiceMail(")[0].count("Set(CALLERID(") == 2


def test_asterisk_withholds_what_a_diverted_leg_is_not_to_show() -> None:
    text = code("asterisk/extensions.conf", ";")

    (shown,) = re.findall(r"Set\(CONNECTEDLINE\(pres,i\)=\$\{IF\(\$\[(.*)\]\?prohib:allowed\)\}\)", text)
    assert shown.split(" | ") == [
        '"${HASH(cf,privacy)}" = "number"',
        '"${HASH(cf,privacy)}" = "full"',
        '"${HASH(cf,caller_number)}" = ""',
    ]
    # Asterisk withholds both or none, so a name alone is left out.
    assert 'Set(CONNECTEDLINE(name,i)=${IF($["${HASH(cf,privacy)}" = "name"]?:${HASH(cf,caller_name)})})' in text


def test_asterisk_opens_the_mailbox_of_the_device_whose_flow_said_voicemail() -> None:
    text = code("asterisk/extensions.conf", ";")

    assert 'CALLFLOW_BOX=${IF($["${HASH(cf,dial)}" = ""]?${HASH(cf,mailbox)}@default:${HASH(cf,dial)})}' in text


def test_asterisk_rings_all_contacts_of_a_phone_and_nothing_that_a_phone_hides_in_one() -> None:
    text = code("asterisk/extensions.conf", ";")

    assert "PJSIP_DIAL_CONTACTS(${CALLFLOW_DIAL:6})" in text
    # Besides what begins each contact, no & and no comma, parenthesis or quote: these would be Dial's own.
    assert r"FILTER(&\x2C\x28\x29\x22,${STRREPLACE(CALLFLOW_REST,&${CALLFLOW_DIAL}/,)})" in text
    # Both the Dial of a device and that of a fax.
    assert text.count("Gosub(callflow,phones,1)") == text.count("Dial(${CALLFLOW_DIAL}") == 2


def test_asterisk_leaves_a_service_alone_that_hangs_and_says_so_in_its_log() -> None:
    text = code("asterisk/extensions.conf", ";")
    _, _, unanswered = text.partition("exten => unanswered,1,")

    assert "GotoIf($[${EPOCH} < 0${CALLFLOW_PAUSED_UNTIL}]?do_none,1)" in text
    assert "Set(GLOBAL(CALLFLOW_PAUSED_UNTIL)=$[${EPOCH} + 3])" in unanswered.partition("\nexten")[0]
    assert re.findall(r"Log\((\w+),", text) == ["NOTICE", "WARNING"]


def test_asterisk_has_the_extension_fax_where_a_device_listens_for_one_and_nowhere_else() -> None:
    text = code("asterisk/extensions.conf", ";")
    contexts = dict(re.findall(r"(?ms)^\[([\w-]+)\]\n(.*?)(?=^\[|\Z)", text))

    assert [name for name, body in contexts.items() if "exten => fax," in body] == ["callflow-fax"]
    # A pattern would take the call likewise: no Dial runs in a context that has one.
    assert [name for name, body in contexts.items() if "exten => _" in body and "Dial(" in body] == []


@pytest.mark.parametrize("name", ["kamailio/callflow.cfg", "opensips/opensips.cfg"])
def test_the_proxies_know_every_action(name: str) -> None:
    text = code(name, "#[^!]")
    actions = {action.value for action in RouteAction}

    assert set(re.findall(r'case "([a-z]+)":', text)) | {"none"} == actions
    assert '$avp(callflow_action) == "none"' in text or '$avp(action) != "none"' in text


# No OpenSIPS runs in the tests either: it is in no package of Debian's. Each of the following was seen when the file
# was written, with the real calls that Kamailio gets in the tests.


@pytest.mark.parametrize(
    ("phones", "state"),
    [
        ([["486"]], "busy"),
        ([["600"]], "busy"),
        ([["603"]], "busy"),
        ([["403"]], "busy"),
        ([["180", "607"]], "busy"),
        ([["180"]], "no_answer"),
        ([["183"]], "no_answer"),
        ([["183", "480"]], "no_answer"),
        ([["480"]], "no_answer"),
        ([["180", "408"]], "no_answer"),
        ([["180", "487"]], "no_answer"),
        ([["486"], ["180"]], "no_answer"),
        ([["404"], ["486"]], "busy"),
        ([["183", "486"]], "busy"),
        ([[]], "failed"),
        ([["100"]], "failed"),
        ([["408"]], "failed"),
        ([["487"]], "failed"),
        *(([["180", status]], "failed") for status in ("302", "401", "404", "407", "410", "484", "488", "500", "503")),
        *(([[status]], "failed") for status in ("604", "606")),
    ],
)
def test_opensips_tells_by_what_each_phone_said_how_a_leg_ended(phones: list[list[str]], state: str) -> None:
    assert state_in_opensips(phones) == state


def test_opensips_takes_a_persons_no_for_a_failure_where_it_is_set_so() -> None:
    assert {
        status: state_in_opensips([["180", status]], rejected="failed") for status in ("603", "403", "607", "486")
    } == {"603": "failed", "403": "failed", "607": "failed", "486": "busy"}


def state_in_opensips(phones: list[list[str]], *, rejected: str = "busy") -> str:
    """What the two routes between a relay and the next question make of a leg, worked through with its replies."""
    said = opensips("onreply_route[phone]")
    rings, ends, neither, busy, no = re.findall(r'\$rs =~ "([^"]+)"', said)
    assert f'if ($rs =~ "{rings}") {{\n\t\t$avp(rang) = $avp(rang) | $var(phone);' in said
    assert f'if ($rs =~ "{ends}" && !($rs =~ "{neither}")) {{\n\t\t$avp(rang) = $avp(rang) & ~$var(phone);' in said
    assert f'if ($rs =~ "{busy}" || ($rs =~ "{no}" && $shv(rejected) == "busy")) {{\n\t\t$avp(busy) = 1;' in said
    rang, is_busy = set(), False
    for phone, statuses in enumerate(phones):
        for status in statuses:
            if re.search(rings, status):
                rang.add(phone)
            elif re.search(ends, status) and not re.search(neither, status):
                rang.discard(phone)
            if re.search(busy, status) or (re.search(no, status) and rejected == "busy"):
                is_busy = True
    states = re.findall(r'(?:if \((\$avp.*)\) |else )\{\s*\$avp\(state\) = "(\w+)"', failed_leg())
    holds = {"$avp(rang) != 0": bool(rang), "$avp(busy) == 1": is_busy, "": True}
    return str(next(state for condition, state in states if holds[condition]))


def failed_leg() -> str:
    return opensips("failure_route[failed]")


def opensips(route: str) -> str:
    """A route of the file without its comments."""
    _, _, rest = code("opensips/opensips.cfg", "#").partition(f"\n{route} {{\n")
    body, end, _ = rest.partition("\n}\n")
    assert end
    return body


def test_opensips_goes_on_after_a_6xx_and_ends_with_the_cause_of_the_last_leg() -> None:
    assert '\nmodparam("tm", "disable_6xx_block", 1)\n' in code("opensips/opensips.cfg", "#")
    assert re.findall(r'\$avp\(cause\) == "(\d*)"|== "(\w+)"\)|send_reply\((\d+)', opensips("route[end]")) == [
        ("486", "", ""),
        ("", "", ""),
        ("", "busy", ""),
        ("", "", "486"),
        ("480", "", ""),
        ("", "", ""),
        ("", "no_answer", ""),
        ("", "", "480"),
        ("603", "", ""),
        ("", "", "603"),
        ("404", "", ""),
        ("", "", "404"),
        ("", "", "503"),
    ]


def test_opensips_asks_nobody_after_the_caller_has_gone_or_the_trunk_wants_a_password() -> None:
    before, _, _ = failed_leg().partition("$avp(state)")
    assert [" ".join(each.split()) for each in re.findall(r"if \((.*)\) \{\s*exit;", before)] == [
        "t_was_cancelled()",
        '$avp(to_number) == 1 && t_check_status("401|407")',
        '$shv(redirected) == "caller" && t_check_status("3[0-9][0-9]")',
    ]
    # A question takes its time: a caller may be gone when its answer comes.
    for route in ("route[first_answer]", "route[next]"):
        assert 'if (t_was_cancelled()) {\n\t\tsend_reply(487, "Request Terminated");\n\t\texit;' in opensips(route)


def test_opensips_knows_a_call_while_it_asks_and_keeps_no_process_for_the_first_question() -> None:
    main = opensips("route")

    known, asked = main.index("t_newtran()"), main.index("async(rest_post($shv(service), ")
    assert main.index("t_check_trans();\n\n") < known < asked


def test_opensips_leaves_a_service_alone_that_hangs_and_says_so_in_its_log() -> None:
    assert "if ($Ts <= $shv(until)) {\n\t\t\treturn(1);" in opensips("route[is_paused]")
    read = opensips("route[read]")
    assert "if ($avp(rc) == -2 || $avp(rc) == -3) {\n\t\t$shv(timeouts) = $shv(timeouts) + 1;" in read
    assert "asking one call in three seconds" in read
    assert "asking every call" in read


def test_opensips_takes_for_an_answer_what_has_an_action_and_a_route_and_nothing_else() -> None:
    read = opensips("route[read]")

    assert "if ($avp(rc) < 0 || $avp(status) != 200) {" in read
    assert read.index('$avp(action) = "none";') < read.index("$avp(rc)")
    cases, _, known = read.partition("$avp(action) = $var(action);")
    assert known
    assert re.search(r"default:\s*xlog\(.*\);\s*return;", cases)
    # In the middle of a call "none" is its end.
    assert re.search(r'default:\s*\$avp\(cause\) = "";\s*route\(end\);', opensips("route[follow]"))


def test_opensips_leaves_the_password_out_of_the_address_which_it_logs() -> None:
    text = code("opensips/opensips.cfg", "#")

    assert dict(re.findall(r'"shvset", "(\w+)=s:([^"]*)"', text)) == {
        "service": "http://127.0.0.1:8000/switch/kamailio",
        "login": b64encode(b"switch:switch-secret").decode(),
        "phones": "127.0.0.0/8",
        "trunk": "127.0.0.1:5080",
        "voicemail": "sip:127.0.0.1:5090",
        "rejected": "busy",
        "redirected": "failed",
    }
    assert re.findall(r".*shv\(login\).*", text) == ['\trest_append_hf("Authorization: Basic $shv(login)");']


def test_opensips_tells_all_lines_of_a_header_however_long() -> None:
    text = code("opensips/opensips.cfg", "#")

    assert "[*]" not in text
    for name in ("Privacy", "Diversion", "History-Info"):
        assert f"while ($(hdr({name})[$var(i)]) != NULL)" in text


def test_opensips_changes_what_a_leg_shows_on_diverted_legs_and_on_them_alone() -> None:
    text = code("opensips/opensips.cfg", "#")
    leg = opensips("branch_route[leg]")

    untouched, _, diverted = leg.partition("return;")
    assert (
        " ".join(untouched.split()) == '$avp(branches) = $avp(branches) + 1; if ($avp(reason) == "") { route(own_from);'
    )
    assert set(re.findall(r'remove_hf\("([\w-]+)"\)', diverted)) == set(
        re.findall(r'remove_hf\("([\w-]+)"\)', text)
    ) - {"Route"}
    # What the called side could decode out of Record-Route is kept in memory instead.
    assert '\nmodparam("uac", "force_dialog", 1)\n' in text
    within = opensips("route[within_call]")
    assert 'uac_replace_from($dlg_val(shown), "")' in within
    assert 'uac_replace_to($dlg_val(came), "")' in within


def test_opensips_sends_a_call_to_the_trunk_without_the_port_or_the_routes_of_its_caller() -> None:
    assert '$ru = "sip:" + $rU + "@" + $shv(trunk);' in opensips("route[to_trunk]")
    main = opensips("route")
    assert main.index('remove_hf("Route")') < main.index("t_newtran()")
    assert main.index('send_reply(484, "Address Incomplete")') < main.index('send_reply(403, "Not relaying")')


def test_opensips_opens_the_mailbox_of_the_device_whose_flow_said_voicemail() -> None:
    voicemail = opensips("route[voicemail]")

    assert voicemail.index("$var(mailbox) = $json(answer/mailbox);") < voicemail.index("$var(mailbox) = $oU;")
