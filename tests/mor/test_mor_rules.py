"""MOR's two calls on states that have rules and chains: what they show of them, and that they lose none."""

from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from callflow_service.domain.tokens import new_token, token_hash
from mor_requests import GET, UPDATE, answer, get, got, update, updated

pytestmark = pytest.mark.usefixtures("untouched")

EMPTY = {"action": "empty"}
DAYS = [{"days": ["mon"], "from": "09:00", "to": "17:00"}]
FORMER_UPDATE = """UPDATE callflow SET action = 'forward', target_device_id = NULL, target_number = '37061',
    caller_id = 'source', caller_id_did_id = NULL, caller_id_text = NULL WHERE device_id = 4 AND state = 'busy'"""
"""What a worker of the former release does to a row: it knows the columns that MOR's calls show."""


class Json:
    """The JSON API, as an admin uses it."""

    def __init__(self, service: httpx.AsyncClient, token: str) -> None:
        self._service = service
        self._headers = {"Authorization": f"Bearer {token}"}

    async def __call__(self, method: str, path: str, body: Any = None) -> Any:
        response = await self._service.request(method, f"/v1/{path}", json=body, headers=self._headers)
        assert response.is_success, response.text
        return response.json()

    async def state(self, state: str = "busy") -> dict[str, Any]:
        """What device 4 does in a state."""
        shown = await self("GET", f"devices/4/callflow/{state}")
        return {"rules": shown["rules"], "otherwise": shown["otherwise"]}

    async def put(self, flow: dict[str, Any], state: str = "busy") -> dict[str, Any]:
        """Set what device 4 does in a state; as it is shown then."""
        await self("PUT", f"devices/4/callflow/{state}", flow)
        return await self.state(state)


@pytest_asyncio.fixture
async def json(demo_service: httpx.AsyncClient, demo_database: asyncpg.Connection) -> Json:
    token = new_token()
    await demo_database.execute(
        "INSERT INTO token (account_id, name, scope, token_hash) VALUES (1, 'mor', 'write', $1)", token_hash(token)
    )
    return Json(demo_service, token)


def step(to: dict[str, Any], kind: dict[str, Any] | None = None, ring_seconds: int | None = None) -> dict[str, Any]:
    return {"to": to, "ring_seconds": ring_seconds, "caller_id": kind or {"kind": "device"}}


def forward(*steps: dict[str, Any], then: dict[str, Any] = EMPTY) -> dict[str, Any]:
    return {"action": "forward", "steps": list(steps), "then": then}


DEVICE = step({"device": 5, "label": "IAX2/101"}, {"kind": "did", "did": 1}, 15)
NUMBER = step({"number": "+37062699289"}, {"kind": "source"}, 20)
OFF = {"enabled": False}
FIRST_STEP = ("Forward", "IAX2/101", "local", "3", "1")
NOTHING = ("", "", "", "1", "")

SHOWN = {
    "a chain by its first step": (forward(DEVICE, NUMBER, then={"action": "voicemail"}), FIRST_STEP),
    "a ring time not at all": (forward(NUMBER), ("Forward", "+37062699289", "external", "2", "")),
    "a chain that is switched off as empty": (forward(DEVICE, NUMBER) | OFF, NOTHING),
    "voicemail that is switched off as empty": ({"action": "voicemail"} | OFF, NOTHING),
    "another's voicemail as voicemail": (
        {"action": "voicemail", "of": {"device": 5, "label": "IAX2/101"}},
        ("Voicemail", "", "", "1", ""),
    ),
    "an end as empty": ({"action": "end", "cause": 603}, NOTHING),
}


async def rules(json: Json) -> list[dict[str, Any]]:
    """Two rules with all that rules can name."""
    schedule = (await json("POST", "schedules", {"name": "S", "owner": "user1", "weekly": DAYS}))["id"]
    listed = (await json("POST", "caller_lists", {"name": "L", "owner": "user1", "entries": ["+3706*"]}))["id"]
    return [
        {
            "name": "after hours",
            "enabled": True,
            "if": {"not_schedule": schedule, "caller": {"not_list": listed}, "called": ["+37052000001"]},
            "do": forward(NUMBER, DEVICE, then={"action": "end", "cause": 404}),
        },
        {"name": "off", "enabled": False, "if": {"caller": "internal"}, "do": forward(DEVICE) | OFF},
    ]


