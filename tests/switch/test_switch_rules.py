"""Rules and chains at the switch faces: which rule decides and why, whom a chain tries, and what comes after it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from callflow_service.repositories import lookups
from statements import statements
from switch_questions import (
    ALICE,
    FACES,
    SWITCH,
    Api,
    Flows,
    StartService,
    answered,
    ask,
    ask_freeswitch,
    explained,
    flat,
    freeswitch_request,
)

EMPTY = {"action": "empty"}
VOICEMAIL = {"action": "voicemail"}
ALWAYS = [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "24:00"}]
HOLDS = "SIP/5000 before call: rule it holds"


def end(cause: int) -> dict[str, Any]:
    return {"action": "end", "cause": cause}


def step(to: int | str, ring_seconds: int | None = None, kind: str = "source") -> dict[str, Any]:
    where = {"device": to} if isinstance(to, int) else {"number": to}
    return {"to": where, "ring_seconds": ring_seconds, "caller_id": {"kind": kind}}


def chain(*steps: dict[str, Any], then: dict[str, Any] = EMPTY) -> dict[str, Any]:
    return {"action": "forward", "steps": list(steps), "then": then}


def rule(name: str, conditions: dict[str, Any], do: dict[str, Any], *, enabled: bool = True) -> dict[str, Any]:
    return {"name": name, "enabled": enabled, "if": conditions, "do": do}


async def put(
    api: Api, device: int, state: str, otherwise: dict[str, Any] = EMPTY, rules: tuple[dict[str, Any], ...] = ()
) -> None:
    await api("PUT", f"devices/{device}/callflow/{state}", {"rules": list(rules), "otherwise": otherwise})


async def schedule(api: Api, *, is_open: bool, **more: Any) -> int:
    body = {"name": "Office", "owner": "user1", "time_zone": "UTC", "weekly": ALWAYS if is_open else []} | more
    made: int = (await api("POST", "schedules", body))["id"]
    return made


async def caller_list(api: Api, *entries: str) -> int:
    made: int = (await api("POST", "caller_lists", {"name": "L", "owner": "user1", "entries": list(entries)}))["id"]
    return made


@dataclass(slots=True)
class Asking:
    """A call of Alice's that a switch asks about, question by question."""

    service: httpx.AsyncClient
    path: str = ""

    async def __call__(self, state: str = "before_call", **question: str) -> dict[str, str]:
        """The answer, its marker whole."""
        about = {"path": self.path} if self.path else {"device": "500"}
        asked = {**ALICE, "explain": "1", "state": state, **about, **question}
        response = await self.service.post("/switch/opensips", json=asked, auth=SWITCH)
        flat("opensips", response)
        answer: dict[str, str] = response.json()
        self.path = answer["path"]
        return answer

    async def why(self, state: str = "before_call", **question: str) -> list[str]:
        return (await self(state, **question))["explain"].split("; ")


@pytest.fixture
def asking(service: httpx.AsyncClient) -> Asking:
    return Asking(service)


@pytest.mark.parametrize(
    ("condition", "is_open", "missing"),
    [
        ("schedule", True, ""),
        ("schedule", False, "schedule {} is closed"),
        ("not_schedule", False, ""),
        ("not_schedule", True, "schedule {} is open"),
    ],
)
async def test_a_schedule_decides(api: Api, asking: Asking, condition: str, missing: str, *, is_open: bool) -> None:
    named = await schedule(api, is_open=is_open)
    await put(api, 500, "before_call", end(486), (rule("it", {condition: named}, end(404)),))

    why = await asking.why()

    said = f"SIP/5000 before call: rule it does not hold: {missing.format(named)}"
    assert why == ([said, "ends with 486"] if missing else [HOLDS, "ends with 404"])


