"""Profiles: kept under a name, applied once however often, withdrawn to what was there before."""

from typing import Any

import httpx
import pytest

from api_answers import MakeToken, problem
from own_demo import OwnDemo

VOICEMAIL = {"rules": [], "otherwise": {"action": "voicemail"}}
EMPTY = {"rules": [], "otherwise": {"action": "empty"}}
HOLIDAYS = {"name": "Holidays", "where": {"devices": [4, 5]}, "set": {"busy": VOICEMAIL}}


def forward(to: dict[str, Any], caller_id: dict[str, Any] | None = None) -> dict[str, Any]:
    step = {"to": to, "ring_seconds": None, "caller_id": caller_id or {"kind": "device"}}
    return {"rules": [], "otherwise": {"action": "forward", "steps": [step], "then": {"action": "empty"}}}


async def flow(house: httpx.AsyncClient, headers: dict[str, str], device: int, state: str = "busy") -> Any:
    return (await house.get(f"/v1/devices/{device}/callflow/{state}", headers=headers)).json()["otherwise"]


async def test_a_profile_is_a_resource_like_the_others(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await house.post("/v1/profiles", json=HOLIDAYS, headers=admin)
    assert (made.status_code, made.headers["location"]) == (201, "/v1/profiles/1")
    shown = made.json()
    assert made.headers["etag"] == f'"{shown.pop("etag")}"'
    assert shown == {
        "id": 1,
        "name": "Holidays",
        "owner": "admin",
        "where": {"devices": [4, 5]},
        "set": {"busy": VOICEMAIL},
        "applied_at": None,
        "applied_states": 0,
    }
    listed = (await house.get("/v1/profiles?q=HOLI&owner=admin", headers=admin)).json()
    assert [each["id"] for each in listed["items"]] == [1]
    assert (await house.get("/v1/profiles?owner=user1", headers=admin)).json()["items"] == []
    patch = {"where": {"devices": None, "owner": "user1"}, "set": {"busy": None, "failed": VOICEMAIL}}
    changed = await house.patch("/v1/profiles/1", json=patch, headers=admin | {"If-Match": made.headers["etag"]})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["where"], changed.json()["set"]) == ({"owner": "user1"}, {"failed": VOICEMAIL})
    late = await house.patch("/v1/profiles/1", json={"name": "x"}, headers=admin | {"If-Match": made.headers["etag"]})
    assert problem(late) == (412, "changed-meanwhile")
    assert (await house.delete("/v1/profiles/1", headers=admin)).status_code == 204
    assert problem(await house.get("/v1/profiles/1", headers=admin)) == (404, "not-found")
    entries = (await house.get("/v1/history", headers=admin)).json()["items"]
    assert [(entry["kind"], entry["resource"]) for entry in entries] == [("profile", "1")] * 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"owner": "nobody"}, "owner"),
        ({"owner": "accountant"}, "owner"),
        ({"where": {}}, "where"),
        ({"where": {"devices": [4, 999]}}, "where.devices.1"),
        ({"set": {}}, "set"),
        ({"set": {"busy": forward({"device": 999})}}, "set.busy.otherwise.steps.0.to.device"),
        ({"applied_at": "now"}, "applied_at"),
    ],
)
async def test_what_a_profile_cannot_be_is_refused_by_its_field(
    house: httpx.AsyncClient, admin: dict[str, str], change: dict[str, Any], field: str
) -> None:
    response = await house.post("/v1/profiles", json=HOLIDAYS | change, headers=admin)
    assert problem(response) == (422, "invalid")
    assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_withdrawing_puts_back_what_was_there_before(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await house.put("/v1/devices/4/callflow/busy", json=forward({"device": 5}), headers=admin)
    await house.post("/v1/profiles", json=HOLIDAYS, headers=admin)
    applied = await house.post("/v1/profiles/1/apply", headers=admin)
    assert applied.status_code == 200, applied.text
    shown = (await house.get("/v1/profiles/1", headers=admin)).json()
    assert applied.json() == {
        "applied_at": shown["applied_at"],
        "changed": 2,
        "unchanged": 0,
        "changes": [
            {"device": 4, "state": "busy", "before": forward({"device": 5}), "after": VOICEMAIL},
            {"device": 5, "state": "busy", "before": EMPTY, "after": VOICEMAIL},
        ],
        "warnings": [],
    }
    assert (shown["applied_at"] is None, shown["applied_states"]) == (False, 2)
    withdrawn = await house.post("/v1/profiles/1/withdraw", headers=admin)
    assert withdrawn.json() == {
        "restored": 2,
        "left": 0,
        "changes": [
            {"device": 4, "state": "busy", "before": VOICEMAIL, "after": forward({"device": 5})},
            {"device": 5, "state": "busy", "before": VOICEMAIL, "after": EMPTY},
        ],
        "left_alone": [],
    }
    assert (await flow(house, admin, 4))["steps"][0]["to"] == {"device": 5, "label": "IAX2/101"}
    shown = (await house.get("/v1/profiles/1", headers=admin)).json()
    assert (shown["applied_at"], shown["applied_states"]) == (None, 0)
    history = (await house.get("/v1/devices/4/callflow/history", headers=admin)).json()["items"]
    assert [entry["after"] for entry in history] == [forward({"device": 5}), VOICEMAIL, forward({"device": 5})]
    again = await house.post("/v1/profiles/1/withdraw", headers=admin)
    assert again.json() == {"restored": 0, "left": 0, "changes": [], "left_alone": []}


async def test_applied_twice_is_applied_once_and_devices_that_fit_by_now_are_added(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    await house.post("/v1/profiles", json=HOLIDAYS | {"where": {"owner": "user1"}}, headers=admin)
    first = (await house.post("/v1/profiles/1/apply", headers=admin)).json()
    await house.put("/v1/devices/5/callflow/busy", json=EMPTY, headers=admin)
    await house.post("/v1/devices", json={"id": 6, "technology": "SIP", "name": "106", "owner": "user1"}, headers=admin)
    second = (await house.post("/v1/profiles/1/apply", headers=admin)).json()
    assert (first["changed"], second["changed"], second["unchanged"]) == (4, 1, 4)
    assert [change["device"] for change in second["changes"]] == [6]
    assert second["applied_at"] == first["applied_at"]
    assert await flow(house, admin, 5) == {"action": "empty"}
    withdrawn = (await house.post("/v1/profiles/1/withdraw", headers=admin)).json()
    assert (withdrawn["restored"], withdrawn["left"]) == (4, 1)
    assert await flow(house, admin, 6) == {"action": "empty"}


async def test_what_somebody_changed_since_is_left_alone_and_told(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    for device, state in ((4, "busy"), (100, "failed")):
        await house.put(f"/v1/devices/{device}/callflow/{state}", json=forward({"device": 5}), headers=admin)
    await house.put("/v1/devices/2/callflow/busy", json=forward({"device": 300}), headers=admin)
    profile = HOLIDAYS | {"where": {"owner": "user1"}, "set": {"busy": VOICEMAIL, "failed": VOICEMAIL}}
    await house.post("/v1/profiles", json=profile, headers=admin)
    assert (await house.post("/v1/profiles/1/apply", headers=admin)).json()["changed"] == 8
    # Changed there and back: somebody changed it all the same.
    await house.put("/v1/devices/4/callflow/busy", json=EMPTY, headers=admin)
    await house.put("/v1/devices/4/callflow/busy", json=VOICEMAIL, headers=admin)
    await demo.database.execute("DELETE FROM device WHERE id = 300")
    await house.delete("/v1/devices/100", headers=admin)
    withdrawn = (await house.post("/v1/profiles/1/withdraw", headers=admin)).json()
    assert withdrawn["left_alone"] == [
        {"device": 2, "state": "busy", "reason": "target_gone"},
        {"device": 4, "state": "busy", "reason": "changed_since"},
        {"device": 100, "state": "busy", "reason": "device_gone"},
        {"device": 100, "state": "failed", "reason": "device_gone"},
    ]
    assert (withdrawn["restored"], withdrawn["left"]) == (4, 4)
    assert await flow(house, admin, 4) == await flow(house, admin, 2) == {"action": "voicemail"}


async def test_a_ring_that_would_close_is_left_open(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await house.put("/v1/devices/4/callflow/before_call", json=forward({"device": 5}), headers=admin)
    profile = HOLIDAYS | {"where": {"devices": [2, 4]}, "set": {"before_call": VOICEMAIL}}
    await house.post("/v1/profiles", json=profile, headers=admin)
    await house.post("/v1/profiles/1/apply", headers=admin)
    await house.put("/v1/devices/5/callflow/before_call", json=forward({"number": "37052000001"}), headers=admin)
    withdrawn = (await house.post("/v1/profiles/1/withdraw", headers=admin)).json()
    assert withdrawn["left_alone"] == [{"device": 4, "state": "before_call", "reason": "loop"}]
    assert [change["device"] for change in withdrawn["changes"]] == [2]


async def test_an_applied_profile_can_be_renamed_and_no_more(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await house.post("/v1/profiles", json=HOLIDAYS, headers=admin)
    await house.post("/v1/profiles/1/apply", headers=admin)
    renamed = await house.patch("/v1/profiles/1", json={"name": "Easter"}, headers=admin)
    assert (renamed.status_code, renamed.json()["name"]) == (200, "Easter")
    for patch in ({"where": {"devices": [4]}}, {"set": {"failed": VOICEMAIL}}, {"owner": "user1"}):
        assert problem(await house.patch("/v1/profiles/1", json=patch, headers=admin)) == (409, "in-use")
    kept = await house.delete("/v1/profiles/1", headers=admin)
    assert problem(kept) == (409, "in-use")
    assert kept.json()["used_by"] == [
        {"kind": "callflow", "id": 4, "state": "busy"},
        {"kind": "callflow", "id": 5, "state": "busy"},
    ]
    await house.post("/v1/profiles/1/withdraw", headers=admin)
    assert (await house.delete("/v1/profiles/1", headers=admin)).status_code == 204


async def test_what_a_profile_names_can_go_and_applying_it_says_so(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    profile = HOLIDAYS | {"where": {"devices": [4, 5]}, "set": {"busy": forward({"device": 100})}}
    await house.post("/v1/profiles", json=profile, headers=admin)
    assert (await house.delete("/v1/devices/100", headers=admin)).status_code == 204
    response = await house.post("/v1/profiles/1/apply", headers=admin)
    assert problem(response) == (422, "invalid")
    assert response.json()["errors"] == [
        {"field": "set.busy.otherwise.steps.0.to.device", "message": "there is no device 100"}
    ]
    await demo.database.execute("DELETE FROM did WHERE device_id = 5; DELETE FROM device WHERE id = 5")
    response = await house.post("/v1/profiles/1/apply", headers=admin)
    assert response.json()["errors"] == [{"field": "where.devices.1", "message": "there is no device 5"}]
    assert (await house.get("/v1/profiles/1", headers=admin)).json()["applied_at"] is None


@pytest.mark.parametrize(
    ("account", "add", "show", "change"),
    [(1, 201, 200, 200), (20, 201, 200, 200), (12, 403, 200, 403), (10, 201, 404, 404), (21, 201, 404, 404)],
)
async def test_who_may_do_what_with_a_users_profile(  # noqa: PLR0917 - fixtures and parameters
    house: httpx.AsyncClient, make_token: MakeToken, account: int, add: int, show: int, change: int
) -> None:
    owner = {"Authorization": f"Bearer {await make_token(20)}"}
    await house.post("/v1/profiles", json=HOLIDAYS, headers=owner)
    headers = {"Authorization": f"Bearer {await make_token(account)}"}
    assert (await house.get("/v1/profiles/1", headers=headers)).status_code == show
    assert len((await house.get("/v1/profiles", headers=headers)).json()["items"]) == (1 if show == 200 else 0)
    for verb in ("apply", "withdraw"):
        assert (await house.post(f"/v1/profiles/1/{verb}", headers=headers)).status_code == change
    assert (await house.patch("/v1/profiles/1", json={"name": "x"}, headers=headers)).status_code == change
    added = await house.post("/v1/profiles", json=HOLIDAYS | {"where": {"all": True}}, headers=headers)
    assert added.status_code == add
    deleted = await house.delete("/v1/profiles/1", headers=headers)
    assert deleted.status_code == (204 if change == 200 else change)


async def test_whoever_applies_it_a_profile_reaches_what_its_owner_may_change(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    profile = HOLIDAYS | {"owner": "user2", "where": {"all": True}}
    await house.post("/v1/profiles", json=profile, headers=admin)
    applied = (await house.post("/v1/profiles/1/apply", headers=admin)).json()
    assert [change["device"] for change in applied["changes"]] == [200, 201]
    entries = (await house.get("/v1/devices/200/callflow/history", headers=admin)).json()["items"]
    assert [entry["account"] for entry in entries] == ["admin"]


async def test_an_account_with_profiles_cannot_be_deleted(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await house.post(
        "/v1/accounts", json={"id": 50, "username": "new", "role": "user", "owner": "admin"}, headers=admin
    )
    await house.post("/v1/profiles", json=HOLIDAYS | {"owner": "new", "where": {"all": True}}, headers=admin)
    response = await house.delete("/v1/accounts/50", headers=admin)
    assert (problem(response), response.json()["used_by"]) == ((409, "in-use"), [{"kind": "profile", "id": 1}])
