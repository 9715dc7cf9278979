"""Webhooks: managed by those whose they are, and told of every change at least once, in order, signed."""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from api_answers import MakeToken, problem
from callflow_service.domain.webhooks import Event
from mor_requests import StartService
from own_demo import OwnDemo, open_own_demo
from webhook_receiver import HERE, SECRET, Received, Receiver, receiving

pytestmark = pytest.mark.usefixtures("demo")


@pytest_asyncio.fixture(scope="module")
async def own_demo(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> AsyncIterator[OwnDemo]:
    async with open_own_demo(create_database, migrated_url) as own:
        yield own


@pytest_asyncio.fixture(scope="module")
async def service(start_service: StartService, own_demo: OwnDemo) -> httpx.AsyncClient:
    return await start_service(
        own_demo.url, webhook_networks=(HERE,), webhook_timeout_ms=3000, database_timeout_ms=20_000
    )


@pytest_asyncio.fixture
async def demo(own_demo: OwnDemo) -> OwnDemo:
    """The demo without webhooks and without call flows."""
    await own_demo.database.execute("TRUNCATE webhook, webhook_progress, webhook_delivery, webhook_attempt, callflow")
    return own_demo


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as each:
        yield each


async def add(service: httpx.AsyncClient, headers: dict[str, str], url: str, **fields: Any) -> dict[str, Any]:
    body = {"url": url, "secret": SECRET, "events": ["callflow.changed"]} | fields
    response = await service.post("/v1/webhooks", json=body, headers=headers)
    assert response.status_code == 201, response.text
    shown: dict[str, Any] = response.json()
    return shown


async def forward(service: httpx.AsyncClient, headers: dict[str, str], number: int, device: int = 4) -> None:
    """Forward a device to a number when busy."""
    flow = {"otherwise": {"action": "forward", "steps": [{"to": {"number": str(number)}}]}}
    response = await service.put(f"/v1/devices/{device}/callflow/busy", json=flow, headers=headers)
    assert response.status_code == 200, response.text


def numbers(receiver: Receiver, device: int = 4) -> list[int]:
    """The numbers that the receiver was told a device is forwarded to, as they came."""
    return [number_in(each) for each in receiver.received if each.message["data"]["device"] == device]


def number_in(received: Received) -> int:
    return int(received.message["data"]["after"]["otherwise"]["steps"][0]["to"]["number"])


async def deliveries(service: httpx.AsyncClient, headers: dict[str, str], webhook: dict[str, Any]) -> list[Any]:
    """What is listed of a webhook's messages, oldest first."""
    listed = await service.get(f"/v1/webhooks/{webhook['id']}/deliveries", headers=headers)
    return list(reversed(listed.json()["items"]))


async def until(
    service: httpx.AsyncClient, headers: dict[str, str], webhook: dict[str, Any], *status: str
) -> list[Any]:
    """Wait until the webhook's messages, oldest first, have these states."""
    found = await deliveries(service, headers, webhook)
    async with asyncio.timeout(30):
        while [each["status"] for each in found] != list(status):
            await asyncio.sleep(0.05)
            found = await deliveries(service, headers, webhook)
    return found


async def hurry(service: httpx.AsyncClient, headers: dict[str, str], webhook: dict[str, Any]) -> None:
    """Have what waits tried at once, as any change of the webhook does."""
    assert (await service.patch(f"/v1/webhooks/{webhook['id']}", json={}, headers=headers)).status_code == 200


async def until_attempts(demo: OwnDemo, number: int) -> None:
    async with asyncio.timeout(30):
        while await demo.database.fetchval("SELECT count(*) FROM webhook_attempt") < number:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)


