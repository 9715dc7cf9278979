"""Schedules and caller lists: who may see, use and change them, and when a schedule changes."""

from typing import Any

import httpx
import pytest

from api_answers import MakeToken, problem
from own_demo import OwnDemo

WEEKLY = [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "17:00"}]
OFFICE = {
    "name": "Office",
    "owner": "user1",
    "time_zone": "Europe/Vilnius",
    "weekly": WEEKLY,
    "holidays": {"country": "LT", "region": None, "open": False},
    "exceptions": [
        {"from": "2026-12-24", "to": "2026-12-26", "open": False, "hours": [{"from": "10:00", "to": "14:00"}]}
    ],
}
FAMILY = {"name": "Family", "owner": "user1", "entries": ["+37061234567", "+3706*", "anonymous"]}
ADDED = {"schedules": OFFICE, "caller_lists": FAMILY}
BOTH = pytest.mark.parametrize("name", ["schedules", "caller_lists"])


async def added(house: httpx.AsyncClient, headers: dict[str, str], name: str, **changes: Any) -> dict[str, Any]:
    response = await house.post(f"/v1/{name}", headers=headers, json=ADDED[name] | changes)
    assert response.status_code == 201, response.text
    assert response.headers["location"] == f"/v1/{name}/{response.json()['id']}"
    shown: dict[str, Any] = response.json()
    return shown


