"""What was made to break the JSON API, or to get more of it than its account has."""

import asyncio
import base64
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from api_answers import MakeToken, problem
from callflow_service.domain.tokens import new_token
from mor_requests import StartService
from own_demo import OwnDemo

HUGE = 2**63
RESELLER = 10


def cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


async def bearer(make_token: MakeToken, account: int) -> dict[str, str]:
    return {"Authorization": f"Bearer {await make_token(account)}"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "devices/{}"),
        ("PATCH", "devices/{}"),
        ("DELETE", "dids/{}"),
        ("GET", "accounts/{}"),
        ("GET", "devices/{}/callflow"),
        ("GET", "devices/{}/callflow/history"),
        ("DELETE", "devices/{}/callflow/busy"),
        ("POST", "history/{}/undo"),
        ("DELETE", "tokens/{}"),
        ("GET", "dids?device={}"),
        ("GET", "history?account={}"),
        ("GET", "history?device={}"),
    ],
)
async def test_an_id_that_nothing_can_have_is_refused(
    house: httpx.AsyncClient, admin: dict[str, str], method: str, path: str
) -> None:
    for number in (HUGE, -1, "1" * 5000, "4.5"):
        response = await house.request(
            method, f"/v1/{path.format(number)}", headers=admin, json={} if method == "PATCH" else None
        )
        assert problem(response) == (422, "invalid")


@pytest.mark.parametrize(
    "query",
    [
        "devices?q=%00",
        "devices?owner=%00",
        "devices?technology=%00",
        "accounts?q=a%00b",
        "switches?q=%00",
        "switches/%00",
        "history?face=%00",
        "history?since=0001-01-01T00:00:00%2B14:00",
        "history?until=9999-12-31T23:59:59-14:00",
        "history?since=2026-11-26T12:00:00",
    ],
)
async def test_what_no_row_can_hold_is_refused(house: httpx.AsyncClient, admin: dict[str, str], query: str) -> None:
    assert problem(await house.get(f"/v1/{query}", headers=admin)) == (422, "invalid")


@pytest.mark.parametrize(
    "made", [str(HUGE), "-1", "true", "1.5", "null", "NaN", '"x"', "[" * 20_000, "9" * 5000, '"\\u0000"']
)
async def test_a_cursor_that_was_made_up_is_refused(house: httpx.AsyncClient, admin: dict[str, str], made: str) -> None:
    lists = ["devices", "tokens", "history", "devices/4/callflow/history"] + ["switches"] * (made != '"x"')
    for name in lists:
        response = await house.get(f"/v1/{name}?cursor={cursor(made)}", headers=admin)
        assert problem(response) == (400, "cursor-invalid")


@pytest.mark.parametrize(("q", "ids"), [("%25", []), ("_", []), ("%5C", []), ("1_0", []), ("back%20off", [5])])
async def test_signs_of_patterns_are_searched_as_they_are(
    house: httpx.AsyncClient, admin: dict[str, str], q: str, ids: list[int]
) -> None:
    page = (await house.get(f"/v1/devices?q={q}", headers=admin)).json()
    assert [item["id"] for item in page["items"]] == ids


BODIES = {
    "array": (b"[]", 422),
    "text": (b'"x"', 422),
    "null": (b"null", 422),
    "unknown name of a half character": (b'{"\\ud800": 1}', 422),
    "half character": (b'{"technology": "SIP", "name": "\\ud800", "owner": "user1"}', 422),
    "no character": (b'{"technology": "SIP", "name": "a\\u0000", "owner": "user1"}', 422),
    "owner of half a character": (b'{"technology": "SIP", "name": "1", "owner": "\\ud800"}', 422),
    "huge number": (b'{"id": ' + b"9" * 5000 + b"}", 400),
    "id out of range": (b'{"id": 9223372036854775808, "technology": "SIP", "name": "1", "owner": "user1"}', 422),
    "not a number": (b'{"technology": "SIP", "name": "1", "owner": "user1", "ring_seconds": NaN}', 422),
    "deep": (b"[" * 100_000, 400),
    "not UTF-8": (b'{"name": "\xff"}', 400),
}


