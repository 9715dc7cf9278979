"""Rules and chains by the JSON API: taken and shown as they are, refused by their field, kept from what breaks them."""

import copy
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio

from api_answers import problem

OFFICE = {
    "id": 3,
    "name": "Office",
    "owner": "user1",
    "time_zone": "Europe/Vilnius",
    "weekly": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "17:00"}],
}
FRIENDS = {"id": 7, "name": "Friends", "owner": "user1", "entries": ["+37061234567", "+3706*", "anonymous"]}
EMPTY: dict[str, Any] = {"rules": [], "otherwise": {"action": "empty"}}

SENT: dict[str, Any] = {
    "rules": [
        {
            "name": "after hours",
            "enabled": True,
            "if": {"not_schedule": 3, "caller": {"not_list": 7}, "called": ["+37052000001"]},
            "do": {
                "action": "forward",
                "enabled": True,
                "steps": [
                    {"to": {"device": 5}, "ring_seconds": 15, "caller_id": {"kind": "source"}},
                    {"to": {"number": "+37062699289"}, "ring_seconds": 20, "caller_id": {"kind": "did", "did": 1}},
                ],
                "then": {"action": "voicemail", "of": {"device": 4}},
            },
        }
    ],
    "otherwise": {"action": "end", "cause": 486},
}
"""The state that the contract of the API shows, word for word."""

SHOWN: dict[str, Any] = copy.deepcopy(SENT)
"""The same as it is shown: with labels, and without what goes without saying."""
_DO = SHOWN["rules"][0]["do"]
del _DO["enabled"]
_DO["steps"][0]["to"]["label"] = "IAX2/101"
_DO["then"]["of"]["label"] = "IAX2/1002"


def shown(response: httpx.Response) -> dict[str, Any]:
    """A state without its tag and warnings."""
    assert response.status_code == 200, response.text
    document = response.json()
    return {"rules": document["rules"], "otherwise": document["otherwise"]}


@pytest_asyncio.fixture
async def rules(house: httpx.AsyncClient, admin: dict[str, str]) -> httpx.AsyncClient:
    """The service, with a schedule 3 and a caller list 7."""
    for name, body in (("schedules", OFFICE), ("caller_lists", FRIENDS)):
        assert (await house.post(f"/v1/{name}", json=body, headers=admin)).status_code == 201
    return house


async def test_the_documented_state_goes_in_and_comes_out(rules: httpx.AsyncClient, admin: dict[str, str]) -> None:
    put = await rules.put("/v1/devices/4/callflow/busy", json=SENT, headers=admin)
    assert (shown(put), put.json()["warnings"]) == (SHOWN, [])
    assert put.headers["etag"] == f'"{put.json()["etag"]}"'
    one = await rules.get("/v1/devices/4/callflow/busy", headers=admin)
    assert (shown(one), one.json()["etag"]) == (SHOWN, put.json()["etag"])
    whole = (await rules.get("/v1/devices/4/callflow", headers=admin)).json()
    assert whole["states"] == dict.fromkeys(("before_call", "no_answer", "failed"), EMPTY) | {"busy": SHOWN}

    back = await rules.put("/v1/devices/4/callflow", json=whole, headers=admin)

    assert back.json()["states"] == whole["states"]
    assert back.json()["etag"] == whole["etag"]
    emptied = await rules.delete("/v1/devices/4/callflow/busy", headers=admin)
    assert shown(emptied) == EMPTY


def action(**parts: Any) -> dict[str, Any]:
    return {"otherwise": parts}


def first_rule(**parts: Any) -> dict[str, Any]:
    return {"rules": [{"name": "it", "do": {"action": "empty"}} | parts], "otherwise": {"action": "empty"}}


STEP = {"to": {"device": 5}}
KEPT = {
    "every caller": [first_rule(**{"if": {"caller": word}}) for word in ("anonymous", "internal", "external")],
    "lists": [first_rule(**{"if": {"caller": {word: 7}}}) for word in ("list", "not_list")],
    "schedules": [first_rule(**{"if": {"schedule": 3, "not_schedule": 3}})],
    "the number called": [first_rule(**{"if": {"called": ["37052000001", "+37052000002"]}})],
    "causes": [action(action="end", cause=cause) for cause in (486, 480, 603, 404)],
    "another's voicemail": [action(action="voicemail", of={"device": 5})],
    "what is switched off": [
        action(action="forward", steps=[STEP], enabled=False),
        action(action="voicemail", enabled=False),
        action(action="end", cause=486, enabled=False),
        first_rule(enabled=False),
    ],
    "the longest chain": [action(action="forward", steps=[STEP] * 10, then={"action": "end", "cause": 603})],
    "the most rules": [{"rules": first_rule()["rules"] * 20, "otherwise": {"action": "empty"}}],
    "a name in any script": [first_rule(name="Nach Büroschluss; 下班后 ${x}")],
}