CALLERS = {
    "in": ({"caller_number": "+37061111111"}, "list", True),
    "by a prefix": ({"caller_number": "3706222"}, "list", True),
    "not in": ({"caller_number": "37063"}, "list", False),
    "no number": ({"caller_number": ""}, "list", True),
    "withheld": ({"privacy": "full"}, "list", True),
    "not listed": ({"caller_number": "37063"}, "not_list", True),
    "listed": ({"caller_number": "37061111111"}, "not_list", False),
}


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_caller_list_decides(api: Api, asking: Asking, caller: str) -> None:
    question, condition, holds = CALLERS[caller]
    named = await caller_list(api, "+37061111111", "+3706222*", "anonymous")
    await put(api, 500, "before_call", end(486), (rule("it", {"caller": {condition: named}}, end(404)),))

    is_in = "" if condition == "not_list" else "not "
    said = f"SIP/5000 before call: rule it does not hold: the caller is {is_in}in list {named}"
    assert await asking.why(**question) == ([HOLDS, "ends with 404"] if holds else [said, "ends with 486"])


@pytest.mark.parametrize(
    ("word", "question", "missing"),
    [
        ("anonymous", {"privacy": "number"}, ""),
        ("anonymous", {"privacy_header": "id"}, ""),
        ("anonymous", {"caller_number": ""}, ""),
        ("anonymous", {"caller_number": "anonymous"}, ""),
        ("anonymous", {"privacy": "name"}, "the caller shows a number"),
        # A device's name and a DID, of the same admin's users; then one of a reseller's, and nobody's.
        ("internal", {"caller_number": "5001"}, ""),
        ("internal", {"caller_number": "+37052000002"}, ""),
        ("internal", {"caller_number": "2001"}, "the caller is external"),
        ("internal", {}, "the caller is external"),
        ("external", {}, ""),
        ("external", {"caller_number": "37052000004"}, ""),
        ("external", {"caller_number": "5001"}, "the caller is internal"),
    ],
)
async def test_what_the_caller_is_decides(
    api: Api, asking: Asking, word: str, question: dict[str, str], missing: str
) -> None:
    await put(api, 500, "before_call", end(486), (rule("it", {"caller": word}, end(404)),))

    said = f"SIP/5000 before call: rule it does not hold: {missing}"
    assert await asking.why(**question) == ([said, "ends with 486"] if missing else [HOLDS, "ends with 404"])


@pytest.mark.parametrize(
    ("called", "holds"), [("37052000010", True), ("+37052000010", True), ("37052000011", False), ("5000", False)]
)
async def test_the_number_by_which_the_call_came_in_decides(
    service: httpx.AsyncClient, api: Api, called: str, *, holds: bool
) -> None:
    await put(api, 500, "before_call", end(486), (rule("it", {"called": ["1", "+37052000010"]}, end(404)),))

    assert (await ask(service, called=called))["cause"] == ("404" if holds else "486")


async def test_the_number_by_which_the_call_came_in_is_known_to_the_end_of_the_call(
    service: httpx.AsyncClient, api: Api
) -> None:
    await put(api, 500, "before_call", chain(step(501)))
    await put(api, 501, "busy", end(486), (rule("it", {"called": ["37052000010"]}, end(404)),))
    asking = Asking(service)
    first = await service.post("/switch/opensips", json={**ALICE, "called": "+37052000010"}, auth=SWITCH)
    asking.path = first.json()["path"]

    assert (await asking("busy"))["cause"] == "404"


async def test_all_conditions_of_a_rule_must_hold(api: Api, asking: Asking) -> None:
    is_open, closed = await schedule(api, is_open=True), await schedule(api, is_open=False)
    listed = await caller_list(api, "37061111111")
    all_of_them = {"schedule": is_open, "not_schedule": closed, "caller": {"list": listed}, "called": ["37052000010"]}
    await put(api, 500, "before_call", end(486), (rule("it", all_of_them, end(404)),))

    for question, cause in (
        ({"called": "37052000010"}, "404"),
        ({"called": "37052000010", "caller_number": "1"}, "486"),
        ({"called": "37052000011"}, "486"),
    ):
        assert (await ask(asking.service, **question))["cause"] == cause
    await api("PATCH", f"schedules/{closed}", {"weekly": ALWAYS})
    assert (await ask(asking.service, called="37052000010"))["cause"] == "486"


