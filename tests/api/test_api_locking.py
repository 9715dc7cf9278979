"""Accounts are locked: nothing of them leads to a number any more, until it is put back."""

from typing import Any

import httpx
import pytest

from api_answers import MakeToken, problem
from own_demo import OwnDemo

NUMBER = {"to": {"number": "+37061234567"}}
FORWARD = {"action": "forward", "steps": [NUMBER]}
TO_A_DEVICE = {"action": "forward", "steps": [{"to": {"device": 201}}]}


async def flows(house: httpx.AsyncClient, headers: dict[str, str], device: int) -> dict[str, str]:
    shown = (await house.get(f"/v1/devices/{device}/callflow", headers=headers)).json()["states"]
    return {state: flow["otherwise"]["action"] for state, flow in shown.items()}


async def put(house: httpx.AsyncClient, headers: dict[str, str], device: int, state: str, action: Any) -> None:
    path = f"/v1/devices/{device}/callflow/{state}"
    response = await house.put(path, headers=headers, json={"otherwise": action})
    assert response.status_code == 200, response.text


EMPTY = {"before_call": "empty", "no_answer": "empty", "busy": "empty", "failed": "empty"}


async def test_a_locked_account_and_those_below_lead_to_no_number(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    await put(house, admin, 200, "busy", FORWARD)
    await put(house, admin, 200, "no_answer", TO_A_DEVICE)
    await put(house, admin, 4, "busy", FORWARD)
    response = await house.post("/v1/accounts/10/lock", headers=admin)
    assert response.status_code == 200
    locked = response.json()
    assert locked["changed"] == 1
    assert [(each["device"], each["state"]) for each in locked["changes"]] == [(200, "busy")]
    assert locked["changes"][0]["after"] == {"rules": [], "otherwise": {"action": "empty"}}
    assert await flows(house, admin, 200) == EMPTY | {"no_answer": "forward"}
    assert await flows(house, admin, 4) == EMPTY | {"busy": "forward"}
    response = await house.post("/v1/accounts/10/unlock", headers=admin)
    assert (response.json()["restored"], response.json()["left"]) == (1, 0)
    assert await flows(house, admin, 200) == EMPTY | {"busy": "forward", "no_answer": "forward"}


async def test_locked_twice_it_is_emptied_again_and_what_was_there_first_comes_back(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    await put(house, admin, 200, "busy", FORWARD)
    await house.post("/v1/accounts/21/lock", headers=admin)
    await demo.database.execute(
        "UPDATE callflow SET action = 'forward', target_number = '+37069999999', caller_id = 'device' "
        "WHERE device_id = 200 AND state = 'busy'"
    )
    assert (await house.post("/v1/accounts/21/lock", headers=admin)).json()["changed"] == 1
    assert (await house.post("/v1/accounts/21/lock", headers=admin)).json()["changed"] == 0
    assert (await house.post("/v1/accounts/21/unlock", headers=admin)).json()["restored"] == 1
    shown = (await house.get("/v1/devices/200/callflow", headers=admin)).json()["states"]["busy"]
    assert shown["otherwise"]["steps"][0]["to"] == {"number": "+37061234567"}


async def test_what_was_changed_since_is_left_alone(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await put(house, admin, 200, "busy", FORWARD)
    await house.post("/v1/accounts/21/lock", headers=admin)
    await put(house, admin, 200, "busy", {"action": "voicemail"})
    response = (await house.post("/v1/accounts/21/unlock", headers=admin)).json()
    assert response["restored"] == 0
    assert response["left_alone"] == [{"device": 200, "state": "busy", "reason": "changed_since"}]
    assert await flows(house, admin, 200) == EMPTY | {"busy": "voicemail"}
    assert (await house.post("/v1/accounts/21/unlock", headers=admin)).json()["left"] == 0


async def test_a_lock_and_its_end_are_history(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await put(house, admin, 200, "busy", FORWARD)
    await house.post("/v1/accounts/21/lock", headers=admin)
    await house.post("/v1/accounts/21/unlock", headers=admin)
    items = (await house.get("/v1/devices/200/callflow/history", headers=admin)).json()["items"]
    assert [each["after"]["otherwise"]["action"] for each in items] == ["forward", "empty", "forward"]


@pytest.mark.parametrize("call", ["lock", "unlock"])
@pytest.mark.parametrize(
    ("caller", "account", "answer"),
    [
        (10, 21, None),
        (10, 10, (403, "not-allowed")),
        (10, 20, (404, "not-found")),
        (21, 21, (403, "not-allowed")),
        (21, 10, (404, "not-found")),
        (12, 20, (403, "not-allowed")),
        (1, 999, (404, "not-found")),
        (1, 1, None),
    ],
)
async def test_those_above_lock_an_account(  # noqa: PLR0917 - a table
    house: httpx.AsyncClient,
    make_token: MakeToken,
    call: str,
    caller: int,
    account: int,
    answer: tuple[int, str] | None,
) -> None:
    headers = {"Authorization": f"Bearer {await make_token(caller)}"}
    response = await house.post(f"/v1/accounts/{account}/{call}", headers=headers)
    if answer:
        assert problem(response) == answer
    else:
        assert response.status_code == 200


async def test_a_lock_takes_no_body(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    assert problem(await house.post("/v1/accounts/10/lock", headers=admin, json={})) == (422, "invalid")


@pytest.mark.parametrize("account", [21, 10, 1])
async def test_nothing_of_a_locked_account_or_below_one_forwards_to_a_number(
    house: httpx.AsyncClient, admin: dict[str, str], make_token: MakeToken, demo: OwnDemo, account: int
) -> None:
    await put(house, admin, 200, "busy", FORWARD)
    set_before = (await house.get("/v1/devices/200/callflow/history", headers=admin)).json()["items"][0]["id"]
    await house.post(f"/v1/accounts/{account}/lock", headers=admin)
    user = {"Authorization": f"Bearer {await make_token(21)}"}
    path = "/v1/devices/200/callflow/busy"
    for headers in (user, admin):
        response = await house.put(path, headers=headers, json={"otherwise": FORWARD})
        assert problem(response) == (422, "target-refused")
        assert response.json()["reason"] == "locked"
    rules = [{"name": "all", "do": FORWARD}]
    response = await house.put(path, headers=user, json={"rules": rules, "otherwise": {"action": "empty"}})
    assert problem(response) == (422, "target-refused")
    emptied = (await house.get("/v1/devices/200/callflow/history", headers=admin)).json()["items"][0]["id"]
    assert emptied > set_before
    response = await house.post(f"/v1/history/{emptied}/undo", headers=admin)
    assert problem(response) == (422, "target-refused")
    await put(house, user, 200, "busy", TO_A_DEVICE)
    assert await demo.database.fetchval("SELECT count(*) FROM callflow WHERE target_number IS NOT NULL") == 0
    response = await house.post(f"/v1/accounts/{account}/unlock", headers=admin)
    assert response.status_code == 200
    await put(house, user, 200, "busy", FORWARD)


async def test_a_forward_that_came_past_the_lock_takes_no_call(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    await house.post("/v1/accounts/21/lock", headers=admin)
    await demo.database.execute(
        "INSERT INTO callflow (device_id, state, priority, action, target_number, caller_id) "
        "VALUES (200, 'before_call', 1, 'forward', '+37061234567', 'device')"
    )
    response = await house.post("/v1/devices/200/route", headers=admin, json={})
    assert response.status_code == 200, response.text
    told = response.json()
    assert [leg["rings"] for leg in told["legs"]] == [{"device": 200, "label": told["device"]["label"]}]
    assert "refused: the account is locked: its devices forward to no number" in str(told)


async def test_a_lock_and_its_end_stand_in_the_history(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    await house.post("/v1/accounts/21/lock", headers=admin)
    await house.post("/v1/accounts/21/unlock", headers=admin)
    items = (await house.get("/v1/history", headers=admin)).json()["items"]
    kinds = [(each["kind"], each["resource"], each["before"] is None, each["after"] is None) for each in items]
    assert kinds == [("account_lock", "21", False, True), ("account_lock", "21", True, False)]