def whole(flow: dict[str, Any]) -> dict[str, Any]:
    """A state that was sent with what goes without saying added, as it is shown."""

    def spelt(do: dict[str, Any]) -> dict[str, Any]:
        do = copy.deepcopy(do)
        for step in do.get("steps", ()):
            step["to"]["label"] = "IAX2/101"
            step |= {"ring_seconds": None, "caller_id": {"kind": "device"}}
        if "steps" in do:
            do.setdefault("then", {"action": "empty"})
        if "of" in do:
            do["of"]["label"] = "IAX2/101"
        return do

    sent = flow.get("rules", [])
    all_rules = [{"enabled": True, "if": {}} | rule | {"do": spelt(rule["do"])} for rule in sent]
    return {"rules": all_rules, "otherwise": spelt(flow["otherwise"])}


@pytest.mark.parametrize("kept", KEPT)
async def test_what_can_be_set_is_shown_as_it_was_sent(
    rules: httpx.AsyncClient, admin: dict[str, str], kept: str
) -> None:
    for flow in KEPT[kept]:
        put = await rules.put("/v1/devices/4/callflow/busy", json=flow, headers=admin)
        assert shown(put) == whole(flow)
        assert shown(await rules.get("/v1/devices/4/callflow/busy", headers=admin)) == whole(flow)


def step(**parts: Any) -> dict[str, Any]:
    return action(action="forward", steps=[STEP, STEP | parts])


def condition(**parts: Any) -> dict[str, Any]:
    return first_rule(**{"if": parts})