async def test_a_webhook_is_added_shown_changed_and_deleted_and_leaves_history(
    service: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    body = {"url": "https://crm.example.com/in?of=callflow", "events": ["device.deleted", "callflow.changed"]}
    added = await service.post("/v1/webhooks", json=body, headers=admin)
    assert added.status_code == 201
    shown = added.json()
    secret = shown.pop("secret")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert added.headers["location"] == f"/v1/webhooks/{shown['id']}"
    assert shown == {
        "id": shown["id"],
        "owner": "admin",
        "url": "https://crm.example.com/in?of=callflow",
        "events": ["callflow.changed", "device.deleted"],
        "enabled": True,
        "description": "",
        "disabled_because": None,
        "created_at": shown["created_at"],
        "etag": shown["etag"],
    }
    path = f"/v1/webhooks/{shown['id']}"
    assert (await service.get(path, headers=admin)).json() == shown
    tag = {"If-None-Match": f'"{shown["etag"]}"'}
    assert (await service.get(path, headers={**admin, **tag})).status_code == 304
    patch = {"events": None, "description": "The CRM", "enabled": False}
    changed = await service.patch(path, json=patch, headers={**admin, "If-Match": f'"{shown["etag"]}"'})
    assert changed.json() == {**shown, **patch, "etag": changed.json()["etag"]}
    stale = await service.patch(path, json={}, headers={**admin, "If-Match": f'"{shown["etag"]}"'})
    assert problem(stale) == (412, "changed-meanwhile")
    assert (await service.patch(path, json={"secret": SECRET}, headers=admin)).json() == changed.json()
    assert (await service.delete(path, headers=admin)).status_code == 204
    assert problem(await service.get(path, headers=admin)) == (404, "not-found")
    rows = await demo.database.fetch(
        "SELECT account_id, face, before, after FROM callflow_history WHERE kind = 'webhook' AND resource = $1"
        " ORDER BY id",
        str(shown["id"]),
    )
    assert [(row["account_id"], row["face"]) for row in rows] == [(1, "json")] * 4
    assert [row["before"] is None for row in rows] == [True, False, False, False]
    assert [row["after"] is None for row in rows] == [False, False, False, True]
    assert json.loads(rows[2]["after"])["secret_changed"] is True
    assert not any("whsec" in str(row) or "fernet" in str(row) or '"secret"' in str(row) for row in rows)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "https://user:pass@example.com/"}, "url"),
        ({"url": "https://user@example.com/"}, "url"),
        ({"url": "https:///hook"}, "url"),
        ({"url": "https://example.com:0/"}, "url"),
        ({"url": "https://example.com:99999/"}, "url"),
        ({"url": "https://exa mple.com/"}, "url"),
        ({"url": "https://example.com/#part"}, "url"),
        ({"url": "https://example.com/" + "a" * 2048}, "url"),
        ({"url": "http://127.0.0.1/"}, "url"),
        ({"url": "http://10.1.2.3/"}, "url"),
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "http://[::1]/"}, "url"),
        ({"url": "http://[::ffff:127.0.0.1]/"}, "url"),
        ({"url": "http://[fe80::1]/"}, "url"),
        ({"url": "http://224.0.0.1/"}, "url"),
        ({"url": "http://240.0.0.1/"}, "url"),
        ({"url": "http://100.64.0.1/"}, "url"),
        ({"url": "http://[2002:7f00:1::]/"}, "url"),
        ({"url": "http://[64:ff9b::7f00:1]/"}, "url"),
        ({"url": "https://example.com/", "secret": "short"}, "secret"),
        ({"url": "https://example.com/", "secret": "whsec_c2hvcnQ="}, "secret"),
        ({"url": "https://example.com/", "events": []}, "events"),
        ({"url": "https://example.com/", "events": ["nothing"]}, "events.0"),
        ({"url": "https://example.com/", "owner": "nobody"}, "owner"),
        ({"url": "https://example.com/", "id": 4}, "id"),
    ],
)
async def test_a_wrong_webhook_is_refused(
    service: httpx.AsyncClient, admin: dict[str, str], body: dict[str, Any], field: str
) -> None:
    response = await service.post("/v1/webhooks", json=body, headers=admin)
    assert problem(response) == (422, "invalid")
    assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_an_account_manages_its_own_webhooks_and_an_admin_all(
    service: httpx.AsyncClient, make_token: MakeToken, admin: dict[str, str]
) -> None:
    user, reseller = [{"Authorization": f"Bearer {await make_token(account)}"} for account in (21, 10)]
    own = await add(service, user, "https://example.com/")
    assert own["owner"] == "user2"
    for headers, ids in ((user, [own["id"]]), (reseller, []), (admin, [own["id"]])):
        listed = await service.get("/v1/webhooks", headers=headers)
        assert [each["id"] for each in listed.json()["items"]] == ids
        path = f"/v1/webhooks/{own['id']}"
        for method, place in (("GET", ""), ("PATCH", ""), ("GET", "/deliveries"), ("POST", "/test"), ("DELETE", "")):
            if ids and method == "DELETE":
                continue
            body = {} if method == "PATCH" else None
            response = await service.request(method, path + place, json=body, headers=headers)
            assert response.is_success == bool(ids)
            assert ids or problem(response) == (404, "not-found")
    for headers, owner, answer in (
        (user, "admin", (422, "invalid")),
        (reseller, "user2", (403, "not-allowed")),
        (user, "user2", (201, "")),
        (admin, "user2", (201, "")),
    ):
        response = await service.post(
            "/v1/webhooks", json={"url": "https://example.com/", "owner": owner}, headers=headers
        )
        assert (response.status_code, "") == answer or problem(response) == answer
    reading = {"Authorization": f"Bearer {await make_token(1, 'read')}"}
    response = await service.post("/v1/webhooks", json={"url": "https://example.com/"}, headers=reading)
    assert problem(response) == (403, "scope-too-small")