async def test_the_first_enabled_rule_that_holds_decides_and_the_others_are_told(api: Api, asking: Asking) -> None:
    rules = (
        rule("off", {}, end(404), enabled=False),
        rule("hidden; callers", {"caller": "anonymous"}, end(404)),
        rule("mine", {"caller": "external"}, end(603)),
        rule("all", {}, end(480)),
    )
    await put(api, 500, "before_call", VOICEMAIL, rules)

    assert await asking.why() == [
        "SIP/5000 before call: rule off is switched off",
        "SIP/5000 before call: rule hidden, callers does not hold: the caller shows a number",
        "SIP/5000 before call: rule mine holds",
        "ends with 603",
    ]


async def test_a_rule_that_does_nothing_lets_the_call_through(service: httpx.AsyncClient, api: Api) -> None:
    await put(api, 500, "before_call", end(486), (rule("colleagues", {"caller": "internal"}, EMPTY),))

    told = await ask(service, device="500", caller_number="5001", caller_name="")
    assert (told["action"], told["device"]) == ("ring", "500")
    assert (await ask(service, device="500"))["action"] == "end"


@pytest.mark.parametrize("where", ["rule", "otherwise"])
async def test_what_is_switched_off_acts_as_empty(api: Api, asking: Asking, where: str) -> None:
    off = chain(step(501), then=VOICEMAIL) | {"enabled": False}
    rules = (rule("it", {}, off),) if where == "rule" else ()
    await put(api, 500, "busy", off, rules)

    assert (await asking("busy", path="500_c1"))["cause"] == "486"


ACTIONS = {
    "empty": (EMPTY, {"action": "ring"}),
    "forward": (chain(step(501, 7)), {"action": "forward", "dial": "5001", "ring_seconds": "7"}),
    "forward to a number": (chain(step("37069999999")), {"action": "forward", "dial": "37069999999"}),
    "voicemail": (VOICEMAIL, {"action": "voicemail", "mailbox": "5000"}),
    "voicemail of": (VOICEMAIL | {"of": {"device": 501}}, {"action": "voicemail", "mailbox": "5001"}),
    "fax": ({"action": "fax_detect", "to": {"device": 2}}, {"action": "fax", "dial": "5000"}),
    "486": (end(486), {"action": "end", "cause": "486"}),
    "480": (end(480), {"action": "end", "cause": "480"}),
    "603": (end(603), {"action": "end", "cause": "603"}),
    "404": (end(404), {"action": "end", "cause": "404"}),
}
HANGUPS = {"486": "USER_BUSY", "480": "NO_ANSWER", "603": "CALL_REJECTED", "404": "UNALLOCATED_NUMBER"}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("action", ACTIONS)
async def test_each_action_of_a_rule_at_each_face(service: httpx.AsyncClient, api: Api, action: str, face: str) -> None:
    do, expected = ACTIONS[action]
    # Untouched the device would be none of our business.
    await put(api, 500, "busy", VOICEMAIL)
    await put(api, 500, "before_call", end(480), (rule("it", {}, do),))

    if face != "freeswitch":
        told = await ask(service, face, device="500", explain="1")
        assert {name: told[name] for name in expected if name != "dial"} | {"dial": ""} == expected | {"dial": ""}
        assert expected.get("dial", "") in told["dial"]
        assert told["explain"].startswith(HOLDS)
        return
    actions = await ask_freeswitch(service, "5000")
    assert actions is not None
    assert explained(actions).startswith(HOLDS)
    if expected["action"] == "end":
        assert actions[-1] == ("hangup", HANGUPS[expected["cause"]])
    elif expected["action"] == "voicemail":
        assert actions[-1] == ("voicemail", f"default 127.0.0.1 {expected['mailbox']}")
    else:
        (dialled,) = [data for application, data in actions if application == "bridge"]
        assert expected.get("dial", "5000") in dialled


