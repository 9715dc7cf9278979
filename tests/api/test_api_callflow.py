"""The call flow of a device: shown, set, refused, remembered, taken back."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from api_answers import MakeToken, problem
from mor_requests import UPDATE, signed
from own_demo import OwnDemo

EMPTY = {"rules": [], "otherwise": {"action": "empty"}}


def forward(to: dict[str, Any], caller_id: dict[str, Any] | None = None) -> dict[str, Any]:
    step = {"to": to, "ring_seconds": None, "caller_id": caller_id or {"kind": "device"}}
    return {"rules": [], "otherwise": {"action": "forward", "steps": [step], "then": {"action": "empty"}}}


async def test_an_untouched_flow_is_shown_whole(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    response = await house.get("/v1/devices/4/callflow", headers=admin)
    document = response.json()
    assert response.headers["etag"] == f'"{document.pop("etag")}"'
    assert document == {
        "device": {"id": 4, "label": "IAX2/1002", "owner": "user1"},
        "states": dict.fromkeys(("before_call", "no_answer", "busy", "failed"), EMPTY),
    }


FLOWS = {
    "voicemail": ("busy", {"rules": [], "otherwise": {"action": "voicemail"}}),
    "device": ("no_answer", forward({"device": 5, "label": "IAX2/101"})),
    "number": ("failed", forward({"number": "+37062699289"}, {"kind": "did", "did": 1})),
    "source": ("busy", forward({"number": "*21#1"}, {"kind": "source"})),
    "custom": ("busy", forward({"device": 5, "label": "IAX2/101"}, {"kind": "custom", "text": '"Acme" <+370>'})),
    "fax": (
        "before_call",
        {"rules": [], "otherwise": {"action": "fax_detect", "to": {"device": 2, "label": "FAX/102"}}},
    ),
}


@pytest.mark.parametrize("flow", FLOWS)
async def test_every_action_is_set_and_shown_as_it_was_sent(
    house: httpx.AsyncClient, admin: dict[str, str], flow: str
) -> None:
    state, sent = FLOWS[flow]
    response = await house.put(f"/v1/devices/4/callflow/{state}", json=sent, headers=admin)
    assert response.status_code == 200, response.text
    shown = response.json()
    assert response.headers["etag"] == f'"{shown["etag"]}"'
    assert {"rules": shown["rules"], "otherwise": shown["otherwise"]} == sent
    whole = (await house.get("/v1/devices/4/callflow", headers=admin)).json()
    assert whole["states"][state] == sent
    again = await house.put("/v1/devices/4/callflow", json=whole, headers=admin)
    assert again.json()["states"] == whole["states"]
    emptied = await house.delete(f"/v1/devices/4/callflow/{state}", headers=admin)
    assert emptied.json()["otherwise"] == {"action": "empty"}


async def test_what_mor_sets_is_shown_and_what_is_set_here_mor_shows(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    values = {"u": "admin", "device_id": "4", "callflow_action": "forward", "state": "busy", "forward_to_device": "5"}
    assert "successfully updated" in (await house.post(UPDATE, data=signed(values))).text
    shown = (await house.get("/v1/devices/4/callflow/busy", headers=admin)).json()
    assert shown["otherwise"] == forward({"device": 5, "label": "IAX2/101"})["otherwise"]


async def test_a_number_that_a_person_typed_is_stored_without_its_signs(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    sent = forward({"number": "+370 (612) 34-567"})
    response = await house.put("/v1/devices/4/callflow/busy", json=sent, headers=admin)
    assert response.json()["otherwise"]["steps"][0]["to"] == {"number": "+37061234567"}


@pytest.mark.parametrize(
    ("state", "sent", "field"),
    [
        ("busy", {"rules": {}, "otherwise": {"action": "empty"}}, "rules"),
        ("busy", {"otherwise": {"action": "nothing"}}, "otherwise"),
        ("busy", {"otherwise": {"action": "fax_detect", "to": {"device": 2}}}, "otherwise.action"),
        ("before_call", {"otherwise": {"action": "fax_detect", "to": {"device": 5}}}, "otherwise.to.device"),
        ("busy", forward({"device": 999}), "otherwise.steps.0.to.device"),
        ("busy", forward({"number": "premium"}), "otherwise.steps.0.to.number"),
        ("busy", forward({}), "otherwise.steps.0.to"),
        ("busy", forward({"device": 5, "number": "1"}), "otherwise.steps.0.to"),
        ("busy", forward({"device": 5}, {"kind": "did", "did": 2}), "otherwise.steps.0.caller_id.did"),
        ("busy", forward({"device": 5}, {"kind": "custom", "text": "${x}"}), "otherwise.steps.0.caller_id.text"),
        ("busy", forward({"device": 5}, {"kind": "custom", "text": "Acme, Inc"}), "otherwise.steps.0.caller_id.text"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_field_and_changes_nothing(
    house: httpx.AsyncClient, admin: dict[str, str], state: str, sent: dict[str, Any], field: str
) -> None:
    response = await house.put(f"/v1/devices/4/callflow/{state}", json=sent, headers=admin)
    assert problem(response) == (422, "invalid")
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert (await house.get("/v1/devices/4/callflow/history", headers=admin)).json()["items"] == []


async def test_rings_before_the_call_are_refused_with_the_path(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    itself = await house.put("/v1/devices/4/callflow/busy", json=forward({"device": 4}), headers=admin)
    assert (problem(itself), itself.json()["path"]) == ((409, "loop"), [4])
    await house.put("/v1/devices/4/callflow/before_call", json=forward({"device": 5}), headers=admin)
    await house.put("/v1/devices/5/callflow/before_call", json=forward({"device": 100}), headers=admin)
    for back in ({"device": 4}, {"number": "+37052000001"}):
        response = await house.put("/v1/devices/100/callflow/before_call", json=forward(back), headers=admin)
        assert (problem(response), response.json()["path"]) == ((409, "loop"), [100, 4, 5])
    busy = await house.put("/v1/devices/100/callflow/busy", json=forward({"device": 4}), headers=admin)
    assert busy.status_code == 200
    assert busy.json()["warnings"] == [
        "The forward is part of a ring, device 100 to 4 to 5 to 100; a call that comes round is not forwarded again."
    ]


async def test_two_that_close_a_ring_from_both_ends_at_once_do_not_both_succeed(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    for _ in range(5):
        both = await asyncio.gather(
            house.put("/v1/devices/4/callflow/before_call", json=forward({"device": 5}), headers=admin),
            house.put("/v1/devices/5/callflow/before_call", json=forward({"device": 4}), headers=admin),
        )
        assert sorted(response.status_code for response in both) == [200, 409]
        for device in (4, 5):
            await house.delete(f"/v1/devices/{device}/callflow/before_call", headers=admin)


async def test_two_editors_of_one_state_lose_nothing(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    seen = await house.get("/v1/devices/4/callflow/busy", headers=admin)
    headers = {**admin, "If-Match": seen.headers["etag"]}
    both = await asyncio.gather(
        house.put("/v1/devices/4/callflow/busy", json=forward({"device": 5}), headers=headers),
        house.put("/v1/devices/4/callflow/busy", json=forward({"device": 100}), headers=headers),
    )
    first, second = sorted(both, key=lambda response: response.status_code)
    assert first.status_code == 200
    assert problem(second) == (412, "changed-meanwhile")
    assert second.json()["current"]["otherwise"] == first.json()["otherwise"]


@pytest.mark.parametrize(("account", "status"), [(20, 200), (12, 403), (10, 404), (21, 404)])
async def test_who_may_change_a_flow(
    house: httpx.AsyncClient, make_token: MakeToken, account: int, status: int
) -> None:
    headers = {"Authorization": f"Bearer {await make_token(account)}"}
    response = await house.put("/v1/devices/4/callflow/busy", json=EMPTY, headers=headers)
    assert response.status_code == status
    seen = await house.get("/v1/devices/4/callflow", headers=headers)
    assert seen.status_code == (404 if status == 404 else 200)


async def test_a_foreign_target_looks_like_a_missing_one(house: httpx.AsyncClient, make_token: MakeToken) -> None:
    headers = {"Authorization": f"Bearer {await make_token(20)}"}
    for device in (200, 999):
        response = await house.put("/v1/devices/4/callflow/busy", json=forward({"device": device}), headers=headers)
        assert response.json()["errors"] == [
            {"field": "otherwise.steps.0.to.device", "message": f"there is no device {device}"}
        ]


async def test_every_change_is_in_the_history_and_can_be_undone(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    await house.put("/v1/devices/4/callflow/busy", json=forward({"device": 5}), headers=admin)
    changed = await house.put("/v1/devices/4/callflow/busy", json=EMPTY, headers=admin)
    newest, oldest = (await house.get("/v1/devices/4/callflow/history", headers=admin)).json()["items"]
    assert newest | {"id": 0, "at": ""} == {
        "id": 0,
        "at": "",
        "kind": "callflow",
        "resource": None,
        "account": "admin",
        "face": "json",
        "address": "127.0.0.1",
        "request_id": changed.headers["x-request-id"],
        "device": 4,
        "state": "busy",
        "before": forward({"device": 5}),
        "after": EMPTY,
        "undoes": None,
    }
    lost = await house.post(f"/v1/history/{oldest['id']}/undo", headers=admin)
    assert problem(lost) == (409, "newer-change")
    assert [entry["id"] for entry in lost.json()["newer"]] == [newest["id"]]
    undone = await house.post(f"/v1/history/{newest['id']}/undo", headers=admin)
    assert (undone.status_code, undone.json()["undoes"]) == (200, newest["id"])
    assert undone.json()["after"] == forward({"device": 5})
    again = await house.post(f"/v1/history/{undone.json()['id']}/undo", json={}, headers=admin)
    assert again.json()["after"] == EMPTY
    forced = await house.post(f"/v1/history/{newest['id']}/undo", json={"force": True}, headers=admin)
    assert forced.json()["after"] == forward({"device": 5})


async def test_a_caller_id_that_mor_set_is_put_back_as_it_was(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    values = {"u": "admin", "device_id": "4", "callflow_action": "forward", "state": "busy", "forward_to_device": "5"}
    sent = values | {"custom": "Acme, Inc. ${x}"}
    assert "successfully updated" in (await house.post(UPDATE, data=signed(sent))).text
    await house.delete("/v1/devices/4/callflow/busy", headers=admin)
    newest = (await house.get("/v1/devices/4/callflow/history", headers=admin)).json()["items"][0]
    undone = await house.post(f"/v1/history/{newest['id']}/undo", headers=admin)
    assert (undone.status_code, undone.json()["after"]) == (200, newest["before"])
    assert newest["before"] == forward({"device": 5}, {"kind": "custom", "text": "Acme, Inc. ${x}"})


async def test_a_flow_is_restored_to_how_it_was(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await house.put("/v1/devices/4/callflow/busy", json=forward({"device": 5}), headers=admin)
    moment = datetime.now(UTC).isoformat()
    await house.put("/v1/devices/4/callflow/busy", json=EMPTY, headers=admin)
    await house.put("/v1/devices/4/callflow/failed", json=forward({"device": 100}), headers=admin)
    refused = await house.post("/v1/devices/4/callflow/restore", json={"as_of": moment}, headers=admin)
    assert problem(refused) == (409, "newer-change")
    assert len(refused.json()["newer"]) == 2
    body = {"as_of": moment, "force": True}
    restored = (await house.post("/v1/devices/4/callflow/restore", json=body, headers=admin)).json()
    assert restored["states"]["busy"] == forward({"device": 5, "label": "IAX2/101"})
    assert restored["states"]["failed"] == EMPTY
    wrong = await house.post("/v1/devices/4/callflow/restore", json={"as_of": "yesterday"}, headers=admin)
    assert problem(wrong) == (422, "invalid")


async def test_the_history_shows_what_one_may_see(
    house: httpx.AsyncClient, admin: dict[str, str], make_token: MakeToken, demo: OwnDemo
) -> None:
    await demo.database.execute("TRUNCATE callflow_history")
    await house.put("/v1/devices/4/callflow/busy", json=forward({"device": 5}), headers=admin)
    await house.put("/v1/devices/200/callflow/busy", json=forward({"number": "1"}), headers=admin)
    await house.patch("/v1/accounts/20", json={"name": "X"}, headers=admin)
    everything = (await house.get("/v1/history", headers=admin)).json()["items"]
    assert [(entry["kind"], entry["device"]) for entry in everything] == [
        ("account", None),
        ("callflow", 200),
        ("callflow", 4),
    ]
    user = {"Authorization": f"Bearer {await make_token(20)}"}
    own = (await house.get("/v1/history", headers=user)).json()["items"]
    assert [entry["device"] for entry in own] == [4]
    filtered = (await house.get("/v1/history?device=200&face=json&account=1", headers=admin)).json()["items"]
    assert [entry["device"] for entry in filtered] == [200]
    assert (await house.get("/v1/history?since=2999-01-01T00:00:00Z", headers=admin)).json()["items"] == []
    foreign = await house.post(f"/v1/history/{everything[1]['id']}/undo", headers=user)
    assert problem(foreign) == (404, "not-found")
