"""A device is deleted with its uses: whole, with the history of each, and only where all of them may be changed."""

from typing import Any

import httpx
import pytest

from api_answers import MakeToken, problem
from own_demo import OwnDemo

EMPTY = {"rules": [], "otherwise": {"action": "empty"}}


def forward(device: int, caller_id: dict[str, Any] | None = None) -> dict[str, Any]:
    step = {"to": {"device": device}, "caller_id": caller_id or {"kind": "device"}}
    return {"otherwise": {"action": "forward", "steps": [step]}}


async def put(house: httpx.AsyncClient, headers: dict[str, str], place: str, flow: dict[str, Any]) -> None:
    device, _, state = place.partition(" ")
    response = await house.put(f"/v1/devices/{device}/callflow/{state}", json=flow, headers=headers)
    assert response.status_code == 200, response.text


async def as_it_is(demo: OwnDemo) -> list[Any]:
    tables = ("device", "did", "callflow", "callflow_history")
    return [await demo.database.fetch(f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables]  # noqa: S608 - ours


async def test_the_flows_that_lead_to_it_are_emptied_its_dids_freed_and_all_of_it_is_in_the_history(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    await put(house, admin, "5 busy", forward(4))
    await put(house, admin, "100 before_call", forward(4))
    await put(house, admin, "100 busy", {"otherwise": {"action": "voicemail"}})
    await put(house, admin, "4 failed", forward(5, {"kind": "did", "did": 1}))
    refused = await house.delete("/v1/devices/4", headers=admin)
    assert problem(refused) == (409, "in-use")
    assert sorted(refused.json()["used_by"], key=str) == [
        {"kind": "callflow", "id": 100, "state": "before_call"},
        {"kind": "callflow", "id": 5, "state": "busy"},
        {"kind": "did", "id": 1},
    ]
    assert (await house.delete("/v1/devices/4?cascade=false", headers=admin)).status_code == 409
    since = await demo.database.fetchval("SELECT max(id) FROM callflow_history")
    deleted = await house.delete("/v1/devices/4?cascade=true", headers={**admin, "X-Request-ID": "gone"})
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert problem(await house.get("/v1/devices/4", headers=admin)) == (404, "not-found")
    did = (await house.get("/v1/dids/1", headers=admin)).json()
    assert (did["number"], did["device"]) == ("37052000001", None)
    for device in (5, 100):
        states = (await house.get(f"/v1/devices/{device}/callflow", headers=admin)).json()["states"]
        assert states["before_call"] == EMPTY
        assert (states["busy"] == EMPTY) == (device == 5)
    entries = (await house.get("/v1/history?limit=100", headers=admin)).json()["items"]
    made = [entry for entry in entries if entry["id"] > since]
    assert {(entry["account"], entry["face"], entry["request_id"]) for entry in made} == {
        ("admin", "json", deleted.headers["x-request-id"])
    }
    assert sorted(
        (entry["kind"], entry["device"] or entry["resource"], entry["state"], (entry["after"] or {}).get("otherwise"))
        for entry in made
    ) == [
        ("callflow", 4, "failed", {"action": "empty"}),
        ("callflow", 5, "busy", {"action": "empty"}),
        ("callflow", 100, "before_call", {"action": "empty"}),
        ("device", 4, None, None),
        ("did", "1", None, None),
    ]
    before = {(entry["device"], entry["state"]): entry["before"] for entry in made if entry["kind"] == "callflow"}
    assert before[5, "busy"]["otherwise"]["steps"][0]["to"] == {"device": 4}


async def test_a_reseller_empties_the_flows_of_its_users(
    house: httpx.AsyncClient, make_token: MakeToken, demo: OwnDemo
) -> None:
    reseller = {"Authorization": f"Bearer {await make_token(10)}"}
    await put(house, reseller, "200 before_call", {"otherwise": {"action": "fax_detect", "to": {"device": 201}}})
    assert problem(await house.delete("/v1/devices/201", headers=reseller)) == (409, "in-use")
    assert (await house.delete("/v1/devices/201?cascade=true", headers=reseller)).status_code == 204
    assert await demo.database.fetchval("SELECT action FROM callflow WHERE device_id = 200") == "empty"


@pytest.mark.parametrize("use", ["a foreign flow", "a DID"])
async def test_where_something_is_not_the_caller_s_to_change_nothing_changes(
    house: httpx.AsyncClient, admin: dict[str, str], make_token: MakeToken, demo: OwnDemo, use: str
) -> None:
    reseller = {"Authorization": f"Bearer {await make_token(10)}"}
    device = 200
    if use == "a foreign flow":
        device = 201
        await put(house, admin, "4 busy", forward(201))
        await put(house, admin, "200 busy", forward(201))
    before = await as_it_is(demo)
    response = await house.delete(f"/v1/devices/{device}?cascade=true", headers=reseller)
    assert problem(response) == (403, "not-allowed")
    assert {"IAX2", "1002", "user1"} & set(response.text.replace("/", " ").split()) == set()
    assert response.json().keys() == {"type", "title", "status", "detail", "instance"}
    assert await as_it_is(demo) == before


async def test_only_a_device_s_deletion_takes_cascade(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    assert problem(await house.delete("/v1/accounts/20?cascade=true", headers=admin)) == (422, "invalid")
    assert problem(await house.delete("/v1/devices/4?cascade=perhaps", headers=admin)) == (422, "invalid")
    assert problem(await house.delete("/v1/devices/4?force=true", headers=admin)) == (422, "invalid")