@pytest.mark.parametrize("body", BODIES)
async def test_odd_json_is_refused(house: httpx.AsyncClient, admin: dict[str, str], body: str) -> None:
    content, status = BODIES[body]
    headers = {**admin, "content-type": "application/json"}
    assert problem(await house.post("/v1/devices", content=content, headers=headers))[0] == status


async def test_half_a_character_is_no_password(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    headers = {**admin, "content-type": "application/json"}
    for path, body in (
        ("accounts", b'{"username": "x", "role": "user", "owner": "admin", "password": "\\ud800"}'),
        ("switches", b'{"username": "x", "password": "\\ud800"}'),
    ):
        response = await house.post(f"/v1/{path}", content=body, headers=headers)
        assert response.json()["errors"] == [{"field": "password", "message": "must be 1 to 1024 characters"}]


async def test_a_flow_of_half_a_character_is_refused(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    headers = {**admin, "content-type": "application/json"}
    for body in (
        b'{"otherwise": {"action": "\\ud800"}}',
        b'{"otherwise": {"action": "forward", "steps": [{"to": {"number": "\\ud800"}}]}}',
        b'{"otherwise": {"action": "forward", "steps": [{"to": {"number": "1"}, "caller_id": {"kind": "\\ud800"}}]}}',
        b'{"otherwise": {"action": "forward", "steps": [{"to": {"device": 9223372036854775808}}]}}',
    ):
        response = await house.put("/v1/devices/4/callflow/busy", content=body, headers=headers)
        assert problem(response) == (422, "invalid")


async def test_without_the_database_the_api_says_when_to_come_back(start_service: StartService) -> None:
    service = await start_service(SecretStr("postgresql://postgres@127.0.0.1:1/callflow"))
    response = await service.get("/v1/devices", headers={"Authorization": f"Bearer {new_token()}"})
    assert (problem(response), response.headers["retry-after"]) == ((503, "unavailable"), "2")


@pytest.mark.parametrize("end", ["pg_terminate_backend", "pg_cancel_backend"])
@pytest.mark.parametrize("table", ["device", "callflow"])
async def test_a_statement_that_the_database_ends_is_no_defect(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo, table: str, end: str
) -> None:
    url, empty = "/v1/devices/4/callflow/busy", {"otherwise": {"action": "empty"}}
    await house.put(url, json=empty, headers=admin)
    column = "id" if table == "device" else "device_id"
    async with demo.database.transaction():
        await demo.database.fetch(f"SELECT FROM {table} WHERE {column} = 4 FOR UPDATE")
        waiting = asyncio.create_task(house.put(url, json=empty, headers=admin))
        ended = 0
        while not ended:
            ended = await demo.database.fetchval(
                f"SELECT count({end}(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"  # noqa: S608 - ours
                " AND datname = current_database()"
            )
            await asyncio.sleep(0.02)
        assert problem(await waiting) == (503, "unavailable")
    assert (await house.put(url, json=empty, headers=admin)).status_code == 200


async def test_a_use_that_is_not_seen_is_not_listed(
    house: httpx.AsyncClient, admin: dict[str, str], make_token: MakeToken
) -> None:
    step = {"to": {"device": 201}}
    flow = {"otherwise": {"action": "forward", "steps": [step]}}
    assert (await house.put("/v1/devices/4/callflow/busy", json=flow, headers=admin)).status_code == 200
    for headers, uses in (
        (await bearer(make_token, RESELLER), []),
        (admin, [{"kind": "callflow", "id": 4, "state": "busy"}]),
    ):
        response = await house.delete("/v1/devices/201", headers=headers)
        assert (problem(response), response.json()["used_by"]) == ((409, "in-use"), uses)


async def test_calls_of_the_api_are_counted_by_their_names(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await house.get("/v1/devices", headers=admin)
    assert 'call="api.list_devices"' in (await house.get("/metrics")).text


async def test_a_token_s_name_is_a_line(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    for body in ({"name": "a\0"}, {"account": "a\0"}, {"name": ""}, {"expires_in_days": 0}):
        assert problem(await house.post("/v1/tokens", json=body, headers=admin)) == (422, "invalid")


async def test_a_compressed_body_is_not_read(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    headers = {**admin, "content-encoding": "gzip"}
    response = await house.post("/v1/devices", json={}, headers=headers)
    assert problem(response) == (415, "media-type")
    assert response.headers["accept-encoding"] == "identity"


async def test_a_method_that_an_address_does_not_take_is_told_with_those_it_takes(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    for path, allowed in (("devices", "GET, POST"), ("devices/4", "DELETE, GET, PATCH")):
        response = await house.put(f"/v1/{path}", headers=admin)
        assert (problem(response), response.headers["allow"]) == ((405, "method-not-allowed"), allowed)
    assert problem(await house.get("/v1/devices/", headers=admin)) == (404, "not-found")
    assert problem(await house.get("/v1", headers=admin)) == (404, "not-found")


async def test_the_largest_id_does_not_end_the_free_ones(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    body: dict[str, Any] = {"technology": "SIP", "name": "900", "owner": "user1"}
    largest = await house.post("/v1/devices", json=body | {"id": HUGE - 1}, headers=admin)
    assert largest.status_code == 201
    following = await house.post("/v1/devices", json=body | {"name": "901"}, headers=admin)
    assert (following.status_code, following.json()["id"]) == (201, 421)


async def test_the_id_of_a_deleted_device_does_not_come_back_with_its_history(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    body = {"technology": "SIP", "name": "900", "owner": "user1"}
    first = (await house.post("/v1/devices", json=body, headers=admin)).json()
    assert (await house.delete(f"/v1/devices/{first['id']}", headers=admin)).status_code == 204
    second = (await house.post("/v1/devices", json=body, headers=admin)).json()
    assert second["id"] == first["id"] + 1


REACHING = {
    "an admin": ("POST", "accounts", {"username": "x", "role": "admin"}),
    "a reseller": ("POST", "accounts", {"username": "x", "role": "reseller", "owner": "admin"}),
    "a user of another's": ("POST", "accounts", {"username": "x", "role": "user", "owner": "admin"}),
    "an id": ("POST", "accounts", {"id": 5, "username": "x", "role": "user", "owner": "reseller"}),
    "a laxer signature": ("PATCH", "accounts/21", {"hash_policy": "compat"}),
    "no signature": ("PATCH", "accounts/21", {"hash_policy": "off", "password": "p"}),
    "a role": ("PATCH", "accounts/21", {"role": "reseller"}),
    "another owner": ("PATCH", "accounts/21", {"owner": "admin"}),
    "its own switch": ("PATCH", "accounts/10", {"api_enabled": True}),
    "a device of another's": ("POST", "devices", {"technology": "SIP", "name": "x", "owner": "user1"}),
    "a device's id": ("POST", "devices", {"id": 5000, "technology": "SIP", "name": "x", "owner": "user2"}),
    "another's device name": ("POST", "devices", {"technology": "FAX", "name": "3001", "owner": "user2"}),
    "another's device name by a change": ("PATCH", "devices/200", {"name": "3001"}),
    "a device for another": ("PATCH", "devices/200", {"owner": "user1"}),
    "another's device": ("PATCH", "devices/4", {"owner": "user2"}),
    "a number": ("POST", "dids", {"number": "112", "device": 200}),
    "another number": ("PATCH", "dids/4", {"number": "112"}),
    "a number for another": ("PATCH", "dids/4", {"device": 4}),
    "a free number": ("PATCH", "dids/3", {"device": 200}),
    "a number freed": ("PATCH", "dids/4", {"device": None}),
    "another's number": ("DELETE", "dids/1", None),
    "a switch": ("POST", "switches", {"username": "x", "password": "p"}),
    "another's switch": ("DELETE", "switches/switch", None),
}


@pytest.mark.parametrize("reaching", REACHING)
async def test_a_reseller_gets_no_further_than_its_own(
    house: httpx.AsyncClient, make_token: MakeToken, demo: OwnDemo, reaching: str
) -> None:
    method, path, body = REACHING[reaching]
    headers = await bearer(make_token, RESELLER)
    response = await house.request(method, f"/v1/{path}", json=body, headers=headers)
    assert response.status_code in {403, 404, 409, 422}, response.text
    assert await demo.database.fetchval("SELECT count(*) FROM callflow_history") == 0


async def test_a_reseller_manages_what_is_its_own(house: httpx.AsyncClient, make_token: MakeToken) -> None:
    headers = await bearer(make_token, RESELLER)
    user = {"username": "new", "role": "user", "owner": "reseller", "hash_policy": "strict"}
    assert (await house.post("/v1/accounts", json=user, headers=headers)).status_code == 201
    device = {"technology": "SIP", "name": "900", "owner": "new"}
    added = await house.post("/v1/devices", json=device, headers=headers)
    assert (added.status_code, added.json()["owner"]) == (201, "new")
    moved = await house.patch("/v1/dids/4", json={"device": added.json()["id"]}, headers=headers)
    assert (moved.status_code, moved.json()["device"]) == (200, added.json()["id"])


async def test_a_fax_device_that_is_a_target_stays_one(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    fax = {"otherwise": {"action": "fax_detect", "to": {"device": 2}}}
    assert (await house.put("/v1/devices/4/callflow/before_call", json=fax, headers=admin)).status_code == 200
    response = await house.patch("/v1/devices/2", json={"technology": "SIP"}, headers=admin)
    assert problem(response) == (409, "in-use")
    assert response.json()["used_by"] == [{"kind": "callflow", "id": 4, "state": "before_call"}]


async def test_a_did_that_a_flow_shows_stays_where_it_is(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    step = {"to": {"number": "1"}, "caller_id": {"kind": "did", "did": 1}}
    shown = {"otherwise": {"action": "forward", "steps": [step]}}
    assert (await house.put("/v1/devices/4/callflow/busy", json=shown, headers=admin)).status_code == 200
    for device in (5, None):
        response = await house.patch("/v1/dids/1", json={"device": device}, headers=admin)
        assert problem(response) == (409, "in-use")
        assert response.json()["used_by"] == [{"kind": "callflow", "id": 4, "state": "busy"}]


async def test_an_owner_of_accounts_keeps_its_role(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    response = await house.patch("/v1/accounts/10", json={"role": "user"}, headers=admin)
    assert problem(response) == (409, "in-use")
    assert response.json()["used_by"] == [{"kind": "account", "id": 21}]


async def test_a_policy_without_signatures_needs_a_password(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    for path, body in (("accounts/20", {"hash_policy": "off"}), ("accounts/14", {"password": None})):
        response = await house.patch(f"/v1/{path}", json=body, headers=admin)
        assert response.json()["errors"] == [
            {"field": "hash_policy", "message": "an account without a password cannot be set to off"}
        ]


async def test_null_empties_what_may_be_empty_and_nothing_else(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    for path, name in (
        ("devices/4", "technology"),
        ("devices/4", "owner"),
        ("devices/4", "id"),
        ("accounts/20", "username"),
        ("accounts/20", "owner"),
        ("accounts/20", "role"),
        ("dids/1", "number"),
        ("switches/switch", "password"),
    ):
        response = await house.patch(f"/v1/{path}", json={name: None}, headers=admin)
        assert problem(response) == (422, "invalid")
        assert [error["field"] for error in response.json()["errors"]] == [name]
    assert (await house.patch("/v1/dids/1", json={"device": None}, headers=admin)).json()["device"] is None


async def test_a_merge_patch_goes_into_objects(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    url = "/v1/switches/switch"
    first = {"dial": {"SIP": "PJSIP/{name}", "FAX": "x"}, "trunk": {"from_host": "h.example", "headers": []}}
    assert (await house.patch(url, json=first, headers=admin)).status_code == 200
    second = {"dial": {"FAX": None}, "trunk": {"from_host": None, "identity": "forwarder"}}
    patched = (await house.patch(url, json=second, headers=admin)).json()
    assert patched["dial"] == {"SIP": "PJSIP/{name}"}
    assert patched["trunk"] == {"from_host": None, "identity": "forwarder", "headers": []}


async def test_a_blank_in_a_username_stands_in_its_address(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await house.post("/v1/switches", json={"username": "a b", "password": "p"}, headers=admin)
    assert made.headers["location"] == "/v1/switches/a%20b"
    assert (await house.get(made.headers["location"], headers=admin)).json()["username"] == "a b"


async def test_a_change_of_an_account_is_not_undone(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await house.patch("/v1/accounts/20", json={"name": "X"}, headers=admin)
    (entry,) = (await house.get("/v1/history", headers=admin)).json()["items"]
    assert problem(await house.post(f"/v1/history/{entry['id']}/undo", headers=admin)) == (422, "invalid")


async def test_too_many_wrong_tokens_are_told_when_to_come_back(start_service: StartService, demo: OwnDemo) -> None:
    service = await start_service(demo.url, guess_limit="3/minute", address_guess_limit="3/minute")
    for _ in range(4):
        response = await service.get("/v1/devices", headers={"Authorization": "Bearer cf_wrong"})
    assert problem(response) == (429, "too-many-guesses")
    assert int(response.headers["retry-after"]) >= 1


async def test_a_version_must_be_named_where_the_setting_says_so(
    start_service: StartService, demo: OwnDemo, admin: dict[str, str]
) -> None:
    service = await start_service(demo.url, require_if_match=True, database_timeout_ms=20_000)
    for method, path, body in (
        ("PATCH", "devices/4", {"caller_name": "A"}),
        ("DELETE", "devices/100", None),
        ("PUT", "devices/4/callflow/busy", {"otherwise": {"action": "voicemail"}}),
        ("PUT", "devices/4/callflow", {"states": {}}),
        ("DELETE", "devices/4/callflow/busy", None),
    ):
        response = await service.request(method, f"/v1/{path}", json=body, headers=admin)
        assert problem(response) == (428, "precondition-needed")
    assert (await service.get("/v1/history", headers=admin)).json()["items"] == []


@pytest.mark.parametrize(
    "body",
    [
        '{"scope": "read", "scope": "write"}',
        '{"name": "a", "name": "a"}',
        '{"name": {"a": 1, "a": 2}}',
        '[{"a": 1, "\\u0061": 2}]',
    ],
)
async def test_a_name_that_stands_twice_in_an_object_is_refused(
    house: httpx.AsyncClient, admin: dict[str, str], body: str
) -> None:
    headers = {**admin, "Content-Type": "application/json"}
    response = await house.post("/v1/tokens", content=body, headers=headers)
    assert problem(response) == (400, "unreadable")
    assert response.json()["detail"].endswith("stands twice in one object.")


async def test_a_defect_of_ours_is_told_with_the_request_s_id(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    await demo.database.execute("ALTER TABLE did RENAME TO gone")
    try:
        response = await house.get("/v1/dids", headers=admin)
    finally:
        await demo.database.execute("ALTER TABLE gone RENAME TO did")
    assert problem(response) == (500, "internal")