async def test_a_chain_is_tried_step_by_step_each_shown_and_paid_for_as_one_diversion(api: Api, asking: Asking) -> None:
    did = step(502, 20) | {"caller_id": {"kind": "did", "did": 10}}
    await put(api, 500, "no_answer", chain(step(501, 15), did, step("+37069999999"), then=VOICEMAIL))
    # Device 500 rings, since something is set for it.
    assert (await asking())["action"] == "ring"

    steps = [await asking("no_answer"), await asking("busy"), await asking("failed"), await asking("no_answer")]

    shown = ("action", "dial", "ring_seconds", "caller_number", "payer", "payer_device", "leg", "reason", "mailbox")
    by_us = ("user1", "500", "2", "no-answer", "")
    assert [tuple(each[name] for name in shown) for each in steps] == [
        ("forward", "sip:5001@127.0.0.1", "15", "37061111111", *by_us),
        ("forward", "sip:5002@127.0.0.1", "20", "+37052000010", *by_us),
        ("forward", "sip:+37069999999@127.0.0.1", "60", "37061111111", *by_us),
        ("voicemail", "", "", "37061111111", "", "", "1", "", "5000"),
    ]
    assert all(each["diversion"].count("counter=1") == 1 for each in steps[:3])
    assert steps[0]["explain"] == "SIP/5000 no answer: forward to SIP/5001, step 1 of 3; SIP/5001 rings"
    assert steps[1]["explain"] == (
        "SIP/5001 busy: nothing set; SIP/5000 no answer: forward to SIP/5002, step 2 of 3; SIP/5002 rings"
    )


@pytest.mark.parametrize(("state", "cause"), [("no_answer", "480"), ("busy", "486"), ("failed", "503")])
async def test_a_chain_without_more_ends_with_the_cause_of_its_last_step(
    api: Api, asking: Asking, state: str, cause: str
) -> None:
    await put(api, 500, "before_call", chain(step(501), step(502)))
    await asking()
    await asking("busy")

    told = await asking(state)
    assert (told["action"], told["cause"]) == ("end", cause)


async def test_steps_that_cannot_be_taken_are_skipped_and_said(api: Api, flows: Flows, asking: Asking) -> None:
    # One that leads back, one that no such switch rings, one that is an emergency number by now.
    await put(api, 500, "before_call", chain(step(501), step(502), step("37069999999"), step(503)))
    await flows.connection.execute(
        """UPDATE callflow SET otherwise = jsonb_set(jsonb_set(otherwise, '{steps,0,to,device}', '500'),
            '{steps,2,to,number}', '"112"') WHERE device_id = 500"""
    )
    await flows.connection.execute("UPDATE device SET technology = 'NONE' WHERE id = 502")
    try:
        response = await asking.service.post(
            "/switch/opensips", json={**ALICE, "device": "500", "explain": "1"}, auth=("local", SWITCH[1])
        )
    finally:
        await flows.connection.execute("UPDATE device SET technology = 'SIP' WHERE id = 502")
    assert response.json()["explain"].split("; ") == [
        "SIP/5000 before call: forward to SIP/5000, step 1 of 4",
        "refused: the call has been there, a loop",
        "SIP/5000 before call: forward to NONE/5002, step 2 of 4",
        "NONE/5002 rings",
    ]


async def test_the_flow_of_a_step_s_device_has_its_say_and_its_end_is_a_step_that_failed(
    api: Api, asking: Asking
) -> None:
    await put(api, 500, "before_call", chain(step(501), step(502), step(503), then=end(603)))
    await put(api, 501, "busy", chain(step(504)))
    await put(api, 502, "before_call", end(404))
    await put(api, 503, "failed", end(404))

    dialled = [(await asking())["dial"], (await asking("busy"))["dial"]]
    third = await asking("no_answer")
    last = await asking("failed")

    assert [*dialled, third["dial"]] == [f"sip:{name}@127.0.0.1" for name in ("5001", "5004", "5003")]
    assert third["leg"] == "2"
    assert (last["action"], last["cause"]) == ("end", "603")


async def test_voicemail_of_a_step_s_device_takes_the_call(api: Api, asking: Asking) -> None:
    await put(api, 500, "before_call", chain(step(501), step(502)))
    await put(api, 501, "no_answer", VOICEMAIL)
    await asking()

    told = await asking("no_answer")
    assert (told["action"], told["mailbox"], told["payer_device"]) == ("voicemail", "5001", "500")


