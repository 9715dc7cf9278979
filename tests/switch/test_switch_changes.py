"""A change by the MOR call is in force in the very next question; and no face forgets an action or a name."""

from typing import Any

import httpx
import pytest

from callflow_service.domain.callerid import Caller, Privacy
from callflow_service.domain.dialing import DialPlan
from callflow_service.domain.path import Path
from callflow_service.domain.routing import Decision, RouteAction, RoutedDevice
from callflow_service.switch.face import SWITCHES, Switch
from callflow_service.switch.questions import read_question
from mor_requests import UPDATE, update
from switch_questions import (
    FACES,
    FLAT_FACES,
    NAMES,
    Flows,
    answered,
    ask,
    ask_freeswitch,
    freeswitch_request,
    leg,
    read_dialplan,
)

MEDIA_TYPES = {
    "freeswitch": ["text/xml"],
    "asterisk": ["application/x-www-form-urlencoded", "application/json"],
    "kamailio": ["application/json"],
    "opensips": ["application/json"],
}


async def change(service: httpx.AsyncClient, **changes: str | None) -> None:
    response = await service.post(UPDATE, data=update(**changes))
    assert "Callflow was successfully updated" in response.text


async def dialled(service: httpx.AsyncClient, face: str) -> str:
    """Whom a call to device 4 is to ring, after a face."""
    if face != "freeswitch":
        return (await ask(service, face, called="37052000001"))["dial"]
    actions = await ask_freeswitch(service, "37052000001")
    return leg(actions)[1] if actions and "bridge" in dict(actions) else ""


@pytest.mark.usefixtures("flows")
@pytest.mark.parametrize("face", FACES)
async def test_a_change_is_in_force_in_the_very_next_question(service: httpx.AsyncClient, face: str) -> None:
    number = {"forward_to_device": None, "external_number": "37069999999"}
    nothing = {"forward_to_device": None, "callflow_action": "empty"}
    at_device, at_number = {
        "asterisk": ("PJSIP/101", "PJSIP/37069999999@trunk"),
        "freeswitch": ("user/101@127.0.0.1", "sofia/gateway/trunk/37069999999"),
    }.get(face, ("sip:101@127.0.0.1", "sip:37069999999@127.0.0.1"))
    for changes, expected in (
        ({"forward_to_device": "100"}, at_device),
        (number, at_number),
        (nothing, ""),
        ({"forward_to_device": "100"}, at_device),
    ):
        await change(service, **changes)
        assert await dialled(service, face) == expected


@pytest.mark.usefixtures("flows")
async def test_a_call_on_its_way_follows_what_was_changed_meanwhile(service: httpx.AsyncClient) -> None:
    await change(service, state="busy", forward_to_device="100")
    first = await ask(service, device="4")
    assert first["action"] == "ring"
    await change(service, state="busy", forward_to_device=None, external_number="37069999999", custom='"Acme" 111')
    assert await ask(service, path=first["path"], state="busy") == answered(
        "forward",
        dial="sip:37069999999@127.0.0.1",
        ring_seconds="60",
        caller_number="111",
        caller_name="Acme",
        device="4",
        path="4b.x_c1",
        reason="user-busy",
        payer="user1",
        payer_device="4",
        leg="2",
        diversion="<sip:37052000001@127.0.0.1>;reason=user-busy;counter=1;privacy=off",
        history_info="<sip:37052000001@127.0.0.1?Privacy=none>;index=1, "
        "<sip:37069999999@127.0.0.1;cause=486>;index=1.1;mp=1",
    )


