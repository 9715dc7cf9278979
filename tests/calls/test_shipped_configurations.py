"""The shipped switch configurations hold the names that the service knows. No switch is needed here."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from callflow_service.domain.routing import RouteAction
from callflow_service.switch.answers import NAMES
from callflow_service.switch.freeswitch import FAX, NEXT, POST_VARIABLES

SWITCHES = Path(__file__).parents[2] / "switches"
ASKED = {
    "called",
    "path",
    "state",
    "call_id",
    "caller_number",
    "caller_name",
    "privacy",
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
    extensions = {each.attrib["name"]: next(each.iter("condition")).attrib for each in dialplan.iter("extension")}

    assert extensions == {name: {"field": "destination_number", "expression": f"^{name}$"} for name in (NEXT, FAX)}
    used = set(re.findall(r"\$\{(\w+)\}", ET.tostring(dialplan, "unicode")))
    assert used == {"callflow_path", "callflow_state", "callflow_fax"}


@pytest.mark.parametrize(
    ("name", "comment", "asked", "read"),
    [
        ("kamailio/callflow.cfg", "#[^!]", r'jansson_set\("string", "(\w+)"', r'jansson_get\("(\w+)",'),
        ("opensips/opensips.cfg", "#", r"\$json\(question/(\w+)\)", r"\$json\(answer/(\w+)\)"),
        ("asterisk/extensions.conf", ";", r"[?&:=]([a-z_]+)=(?=[$:]|full|n)", r"\$\{HASH\(cf,(\w+)\)"),
    ],
)
def test_what_a_switch_tells_and_takes_has_the_services_names(name: str, comment: str, asked: str, read: str) -> None:
    text = code(name, comment)

    assert set(re.findall(asked, text)) >= ASKED
    assert set(re.findall(read, text)) <= set(NAMES)


def test_asterisk_has_an_extension_for_every_action_and_for_no_answer() -> None:
    text = code("asterisk/extensions.conf", ";")
    extensions = set(re.findall(r"(?m)^exten => (\w+),1,", text))

    assert {f"do_{action.value}" for action in RouteAction} | {"do_"} <= extensions
    assert set(re.findall(r"Go(?:to|sub)\(callflow,(\w+),", text)) <= extensions


def test_asterisk_takes_no_refusal_for_an_answer_and_does_not_wait_for_ever() -> None:
    text = code("asterisk/extensions.conf", ";")

    assert dict(re.findall(r"Set\(CURLOPT\((\w+)\)=([^)]*)\)", text)) == {
        "conntimeout": "1",
        "httptimeout": "1.5",
        "failurecodes": "400,401,403,404,405,413,429,500,502,503,504",
        "hashcompat": "yes",
    }


@pytest.mark.parametrize("name", ["kamailio/callflow.cfg", "opensips/opensips.cfg"])
def test_the_proxies_know_every_action(name: str) -> None:
    text = code(name, "#[^!]")
    actions = {action.value for action in RouteAction}

    assert set(re.findall(r'case "([a-z]+)":', text)) == actions - {"none"}
    assert '$avp(callflow_action) == "none"' in text or '$avp(action) != "none"' in text
