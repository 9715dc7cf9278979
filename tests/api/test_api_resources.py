"""Accounts, devices, DIDs and switch users: listed, searched, added, changed and deleted under everybody's rights."""

import asyncio
from typing import Any

import httpx
import pytest

from api_answers import MakeToken, problem
from mor_requests import UPDATE, signed
from own_demo import OwnDemo

FRONT_DESK = {
    "id": 4,
    "technology": "IAX2",
    "name": "1002",
    "label": "IAX2/1002",
    "owner": "user1",
    "caller_number": "37060001002",
    "caller_name": "Front desk",
    "ring_seconds": 60,
    "dids": ["37052000001"],
}
RESELLER = 10


def untagged(shown: dict[str, Any]) -> dict[str, Any]:
    assert shown["etag"]
    return {name: value for name, value in shown.items() if name != "etag"}


async def test_a_device_is_shown_whole_with_its_tag(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    response = await house.get("/v1/devices/4", headers=admin)
    assert response.status_code == 200
    assert untagged(response.json()) == FRONT_DESK
    tag = response.headers["etag"]
    assert tag == f'"{response.json()["etag"]}"'
    assert (await house.get("/v1/devices/4", headers={**admin, "If-None-Match": tag})).status_code == 304


async def test_every_kind_of_resource_is_shown(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    assert untagged((await house.get("/v1/accounts/20", headers=admin)).json()) == {
        "id": 20,
        "username": "user1",
        "name": "Test User #1",
        "role": "user",
        "owner": "admin",
        "hash_policy": None,
        "pbx_addon": False,
        "api_enabled": True,
        "blocked": False,
        "allowed_addresses": None,
        "time_zone": None,
        "country": None,
        "number_pattern": None,
        "targets": None,
        "has_api_key": False,
        "has_password": False,
    }
    assert untagged((await house.get("/v1/dids/1", headers=admin)).json()) == {
        "id": 1,
        "number": "37052000001",
        "device": 4,
    }
    assert untagged((await house.get("/v1/switches/switch", headers=admin)).json()) == {
        "id": "switch",
        "username": "switch",
        "domain": "127.0.0.1",
        "trust_headers": True,
        "dial": {},
        "rejected": "busy",
        "redirected": "failed",
        "early_media": False,
        "trunk": None,
    }


async def test_pages_lead_through_the_whole_list(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    found: list[int] = []
    following: str | None = "/v1/devices?limit=3"
    while following:
        response = await house.get(following, headers=admin)
        page = response.json()
        found += [item["id"] for item in page["items"]]
        following = page["next"]
        assert response.headers.get("link") == (f'<{following}>; rel="next"' if following else None)
    assert found == [2, 4, 5, 100, 200, 201, 300, 400, 410, 420]
    backwards = (await house.get("/v1/devices?sort=-id&limit=2", headers=admin)).json()
    assert [item["id"] for item in backwards["items"]] == [420, 410]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("devices?q=101", [5, 100, 410]),
        ("devices?q=front DESK", [4]),
        ("devices?q=sip/2", [200]),
        ("devices?q=%25", []),
        ("devices?owner=user2", [200, 201]),
        ("devices?technology=fax", [2, 201]),
        ("devices?owner=user1&technology=SIP", [100]),
        ("dids?device=4", [1]),
        ("dids?q=0003", [3]),
        ("accounts?role=user", [20, 21, 22, 23]),
        ("accounts?owner=reseller", [21]),
        ("accounts?q=good", [10]),
        ("devices?forwarding=true", []),
    ],
)
async def test_lists_are_narrowed(house: httpx.AsyncClient, admin: dict[str, str], query: str, ids: list[int]) -> None:
    page = (await house.get(f"/v1/{query}", headers=admin)).json()
    assert [item["id"] for item in page["items"]] == ids


@pytest.mark.parametrize("account", [1, RESELLER])
async def test_what_is_rare_is_found_however_far_away(
    house: httpx.AsyncClient, make_token: MakeToken, demo: OwnDemo, account: int
) -> None:
    await demo.database.execute(
        """INSERT INTO device (id, technology, name, owner_id, caller_number, caller_name, ring_seconds)
        SELECT 10000 + n, CASE n WHEN 4500 THEN 'H323' ELSE 'SIP' END, 'row' || n, 21, '',
            CASE n WHEN 4000 THEN 'Приёмная' ELSE '' END, 30
        FROM generate_series(1, 5000) AS n"""
    )
    header = {"Authorization": f"Bearer {await make_token(account)}"}

    async def ids(query: str) -> list[int]:
        page = (await house.get(f"/v1/devices?{query}", headers=header)).json()
        assert page["next"] is None or len(page["items"]) == 2
        return [item["id"] for item in page["items"]]

    assert await ids("q=приём") == await ids("q=приём&sort=-id") == [14000]
    assert await ids("technology=H323") == await ids("technology=H323&sort=-id") == [14500]
    assert await ids("q=row4000&owner=user2") == [14000]
    assert await ids("q=row4000&technology=H323") == []
    assert await ids("q=row499&limit=2") == [10499, 14990]
    assert await ids("q=row499&limit=2&sort=-id") == [14999, 14998]


@pytest.mark.parametrize(
    ("query", "slug"),
    [("limit=0", "invalid"), ("limit=1001", "invalid"), ("nothing=1", "invalid"), ("cursor=x", "cursor-invalid")],
)
async def test_a_wrong_list_is_refused(house: httpx.AsyncClient, admin: dict[str, str], query: str, slug: str) -> None:
    response = await house.get(f"/v1/devices?{query}", headers=admin)
    assert problem(response) == (422 if slug == "invalid" else 400, slug)


SEEN = {
    1: ([2, 4, 5, 100, 200, 201, 300, 400, 410, 420], 11, [1, 2, 3, 4]),
    10: ([200, 201], 2, [4]),
    12: ([2, 4, 5, 100], 3, [1, 2]),
    20: ([2, 4, 5, 100], 1, [1, 2]),
}


@pytest.mark.parametrize("account", SEEN)
async def test_each_role_sees_what_is_its_own_and_below(
    house: httpx.AsyncClient, make_token: MakeToken, account: int
) -> None:
    headers = {"Authorization": f"Bearer {await make_token(account)}"}
    devices, accounts, dids = SEEN[account]
    assert [each["id"] for each in (await house.get("/v1/devices", headers=headers)).json()["items"]] == devices
    assert len((await house.get("/v1/accounts", headers=headers)).json()["items"]) == accounts
    assert [each["id"] for each in (await house.get("/v1/dids", headers=headers)).json()["items"]] == dids
    for device in SEEN[1][0]:
        response = await house.get(f"/v1/devices/{device}", headers=headers)
        assert response.status_code == (200 if device in devices else 404)
    if account != 1:
        assert problem(await house.get("/v1/switches", headers=headers)) == (403, "not-allowed")
        assert problem(await house.get("/v1/switches/switch", headers=headers)) == (404, "not-found")


@pytest.mark.parametrize("account", [12, 20])
async def test_who_only_reads_changes_nothing(house: httpx.AsyncClient, make_token: MakeToken, account: int) -> None:
    headers = {"Authorization": f"Bearer {await make_token(account)}"}
    for method, path in (("PATCH", "/v1/devices/4"), ("DELETE", "/v1/devices/4"), ("PATCH", "/v1/accounts/20")):
        response = await house.request(method, path, json={} if method == "PATCH" else None, headers=headers)
        assert problem(response) == (403, "not-allowed")
    response = await house.post("/v1/dids", json={"number": "5", "device": 4}, headers=headers)
    assert problem(response) == (403, "not-allowed")


async def test_a_device_is_added_changed_and_deleted_and_leaves_history(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    body = {"technology": "sip", "name": "900", "owner": "user1"}
    added = await house.post("/v1/devices", json=body, headers=admin)
    assert added.status_code == 201
    assert added.headers["location"] == "/v1/devices/421"
    assert (added.json()["label"], added.json()["ring_seconds"]) == ("SIP/900", 60)
    changed = await house.patch(
        "/v1/devices/421",
        content=b'{"caller_name": "Shop", "ring_seconds": 20}',
        headers={**admin, "content-type": "application/merge-patch+json"},
    )
    assert (changed.status_code, changed.json()["caller_name"], changed.json()["ring_seconds"]) == (200, "Shop", 20)
    emptied = await house.patch("/v1/devices/421", json={"caller_name": None}, headers=admin)
    assert emptied.json()["caller_name"] == ""
    assert (await house.delete("/v1/devices/421", headers=admin)).status_code == 204
    assert problem(await house.get("/v1/devices/421", headers=admin)) == (404, "not-found")
    rows = await demo.database.fetch(
        "SELECT face, account_id, before ->> 'caller_name' AS before, after ->> 'caller_name' AS after"
        " FROM callflow_history WHERE kind = 'device' AND resource = '421' ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [
        ("json", 1, None, ""),
        ("json", 1, "", "Shop"),
        ("json", 1, "Shop", ""),
        ("json", 1, "", None),
    ]


async def test_no_secret_is_shown_or_remembered(house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo) -> None:
    body = {"username": "new", "role": "user", "owner": "admin", "password": "s3cret-pass", "api_key": "s3cret-key"}
    added = await house.post("/v1/accounts", json=body, headers=admin)
    assert (added.status_code, added.json()["has_api_key"], added.json()["has_password"]) == (201, True, True)
    kept = await house.patch(f"/v1/accounts/{added.json()['id']}", json={"name": "New"}, headers=admin)
    assert (kept.json()["has_api_key"], kept.json()["has_password"]) == (True, True)
    emptied = await house.patch(f"/v1/accounts/{added.json()['id']}", json={"api_key": None}, headers=admin)
    assert (emptied.json()["has_api_key"], emptied.json()["has_password"]) == (False, True)
    switch = {"username": "pbx", "password": "s3cret-switch-pass", "trunk": {"identity": "forwarder"}}
    assert (await house.post("/v1/switches", json=switch, headers=admin)).status_code == 201
    patched = await house.patch("/v1/switches/pbx", json={"domain": "h.example"}, headers=admin)
    assert patched.status_code == 200
    history = await demo.database.fetchval("SELECT string_agg(before::text || after::text, '') FROM callflow_history")
    for text in (added.text, kept.text, patched.text, history or ""):
        assert "s3cret" not in text
        assert "hash" not in text.replace("hash_policy", "")


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("devices", {"technology": "SIP", "name": "1"}, ["owner"]),
        ("devices", {"technology": "SIP", "name": "1", "owner": "nobody"}, ["owner"]),
        (
            "devices",
            {"technology": "5", "name": " ", "owner": "user1", "ring_seconds": 0, "x": 1},
            ["technology", "name", "ring_seconds", "x"],
        ),
        ("devices", {"id": 4, "technology": "SIP", "name": "1", "owner": "user1"}, None),
        ("dids", {"number": "+37052000001"}, None),
        ("dids", {"number": "12", "device": 999}, ["device"]),
        ("accounts", {"username": "user1", "role": "user", "owner": "admin"}, None),
        ("accounts", {"username": "x", "role": "user", "owner": "user1"}, ["owner"]),
    ],
)
async def test_a_wrong_resource_is_refused_with_all_that_is_wrong(
    house: httpx.AsyncClient,
    admin: dict[str, str],
    path: str,
    body: dict[str, Any],
    fields: list[str] | None,
) -> None:
    response = await house.post(f"/v1/{path}", json=body, headers=admin)
    assert problem(response) == ((422, "invalid") if fields else (409, "already-exists"))
    if fields:
        assert sorted(error["field"] for error in response.json()["errors"]) == sorted(fields)