@pytest.mark.parametrize("action", RouteAction)
@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
def test_every_action_is_written_by_every_face(switch: Switch, action: RouteAction) -> None:
    device = RoutedDevice(1, "SIP", "101", "owner", "", "", 20, (), {})
    rings = action in {RouteAction.RING, RouteAction.FORWARD, RouteAction.FAX}
    caller = Caller("370", "Alice", Privacy.OFF)
    decision = Decision(
        action=action,
        target=device if rings else None,
        ring_seconds=20 if rings else None,
        fax=device if action is RouteAction.FAX else None,
        mailbox=device if action is RouteAction.VOICEMAIL else None,
        cause=486 if action is RouteAction.END else None,
        caller=caller,
        asserted=None,
        diversion="",
        history_info="",
        reason="",
        device=device,
        payer="",
        payer_device=None,
        leg=1,
        flow_id="f",
        path=Path("f", (), 1),
        explain="why",
        steps=("why",),
        loops_cut=0,
    )
    values = freeswitch_request("101") if switch.name == "freeswitch" else {}
    asked = read_question({"called": "101", "caller_number": "370", "caller_name": "Alice"})
    _, body = switch.write(decision, DialPlan(switch.templates, "h"), asked, values)
    assert (body == switch.carry_on(values)[1]) == (switch.name == "freeswitch" and action is RouteAction.NONE)
    if switch.name != "freeswitch":
        assert action.value in body.decode()
    else:
        last = {
            RouteAction.NONE: None,
            RouteAction.END: ("hangup", "USER_BUSY"),
            RouteAction.VOICEMAIL: ("voicemail", "default h 101"),
        }
        actions = read_dialplan(body, context="public")
        assert (actions and actions[-1]) == last.get(action, ("transfer", "callflow-next XML public"))


@pytest.fixture(scope="session")
async def openapi(service: httpx.AsyncClient) -> dict[str, Any]:
    return (await service.get("/openapi.json")).json()


ASKED = (
    "device",
    "called",
    "path",
    "state",
    "caller_number",
    "caller_name",
    "privacy",
    "call_id",
    "diversion",
    "history_info",
    "privacy_header",
    "priority",
    "explain",
)


@pytest.mark.parametrize("face", FLAT_FACES)
async def test_every_name_that_is_asked_and_answered_is_documented(openapi: dict[str, Any], face: str) -> None:
    by_get, by_post = openapi["paths"][f"/switch/{face}"]["get"], openapi["paths"][f"/switch/{face}"]["post"]
    asked = (*ASKED, "format") if face == "asterisk" else ASKED
    assert tuple(parameter["name"] for parameter in by_get["parameters"]) == asked
    for content in by_post["requestBody"]["content"].values():
        assert tuple(content["schema"]["properties"]) == asked
    routes = ("version", "routing", "routes") if face == "kamailio" else ()
    for operation in (by_get, by_post):
        for content in operation["responses"]["200"]["content"].values():
            schema = content["schema"]
            assert tuple(schema["properties"]) == tuple(schema["required"]) == (*routes, *NAMES)
            assert all(named["description"] for named in schema["properties"].values())


@pytest.mark.parametrize("face", FACES)
async def test_every_face_is_documented_with_its_credentials(openapi: dict[str, Any], face: str) -> None:
    for operation in openapi["paths"][f"/switch/{face}"].values():
        assert operation["security"] == [{"switch": []}]
        assert set(operation["responses"]) == {"200", "401", "429"}
        for response in operation["responses"].values():
            assert list(response["content"]) == MEDIA_TYPES[face]
    assert openapi["components"]["securitySchemes"]["switch"] == {"type": "http", "scheme": "basic"}


async def test_freeswitchs_own_words_are_documented(openapi: dict[str, Any]) -> None:
    by_post = openapi["paths"]["/switch/freeswitch"]["post"]
    (content,) = by_post["requestBody"]["content"].values()
    assert tuple(content["schema"]["properties"]) == ("section",)
    assert list(by_post["responses"]["200"]["content"]) == ["text/xml"]


async def test_other_verbs_are_not_allowed(service: httpx.AsyncClient, flows: Flows) -> None:
    await flows.set(500, "busy", "voicemail")
    for face in FACES:
        refused = await service.put(f"/switch/{face}", data={"device": "500"})
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, POST")