def without(shown: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {name: value for name, value in shown.items() if name not in {"etag", *fields}}


async def headers_of(make_token: MakeToken, account: int) -> dict[str, str]:
    return {"Authorization": f"Bearer {await make_token(account)}"}


async def test_a_schedule_is_added_shown_listed_changed_and_deleted(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    shown = await added(house, admin, "schedules")
    assert isinstance(shown["open_now"], bool)
    assert without(shown, "open_now") == {"id": 1, **OFFICE}
    assert (await house.get("/v1/schedules/1", headers=admin)).json() == shown
    assert (await house.get("/v1/schedules", headers=admin)).json() == {"items": [shown], "next": None}
    patch = {"time_zone": None, "holidays": {"open": True}, "exceptions": []}
    response = await house.patch("/v1/schedules/1", headers={**admin, "If-Match": f'"{shown["etag"]}"'}, json=patch)
    assert response.status_code == 200, response.text
    holidays = {"country": "LT", "region": None, "open": True}
    changed = {"id": 1, **OFFICE, "time_zone": None, "holidays": holidays, "exceptions": []}
    assert without(response.json(), "open_now") == changed
    response = await house.patch("/v1/schedules/1", headers={**admin, "If-Match": f'"{shown["etag"]}"'}, json=patch)
    assert problem(response) == (412, "changed-meanwhile")
    assert (await house.delete("/v1/schedules/1", headers=admin)).status_code == 204
    assert problem(await house.get("/v1/schedules/1", headers=admin)) == (404, "not-found")


async def test_a_caller_list_is_added_shown_listed_changed_and_deleted(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    shown = await added(house, admin, "caller_lists")
    assert without(shown) == {"id": 1, **FAMILY}
    entries = "SELECT array_agg(entry ORDER BY entry) FROM caller_list_entry WHERE list_id = 1"
    assert await demo.database.fetchval(entries) == ["3706*", "37061234567", "anonymous"]
    assert (await house.get("/v1/caller_lists?q=fam", headers=admin)).json() == {"items": [shown], "next": None}
    assert (await house.get("/v1/caller_lists?q=foe", headers=admin)).json() == {"items": [], "next": None}
    patch = {"entries": ["+370 (612) 34-567", "37061234567", "+371*"]}
    response = await house.patch("/v1/caller_lists/1", headers=admin, json=patch)
    assert without(response.json()) == {"id": 1, **FAMILY, "entries": ["37061234567", "+371*"]}
    assert await demo.database.fetchval(entries) == ["37061234567", "371*"]
    assert (await house.delete("/v1/caller_lists/1", headers=admin)).status_code == 204
    assert await demo.database.fetchval(entries) is None


@BOTH
@pytest.mark.parametrize(
    ("account", "owner", "sees", "may_change"),
    [
        (1, "user2", True, True),
        (10, "reseller", True, True),
        (10, "user2", True, True),
        (10, "admin", True, False),
        (10, "user1", False, False),
        (21, "user2", True, True),
        (21, "reseller", True, False),
        (21, "admin", True, False),
        (21, "user1", False, False),
        (20, "reseller", False, False),
        (12, "user1", True, False),
        (12, "admin", True, False),
        (12, "user2", False, False),
    ],
)
async def test_it_is_its_owner_s_and_those_below_may_use_it(  # noqa: PLR0917 - a table
    house: httpx.AsyncClient,
    admin: dict[str, str],
    make_token: MakeToken,
    name: str,
    account: int,
    owner: str,
    sees: bool,  # noqa: FBT001 - a parameter of the table
    may_change: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    await added(house, admin, name, owner=owner)
    headers = await headers_of(make_token, account)
    assert ((await house.get(f"/v1/{name}/1", headers=headers)).status_code == 200) is sees
    assert [item["id"] for item in (await house.get(f"/v1/{name}", headers=headers)).json()["items"]] == [1] * sees
    answer = (200, "") if may_change else (403, "not-allowed") if sees else (404, "not-found")
    response = await house.patch(f"/v1/{name}/1", headers=headers, json={"name": "Other"})
    assert (response.status_code, "") == answer if may_change else problem(response) == answer
    response = await house.delete(f"/v1/{name}/1", headers=headers)
    assert response.status_code == 204 if may_change else problem(response) == answer


@BOTH
@pytest.mark.parametrize(
    ("account", "owner", "status"),
    [
        (20, "user1", 201),
        (20, "admin", 422),
        (21, "reseller", 422),
        (10, "user2", 201),
        (10, "reseller", 201),
        (10, "user1", 422),
        (12, "user1", 403),
        (1, "user2", 201),
        (1, "nobody", 422),
    ],
)
async def test_it_is_added_for_oneself_and_those_below(  # noqa: PLR0917 - a table
    house: httpx.AsyncClient, make_token: MakeToken, name: str, account: int, owner: str, status: int
) -> None:
    headers = await headers_of(make_token, account)
    response = await house.post(f"/v1/{name}", headers=headers, json=ADDED[name] | {"owner": owner})
    assert response.status_code == status, response.text


async def test_an_account_that_owns_a_schedule_is_in_use(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await added(house, admin, "schedules", owner="basic")
    await added(house, admin, "caller_lists", owner="basic")
    await house.delete("/v1/devices/300", headers=admin)
    await house.delete("/v1/accounts/22", headers=admin)
    response = await house.delete("/v1/accounts/11", headers=admin)
    assert problem(response) == (409, "in-use")
    assert {"kind": "schedule", "id": 1} in response.json()["used_by"]
    assert {"kind": "caller_list", "id": 1} in response.json()["used_by"]


@BOTH
async def test_what_a_call_flow_names_is_in_use(house: httpx.AsyncClient, admin: dict[str, str], name: str) -> None:
    await added(house, admin, name)
    condition = {"schedules": {"not_schedule": 1}, "caller_lists": {"caller": {"list": 1}}}[name]
    rule = {"name": "after hours", "if": condition, "do": {"action": "voicemail"}}
    flow = {"rules": [rule], "otherwise": {"action": "empty"}}
    assert (await house.put("/v1/devices/4/callflow/busy", headers=admin, json=flow)).status_code == 200
    response = await house.delete(f"/v1/{name}/1", headers=admin)
    assert problem(response) == (409, "in-use")
    assert response.json()["used_by"] == [{"kind": "callflow", "id": 4, "state": "busy"}]
    response = await house.patch(f"/v1/{name}/1", headers=admin, json={"owner": "user2"})
    assert problem(response) == (409, "in-use")
    assert (await house.patch(f"/v1/{name}/1", headers=admin, json={"name": "Other"})).status_code == 200
    assert (await house.delete("/v1/devices/4/callflow/busy", headers=admin)).status_code == 200
    assert (await house.delete(f"/v1/{name}/1", headers=admin)).status_code == 204


async def test_every_change_leaves_history(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await added(house, admin, "caller_lists")
    await house.patch("/v1/caller_lists/1", headers=admin, json={"entries": ["+371*"]})
    await house.delete("/v1/caller_lists/1", headers=admin)
    items = (await house.get("/v1/history", headers=admin)).json()["items"]
    found = [((each["before"] or {}).get("entries"), (each["after"] or {}).get("entries")) for each in items]
    assert found == [(["+371*"], None), (FAMILY["entries"], ["+371*"]), (None, FAMILY["entries"])]


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"time_zone": "Vilnius"}, {"time_zone": "must be a time zone such as Europe/Vilnius"}),
        (
            {"weekly": [{"days": ["mon"], "from": "09:00", "to": "09:00"}]},
            {"weekly.0": "a window must end at another time than it begins; all day is 00:00 to 24:00"},
        ),
        ({"weekly": [{"days": [], "from": "9:00", "to": "17:00", "x": 1}]}, {
            "weekly.0.days": "list should have at least 1 item after validation, not 0",
            "weekly.0.from": "must be a time of day such as 08:30",
            "weekly.0.x": "is not known here",
        }),
        (
            {"holidays": {"country": "LT", "region": "VNO"}},
            {"holidays": "the holidays of LT are the same everywhere; leave the region out"},
        ),
        ({"holidays": {"country": "lt"}}, {"holidays.country": "must be a country's ISO code such as LT"}),
        (
            {"exceptions": [{"from": "2026-02-30", "open": False}]},
            {"exceptions.0.from": "must be a date such as 2026-12-24"},
        ),
        (
            {"exceptions": [{"from": "2026-12-24", "to": "2026-12-23", "open": False}]},
            {"exceptions.0": "must not end before it begins"},
        ),
        ({"exceptions": [{"from": "2026-12-24"}]}, {"exceptions.0.open": "field required"}),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_a_schedule_is_told_by_field(
    house: httpx.AsyncClient, admin: dict[str, str], changes: dict[str, Any], errors: dict[str, str]
) -> None:
    response = await house.post("/v1/schedules", headers=admin, json=OFFICE | changes)
    assert problem(response) == (422, "invalid")
    assert {each["field"]: each["message"] for each in response.json()["errors"]} == errors


@pytest.mark.parametrize("entry", ["", "alice", "*", "+", "+370x", "#31#", "1" * 33])
async def test_what_is_no_entry_is_refused(house: httpx.AsyncClient, admin: dict[str, str], entry: str) -> None:
    response = await house.post("/v1/caller_lists", headers=admin, json=FAMILY | {"entries": ["1", entry]})
    assert problem(response) == (422, "invalid")
    assert response.json()["errors"] == [
        {
            "field": "entries.1",
            "message": "must be a number such as +37061234567, a prefix such as +3706*, or anonymous",
        }
    ]


async def test_a_list_of_ten_thousand_is_kept_and_one_more_is_refused(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    entries = [f"+370{number:08}" for number in range(10_001)]
    response = await house.post("/v1/caller_lists", headers=admin, json=FAMILY | {"entries": entries})
    assert problem(response) == (422, "invalid")
    shown = await added(house, admin, "caller_lists", entries=entries[:10_000])
    assert shown["entries"] == entries[:10_000]


async def test_the_next_changes_of_a_schedule_are_told(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await added(house, admin, "schedules")
    response = await house.get("/v1/schedules/1/next?at=2026-12-23T12:00:00%2B02:00&limit=4", headers=admin)
    assert response.status_code == 200
    assert response.json() == {
        "at": "2026-12-23T10:00:00Z",
        "time_zone": "Europe/Vilnius",
        "open": True,
        "items": [
            {"at": "2026-12-23T15:00:00Z", "open": False},
            {"at": "2026-12-28T07:00:00Z", "open": True},
            {"at": "2026-12-28T15:00:00Z", "open": False},
            {"at": "2026-12-29T07:00:00Z", "open": True},
        ],
    }


async def test_a_schedule_goes_by_the_clocks_of_its_owner_and_those_above(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    await added(house, admin, "schedules", owner="user2", time_zone=None)
    zones = []
    for account, zone in ((1, "Asia/Kathmandu"), (10, "America/New_York"), (21, "Australia/Lord_Howe"), (21, None)):
        zones.append((await house.get("/v1/schedules/1/next", headers=admin)).json()["time_zone"])
        response = await house.patch(f"/v1/accounts/{account}", headers=admin, json={"time_zone": zone})
        assert response.status_code == 200, response.text
    zones.append((await house.get("/v1/schedules/1/next", headers=admin)).json()["time_zone"])
    assert zones == ["UTC", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe", "America/New_York"]


async def test_the_tag_of_a_schedule_tells_whether_it_is_open_and_a_change_is_safe_under_both(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    shown = await added(house, admin, "schedules", weekly=[], holidays=None, exceptions=[])
    always = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "24:00"}
    opened = (await house.patch("/v1/schedules/1", headers=admin, json={"weekly": [always]})).json()
    assert (shown["open_now"], opened["open_now"]) == (False, True)
    response = await house.delete("/v1/schedules/1", headers={**admin, "If-Match": f'"{shown["etag"]}"'})
    assert problem(response) == (412, "changed-meanwhile")
    response = await house.delete("/v1/schedules/1", headers={**admin, "If-Match": f'"{opened["etag"]}"'})
    assert response.status_code == 204


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "at=yesterday", "at=2026-12-23T12:00:00", "x=1"])
async def test_a_wrong_question_for_the_next_changes_is_refused(
    house: httpx.AsyncClient, admin: dict[str, str], query: str
) -> None:
    await added(house, admin, "schedules")
    assert problem(await house.get(f"/v1/schedules/1/next?{query}", headers=admin)) == (422, "invalid")


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
async def test_the_ends_of_time_have_an_answer(house: httpx.AsyncClient, admin: dict[str, str], at: str) -> None:
    await added(house, admin, "schedules")
    response = await house.get(f"/v1/schedules/1/next?at={at}", headers=admin)
    assert response.status_code == 200
    assert response.json()["items"] == []


async def test_a_schedule_that_may_not_be_seen_has_no_next_changes(
    house: httpx.AsyncClient, admin: dict[str, str], make_token: MakeToken
) -> None:
    await added(house, admin, "schedules")
    response = await house.get("/v1/schedules/1/next", headers=await headers_of(make_token, 21))
    assert problem(response) == (404, "not-found")


TARGETS = {
    "allow": ["+370"],
    "deny": ["+370900"],
    "max_length": 15,
    "max_new_per_hour": None,
    "max_new_per_day": 10,
    "hold_minutes": 60,
}


async def test_an_account_says_which_numbers_are_its_targets(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    patch = {"country": "LT", "number_pattern": r"\+370\d{8}", "targets": TARGETS}
    shown = (await house.patch("/v1/accounts/20", headers=admin, json=patch)).json()
    assert {name: shown[name] for name in patch} == patch
    shown = (await house.patch("/v1/accounts/20", headers=admin, json={"targets": {"allow": None}})).json()
    assert shown["targets"] == TARGETS | {"allow": []}
    shown = (await house.patch("/v1/accounts/20", headers=admin, json=dict.fromkeys(patch))).json()
    assert {name: shown[name] for name in patch} == dict.fromkeys(patch)


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"country": "LTU"}, "country"),
        ({"number_pattern": "(1+)+"}, "number_pattern"),
        ({"targets": {"allow": ["370x"]}}, "targets.allow.0"),
        ({"targets": {"hold_minutes": -1}}, "targets.hold_minutes"),
        ({"targets": {"max_length": 0}}, "targets.max_length"),
        ({"targets": {"colour": "red"}}, "targets.colour"),
    ],
)
async def test_a_wrong_policy_is_refused(
    house: httpx.AsyncClient, admin: dict[str, str], patch: dict[str, Any], field: str
) -> None:
    response = await house.patch("/v1/accounts/20", headers=admin, json=patch)
    assert problem(response) == (422, "invalid")
    assert response.json()["errors"][0]["field"] == field


async def test_a_reseller_narrows_its_users_and_does_not_move_them_to_another_country(
    house: httpx.AsyncClient, make_token: MakeToken
) -> None:
    reseller = await headers_of(make_token, 10)
    response = await house.patch("/v1/accounts/21", headers=reseller, json={"targets": TARGETS})
    assert response.json()["targets"] == TARGETS
    assert problem(await house.patch("/v1/accounts/21", headers=reseller, json={"country": "AD"})) == (
        403,
        "not-allowed",
    )
    assert problem(await house.patch("/v1/accounts/10", headers=reseller, json={"targets": TARGETS})) == (
        403,
        "not-allowed",
    )
    user = await headers_of(make_token, 21)
    assert problem(await house.patch("/v1/accounts/21", headers=user, json={"targets": {}})) == (403, "not-allowed")