async def test_what_is_used_is_not_deleted(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    response = await house.delete("/v1/devices/4", headers=admin)
    assert problem(response) == (409, "in-use")
    assert response.json()["used_by"] == [{"kind": "did", "id": 1}]
    response = await house.delete("/v1/accounts/20", headers=admin)
    assert {"kind": "device", "id": 4} in response.json()["used_by"]


async def test_a_change_of_what_was_changed_meanwhile_is_refused(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    seen = await house.get("/v1/devices/4", headers=admin)
    first = await house.patch(
        "/v1/devices/4", json={"caller_name": "A"}, headers={**admin, "If-Match": seen.headers["etag"]}
    )
    assert first.status_code == 200
    second = await house.patch(
        "/v1/devices/4", json={"caller_name": "B"}, headers={**admin, "If-Match": seen.headers["etag"]}
    )
    assert problem(second) == (412, "changed-meanwhile")
    assert second.json()["current"] == first.json()


async def test_what_cannot_be_read_is_told(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    headers = {**admin, "content-type": "application/json"}
    assert problem(await house.post("/v1/devices", content=b"{", headers=headers)) == (400, "unreadable")
    response = await house.post("/v1/devices", content=b"a=1", headers={**admin, "content-type": "text/plain"})
    assert problem(response) == (415, "media-type")
    response = await house.post("/v1/devices", content=b" " * (1024 * 1024 + 1), headers=headers)
    assert problem(response) == (413, "too-large")
    response = await house.get("/v1/nothing", headers=admin)
    assert (response.status_code, response.json()["type"]) == (404, "/problems/not-found")
    response = await house.put("/v1/devices", headers=admin)
    assert (response.status_code, response.json()["type"]) == (405, "/problems/method-not-allowed")
    page = await house.get("/problems/in-use")
    assert (page.status_code, "Something still uses it" in page.text) == (200, True)


async def test_a_new_api_key_is_shown_once_and_signs(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    made = await house.post("/v1/accounts/21/api_key", headers=admin)
    assert (made.status_code, list(made.json()), made.headers["cache-control"]) == (201, ["api_key"], "no-store")
    values = {"u": "user2", "device_id": "200", "callflow_action": "empty", "state": "busy"}
    page = await house.post(UPDATE, data=signed(values, made.json()["api_key"]))
    assert "successfully updated" in page.text
    assert (await house.get("/v1/accounts/21", headers=admin)).json()["has_api_key"]
    history = await demo.database.fetchval("SELECT after FROM callflow_history WHERE kind = 'account'")
    assert made.json()["api_key"] not in history
    assert '"api_key_changed": true' in history


@pytest.mark.parametrize(
    ("caller", "account", "answer"),
    [
        (10, 21, (201, "")),
        (10, 10, (403, "not-allowed")),
        (10, 20, (404, "not-found")),
        (20, 20, (403, "not-allowed")),
        (12, 20, (403, "not-allowed")),
    ],
)
async def test_a_new_api_key_is_made_by_those_above_an_account_alone(
    house: httpx.AsyncClient, make_token: MakeToken, caller: int, account: int, answer: tuple[int, str]
) -> None:
    headers = {"Authorization": f"Bearer {await make_token(caller)}"}
    response = await house.post(f"/v1/accounts/{account}/api_key", headers=headers)
    assert (response.status_code, "") == answer if answer[0] == 201 else problem(response) == answer


@pytest.mark.parametrize("change", [{"blocked": True}, {"role": "user", "owner": "second"}])
async def test_an_admin_does_not_lock_itself_out(
    house: httpx.AsyncClient, admin: dict[str, str], change: dict[str, Any], demo: OwnDemo
) -> None:
    second = {"username": "second", "role": "admin"}
    added = (await house.post("/v1/accounts", json=second, headers=admin)).json()
    refused = await house.patch("/v1/accounts/1", json=change, headers=admin)
    assert problem(refused) == (422, "invalid")
    assert refused.json()["errors"] == [
        {"field": next(iter(change)), "message": "an admin cannot do this to its own account; another admin can"}
    ]
    deleted = await house.delete("/v1/accounts/1", headers=admin)
    assert problem(deleted) == (409, "in-use")
    assert deleted.json()["used_by"] == [{"kind": "account", "id": 1}]
    # Where it is the last one, another admin's token can be at work still.
    await demo.database.execute("UPDATE account SET blocked = true WHERE id = $1", added["id"])
    await demo.database.execute("UPDATE account SET owner_id = $1 WHERE owner_id = 1", added["id"])
    assert problem(await house.delete("/v1/accounts/1", headers=admin)) == (409, "in-use")


async def test_two_admins_that_delete_each_other_leave_one(
    house: httpx.AsyncClient, admin: dict[str, str], make_token: MakeToken, demo: OwnDemo
) -> None:
    await demo.database.execute("""INSERT INTO account (id, username, name, role, pbx_addon, api_enabled, blocked)
        VALUES (2, 'second', 'Second', 'admin', false, true, false),
            (3, 'third', 'Third', 'admin', false, true, true)""")
    second = {"Authorization": f"Bearer {await make_token(2)}"}
    await demo.database.execute("UPDATE account SET owner_id = 3 WHERE owner_id = 1")
    answers = await asyncio.gather(
        house.delete("/v1/accounts/2", headers=admin), house.delete("/v1/accounts/1", headers=second)
    )
    assert min(answer.status_code for answer in answers) == 204
    left = await demo.database.fetchval("SELECT count(*) FROM account WHERE role = 'admin' AND NOT blocked")
    assert left == 1
