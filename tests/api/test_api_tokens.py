"""Tokens: who is let in, with what, and as what."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from api_answers import MakeToken, problem
from callflow_service.domain.tokens import Scope, is_token, new_token
from own_demo import OwnDemo


@pytest.mark.parametrize(
    ("authorization", "slug"),
    [
        ("", "token-missing"),
        ("Basic YTpi", "token-missing"),
        ("Bearer", "token-missing"),
        ("Bearer cf_wrong", "token-invalid"),
        (f"Bearer {new_token()}", "token-invalid"),
    ],
)
async def test_without_a_token_nothing_is_to_be_had(house: httpx.AsyncClient, authorization: str, slug: str) -> None:
    headers = {"authorization": authorization} if authorization else {}
    response = await house.get("/v1/devices", headers=headers)
    assert problem(response) == (401, slug)
    assert response.headers["www-authenticate"].startswith("Bearer")


async def test_a_token_is_shown_once_and_works(house: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await house.post("/v1/tokens", json={"account": "user1", "name": "phone", "scope": "read"}, headers=admin)
    assert made.status_code == 201
    token = made.json()
    assert is_token(token.pop("token"))
    assert made.headers["location"] == f"/v1/tokens/{token['id']}"
    listed = (await house.get("/v1/tokens", headers=admin)).json()["items"]
    assert token in listed
    own = {"Authorization": f"Bearer {made.json()['token']}"}
    assert [each["label"] for each in (await house.get("/v1/devices", headers=own)).json()["items"]] == [
        "FAX/102",
        "IAX2/1002",
        "IAX2/101",
        "SIP/101",
    ]
    assert problem(await house.post("/v1/tokens", json={}, headers=own)) == (403, "scope-too-small")
    assert (await house.delete(f"/v1/tokens/{token['id']}", headers=admin)).status_code == 204
    assert problem(await house.get("/v1/devices", headers=own)) == (401, "token-invalid")


async def test_an_expired_token_is_told_apart(house: httpx.AsyncClient, make_token: MakeToken) -> None:
    token = await make_token(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    response = await house.get("/v1/devices", headers={"Authorization": f"Bearer {token}"})
    assert problem(response) == (401, "token-expired")


async def test_a_blocked_account_s_token_does_not_work(
    house: httpx.AsyncClient, make_token: MakeToken, demo: OwnDemo
) -> None:
    headers = {"Authorization": f"Bearer {await make_token(20)}"}
    assert (await house.get("/v1/devices", headers=headers)).status_code == 200
    await demo.database.execute("UPDATE account SET blocked = true WHERE id = 20")
    assert problem(await house.get("/v1/devices", headers=headers)) == (401, "token-invalid")


@pytest.mark.parametrize(("account", "slug"), [(15, "api-disabled"), (11, "not-allowed")])
async def test_who_may_not_use_the_house_is_told(
    house: httpx.AsyncClient, make_token: MakeToken, account: int, slug: str
) -> None:
    headers = {"Authorization": f"Bearer {await make_token(account)}"}
    assert problem(await house.get("/v1/devices", headers=headers)) == (403, slug)


async def test_the_last_use_is_kept_to_the_minute(
    house: httpx.AsyncClient, make_token: MakeToken, demo: OwnDemo
) -> None:
    headers = {"Authorization": f"Bearer {await make_token()}"}
    for _ in range(3):
        await house.get("/v1/devices", headers=headers)
    used = await demo.database.fetchval("SELECT last_used_at FROM token")
    assert used.second == used.microsecond == 0


async def test_nobody_makes_a_token_for_an_account_that_is_not_below(
    house: httpx.AsyncClient, make_token: MakeToken
) -> None:
    reseller = {"Authorization": f"Bearer {await make_token(10)}"}
    assert (await house.post("/v1/tokens", json={"account": "user2"}, headers=reseller)).status_code == 201
    response = await house.post("/v1/tokens", json={"account": "user1"}, headers=reseller)
    assert problem(response) == (422, "invalid")
    user = {"Authorization": f"Bearer {await make_token(20)}"}
    assert (await house.post("/v1/tokens", json={}, headers=user)).status_code == 201
    assert problem(await house.post("/v1/tokens", json={"account": "admin"}, headers=user)) == (422, "invalid")


@pytest.mark.parametrize("scope", Scope)
def test_a_token_carries_its_checksum(scope: Scope) -> None:
    token = new_token()
    assert is_token(token)
    assert not is_token(token[:-1] + ("a" if token[-1] != "a" else "b"))
    assert not is_token(token + scope)


@pytest.mark.parametrize("days", [None, 31, 36500])
async def test_a_token_makes_none_that_outlives_it(
    house: httpx.AsyncClient, make_token: MakeToken, days: int | None
) -> None:
    ends = datetime.now(UTC) + timedelta(days=30, hours=1)
    own = {"Authorization": f"Bearer {await make_token(expires_at=ends)}"}
    refused = await house.post("/v1/tokens", json={"expires_in_days": days}, headers=own)
    assert problem(refused) == (422, "invalid")
    assert refused.json()["errors"] == [
        {"field": "expires_in_days", "message": "the token that makes it lives 30 whole days more"}
    ]
    shorter = (await house.post("/v1/tokens", json={"expires_in_days": 30}, headers=own)).json()
    unsaid = (await house.post("/v1/tokens", json={"scope": "write"}, headers=own)).json()
    assert datetime.fromisoformat(shorter["expires_at"]) < ends
    assert datetime.fromisoformat(unsaid["expires_at"]) == ends
    # What was made so makes none that lives on either.
    heir = {"Authorization": f"Bearer {unsaid['token']}"}
    assert (await house.post("/v1/tokens", json={}, headers=heir)).json()["expires_at"] == unsaid["expires_at"]


async def test_tokens_that_are_made_and_revoked_are_in_the_history_without_what_makes_them_one(
    house: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    made = (await house.post("/v1/tokens", json={"account": "user1", "name": "phone"}, headers=admin)).json()
    await house.get("/v1/devices", headers={"Authorization": f"Bearer {made['token']}"})
    await house.delete(f"/v1/tokens/{made['id']}", headers=admin)
    revoked, created = (await house.get("/v1/history", headers=admin)).json()["items"]
    shown = created["after"]
    assert shown.keys() == {"id", "account_id", "name", "scope", "created_at", "expires_at"}
    assert (shown["id"], shown["account_id"], shown["name"], shown["scope"]) == (made["id"], 20, "phone", "read")
    assert (created["before"], revoked["after"]) == (None, None)
    assert revoked["before"] == shown
    for entry in (created, revoked):
        assert (entry["kind"], entry["resource"]) == ("token", str(made["id"]))
        assert (entry["account"], entry["face"], entry["device"]) == ("admin", "json", None)
