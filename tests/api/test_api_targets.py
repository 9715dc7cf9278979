"""Nobody earns on a forward: numbers that are refused, counted, held and told of."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api_answers import MakeToken, problem
from mor_requests import UPDATE, update
from own_demo import OwnDemo
from statements import statements

PATH = "/v1/devices/200/callflow/busy"


def to(*numbers: str) -> dict[str, Any]:
    return {"otherwise": {"action": "forward", "steps": [{"to": {"number": number}} for number in numbers]}}


async def headers_of(make_token: MakeToken, account: int) -> dict[str, str]:
    return {"Authorization": f"Bearer {await make_token(account)}"}


async def policy(house: httpx.AsyncClient, admin: dict[str, str], account: int, **targets: Any) -> None:
    response = await house.patch(f"/v1/accounts/{account}", headers=admin, json={"targets": targets})
    assert response.status_code == 200, response.text


async def alerts(house: httpx.AsyncClient, headers: dict[str, str], *fields: str) -> list[tuple[Any, ...]]:
    items = (await house.get("/v1/alerts", headers=headers)).json()["items"]
    return [tuple(each[name] for name in fields) for each in items]


async def test_a_refused_target_is_told_of_once_an_hour_and_counted(
    house: httpx.AsyncClient, admin: dict[str, str], make_token: MakeToken
) -> None:
    user = await headers_of(make_token, 21)
    for number in ("+37090012345", "112", "112"):
        response = await house.put(PATH, headers=user, json=to(number))
        assert problem(response) == (422, "target-refused")
    assert response.json()["reason"] == "emergency"
    told = [
        (200, "112", "emergency", 2, "user2", "user2", "json", None),
        (200, "+37090012345", "premium-rate", 1, "user2", "user2", "json", None),
    ]
    fields = ("device", "number", "reason", "times", "owner", "account", "face", "held_until")
    assert await alerts(house, admin, *fields) == told
    assert await alerts(house, user, *fields) == told
    assert await alerts(house, await headers_of(make_token, 20), *fields) == []


async def test_the_feed_has_a_refused_target_once(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    for _ in range(2):
        assert problem(await house.put(PATH, headers=admin, json=to("+37090012345"))) == (422, "target-refused")
    items = (await house.get("/v1/history", headers=admin)).json()["items"]
    assert [(each["kind"], each["device"], each["before"], each["after"]) for each in items] == [
        ("target", 200, None, {"device": 200, "number": "+37090012345", "reason": "premium-rate", "held_until": None})
    ]
    assert (await house.get("/v1/devices/200/callflow/history", headers=admin)).json()["items"] == []
    response = await house.post(f"/v1/history/{items[0]['id']}/undo", headers=admin)
    assert problem(response) == (422, "invalid")


async def test_alerts_come_in_pages_and_by_device(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    for device, number in ((200, "112"), (200, "911"), (4, "112")):
        await house.put(f"/v1/devices/{device}/callflow/busy", headers=admin, json=to(number))
    first = (await house.get("/v1/alerts?limit=2", headers=admin)).json()
    assert [(each["device"], each["number"]) for each in first["items"]] == [(4, "112"), (200, "911")]
    second = (await house.get(first["next"], headers=admin)).json()
    assert [(each["device"], each["number"]) for each in second["items"]] == [(200, "112")]
    assert second["next"] is None
    only = (await house.get("/v1/alerts?device=4", headers=admin)).json()["items"]
    assert [each["device"] for each in only] == [4]


async def test_mor_is_told_that_the_number_was_not_found_and_the_operator_why(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    sent = update(state="busy", forward_to_device=None, external_number="+37090012345")
    assert "External number was not found" in (await house.post(UPDATE, data=sent)).text
    assert await alerts(house, admin, "device", "number", "reason", "face") == [
        (4, "+37090012345", "premium-rate", "mor")
    ]


async def test_new_numbers_are_limited_and_known_ones_are_not(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    await house.put("/v1/devices/200/callflow/failed", headers=admin, json=to("+37060000000"))
    await policy(house, admin, 10, max_new_per_hour=2)
    for number in ("+37060000001", "+37060000000", "0037060000001", "+37060000002", "+37060000001"):
        assert (await house.put(PATH, headers=admin, json=to(number))).status_code == 200
    response = await house.put(PATH, headers=admin, json=to("+37060000003"))
    assert (problem(response), response.json()["reason"]) == ((422, "target-refused"), "too-many-new")
    await demo.database.execute("UPDATE taken_number SET since = since - interval '1 hour'")
    assert (await house.put(PATH, headers=admin, json=to("+37060000003", "+37060000004"))).status_code == 200
    response = await house.put(PATH, headers=admin, json=to("+37060000005"))
    assert problem(response) == (422, "target-refused")


async def test_one_request_takes_up_no_more_than_it_may(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await policy(house, admin, 21, max_new_per_day=2)
    assert problem(await house.put(PATH, headers=admin, json=to("1001", "1002", "1003"))) == (422, "target-refused")
    assert (await house.put(PATH, headers=admin, json=to("1001", "1002", "1001"))).status_code == 200


@pytest.mark.parametrize("account", [1, 10, 21])
async def test_the_first_forward_to_a_new_country_waits(
    house: httpx.AsyncClient, admin: dict[str, str], account: int
) -> None:
    await house.put("/v1/devices/200/callflow/failed", headers=admin, json=to("+37060000000"))
    await policy(house, admin, account, hold_minutes=60)
    response = await house.put(PATH, headers=admin, json=to("+37060000001", "+37161234567", "101"))
    assert response.status_code == 200
    held = [step.get("held_until") for step in response.json()["otherwise"]["steps"]]
    assert (held[0], held[2]) == (None, None)
    until = datetime.fromisoformat(held[1])
    assert timedelta(minutes=59) < until - datetime.now(UTC) <= timedelta(minutes=60)
    assert await alerts(house, admin, "number", "reason", "held_until") == [("+37161234567", "held", held[1])]


async def test_nobody_ends_a_hold_by_sending_it_again(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await policy(house, admin, 21, hold_minutes=60)
    sent = to("+37161234567")
    first = (await house.put(PATH, headers=admin, json=sent)).json()["otherwise"]["steps"][0]["held_until"]
    sent["otherwise"]["steps"][0]["held_until"] = "2020-01-01T00:00:00Z"
    again = (await house.put(PATH, headers=admin, json=sent)).json()["otherwise"]["steps"][0]["held_until"]
    other = (await house.put(PATH, headers=admin, json=to("+37169999999"))).json()
    assert again == first == other["otherwise"]["steps"][0]["held_until"]
    entry = (await house.get("/v1/devices/200/callflow/history", headers=admin)).json()["items"][0]["id"]
    assert (await house.post(f"/v1/history/{entry}/undo", headers=admin)).status_code == 200
    undone = (await house.get(PATH.rpartition("/")[0], headers=admin)).json()["states"]["busy"]
    assert undone["otherwise"]["steps"][0]["held_until"] == first


async def test_a_held_forward_acts_when_its_time_has_come(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    await policy(house, admin, 21, hold_minutes=60)
    await house.put("/v1/devices/200/callflow/before_call", headers=admin, json=to("+37161234567"))

    async def rung(at: datetime) -> Any:
        response = await house.post("/v1/devices/200/route", headers=admin, json={"at": at.isoformat()})
        assert response.status_code == 200, response.text
        return response.json()["legs"][0]["rings"]

    assert (await rung(datetime.now(UTC)))["device"] == 200
    assert (await rung(datetime.now(UTC) + timedelta(minutes=61)))["number"] == "+37161234567"
    await demo.database.execute("UPDATE taken_number SET since = since - interval '1 hour'")
    shown = (await house.put(PATH, headers=admin, json=to("+37161234567"))).json()
    assert shown["otherwise"]["steps"][0].get("held_until") is None


async def test_what_mor_forwards_to_a_new_country_waits_too(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await policy(house, admin, 1, hold_minutes=60)
    sent = update(state="busy", forward_to_device=None, external_number="+37161234567")
    assert "error" not in (await house.post(UPDATE, data=sent)).text
    shown = (await house.get("/v1/devices/4/callflow", headers=admin)).json()["states"]["busy"]
    assert shown["otherwise"]["steps"][0]["to"] == {"number": "+37161234567"}
    assert shown["otherwise"]["steps"][0]["held_until"]
    assert await alerts(house, admin, "number", "reason", "face") == [("+37161234567", "held", "mor")]
    await policy(house, admin, 1, hold_minutes=0, max_new_per_hour=1)
    sent = update(state="busy", forward_to_device=None, external_number="+37169999999")
    assert "External number was not found" in (await house.post(UPDATE, data=sent)).text


async def test_a_number_fits_the_patterns_of_all_above(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    for account, pattern in ((1, r"[+]\d+"), (10, r"\+370\d{8}"), (21, r".{12}")):
        response = await house.patch(f"/v1/accounts/{account}", headers=admin, json={"number_pattern": pattern})
        assert response.status_code == 200, response.text
    assert (await house.put(PATH, headers=admin, json=to("+370 612 34567"))).status_code == 200
    for number in ("37061234567", "+37161234567", "101"):
        response = await house.put(PATH, headers=admin, json=to(number))
        assert problem(response) == (422, "invalid")
        assert response.json()["errors"] == [
            {"field": "otherwise.steps.0.to.number", "message": "the number does not fit the number_pattern"}
        ]
    sent = update(state="busy", forward_to_device=None, external_number="101")
    assert "External number was not found" in (await house.post(UPDATE, data=sent)).text


async def test_many_at_once_are_refused_for_the_policy_of_any(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await policy(house, admin, 21, deny=["+371"])
    sent = {"where": {"devices": [4, 200]}, "set": {"busy": to("+37161234567")}}
    assert problem(await house.post("/v1/bulk", headers=admin, json=sent)) == (422, "target-refused")
    sent["where"] = {"devices": [4, 5]}
    assert (await house.post("/v1/bulk", headers=admin, json=sent)).status_code == 200


async def test_many_at_once_wait_as_long_as_any_must(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await policy(house, admin, 21, hold_minutes=60)
    sent = {"where": {"devices": [4, 200]}, "set": {"busy": to("+37161234567")}}
    changes = (await house.post("/v1/bulk", headers=admin, json=sent)).json()["changes"]
    assert all(each["after"]["otherwise"]["steps"][0]["held_until"] for each in changes)


async def test_who_comes_at_once_takes_up_no_more_than_he_may(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    await policy(house, admin, 21, max_new_per_hour=2)
    states = ("busy", "no_answer", "failed", "before_call")
    sent = [
        house.put(f"/v1/devices/{device}/callflow/{state}", headers=admin, json=to(f"+3706000000{place}"))
        for place, (device, state) in enumerate((device, state) for device in (200, 201) for state in states)
    ]
    answers = [response.status_code for response in await asyncio.gather(*sent)]
    assert answers.count(200) == 2
    assert await demo.database.fetchval("SELECT count(*) FROM taken_number") == 2


async def test_where_nothing_is_counted_a_forward_to_a_number_takes_no_statement_more(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    sent = update(state="busy", forward_to_device=None, external_number="+37061234567")
    await house.post(UPDATE, data=sent)
    async with statements() as executed:
        assert "error" not in (await house.post(UPDATE, data=sent)).text
        assert [statement.split()[0] for statement in executed] == ["SELECT", "WITH"]
    await policy(house, admin, 20, max_length=15, deny=["+371"])
    async with statements() as executed:
        assert "error" not in (await house.post(UPDATE, data=sent)).text
        assert [statement.split()[0] for statement in executed] == ["SELECT", "WITH"]