async def test_pages_lead_through_webhooks_and_deliveries(
    service: httpx.AsyncClient, admin: dict[str, str], receiver: Receiver
) -> None:
    added = [(await add(service, admin, receiver.url, events=["did.added"]))["id"] for _ in range(3)]
    first = (await service.get("/v1/webhooks?limit=2", headers=admin)).json()
    second = (await service.get(first["next"], headers=admin)).json()
    assert [each["id"] for each in first["items"] + second["items"]] == added
    assert second["next"] is None
    sent = [(await service.post(f"/v1/webhooks/{added[0]}/test", headers=admin)).json()["id"] for _ in range(3)]
    first = (await service.get(f"/v1/webhooks/{added[0]}/deliveries?limit=2", headers=admin)).json()
    second = (await service.get(first["next"], headers=admin)).json()
    assert [each["id"] for each in first["items"] + second["items"]] == sent[::-1]
    assert second["next"] is None


async def test_an_account_has_at_most_a_hundred_webhooks(
    service: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo
) -> None:
    await demo.database.execute(
        "INSERT INTO webhook (account_id, url, secret, enabled, description)"
        " SELECT 1, 'https://example.com/', '', false, '' FROM generate_series(1, 100)"
    )
    response = await service.post("/v1/webhooks", json={"url": "https://example.com/"}, headers=admin)
    assert problem(response) == (422, "invalid")


async def test_a_change_is_told_whole_and_signed(
    service: httpx.AsyncClient, admin: dict[str, str], receiver: Receiver
) -> None:
    await forward(service, admin, 1)
    webhook = await add(service, admin, receiver.url)
    await forward(service, admin, 2)
    (received,) = await receiver.until(1)
    assert received.head == "POST /hook HTTP/1.1"
    assert received.headers["content-type"] == "application/json"
    assert received.is_signed()
    entry = (await service.get("/v1/history?limit=1", headers=admin)).json()["items"][0]
    assert entry["after"]["otherwise"]["steps"][0]["to"] == {"number": "2"}
    message = received.message
    assert message == {"type": "callflow.changed", "timestamp": entry["at"], "data": message["data"]}
    assert {name: message["data"][name] for name in entry} == entry
    (delivery,) = await until(service, admin, webhook, "delivered")
    (attempt,) = delivery.pop("attempts")
    assert delivery == {
        "id": delivery["id"],
        "message_id": received.headers["webhook-id"],
        "event": "callflow.changed",
        "history": entry["id"],
        "created_at": delivery["created_at"],
        "status": "delivered",
        "problem": None,
        "next_attempt_at": None,
        "finished_at": delivery["finished_at"],
    }
    assert (attempt["status"], attempt["problem"]) == (200, None)
    assert abs(int(received.headers["webhook-timestamp"]) - seconds_of(attempt["at"])) <= 1