WRONG = {
    "no such schedule": (condition(schedule=99), ["rules.0.if.schedule"]),
    "no such schedule either": (condition(not_schedule=99), ["rules.0.if.not_schedule"]),
    "no such list": (condition(caller={"list": 99}), ["rules.0.if.caller.list"]),
    "no such list either": (condition(caller={"not_list": 99}), ["rules.0.if.caller.not_list"]),
    "a number that is none": (condition(called=["1", "boss"]), ["rules.0.if.called.1"]),
    "a list that is no number": (condition(caller={"list": "x"}), ["rules.0.if.caller.list"]),
    "a list with more": (condition(caller={"not_list": 7, "x": 1}), ["rules.0.if.caller.x"]),
    "an unknown caller": (condition(caller="boss"), ["rules.0.if.caller"]),
    "a caller without a list": (condition(caller={}), ["rules.0.if.caller.list"]),
    "an unknown kind of caller ID": (step(caller_id={"kind": "x"}), ["otherwise.steps.1.caller_id"]),
    "a caller ID without its DID": (step(caller_id={"kind": "did"}), ["otherwise.steps.1.caller_id.did"]),
    "a DID that is no number": (step(caller_id={"kind": "did", "did": "x"}), ["otherwise.steps.1.caller_id.did"]),
    "an unknown condition": (condition(weather="rain"), ["rules.0.if.weather"]),
    "a rule without a name": (first_rule(name=""), ["rules.0.name"]),
    "a rule that does nothing known": (first_rule(do={"action": "sing"}), ["rules.0.do"]),
    "an unknown part of a rule": (first_rule(unless={}), ["rules.0.unless"]),
    "a rule's device": (
        first_rule(do=action(action="forward", steps=[{"to": {"device": 99}}])["otherwise"]),
        ["rules.0.do.steps.0.to.device"],
    ),
    "twenty-one rules": ({"rules": first_rule()["rules"] * 21, "otherwise": {"action": "empty"}}, ["rules"]),
    "no step": (action(action="forward", steps=[]), ["otherwise.steps"]),
    "eleven steps": (action(action="forward", steps=[STEP] * 11), ["otherwise.steps"]),
    "no ring time": (step(ring_seconds=0), ["otherwise.steps.1.ring_seconds"]),
    "a ring time of more than an hour": (step(ring_seconds=3601), ["otherwise.steps.1.ring_seconds"]),
    "a step to nowhere": (step(to={}), ["otherwise.steps.1.to"]),
    "a step to a word": (step(to={"number": "mobile"}), ["otherwise.steps.1.to.number"]),
    "a step with another's DID": (step(caller_id={"kind": "did", "did": 2}), ["otherwise.steps.1.caller_id.did"]),
    "a forward after the last step": (
        action(action="forward", steps=[STEP], then={"action": "forward", "steps": [STEP]}),
        ["otherwise.then"],
    ),
    "voicemail of nobody": (action(action="voicemail", of={"device": 99}), ["otherwise.of.device"]),
    "voicemail of nobody at the end": (
        action(action="forward", steps=[STEP], then={"action": "voicemail", "of": {"device": 99}}),
        ["otherwise.then.of.device"],
    ),
    "a cause that is none": (action(action="end", cause=200), ["otherwise.cause"]),
    "a cause that is not set": (action(action="end"), ["otherwise.cause"]),
    "fax detection in a rule when busy": (
        first_rule(do={"action": "fax_detect", "to": {"device": 2}}),
        ["rules.0.do.action"],
    ),
    "several at once": (
        {
            "rules": [{"name": "a", "if": {"schedule": 98, "caller": {"list": 99}}, "do": {"action": "empty"}}] * 2,
            "otherwise": {"action": "forward", "steps": [{"to": {"device": 99}}, {"to": {"number": "x"}}]},
        },
        [
            "otherwise.steps.0.to.device",
            "otherwise.steps.1.to.number",
            "rules.0.if.caller.list",
            "rules.0.if.schedule",
            "rules.1.if.caller.list",
            "rules.1.if.schedule",
        ],
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_cannot_be_is_named_by_its_field_and_changes_nothing(
    rules: httpx.AsyncClient, admin: dict[str, str], wrong: str
) -> None:
    flow, fields = WRONG[wrong]
    response = await rules.put("/v1/devices/4/callflow/busy", json=flow, headers=admin)
    assert problem(response) == (422, "invalid")
    assert sorted(error["field"] for error in response.json()["errors"]) == fields
    assert (await rules.get("/v1/devices/4/callflow/history", headers=admin)).json()["items"] == []


@pytest.mark.parametrize(
    ("owner", "usable"),
    [("admin", True), ("user1", True), ("user2", False), ("reseller", False), ("accountant", False)],
)
@pytest.mark.parametrize("kind", ["schedules", "caller_lists"])
async def test_what_a_flow_names_is_of_the_device_s_owner_or_of_one_above(
    rules: httpx.AsyncClient, admin: dict[str, str], kind: str, owner: str, *, usable: bool
) -> None:
    body = (OFFICE if kind == "schedules" else FRIENDS) | {"id": 50, "owner": owner}
    assert (await rules.post(f"/v1/{kind}", json=body, headers=admin)).status_code == 201
    flow = condition(schedule=50) if kind == "schedules" else condition(caller={"list": 50})
    response = await rules.put("/v1/devices/4/callflow/busy", json=flow, headers=admin)
    if usable:
        assert response.status_code == 200
        return
    noun, field = ("schedule", "schedule") if kind == "schedules" else ("caller list", "caller.list")
    assert response.json()["errors"] == [
        {"field": f"rules.0.if.{field}", "message": f"there is no {noun} 50 for this device"}
    ]


NAMED = {
    "schedules/3": condition(schedule=3),
    "schedules/3 not": condition(not_schedule=3),
    "caller_lists/7": condition(caller={"list": 7}),
    "caller_lists/7 not": condition(caller={"not_list": 7}),
    "devices/5 in a later step": action(action="forward", steps=[{"to": {"device": 100}}, STEP]),
    "devices/5 in a rule": first_rule(do=action(action="forward", steps=[STEP])["otherwise"]),
    "devices/5 for its voicemail": action(action="voicemail", of={"device": 5}),
    "devices/5 switched off": action(action="forward", steps=[STEP], enabled=False),
    "dids/1 in a rule": first_rule(
        do=action(action="forward", steps=[STEP | {"caller_id": {"kind": "did", "did": 1}}])["otherwise"]
    ),
}


@pytest.mark.parametrize("named", NAMED)
async def test_what_a_rule_or_a_chain_names_is_in_use_until_it_does_so_no_more(
    rules: httpx.AsyncClient, admin: dict[str, str], named: str
) -> None:
    path = f"/v1/{named.partition(' ')[0]}"
    if path == "/v1/devices/5":
        assert (await rules.delete("/v1/dids/2", headers=admin)).status_code == 204
    assert (await rules.put("/v1/devices/4/callflow/busy", json=NAMED[named], headers=admin)).status_code == 200

    refused = await rules.delete(path, headers=admin)
    assert problem(refused) == (409, "in-use")
    assert refused.json()["used_by"] == [{"kind": "callflow", "id": 4, "state": "busy"}]

    assert (await rules.delete("/v1/devices/4/callflow/busy", headers=admin)).status_code == 200
    assert (await rules.delete(path, headers=admin)).status_code == 204


@pytest.mark.parametrize("named", [named for named in NAMED if named.startswith("devices")])
async def test_a_device_that_is_deleted_with_its_uses_takes_the_states_along_that_name_it(
    rules: httpx.AsyncClient, admin: dict[str, str], named: str
) -> None:
    put = await rules.put("/v1/devices/4/callflow/busy", json=NAMED[named], headers=admin)
    assert (await rules.delete("/v1/devices/5?cascade=true", headers=admin)).status_code == 204
    assert shown(await rules.get("/v1/devices/4/callflow/busy", headers=admin)) == EMPTY
    newest = (await rules.get("/v1/devices/4/callflow/history", headers=admin)).json()["items"][0]
    assert newest["after"] == EMPTY
    assert len(newest["before"]["rules"]) == len(put.json()["rules"])
    assert newest["before"] != EMPTY


async def test_a_ring_before_the_call_is_refused_through_rules_and_later_steps_too(
    rules: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    through_a_rule = first_rule(do=action(action="forward", steps=[{"to": {"device": 100}}])["otherwise"])
    assert (await rules.put("/v1/devices/5/callflow/before_call", json=through_a_rule, headers=admin)).is_success
    for flow in (
        action(action="forward", steps=[{"to": {"number": "1"}}, STEP]),
        action(action="forward", steps=[STEP], enabled=False),
        first_rule(do=action(action="forward", steps=[STEP])["otherwise"], enabled=False),
    ):
        response = await rules.put("/v1/devices/100/callflow/before_call", json=flow, headers=admin)
        assert problem(response) == (409, "loop")
        assert response.json()["path"] == [100, 5]
    itself = action(action="forward", steps=[STEP, {"to": {"device": 4}}])
    response = await rules.put("/v1/devices/4/callflow/busy", json=itself, headers=admin)
    assert (problem(response), response.json()["path"]) == ((409, "loop"), [4])


async def test_rules_are_in_the_history_and_come_back_by_undo_and_restore(
    rules: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    await rules.put("/v1/devices/4/callflow/busy", json=SENT, headers=admin)
    moment = datetime.now(UTC).isoformat()
    await rules.put("/v1/devices/4/callflow/busy", json=EMPTY, headers=admin)
    newest, oldest = (await rules.get("/v1/devices/4/callflow/history", headers=admin)).json()["items"]
    plain = copy.deepcopy(SHOWN)
    del plain["rules"][0]["do"]["steps"][0]["to"]["label"], plain["rules"][0]["do"]["then"]["of"]["label"]
    assert (oldest["before"], oldest["after"]) == (EMPTY, plain)
    assert (newest["before"], newest["after"]) == (plain, EMPTY)

    undone = await rules.post(f"/v1/history/{newest['id']}/undo", headers=admin)
    assert undone.json()["after"] == plain
    assert shown(await rules.get("/v1/devices/4/callflow/busy", headers=admin)) == SHOWN

    await rules.put("/v1/devices/4/callflow/busy", json=EMPTY, headers=admin)
    body = {"as_of": moment, "force": True}
    restored = await rules.post("/v1/devices/4/callflow/restore", json=body, headers=admin)
    assert restored.json()["states"]["busy"] == SHOWN


async def test_what_a_rule_named_and_is_gone_cannot_be_put_back(
    rules: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    await rules.put("/v1/devices/4/callflow/busy", json=SENT, headers=admin)
    await rules.put("/v1/devices/4/callflow/busy", json=EMPTY, headers=admin)
    await rules.delete("/v1/schedules/3", headers=admin)
    newest = (await rules.get("/v1/devices/4/callflow/history", headers=admin)).json()["items"][0]

    response = await rules.post(f"/v1/history/{newest['id']}/undo", headers=admin)
    assert problem(response) == (422, "invalid")
    assert response.json()["errors"] == [
        {"field": "before.rules.0.if.not_schedule", "message": "there is no schedule 3 for this device"}
    ]


async def test_two_editors_of_rules_lose_nothing(rules: httpx.AsyncClient, admin: dict[str, str]) -> None:
    first = await rules.put("/v1/devices/4/callflow/busy", json=SENT, headers=admin)
    tag = first.headers["etag"]
    second = SENT | {"rules": [SENT["rules"][0] | {"enabled": False}]}
    changed = await rules.put("/v1/devices/4/callflow/busy", json=second, headers={**admin, "If-Match": tag})
    assert changed.headers["etag"] != tag
    late = await rules.put("/v1/devices/4/callflow/busy", json=EMPTY, headers={**admin, "If-Match": tag})
    assert problem(late) == (412, "changed-meanwhile")
    assert late.json()["current"]["rules"][0]["enabled"] is False
    unchanged = await rules.get(
        "/v1/devices/4/callflow/busy", headers={**admin, "If-None-Match": changed.headers["etag"]}
    )
    assert unchanged.status_code == 304


TRIALS = {
    "in the morning before": ("2026-11-26T06:59:00Z", "forward", "rule after hours holds"),
    "in office hours": ("2026-11-26T07:00:00Z", "end", "rule after hours does not hold: schedule 3 is open"),
    "the last minute": ("2026-11-26T14:59:59Z", "end", "rule after hours does not hold: schedule 3 is open"),
    "in the evening": ("2026-11-26T15:00:00Z", "forward", "rule after hours holds"),
    "at the weekend": ("2026-11-28T10:00:00Z", "forward", "rule after hours holds"),
}


@pytest.mark.parametrize("trial", TRIALS)
async def test_a_trial_call_goes_by_its_time_and_tells_rule_step_and_why(
    rules: httpx.AsyncClient, admin: dict[str, str], trial: str
) -> None:
    at, does, why = TRIALS[trial]
    flow = copy.deepcopy(SENT)
    flow["rules"][0]["if"] = {"not_schedule": 3}
    await rules.put("/v1/devices/4/callflow/before_call", json=flow, headers=admin)
    call = {"caller": {"number": "+4930123456"}, "at": at, "outcomes": ["busy", "no_answer"]}
    legs = (await rules.post("/v1/devices/4/route", json=call, headers=admin)).json()["legs"]

    assert legs[0]["action"] == does
    if does == "end":
        assert [leg["cause"] for leg in legs] == [486]
        assert legs[0]["why"] == [f"IAX2/1002 before call: {why}", "ends with 486"]
        return
    assert [(leg["rings"], leg["ring_seconds"]) for leg in legs] == [
        ({"device": 5, "label": "IAX2/101"}, 15),
        ({"number": "+37062699289"}, 20),
        (None, None),
    ]
    assert [leg["pays"] for leg in legs] == [{"account": "user1", "device": 4}] * 2 + [None]
    assert legs[2]["mailbox"] == {"device": 4, "label": "IAX2/1002"}
    assert [leg["why"] for leg in legs] == [
        [
            f"IAX2/1002 before call: {why}",
            "IAX2/1002 before call: forward to IAX2/101, step 1 of 2",
            "IAX2/101 rings",
        ],
        ["IAX2/101 busy: nothing set", "IAX2/1002 before call: forward to +37062699289, step 2 of 2"],
        ["the call is at no device of ours", "IAX2/1002 before call: voicemail of IAX2/1002"],
    ]


async def test_a_locked_account_leads_to_no_number_by_a_rule_or_a_later_step_either(
    rules: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    flows = {
        "before_call": SENT,
        "no_answer": action(action="forward", steps=[STEP, {"to": {"number": "+37061234567"}}], enabled=False),
        "busy": action(action="forward", steps=[STEP, STEP]),
        "failed": condition(called=["37052000001"]),
    }
    for state, flow in flows.items():
        await rules.put(f"/v1/devices/4/callflow/{state}", json=flow, headers=admin)
    before = (await rules.get("/v1/devices/4/callflow", headers=admin)).json()["states"]

    await rules.post("/v1/accounts/20/lock", headers=admin)
    states = (await rules.get("/v1/devices/4/callflow", headers=admin)).json()["states"]
    assert [state for state in states if states[state] == EMPTY] == ["before_call", "no_answer"]
    await rules.post("/v1/accounts/20/unlock", headers=admin)
    assert (await rules.get("/v1/devices/4/callflow", headers=admin)).json()["states"] == before


async def test_a_list_of_devices_that_forward_has_those_with_rules(
    rules: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    await rules.put("/v1/devices/4/callflow/busy", json=first_rule(), headers=admin)
    await rules.put("/v1/devices/5/callflow/busy", json=action(action="end", cause=603), headers=admin)
    listed = (await rules.get("/v1/devices?forwarding=true", headers=admin)).json()["items"]
    assert [device["id"] for device in listed] == [4, 5]
