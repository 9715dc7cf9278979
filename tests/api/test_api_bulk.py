"""Many devices at once: chosen, changed all or none, remembered one by one, while others are served."""

import asyncio
from typing import Any

import httpx
import pytest

from api_answers import MakeToken, problem
from callflow_service.domain.tokens import Scope
from callflow_service.storage import locks
from mor_requests import UPDATE, signed
from own_demo import OwnDemo

VOICEMAIL = {"rules": [], "otherwise": {"action": "voicemail"}}
EMPTY = {"rules": [], "otherwise": {"action": "empty"}}


def forward(to: dict[str, Any], caller_id: dict[str, Any] | None = None) -> dict[str, Any]:
    step = {"to": to, "ring_seconds": None, "caller_id": caller_id or {"kind": "device"}}
    return {"rules": [], "otherwise": {"action": "forward", "steps": [step], "then": {"action": "empty"}}}


async def test_several_states_of_several_devices_change_at_once(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    await house.put("/v1/devices/4/callflow/busy", json=forward({"device": 5}), headers=admin)
    sent = {"where": {"devices": [5, 4, 4]}, "set": {"busy": VOICEMAIL, "failed": forward({"number": "+370 (6) 1"})}}
    response = await house.post("/v1/bulk", json=sent, headers=admin)
    assert response.status_code == 200, response.text
    to_number = forward({"number": "+37061"})
    assert response.json() == {
        "dry_run": False,
        "changed": 4,
        "unchanged": 0,
        "changes": [
            {"device": 4, "state": "busy", "before": forward({"device": 5}), "after": VOICEMAIL},
            {"device": 4, "state": "failed", "before": EMPTY, "after": to_number},
            {"device": 5, "state": "busy", "before": EMPTY, "after": VOICEMAIL},
            {"device": 5, "state": "failed", "before": EMPTY, "after": to_number},
        ],
        "warnings": [],
    }
    for device in (4, 5):
        shown = (await house.get(f"/v1/devices/{device}/callflow", headers=admin)).json()
        assert shown["states"] == {
            "before_call": EMPTY,
            "no_answer": EMPTY,
            "busy": VOICEMAIL,
            "failed": to_number,
        }
    again = (await house.post("/v1/bulk", json=sent, headers=admin)).json()
    assert (again["changed"], again["unchanged"], again["changes"]) == (0, 4, [])


async def test_a_dry_run_answers_the_same_and_changes_nothing(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    sent = {"where": {"owner": "user1"}, "set": {"busy": VOICEMAIL}}
    tried = (await house.post("/v1/bulk", json=sent | {"dry_run": True}, headers=admin)).json()
    assert await demo.database.fetchval("SELECT count(*) FROM callflow") == 0
    assert await demo.database.fetchval("SELECT count(*) FROM callflow_history") == 0
    done = (await house.post("/v1/bulk", json=sent, headers=admin)).json()
    assert (tried.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert tried == done
    assert done["changed"] == await demo.database.fetchval("SELECT count(*) FROM callflow") > 0


async def test_each_change_is_in_the_history_like_a_single_one_and_can_be_undone(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    await house.put("/v1/devices/4/callflow/busy", json=forward({"device": 5}), headers=admin)
    sent = {"where": {"devices": [4, 5]}, "set": {"busy": VOICEMAIL}}
    response = await house.post("/v1/bulk", json=sent, headers=admin)
    entries = (await house.get("/v1/history?limit=2", headers=admin)).json()["items"]
    assert [entry | {"id": 0, "at": ""} for entry in entries] == [
        {
            "id": 0,
            "at": "",
            "kind": "callflow",
            "resource": None,
            "account": "admin",
            "face": "json",
            "address": "127.0.0.1",
            "request_id": response.headers["x-request-id"],
            "device": device,
            "state": "busy",
            "before": before,
            "after": VOICEMAIL,
            "undoes": None,
        }
        for device, before in ((5, EMPTY), (4, forward({"device": 5})))
    ]
    undone = await house.post(f"/v1/history/{entries[1]['id']}/undo", headers=admin)
    assert (undone.status_code, undone.json()["after"]) == (200, forward({"device": 5}))
    later = await house.put("/v1/devices/4/callflow/busy", json=EMPTY, headers=admin)
    assert later.status_code == 200
    newest = (await house.get("/v1/history?limit=1", headers=admin)).json()["items"][0]
    assert newest["id"] > undone.json()["id"] > entries[0]["id"]


async def test_what_is_remembered_of_a_row_is_what_a_single_change_remembers(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    flow = forward({"number": "+37061234567"}, {"kind": "custom", "text": "+370"})
    await house.post("/v1/bulk", json={"where": {"devices": [4]}, "set": {"busy": flow}}, headers=admin)
    await house.delete("/v1/devices/4/callflow/busy", headers=admin)
    await house.put("/v1/devices/4/callflow/busy", json=flow, headers=admin)
    many, emptied, single = await demo.database.fetch("SELECT before, after FROM callflow_history ORDER BY id")
    assert (many["after"], emptied["before"]) == (single["after"], single["after"])


async def chosen(house: httpx.AsyncClient, headers: dict[str, str], where: dict[str, Any]) -> list[int]:
    sent = {"where": where, "set": {"busy": VOICEMAIL}, "dry_run": True}
    response = await house.post("/v1/bulk", json=sent, headers=headers)
    assert response.status_code == 200, response.text
    return [change["device"] for change in response.json()["changes"]]


async def test_devices_are_chosen_as_lists_choose_them(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    for where, query in (
        ({"owner": "user1"}, {"owner": "user1"}),
        ({"q": "SIP/"}, {"q": "SIP/"}),
        ({"q": "nothing has this"}, {"q": "nothing has this"}),
        ({"all": True}, {}),
    ):
        listed = (await house.get("/v1/devices", params=query, headers=admin)).json()["items"]
        assert await chosen(house, admin, where) == [device["id"] for device in listed]


@pytest.mark.parametrize("account", [20, 21, 10])
async def test_all_is_what_the_account_may_change(
    house: httpx.AsyncClient, make_token: MakeToken, account: int
) -> None:
    headers = {"Authorization": f"Bearer {await make_token(account)}"}
    listed = (await house.get("/v1/devices", headers=headers)).json()["items"]
    assert await chosen(house, headers, {"all": True}) == [device["id"] for device in listed]


async def test_what_may_not_be_seen_is_named_like_what_is_not_there_and_nothing_changes(
    house: httpx.AsyncClient, make_token: MakeToken, demo: OwnDemo
) -> None:
    headers = {"Authorization": f"Bearer {await make_token(20)}"}
    sent = {"where": {"devices": [4, 200, 5, 999]}, "set": {"busy": VOICEMAIL}}
    response = await house.post("/v1/bulk", json=sent, headers=headers)
    assert problem(response) == (422, "invalid")
    assert response.json()["errors"] == [
        {"field": "where.devices.1", "message": "there is no device 200"},
        {"field": "where.devices.3", "message": "there is no device 999"},
    ]
    response = await house.post("/v1/bulk", json=sent | {"where": {"owner": "user2"}}, headers=headers)
    assert response.json()["errors"] == [{"field": "where.owner", "message": "there is no account user2"}]
    assert await demo.database.fetchval("SELECT count(*) FROM callflow") == 0


async def test_an_accountant_and_a_token_that_reads_change_nothing(
    house: httpx.AsyncClient, make_token: MakeToken, demo: OwnDemo
) -> None:
    sent = {"where": {"all": True}, "set": {"busy": VOICEMAIL}}
    for token, expected in (
        (await make_token(12), (403, "not-allowed")),
        (await make_token(1, Scope.READ), (403, "scope-too-small")),
    ):
        headers = {"Authorization": f"Bearer {token}"}
        assert problem(await house.post("/v1/bulk", json=sent, headers=headers)) == expected
    assert await demo.database.fetchval("SELECT count(*) FROM callflow") == 0


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ({"where": {}, "set": {"busy": VOICEMAIL}}, ["where"]),
        ({"where": {"all": True, "q": "x"}, "set": {"busy": VOICEMAIL}}, ["where"]),
        ({"where": {"devices": []}, "set": {"busy": VOICEMAIL}}, ["where.devices"]),
        ({"where": {"all": False}, "set": {"busy": VOICEMAIL}}, ["where.all"]),
        ({"where": {"all": True}, "set": {}}, ["set"]),
        ({"where": {"all": True}, "set": {"sleeping": VOICEMAIL}}, ["set.sleeping"]),
        ({"where": {"everything": True}, "set": {"busy": {}}}, ["where.everything", "set.busy.otherwise"]),
        ({"where": {"all": True}, "set": {"busy": forward({"device": 999})}}, ["set.busy.otherwise.steps.0.to.device"]),
        ({"where": {"all": True}, "set": {"busy": forward({"number": "x"})}}, ["set.busy.otherwise.steps.0.to.number"]),
        (
            {
                "where": {"all": True},
                "set": {"busy": forward({"number": "1"}, {"kind": "custom", "text": "${x}"})},
            },
            ["set.busy.otherwise.steps.0.caller_id.text"],
        ),
        (
            {"where": {"devices": [5]}, "set": {"busy": forward({"number": "1"}, {"kind": "did", "did": 1})}},
            ["set.busy.otherwise.steps.0.caller_id.did"],
        ),
        (
            {"where": {"devices": [4, 5]}, "set": {"busy": forward({"number": "1"}, {"kind": "did", "did": 1})}},
            ["set.busy.otherwise"],
        ),
    ],
)
async def test_what_cannot_be_is_refused_by_its_field(
    house: httpx.AsyncClient, admin: dict[str, str], sent: dict[str, Any], fields: list[str]
) -> None:
    response = await house.post("/v1/bulk", json=sent, headers=admin)
    assert problem(response) == (422, "invalid")
    assert [error["field"] for error in response.json()["errors"]] == fields
    assert (await house.get("/v1/history", headers=admin)).json()["items"] == []


async def test_a_did_is_shown_by_the_one_device_that_has_it(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    flow = forward({"number": "1"}, {"kind": "did", "did": 1})
    response = await house.post("/v1/bulk", json={"where": {"devices": [4]}, "set": {"busy": flow}}, headers=admin)
    assert response.json()["changes"] == [{"device": 4, "state": "busy", "before": EMPTY, "after": flow}]


async def test_a_ring_through_any_chosen_device_is_refused_with_its_path(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    for state in ("busy", "before_call"):
        sent = {"where": {"all": True}, "set": {state: forward({"device": 5})}}
        itself = await house.post("/v1/bulk", json=sent, headers=admin)
        assert (problem(itself), itself.json()["path"]) == ((409, "loop"), [5])
    await house.put("/v1/devices/5/callflow/before_call", json=forward({"device": 100}), headers=admin)
    await house.put("/v1/devices/100/callflow/before_call", json=forward({"number": "37052000001"}), headers=admin)
    sent = {"where": {"devices": [2, 4]}, "set": {"before_call": forward({"device": 5})}}
    ring = await house.post("/v1/bulk", json=sent, headers=admin)
    assert (problem(ring), ring.json()["path"]) == ((409, "loop"), [4, 5, 100])
    assert await demo.database.fetchval("SELECT count(*) FROM callflow") == 2
    sent["set"] = {"busy": forward({"device": 5})}
    harmless = await house.post("/v1/bulk", json=sent, headers=admin)
    assert (harmless.json()["changed"], harmless.json()["warnings"]) == (
        2,
        ["The forward is part of a ring, device 4 to 5 to 100 to 4; a call that comes round is not forwarded again."],
    )


async def test_updates_that_come_meanwhile_are_neither_lost_nor_untold(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    await add_devices(demo, 3000)

    async def update(device: int) -> None:
        values = {"u": "admin", "device_id": str(device), "callflow_action": "forward", "state": "busy"}
        response = await house.post(UPDATE, data=signed(values | {"external_number": str(device)}))
        assert "successfully updated" in response.text

    async def update_many() -> None:
        for device in range(1001, 4000, 37):
            await update(device)
            await house.put(f"/v1/devices/{device}/callflow/failed", json=VOICEMAIL, headers=admin)

    async def bulk(flow: dict[str, Any]) -> dict[str, Any]:
        sent = {"where": {"q": "SIP/many"}, "set": {"busy": flow, "failed": flow}}
        response = await house.post("/v1/bulk", json=sent, headers=admin)
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def bulks() -> list[dict[str, Any]]:
        return [await bulk(forward({"number": f"+3706{number}"})) for number in range(8)]

    results, _ = await asyncio.gather(bulks(), update_many())
    told = await demo.database.fetchval("SELECT count(*) FROM callflow_history")
    assert told == sum(result["changed"] for result in results) + 2 * len(range(1001, 4000, 37))
    # Each state's entries, in their order, go on from one another and end with what is stored.
    broken = await demo.database.fetchval("""
        SELECT count(*) FROM (
            SELECT device_id, state, before, after, row_number() OVER latest AS place,
                lag(after) OVER earlier AS earlier FROM callflow_history
            WINDOW latest AS (PARTITION BY device_id, state ORDER BY id DESC),
                earlier AS (PARTITION BY device_id, state ORDER BY id)
        ) AS told JOIN callflow USING (device_id, state)
        WHERE before IS DISTINCT FROM earlier OR place = 1 AND after <> to_jsonb(callflow)""")
    assert broken == 0


async def test_one_bulk_change_is_at_work_at_a_time(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    sent = {"where": {"all": True}, "set": {"busy": VOICEMAIL}}
    async with demo.database.transaction():
        await demo.database.execute(f"SELECT pg_advisory_xact_lock({locks.BULK})")
        refused = await house.post("/v1/bulk", json=sent, headers=admin)
        assert (problem(refused), refused.headers["retry-after"]) == ((503, "unavailable"), "10")
        assert refused.json()["detail"] == "Another bulk change is at work."
    assert (await house.post("/v1/bulk", json=sent, headers=admin)).status_code == 200


async def test_the_feed_has_a_bulk_change_where_it_was_committed(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    await house.put("/v1/devices/4/callflow/failed", json=VOICEMAIL, headers=admin)
    await house.post("/v1/bulk", json={"where": {"devices": [4, 5]}, "set": {"busy": VOICEMAIL}}, headers=admin)
    await house.put("/v1/devices/4/callflow/failed", json=EMPTY, headers=admin)
    rows = await demo.database.fetch("SELECT device_id, state FROM callflow_history ORDER BY coalesce(turn, id), id")
    assert [tuple(row) for row in rows] == [(4, "failed"), (4, "busy"), (5, "busy"), (4, "failed")]


async def test_a_bulk_change_under_a_key_is_made_once(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    sent = {"where": {"devices": [4]}, "set": {"busy": VOICEMAIL}}
    headers = admin | {"Idempotency-Key": "one"}
    first = await house.post("/v1/bulk", json=sent, headers=headers)
    again = await house.post("/v1/bulk", json=sent, headers=headers)
    assert (first.status_code, first.json()["changed"]) == (200, 1)
    assert again.json() == first.json()
    assert len((await house.get("/v1/history", headers=admin)).json()["items"]) == 1


async def add_devices(demo: OwnDemo, count: int) -> None:
    await demo.database.execute(
        """INSERT INTO device (id, technology, name, owner_id, caller_number, caller_name, ring_seconds)
        SELECT 1000 + n, 'SIP', 'many' || n, 20, '', '', 30 FROM generate_series(1, $1::bigint) AS n""",
        count,
    )