def seconds_of(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


async def test_every_kind_of_change_has_its_event(
    service: httpx.AsyncClient, admin: dict[str, str], receiver: Receiver
) -> None:
    await add(service, admin, receiver.url, events=None)
    added = []
    for path, body, patch in (
        ("accounts", {"username": "new", "role": "user", "owner": "admin"}, {"name": "New"}),
        ("devices", {"technology": "SIP", "name": "777", "owner": "user1"}, {"caller_name": "N"}),
        ("dids", {"number": "777"}, {"number": "778"}),
        ("switches", {"username": "more", "password": "long and random"}, {"domain": "h.example"}),
        (
            "profiles",
            {"name": "Holidays", "where": {"devices": [4]}, "set": {"busy": {"otherwise": {"action": "voicemail"}}}},
            {"name": "Easter"},
        ),
        ("schedules", {"name": "Office", "owner": "user1", "time_zone": "Europe/Vilnius"}, {"name": "Shop"}),
        ("caller_lists", {"name": "Family", "owner": "user1", "entries": ["+37061234567"]}, {"name": "Friends"}),
        ("webhooks", {"url": receiver.url, "events": ["callflow.changed"]}, {"description": "more"}),
    ):
        response = await service.post(f"/v1/{path}", json=body, headers=admin)
        assert response.status_code == 201, response.text
        place = response.headers["location"]
        assert (await service.patch(place, json=patch, headers=admin)).status_code == 200
        added.append(place)
    for place in added:
        assert (await service.delete(place, headers=admin)).status_code == 204
    await forward(service, admin, 5)
    emergency = {"otherwise": {"action": "forward", "steps": [{"to": {"number": "112"}}]}}
    assert (await service.put("/v1/devices/4/callflow/busy", json=emergency, headers=admin)).status_code == 422
    # Its own addition is the first that a webhook is told of.
    received = await receiver.until(27)
    assert sorted(each.message["type"] for each in received) == sorted([*Event, Event.WEBHOOK_ADDED])


async def test_a_webhook_is_told_of_what_its_events_name_and_its_account_may_see(
    service: httpx.AsyncClient, make_token: MakeToken, admin: dict[str, str]
) -> None:
    user = {"Authorization": f"Bearer {await make_token(20)}"}
    async with receiving() as users, receiving() as admins:
        await add(service, user, users.url, events=None)
        await add(service, admin, admins.url, events=["device.changed"])
        await forward(service, admin, 1, device=200)
        await service.patch("/v1/devices/200", json={"caller_name": "A"}, headers=admin)
        await forward(service, admin, 2, device=4)
        await service.patch("/v1/devices/4", json={"caller_name": "B"}, headers=admin)
        await users.until(2)
        await admins.until(2)
        assert [each.message["data"]["device"] for each in users.received] == [4, 4]
        assert [each.message["type"] for each in users.received] == ["callflow.changed", "device.changed"]
        assert [each.message["data"]["device"] for each in admins.received] == [200, 4]


async def test_a_test_is_a_ping(service: httpx.AsyncClient, admin: dict[str, str], receiver: Receiver) -> None:
    webhook = await add(service, admin, receiver.url, events=["did.added"])
    sent = await service.post(f"/v1/webhooks/{webhook['id']}/test", headers=admin)
    assert (sent.status_code, sent.json()["status"], sent.json()["event"]) == (202, "waiting", "ping")
    (received,) = await receiver.until(1)
    assert received.is_signed()
    message = received.message
    assert (message["type"], message["data"]) == ("ping", {"webhook": webhook["id"]})
    await until(service, admin, webhook, "delivered")
    await service.patch(f"/v1/webhooks/{webhook['id']}", json={"enabled": False}, headers=admin)
    response = await service.post(f"/v1/webhooks/{webhook['id']}/test", headers=admin)
    assert problem(response) == (422, "invalid")


async def test_what_a_receiver_does_not_take_is_sent_again_with_growing_waits_under_the_same_id(
    service: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo, receiver: Receiver
) -> None:
    webhook = await add(service, admin, receiver.url)
    receiver.answer = lambda _: 500
    await forward(service, admin, 1)
    waits = []
    for number in range(1, 7):
        await until_attempts(demo, number)
        waits.append(
            await demo.database.fetchval(
                "SELECT round(extract(epoch FROM due_at - (SELECT max(at) FROM webhook_attempt)))::int"
                " FROM webhook_delivery"
            )
        )
        if number == 6:
            receiver.answer = lambda _: 204
        await hurry(service, admin, webhook)
    assert [low <= wait <= low + 10 for wait, low in zip(waits, (5, 30, 120, 600, 1800, 3600), strict=True)] == [
        True
    ] * 6
    (delivery,) = await until(service, admin, webhook, "delivered")
    assert [attempt["status"] for attempt in delivery["attempts"]] == [500] * 6 + [204]
    assert delivery["attempts"][0]["problem"] == "It answered 500."
    assert len({each.headers["webhook-id"] for each in receiver.received}) == 1
    assert len({each.body for each in receiver.received}) == 1
    assert all(each.is_signed() for each in receiver.received)


async def test_a_later_change_of_a_device_waits_for_the_earlier_and_those_of_others_do_not(
    service: httpx.AsyncClient, admin: dict[str, str], receiver: Receiver
) -> None:
    webhook = await add(service, admin, receiver.url)
    receiver.answer = lambda each: 500 if each.message["data"]["device"] == 4 else 200
    for number in range(1, 4):
        await forward(service, admin, number, device=4)
        await forward(service, admin, number, device=5)
    await until(service, admin, webhook, *["waiting", "delivered"] * 3)
    assert numbers(receiver, 5) == [1, 2, 3]
    assert set(numbers(receiver, 4)) == {1}
    assert [each["next_attempt_at"] is None for each in await deliveries(service, admin, webhook)] == [
        False,
        True,
        True,
        True,
        True,
        True,
    ]
    tried = len(numbers(receiver, 4))
    receiver.answer = lambda _: 200
    await hurry(service, admin, webhook)
    await until(service, admin, webhook, *["delivered"] * 6)
    assert numbers(receiver, 4)[tried:] == [1, 2, 3]


async def test_after_three_days_a_message_is_given_up_and_the_next_one_goes_out(
    service: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo, receiver: Receiver
) -> None:
    webhook = await add(service, admin, receiver.url)
    receiver.answer = lambda _: 500
    await forward(service, admin, 1)
    await until_attempts(demo, 1)
    await forward(service, admin, 2)
    await until(service, admin, webhook, "waiting", "waiting")
    receiver.answer = lambda each: 500 if number_in(each) == 1 else 200
    await demo.database.execute(
        "UPDATE webhook_delivery SET expires_at = clock_timestamp() + interval '1 minute' WHERE due_at IS NOT NULL"
    )
    # Of the first all attempts but one were made.
    await demo.database.execute("UPDATE webhook_delivery SET attempts = 12 WHERE due_at IS NOT NULL")
    await hurry(service, admin, webhook)
    given_up, _ = await until(service, admin, webhook, "given_up", "delivered")
    assert given_up["problem"] == "It could not be delivered within 3 days."
    assert given_up["next_attempt_at"] is None


async def test_what_waited_behind_others_until_its_time_was_over_is_given_up(
    service: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo, receiver: Receiver
) -> None:
    webhook = await add(service, admin, receiver.url)
    receiver.answer = lambda _: 500
    await forward(service, admin, 1)
    await until_attempts(demo, 1)
    await forward(service, admin, 2)
    await until(service, admin, webhook, "waiting", "waiting")
    await demo.database.execute("UPDATE webhook_delivery SET expires_at = clock_timestamp() WHERE due_at IS NULL")
    await hurry(service, admin, webhook)
    await until(service, admin, webhook, "waiting", "given_up")


async def test_a_receiver_that_says_gone_is_told_no_more(
    service: httpx.AsyncClient, admin: dict[str, str], receiver: Receiver
) -> None:
    webhook = await add(service, admin, receiver.url, events=["callflow.changed", "webhook.changed"])
    receiver.answer = lambda _: 410
    await forward(service, admin, 1)
    (delivery,) = await until(service, admin, webhook, "given_up")
    assert delivery["problem"] == "The receiver answered 410, Gone."
    shown = (await service.get(f"/v1/webhooks/{webhook['id']}", headers=admin)).json()
    assert (shown["enabled"], shown["disabled_because"]) == (False, "The receiver answered 410, Gone.")
    entry = (await service.get("/v1/history?face=webhook", headers=admin)).json()["items"][0]
    assert (entry["kind"], entry["resource"], entry["account"]) == ("webhook", str(webhook["id"]), "admin")
    receiver.answer = lambda _: 200
    await forward(service, admin, 2)
    enabled = await service.patch(f"/v1/webhooks/{webhook['id']}", json={"enabled": True}, headers=admin)
    assert (enabled.json()["enabled"], enabled.json()["disabled_because"]) == (True, None)
    await forward(service, admin, 3)
    await until(service, admin, webhook, "given_up", "delivered", "delivered")
    assert {each.message["type"] for each in receiver.received[1:]} == {"webhook.changed", "callflow.changed"}


async def test_what_waits_for_a_webhook_that_is_disabled_is_given_up(
    service: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo, receiver: Receiver
) -> None:
    webhook = await add(service, admin, receiver.url)
    receiver.answer = lambda _: 500
    await forward(service, admin, 1)
    await until_attempts(demo, 1)
    await service.patch(f"/v1/webhooks/{webhook['id']}", json={"enabled": False}, headers=admin)
    (delivery,) = await until(service, admin, webhook, "given_up")
    assert delivery["problem"] == "The webhook was disabled."


async def test_a_redirect_is_not_followed(
    service: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo, receiver: Receiver
) -> None:
    async with receiving("127.0.0.3") as elsewhere:
        place = f"http://127.0.0.3:{elsewhere.port}/"
        receiver.answer = lambda _: f"HTTP/1.1 307 Moved\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
        webhook = await add(service, admin, receiver.url)
        await forward(service, admin, 1)
        await until_attempts(demo, 1)
        (delivery,) = await deliveries(service, admin, webhook)
        assert delivery["attempts"][0]["problem"] == "It answered 307. Redirects are not followed."
        assert (elsewhere.connections, elsewhere.received) == (0, [])


@pytest.mark.parametrize("name", ["localhost", "127.1", "0x7f000003", "2130706435"])
async def test_a_name_that_leads_inside_is_not_sent_to(
    service: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo, name: str
) -> None:
    async with receiving("127.0.0.3") as inside:
        webhook = await add(service, admin, f"http://{name}:{inside.port}/")
        await forward(service, admin, 1)
        await until_attempts(demo, 1)
        (delivery,) = await deliveries(service, admin, webhook)
        assert delivery["attempts"][0]["problem"] == "Its name leads to no public address."
        assert inside.connections == 0


async def test_the_address_that_was_checked_is_the_one_that_is_sent_to(
    service: httpx.AsyncClient,
    admin: dict[str, str],
    demo: OwnDemo,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name server that says something else the second time."""
    looked_up = socket.getaddrinfo
    told = iter([[HERE, "127.0.0.3"], ["127.0.0.3"]])

    def rebinding(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != "crm.example.com":
            return looked_up(host, port, *arguments, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in next(told)]

    monkeypatch.setattr("callflow_service.delivery.sending.getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    async with receiving("127.0.0.3") as inside:
        webhook = await add(service, admin, f"http://crm.example.com:{receiver.port}/in")
        await forward(service, admin, 1)
        (received,) = await receiver.until(1)
        await until(service, admin, webhook, "delivered")
        assert received.headers["host"] == f"crm.example.com:{receiver.port}"
        # Another webhook there, for a name is looked up once while messages follow each other.
        await service.patch(f"/v1/webhooks/{webhook['id']}", json={"enabled": False}, headers=admin)
        webhook = await add(service, admin, webhook["url"])
        await forward(service, admin, 2)
        await until_attempts(demo, 2)
        (delivery,) = await deliveries(service, admin, webhook)
        assert delivery["attempts"][0]["problem"] == "Its name leads to no public address."
        assert (inside.connections, len(receiver.received)) == (0, 1)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "It did not answer in time."),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "It did not answer by HTTP, or hung up."),
        (404, "It answered 404."),
    ],
)
async def test_what_failed_is_told(  # noqa: PLR0917 - fixtures and parameters
    service: httpx.AsyncClient,
    admin: dict[str, str],
    demo: OwnDemo,
    receiver: Receiver,
    answer: int | bytes | None,
    told: str,
) -> None:
    receiver.answer = lambda _: answer
    webhook = await add(service, admin, receiver.url)
    await forward(service, admin, 1)
    await until_attempts(demo, 1)
    (delivery,) = await deliveries(service, admin, webhook)
    assert delivery["attempts"][0]["problem"] == told


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://nothing.invalid/", "Its name was not found."),
        (f"http://{HERE}:1/", "It could not be connected to."),
    ],
)
async def test_who_is_not_there_is_told(
    service: httpx.AsyncClient, admin: dict[str, str], demo: OwnDemo, url: str, told: str
) -> None:
    webhook = await add(service, admin, url)
    await forward(service, admin, 1)
    await until_attempts(demo, 1)
    (delivery,) = await deliveries(service, admin, webhook)
    assert delivery["attempts"][0]["problem"] == told


async def test_no_more_of_an_answer_is_read_than_is_needed(
    service: httpx.AsyncClient, admin: dict[str, str], receiver: Receiver
) -> None:
    receiver.answer = lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n" + b"a" * 1_000_000
    webhook = await add(service, admin, receiver.url)
    await forward(service, admin, 1)
    await until(service, admin, webhook, "delivered")


async def test_a_receiver_that_hangs_holds_up_no_other(service: httpx.AsyncClient, admin: dict[str, str]) -> None:
    async with receiving() as hanging, receiving() as quick:
        hanging.answer = lambda _: None
        webhook = await add(service, admin, hanging.url, events=["callflow.changed"])
        await add(service, admin, quick.url, events=["callflow.changed"])
        for number in range(1, 31):
            await forward(service, admin, number)
        await quick.until(30)
        assert numbers(quick) == list(range(1, 31))
        assert {each["status"] for each in await deliveries(service, admin, webhook)} == {"waiting"}


async def test_an_account_that_may_not_come_in_is_told_nothing(
    service: httpx.AsyncClient, make_token: MakeToken, admin: dict[str, str], receiver: Receiver
) -> None:
    user = {"Authorization": f"Bearer {await make_token(20)}"}
    await add(service, user, receiver.url, events=["callflow.changed"])
    assert (await service.patch("/v1/accounts/20", json={"blocked": True}, headers=admin)).status_code == 200
    await forward(service, admin, 1)
    async with receiving() as other:
        await add(service, admin, other.url, events=["callflow.changed"])
        await forward(service, admin, 2)
        await other.until(1)
    assert receiver.received == []
    assert (await service.patch("/v1/accounts/20", json={"blocked": False}, headers=admin)).status_code == 200
    await receiver.until(2)
    assert numbers(receiver) == [1, 2]


async def test_a_refused_target_is_told_of(
    service: httpx.AsyncClient, admin: dict[str, str], receiver: Receiver
) -> None:
    await add(service, admin, receiver.url, events=["target.suspicious"])
    flow = {"otherwise": {"action": "forward", "steps": [{"to": {"number": "+37090012345"}}]}}
    refused = await service.put("/v1/devices/4/callflow/busy", headers=admin, json=flow)
    assert refused.status_code == 422
    await receiver.until(1)
    message = json.loads(receiver.received[0].body)
    assert message["type"] == "target.suspicious"
    assert (message["data"]["device"], message["data"]["after"]["reason"]) == (4, "premium-rate")


async def test_no_secret_stands_anywhere(
    service: httpx.AsyncClient,
    admin: dict[str, str],
    demo: OwnDemo,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    texts = []
    body = {"url": receiver.url, "events": ["callflow.changed", "account.added"]}
    added = await service.post("/v1/webhooks", json=body, headers=admin)
    made = added.json()["secret"].removeprefix("whsec_")
    webhook = await add(service, admin, receiver.url, events=["callflow.changed", "account.added"])
    given = SECRET.removeprefix("whsec_")
    await forward(service, admin, 1)
    await receiver.until(2)
    body = {"username": "known", "role": "user", "owner": "admin", "password": given, "api_key": given}
    assert (await service.post("/v1/accounts", json=body, headers=admin)).status_code == 201
    await receiver.until(4)
    refused = await service.post("/v1/webhooks", json={"url": "x", "secret": f"{SECRET}!"}, headers=admin)
    texts += [refused.text, caplog.text]
    texts += [each.body.decode() + str(each.headers) for each in receiver.received]
    for path in ("webhooks", f"webhooks/{webhook['id']}", f"webhooks/{webhook['id']}/deliveries", "history?limit=1000"):
        texts.append((await service.get(f"/v1/{path}", headers=admin)).text)
    for table in ("webhook", "webhook_delivery", "webhook_attempt", "callflow_history"):
        texts.append(str(await demo.database.fetchval(f"SELECT string_agg({table}::text, '') FROM {table}")))  # noqa: S608 - ours
    assert not any(secret in text for secret in (given, made) for text in texts)
    assert len({each.headers["webhook-signature"] for each in receiver.received}) == 4


async def test_webhooks_are_in_the_document(service: httpx.AsyncClient) -> None:
    document = (await service.get("/openapi.json")).json()
    message = document["webhooks"]["change"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert message == {"$ref": "#/components/schemas/Message"}
    events = document["components"]["schemas"]["Event"]["enum"]
    assert events == [str(event) for event in Event]
