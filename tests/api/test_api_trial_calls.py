"""Where a call would go: leg by leg by the flows that are set, and nothing of what the caller may not see."""

from typing import Any

import httpx
import pytest

from api_answers import MakeToken, problem
from callflow_service.domain.tokens import Scope
from own_demo import OwnDemo

ALICE = {"number": "37061111111", "name": "Alice", "privacy": "off"}
FRONT_DESK = {"id": 4, "label": "IAX2/1002", "owner": "user1"}


def forward(to: dict[str, Any], kind: str = "device") -> dict[str, Any]:
    return {"otherwise": {"action": "forward", "steps": [{"to": to, "caller_id": {"kind": kind}}]}}


async def put(house: httpx.AsyncClient, headers: dict[str, str], place: str, flow: dict[str, Any]) -> None:
    device, _, state = place.partition(" ")
    response = await house.put(f"/v1/devices/{device}/callflow/{state}", json=flow, headers=headers)
    assert response.status_code == 200, response.text


async def test_each_leg_says_who_rings_what_it_shows_who_pays_and_why(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    await put(house, admin, "4 busy", forward({"device": 5}, "source"))
    await put(house, admin, "5 no_answer", forward({"number": "+37062699289"}))
    call = {"caller": ALICE, "at": "2026-11-26T12:00:00+02:00", "outcomes": ["busy", "no_answer", "failed"]}
    response = await house.post("/v1/devices/4/route", json=call, headers=admin)
    assert response.status_code == 200, response.text
    nobody: dict[str, Any] = {"rings": None, "ring_seconds": None, "fax": None, "mailbox": None, "cause": None}
    assert response.json() == {
        "device": FRONT_DESK,
        "at": "2026-11-26T10:00:00Z",
        "switch": None,
        "legs": [
            nobody
            | {
                "leg": 1,
                "state": "before_call",
                "action": "ring",
                "rings": {"device": 4, "label": "IAX2/1002"},
                "ring_seconds": 60,
                "shows": ALICE,
                "asserted": None,
                "headers": {"diversion": "", "history_info": ""},
                "pays": None,
                "why": ["IAX2/1002 rings"],
            },
            nobody
            | {
                "leg": 2,
                "state": "busy",
                "action": "forward",
                "rings": {"device": 5, "label": "IAX2/101"},
                "ring_seconds": 60,
                "shows": ALICE,
                "asserted": None,
                "headers": {
                    "diversion": "<sip:1002@localhost>;reason=user-busy;counter=1;privacy=off",
                    "history_info": "<sip:1002@localhost?Privacy=none>;index=1, "
                    "<sip:101@localhost;cause=486>;index=1.1;mp=1",
                },
                "pays": {"account": "user1", "device": 4},
                "why": ["IAX2/1002 busy: forward to IAX2/101", "IAX2/101 rings"],
            },
            nobody
            | {
                "leg": 3,
                "state": "no_answer",
                "action": "forward",
                "rings": {"number": "+37062699289"},
                "ring_seconds": 60,
                "shows": {"number": "37060000101", "name": "Back office", "privacy": "off"},
                "asserted": None,
                "headers": {
                    "diversion": "<sip:37052000002@localhost>;reason=no-answer;counter=1;privacy=off, "
                    "<sip:37052000001@localhost>;reason=user-busy;counter=1;privacy=off",
                    "history_info": "<sip:37052000001@localhost?Privacy=none>;index=1, "
                    "<sip:37052000002@localhost;cause=486?Privacy=none>;index=1.1;mp=1, "
                    "<sip:+37062699289@localhost;cause=408>;index=1.1.1;mp=1.1",
                },
                "pays": {"account": "user1", "device": 5},
                "why": ["IAX2/101 no answer: forward to +37062699289"],
            },
            nobody
            | {
                "leg": 4,
                "state": "failed",
                "action": "end",
                "cause": 503,
                "shows": {"number": "37060000101", "name": "Back office", "privacy": "off"},
                "asserted": None,
                "headers": {
                    "diversion": "<sip:101@localhost>;reason=no-answer;counter=1;privacy=off, "
                    "<sip:1002@localhost>;reason=user-busy;counter=1;privacy=off",
                    "history_info": "<sip:1002@localhost?Privacy=none>;index=1, "
                    "<sip:101@localhost;cause=486?Privacy=none>;index=1.1;mp=1",
                },
                "pays": {"account": "user1", "device": 5},
                "why": ["the call is at no device of ours", "ends with 503"],
            },
        ],
    }


async def test_a_trial_changes_nothing_and_a_reader_may_try(
    house: httpx.AsyncClient, admin: dict[str, str], make_token: MakeToken, demo: OwnDemo
) -> None:
    await put(house, admin, "4 busy", {"otherwise": {"action": "voicemail"}})
    headers = {"Authorization": f"Bearer {await make_token(20, Scope.READ)}"}
    response = await house.post("/v1/devices/4/route", json={"outcomes": ["busy", "busy"]}, headers=headers)
    assert [(leg["action"], leg["mailbox"]) for leg in response.json()["legs"]] == [
        ("ring", None),
        ("voicemail", {"device": 4, "label": "IAX2/1002"}),
    ]
    assert await demo.database.fetchval("SELECT count(*) FROM callflow_history") == 1


async def test_a_device_with_nothing_set_is_left_to_the_switch(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    legs = (await house.post("/v1/devices/4/route", headers=admin)).json()["legs"]
    assert [(leg["action"], leg["rings"], leg["why"]) for leg in legs] == [
        ("none", None, ["IAX2/1002 rings", "carry on, nothing is ours to decide"])
    ]


async def test_a_named_switch_dials_as_it_can(house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo) -> None:
    await put(house, admin, "4 before_call", forward({"device": 5}))
    await demo.database.execute("""UPDATE switch_user SET dial = '{"IAX2": ""}', domain = 'pbx.example'""")
    call = {"switch": "switch", "caller": ALICE}
    (leg,) = (await house.post("/v1/devices/4/route", json=call, headers=admin)).json()["legs"]
    assert (leg["action"], leg["cause"]) == ("none", None)
    assert leg["why"] == [
        "IAX2/1002 before call: forward to IAX2/101",
        "refused: IAX2/101 cannot be rung here",
        "refused: IAX2/101 can neither be rung nor pass the call on",
        "refused: IAX2/1002 cannot be rung here",
        "carry on, nothing is ours to decide",
    ]


async def test_switches_are_an_admin_s_to_name(
    house: httpx.AsyncClient, admin: dict[str, str], make_token: MakeToken
) -> None:
    assert problem(await house.post("/v1/devices/4/route", json={"switch": "none"}, headers=admin)) == (
        404,
        "not-found",
    )
    user = {"Authorization": f"Bearer {await make_token(20)}"}
    for name in ("switch", "none"):
        response = await house.post("/v1/devices/4/route", json={"switch": name}, headers=user)
        assert problem(response) == (404, "not-found")


async def test_nothing_is_told_of_what_a_foreign_device_does(
    house: httpx.AsyncClient, admin: dict[str, str], make_token: MakeToken
) -> None:
    """Anybody may forward to a number, and a number can be somebody else's DID."""
    await put(house, admin, "200 before_call", forward({"number": "+37069999999"}))
    await put(house, admin, "4 busy", forward({"number": "37052000004"}))
    user = {"Authorization": f"Bearer {await make_token(20)}"}
    call = {"outcomes": ["busy", "no_answer"]}
    legs = (await house.post("/v1/devices/4/route", json=call, headers=user)).json()["legs"]
    assert legs[1:] == [
        {
            "leg": 2,
            "state": "busy",
            "action": None,
            "rings": None,
            "ring_seconds": None,
            "fax": None,
            "mailbox": None,
            "cause": None,
            "shows": None,
            "asserted": None,
            "headers": None,
            "pays": None,
            "why": ["the call goes on to a device that your account may not see"],
        }
    ]
    legs = (await house.post("/v1/devices/4/route", json=call, headers=admin)).json()["legs"]
    assert [leg["rings"] for leg in legs[1:]] == [{"number": "+37069999999"}, None]
    assert problem(await house.post("/v1/devices/200/route", json=call, headers=user)) == (404, "not-found")


@pytest.mark.parametrize(
    "call",
    [
        {"outcomes": ["answered"]},
        {"outcomes": ["before_call"]},
        {"outcomes": 65 * ["busy"]},
        {"at": "2026-11-26T12:00:00"},
        {"caller": {"privacy": "some"}},
        {"called": "1"},
    ],
)
async def test_what_no_call_can_be_is_refused(
    house: httpx.AsyncClient, admin: dict[str, str], call: dict[str, Any]
) -> None:
    assert problem(await house.post("/v1/devices/4/route", json=call, headers=admin)) == (422, "invalid")