async def test_nobody_rings_twice_in_a_call(api: Api, asking: Asking) -> None:
    await put(api, 500, "busy", chain(step(501), step(502)))
    await put(api, 501, "busy", chain(step(500), step(502), step(503)))
    await put(api, 502, "busy", chain(step(501), step(503)))
    await put(api, 503, "busy", chain(step(500), step(501), step(502)))

    answers = [await asking()]
    while answers[-1]["action"] != "end":
        answers.append(await asking("busy"))
    assert [each["device"] for each in answers[:-1]] == ["500", "501", "502", "503"]
    assert answers[-1]["cause"] == "486"


async def test_a_long_chain_is_one_diversion_for_the_limit(start_switch_service: StartService, api: Api) -> None:
    asking = Asking(await start_switch_service(max_diversions=1))
    ten = [*range(501, 510), 4]
    await put(api, 500, "before_call", chain(*(step(device) for device in ten)))

    answers = [await asking(), *[await asking("busy") for _ in range(10)]]
    assert [each["device"] for each in answers[:-1]] == [str(device) for device in ten]
    assert {each["leg"] for each in answers[:-1]} == {"2"}
    assert answers[-1]["action"] == "end"


@pytest.mark.parametrize("max_legs", [1, 2, 5])
async def test_a_call_rings_as_often_as_the_limit_lets_it_and_then_comes_what_is_last(
    start_switch_service: StartService, api: Api, max_legs: int
) -> None:
    asking = Asking(await start_switch_service(max_legs=max_legs))
    await put(api, 500, "busy", chain(*(step(device) for device in range(501, 511)), then=end(603)))

    answers = [await asking()]
    while answers[-1]["action"] != "end":
        answers.append(await asking("busy"))
    assert len(answers) == max_legs + 1
    assert answers[-1]["cause"] == "603"
    assert "refused: the call has rung as often as the limit lets it" in answers[-1]["explain"]


def at(moment: datetime) -> str:
    """What a marker says of a call that began then."""
    number, digits = int(moment.timestamp()), ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return f"_t{digits}"


@pytest.mark.parametrize(
    ("moment", "cause"),
    [
        (datetime(2026, 11, 26, 16, 59, 59, tzinfo=UTC), "404"),
        (datetime(2026, 11, 26, 17, 0, 0, tzinfo=UTC), "486"),
        (datetime(2026, 11, 27, 9, 0, 0, tzinfo=UTC), "404"),
    ],
)
async def test_the_time_of_a_call_is_that_of_its_first_question(
    api: Api, asking: Asking, moment: datetime, cause: str
) -> None:
    weekly = [{"days": ["thu", "fri"], "from": "09:00", "to": "17:00"}]
    office = await schedule(api, is_open=True, weekly=weekly)
    await put(api, 500, "busy", end(486), (rule("it", {"schedule": office}, end(404)),))
    asking.path = f"500_c1{at(moment)}"

    told = await asking("busy")
    assert told["cause"] == cause
    assert told["path"] == f"500_c1{at(moment)}"


async def test_a_call_stays_in_its_rule_and_step(api: Api, asking: Asking) -> None:
    office = await schedule(api, is_open=True)
    rules = (rule("off", {}, EMPTY, enabled=False), rule("open", {"schedule": office}, chain(step(501), step(502))))
    await put(api, 500, "before_call", chain(step(503), step(504)), rules)
    assert (await asking())["device"] == "501"
    assert asking.path.startswith("500u.501_c1_t")
    assert asking.path.endswith(".c2-1")
    await api("PATCH", f"schedules/{office}", {"weekly": []})

    assert (await asking("busy"))["device"] == "502"
    assert asking.path.endswith(".c2-2.r501")
    assert (await asking("busy"))["action"] == "end"


async def test_the_same_question_has_the_same_answer(service: httpx.AsyncClient, api: Api) -> None:
    await put(api, 500, "before_call", chain(step(501), step(502)), (rule("it", {"caller": "internal"}, VOICEMAIL),))
    path = f"500u.501_c1{at(datetime(2026, 11, 26, tzinfo=UTC))}"

    answers = [await Asking(service, path)("no_answer") for _ in range(3)]
    assert answers[0]["device"] == "502"
    assert answers == [answers[0]] * 3


