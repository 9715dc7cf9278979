"""The same POST under the same `Idempotency-Key` is carried out once, and answered as often as it comes."""

import asyncio
import inspect
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from api_answers import MakeToken, problem
from callflow_service.api.dependencies import ApiRoute
from callflow_service.api.face import routers
from callflow_service.domain.tokens import Scope
from mor_requests import StartService
from own_demo import OwnDemo

NEW_DEVICE = {"technology": "SIP", "name": "777", "owner": "user1"}


def told(response: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """All of an answer but what tells of the request and not of the change."""
    apart = {"x-request-id", "date", "idempotency-replayed"}
    return (
        response.status_code,
        response.content,
        {name: value for name, value in response.headers.items() if name not in apart},
    )


async def twice(house: httpx.AsyncClient, path: str, headers: dict[str, str], **body: Any) -> httpx.Response:
    """The first answer, which the second one is like."""
    headers = {**headers, "Idempotency-Key": f"twice {path}"}
    first = await house.post(path, headers=headers, **body)
    second = await house.post(path, headers=headers, **body)
    assert told(second) == told(first)
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    return first


async def test_a_device_is_added_once(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    added = await twice(house, "/v1/devices", admin, json=NEW_DEVICE)
    assert added.status_code == 201
    assert added.headers["location"] == f"/v1/devices/{added.json()['id']}"
    listed = (await house.get("/v1/devices?q=SIP/777", headers=admin)).json()["items"]
    assert listed == [added.json()]


async def test_a_secret_is_shown_again_and_lies_nowhere_readable(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    token = (await twice(house, "/v1/tokens", admin, json={"name": "phone"})).json()["token"]
    api_key = (await twice(house, "/v1/accounts/20/api_key", admin)).json()["api_key"]
    assert await demo.database.fetchval("SELECT count(*) FROM token WHERE name = 'phone'") == 1
    kept = await demo.database.fetch("SELECT * FROM kept_answer")
    assert len(kept) == 2
    assert token not in str(kept)
    assert api_key not in str(kept)
    assert {row["answer"][:7] for row in kept} == {"fernet:"}


async def test_a_change_is_taken_back_once(house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo) -> None:
    voicemail = {"otherwise": {"action": "voicemail"}}
    await house.put("/v1/devices/4/callflow/busy", json=voicemail, headers=admin)
    entry = await demo.database.fetchval("SELECT max(id) FROM callflow_history")
    undone = await twice(house, f"/v1/history/{entry}/undo", admin)
    assert undone.json()["undoes"] == entry
    assert await demo.database.fetchval("SELECT count(*) FROM callflow_history WHERE device_id = 4") == 2


async def test_a_bulk_change_is_made_once(house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo) -> None:
    body = {"where": {"owner": "user1"}, "set": {"busy": {"otherwise": {"action": "voicemail"}}}}
    made = await twice(house, "/v1/bulk", admin, json=body)
    assert (made.status_code, made.json()["changed"]) == (200, 4)
    entries = await demo.database.fetchval("SELECT count(*) FROM callflow_history WHERE kind = 'callflow'")
    assert entries == made.json()["changed"]


async def test_a_refusal_is_told_again_and_changes_nothing(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    taken = {**NEW_DEVICE, "id": 4}
    assert problem(await twice(house, "/v1/devices", admin, json=taken)) == (409, "already-exists")
    assert await demo.database.fetchval("SELECT count(*) FROM device WHERE name = '777'") == 0
    assert await demo.database.fetchval("SELECT count(*) FROM callflow_history") == 0


async def test_what_cannot_be_read_uses_up_no_key(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    headers = {**admin, "Idempotency-Key": "once"}
    assert problem(await house.post("/v1/devices", json={}, headers=headers)) == (422, "invalid")
    assert (await house.post("/v1/devices", json=NEW_DEVICE, headers=headers)).status_code == 201


async def test_another_body_or_another_address_under_the_key_is_refused(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    headers = {**admin, "Idempotency-Key": "once"}
    assert (await house.post("/v1/devices", json=NEW_DEVICE, headers=headers)).status_code == 201
    other = await house.post("/v1/devices", json={**NEW_DEVICE, "name": "778"}, headers=headers)
    assert problem(other) == (422, "idempotency-mismatch")
    assert problem(await house.post("/v1/tokens", json=NEW_DEVICE, headers=headers)) == (422, "invalid")
    assert problem(await house.post("/v1/tokens", json={}, headers=headers)) == (422, "idempotency-mismatch")


async def test_a_key_is_an_account_s_own(
    house: httpx.AsyncClient, admin: dict[str, str], make_token: MakeToken
) -> None:
    mine = await house.post("/v1/tokens", json={}, headers={**admin, "Idempotency-Key": "once"})
    user = {"Authorization": f"Bearer {await make_token(20)}", "Idempotency-Key": "once"}
    theirs = await house.post("/v1/tokens", json={}, headers=user)
    assert (mine.json()["account"], theirs.json()["account"]) == ("admin", "user1")


async def test_who_may_only_read_gets_no_answer_of_a_change(
    house: httpx.AsyncClient, admin: dict[str, str], make_token: MakeToken
) -> None:
    await house.post("/v1/tokens", json={}, headers={**admin, "Idempotency-Key": "once"})
    reader = {"Authorization": f"Bearer {await make_token(scope=Scope.READ)}", "Idempotency-Key": "once"}
    assert problem(await house.post("/v1/tokens", json={}, headers=reader)) == (403, "scope-too-small")


async def test_without_a_key_each_request_is_a_change(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    ids = [(await house.post("/v1/tokens", json={}, headers=admin)).json()["id"] for _ in range(2)]
    assert ids[0] != ids[1]


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"])
async def test_a_key_is_1_to_255_signs_of_ascii(house: httpx.AsyncClient, admin: dict[str, str], key: str) -> None:
    headers = [*admin.items(), ("Idempotency-Key", key.encode("latin-1"))]
    response = await house.post("/v1/tokens", json={}, headers=headers)  # type: ignore[arg-type]  # bytes among them
    assert problem(response) == (422, "invalid")
    assert [each["field"] for each in response.json()["errors"]] == ["Idempotency-Key"]
    longest = {**admin, "Idempotency-Key": "x" * 255}
    assert (await house.post("/v1/tokens", json={}, headers=longest)).status_code == 201


async def test_while_the_first_is_at_work_the_second_is_told_so(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    headers = {**admin, "Idempotency-Key": "once"}
    async with demo.database.transaction():
        await demo.database.execute("LOCK TABLE device")
        first = asyncio.create_task(house.post("/v1/devices", json=NEW_DEVICE, headers=headers))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while not await demo.database.fetchval(waiting):  # noqa: ASYNC110 - nobody tells when
            await asyncio.sleep(0.01)
        second = await house.post("/v1/devices", json=NEW_DEVICE, headers=headers)
        assert problem(second) == (409, "idempotency-in-progress")
    assert (await first).status_code == 201
    assert told(await house.post("/v1/devices", json=NEW_DEVICE, headers=headers)) == told(await first)


async def test_after_a_day_a_key_is_free_and_old_answers_are_dropped(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    for name in ("one", "two"):
        await house.post("/v1/tokens", json={}, headers={**admin, "Idempotency-Key": name})
    await demo.database.execute("UPDATE kept_answer SET kept_at = kept_at - interval '25 hours'")
    again = await house.post("/v1/tokens", json={"name": "new"}, headers={**admin, "Idempotency-Key": "one"})
    assert again.json()["name"] == "new"
    assert [row["key"] for row in await demo.database.fetch("SELECT key FROM kept_answer")] == ["one"]


async def test_another_worker_gives_the_first_one_s_answer(
    house: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo, start_service: StartService
) -> None:
    other = await start_service(demo.url, database_timeout_ms=20_000)
    headers = {**admin, "Idempotency-Key": "once"}
    answers = await asyncio.gather(
        *(each.post("/v1/tokens", json={}, headers=headers) for each in (house, other) for _ in range(5))
    )
    made = [told(each) for each in answers if each.status_code == 201]
    assert made
    assert made == len(made) * [made[0]]
    assert {problem(each) for each in answers if each.status_code != 201} <= {(409, "idempotency-in-progress")}
    assert told(await other.post("/v1/tokens", json={}, headers=headers)) == made[0]


async def test_every_post_is_documented_with_the_header(house: httpx.AsyncClient) -> None:
    document = (await house.get("/openapi.json")).json()
    posts = {path: item["post"] for path, item in document["paths"].items() if "post" in item and path[:4] == "/v1/"}
    assert posts
    for path, operation in posts.items():
        headers = [each for each in operation.get("parameters", ()) if each["in"] == "header"]
        assert [each["name"] for each in headers] == ["Idempotency-Key"], path


def test_every_post_that_changes_something_keeps_its_answer_in_its_transaction() -> None:
    routes = [route for each in routers() for route in each.routes if isinstance(route, APIRoute)]
    posts = [route for route in routes if "POST" in (route.methods or ())]
    assert all(isinstance(route, ApiRoute) for route in posts)
    sources = {route.name: inspect.getsource(route.endpoint) for route in posts}
    changing = {name: source for name, source in sources.items() if "caller: Reader" not in source}
    assert "route_call" not in changing
    assert [name for name, source in changing.items() if "house.changing(request, caller" not in source] == []