@pytest.mark.parametrize("shown", SHOWN)
async def test_a_get_shows(demo_service: httpx.AsyncClient, json: Json, shown: str) -> None:
    otherwise, row = SHOWN[shown]
    sent = {"rules": await rules(json), "otherwise": otherwise}
    assert await json.put(sent) == sent

    assert answer(await demo_service.post(GET, data=get())) == got(busy=row)


async def test_a_client_that_reads_and_sets_a_state_loses_none_of_its_rules(
    demo_service: httpx.AsyncClient, json: Json
) -> None:
    sent = {"rules": await rules(json), "otherwise": forward(DEVICE, NUMBER, then={"action": "voicemail"})}
    await json.put(sent)
    assert answer(await demo_service.post(GET, data=get())) == got(busy=FIRST_STEP)

    same = await demo_service.post(UPDATE, data=update(state="busy", did_id="1"))

    assert answer(same) == updated(state="Busy", callerid_type="From DID", callerid_data="37052000001")
    chain_of_one = forward(DEVICE | {"ring_seconds": None})
    assert await json.state() == {"rules": sent["rules"], "otherwise": chain_of_one}
    assert answer(await demo_service.post(GET, data=get())) == got(busy=FIRST_STEP)


@pytest.mark.parametrize("action", ["empty", "voicemail"])
async def test_any_other_action_keeps_the_rules_too(demo_service: httpx.AsyncClient, json: Json, action: str) -> None:
    sent = {"rules": await rules(json), "otherwise": forward(DEVICE, NUMBER)}
    await json.put(sent)

    await demo_service.post(UPDATE, data=update(state="busy", callflow_action=action, forward_to_device=None))

    assert await json.state() == {"rules": sent["rules"], "otherwise": {"action": action}}


async def test_fax_detection_keeps_the_rules_too(demo_service: httpx.AsyncClient, json: Json) -> None:
    sent = {"rules": await rules(json), "otherwise": {"action": "end", "cause": 486}}
    await json.put(sent, "before_call")

    changes = {"callflow_action": "fax_detect", "fax_device": "2", "forward_to_device": None}
    await demo_service.post(UPDATE, data=update(**changes))

    fax = {"action": "fax_detect", "to": {"device": 2, "label": "FAX/102"}}
    assert await json.state("before_call") == {"rules": sent["rules"], "otherwise": fax}


async def test_rules_of_other_states_and_devices_stay_as_they_are(demo_service: httpx.AsyncClient, json: Json) -> None:
    sent = {"rules": await rules(json), "otherwise": forward(DEVICE, NUMBER)}
    await json.put(sent, "failed")

    await demo_service.post(UPDATE, data=update(state="busy"))

    assert await json.state("failed") == sent


async def test_what_an_update_changed_comes_back_whole_by_an_undo(demo_service: httpx.AsyncClient, json: Json) -> None:
    sent = {"rules": await rules(json), "otherwise": forward(DEVICE, NUMBER, then={"action": "voicemail"})}
    await json.put(sent)
    await demo_service.post(UPDATE, data=update(state="busy", external_number="37061", forward_to_device=None))

    newest = (await json("GET", "devices/4/callflow/history"))["items"][0]
    assert (newest["face"], len(newest["before"]["otherwise"]["steps"])) == ("mor", 2)
    await json("POST", f"history/{newest['id']}/undo")

    assert await json.state() == sent
    assert answer(await demo_service.post(GET, data=get())) == got(busy=FIRST_STEP)


async def test_an_update_of_a_worker_of_the_former_release_counts_and_keeps_the_rules(
    demo_database: asyncpg.Connection, json: Json
) -> None:
    sent = {"rules": await rules(json), "otherwise": forward(DEVICE, NUMBER)}
    await json.put(sent)

    await demo_database.execute(FORMER_UPDATE)

    set_there = forward(step({"number": "37061"}, {"kind": "source"}))
    assert await json.state() == {"rules": sent["rules"], "otherwise": set_there}