async def test_a_marker_of_a_former_release_goes_on_by_what_holds_otherwise(api: Api, asking: Asking) -> None:
    rules = (rule("it", {}, VOICEMAIL),)
    await put(api, 500, "busy", chain(step(501), step(502)), rules)
    asking.path = "500b.501_c1"

    assert (await asking("no_answer"))["device"] == "502"
    assert asking.path.startswith("500b.502_c1_t")


async def test_a_rule_that_is_gone_leaves_the_call_to_its_end(api: Api, asking: Asking) -> None:
    await put(api, 500, "before_call", VOICEMAIL, (rule("it", {}, chain(step(501), step(502))),))
    await asking()
    await put(api, 500, "before_call", VOICEMAIL)

    told = await asking("busy")
    assert (told["action"], told["cause"]) == ("end", "486")


async def test_a_callback_from_an_emergency_centre_meets_no_rule(service: httpx.AsyncClient, api: Api) -> None:
    await put(api, 500, "before_call", end(486), (rule("it", {}, end(404)),))

    told = await ask(service, device="500", priority="psap-callback")
    assert told == answered("none", device="500")


async def whole_answer(service: httpx.AsyncClient, face: str, path: str) -> str:
    """The answer as the face writes it: to the first question, or to the next after a leg that was busy."""
    if face == "freeswitch":
        kept = {"variable_callflow_path": path, "variable_originate_disposition": "USER_BUSY"} if path else {}
        question = freeswitch_request("callflow-next" if path else "37052000010", **kept)
    else:
        question = {**ALICE, "path": path, "state": "busy"} if path else {**ALICE, "called": "37052000010"}
    response = await service.post(f"/switch/{face}", data=question, auth=SWITCH)
    assert response.status_code == 200
    return unquote(response.text)


@pytest.mark.parametrize("face", FACES)
async def test_the_marker_of_a_long_call_comes_back_by_each_face(
    service: httpx.AsyncClient, api: Api, face: str
) -> None:
    steps = [step(device) for device in range(501, 510)]
    await put(api, 500, "before_call", rules=(rule("it", {}, chain(*steps, step("37069999999"))),))

    path = ""
    for name in [*range(5001, 5010), 37069999999]:
        answer = await whole_answer(service, face, path)
        assert re.search(rf"\b{name}\b", answer)
        (path,) = set(re.findall(r"500u\.[A-Za-z0-9._-]+", answer))
    left = "-".join(str(device) for device in range(501, 510))
    assert re.fullmatch(rf"500u\.x_c1_t[0-9a-z]{{6}}\.k9\.n37052000010\.c1-10\.r{left}", path)


async def test_of_more_devices_than_are_followed_the_nearest_are_known(
    api: Api, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(api, 500, "before_call", chain(step(501)))
    await put(api, 501, "before_call", chain(step(511)))
    await put(api, 511, "busy", chain(*(step(device) for device in range(502, 511))))
    await put(api, 511, "before_call", EMPTY, (rule("it", {"caller": "internal"}, chain(step(502))),))
    monkeypatch.setattr(lookups, "_MOST_FOLLOWED", 1)

    assert (await asking())["device"] == "511"


@pytest.mark.parametrize("face", FACES)
async def test_ten_rules_of_ten_steps_are_one_statement(service: httpx.AsyncClient, api: Api, face: str) -> None:
    office, listed = await schedule(api, is_open=False), await caller_list(api, "37060000000")
    conditions: list[dict[str, Any]] = [{"schedule": office}, {"caller": {"list": listed}}, {"caller": "internal"}]
    steps = [step(device) for device in range(501, 511)]
    rules = tuple(rule(f"rule {n}", conditions[n % 3], chain(*steps, then=VOICEMAIL)) for n in range(9))
    numbers = [step(f"3706999999{n}") for n in range(9)]
    await put(api, 500, "before_call", EMPTY, (*rules, rule("last", {}, chain(*numbers, step(511)))))

    async def one() -> bool:
        if face == "freeswitch":
            actions = await ask_freeswitch(service, "5000")
            return any("37069999990" in data for _, data in actions or [])
        return "37069999990" in (await ask(service, face, called="5000"))["dial"]

    assert await one()
    async with statements() as sent:
        assert await one()
    assert len(sent) == 1
