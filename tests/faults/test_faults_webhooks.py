"""Webhooks while workers are killed, while much waits, and with secrets everywhere."""

import asyncio
import json
import os
import random
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from canaries import ENCRYPTION_KEY, MARK, WEBHOOK_SECRET, api_key, holds_canary, write_world
from constant_load import constant_load, p99_ms
from ledger import Ledger, Losses, add_devices
from supervised import Supervised, supervised

from callflow_service.domain.tokens import new_token, token_hash
from clusters import Cluster, connection_to, fetch_value, running_cluster, until
from encryption import KEY
from mor_requests import UPDATE, signed
from program import run
from webhook_receiver import HERE, SECRET, Received, receiving

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

KILLS: Final = 20
DEVICES: Final = 60
CLIENTS: Final = 4
WAITING: Final = 10_000
SETTINGS: Final = {"CALLFLOW_WEBHOOK_NETWORKS": HERE, "CALLFLOW_WEBHOOK_TIMEOUT_MS": "1000"}
_PATIENCE_SECONDS: Final = 240


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster("fsync=on", "recovery_init_sync_method=syncfs") as running:
        yield running


@asynccontextmanager
async def admin_of(service: Supervised, cluster: Cluster) -> AsyncIterator[httpx.AsyncClient]:
    """A client with an admin's token."""
    token = new_token()
    statement = "INSERT INTO token (account_id, name, scope, token_hash) VALUES (1, 'test', 'write', $1)"
    async with connection_to(cluster) as connection:
        await connection.execute(statement, token_hash(token))
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60) as client:
        yield client


async def add(client: httpx.AsyncClient, url: str, secret: str = SECRET) -> int:
    body = {"url": url, "events": ["callflow.changed"], "secret": secret}
    response = await client.post("/v1/webhooks", json=body)
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


async def test_every_acknowledged_change_is_delivered_in_order_whichever_worker_is_killed(
    cluster: Cluster, figure: "Figure", tmp_path: Path
) -> None:
    seed = int(os.environ.get("CALLFLOW_TEST_SEED") or secrets.randbits(32))
    figure("webhooks: CALLFLOW_TEST_SEED", seed)
    chance = random.Random(seed)  # noqa: S311 - what is killed when is no secret
    devices = await add_devices(cluster, DEVICES)
    taken: list[Received] = []
    kill_next = asyncio.Event()
    async with (
        supervised(cluster.url, tmp_path / "log", workers=2, **SETTINGS) as service,
        receiving() as receiver,
        admin_of(service, cluster) as client,
    ):

        def answer(received: Received) -> int:
            """Now and then a failure; and now and then the service is gone before it has heard the answer."""
            if kill_next.is_set():
                kill_next.clear()
                for worker in service.workers():
                    worker.kill()
            elif chance.random() < 0.02:
                return 503
            taken.append(received)
            return 200

        receiver.answer = answer
        await add(client, receiver.url)
        ledger = Ledger([service.url], clients=CLIENTS)
        async with ledger.clients_at_work(devices):
            for number in range(KILLS):
                await asyncio.sleep(chance.uniform(0.3, 1.5))
                starts = service.starts
                if number % 2:
                    chance.choice(service.workers()).kill()
                    await service.until_started(starts + 1)
                else:
                    kill_next.set()
                    await until(lambda: is_clear(kill_next), seconds=_PATIENCE_SECONDS)
                    await service.until_started(starts + 2)
        losses = await ledger.losses(cluster)
        await until(lambda: all_is_told(cluster), seconds=_PATIENCE_SECONDS)
        defects = service.defects()
    told = {received.message["data"]["request_id"] for received in taken}
    missing = [attempt.number for attempt in ledger.acknowledged if attempt.request_id not in told]
    changes = await fetch_value(cluster, "SELECT count(*) FROM callflow_history WHERE kind = 'callflow'")
    distinct = {received.headers["webhook-id"] for received in taken}
    figure("webhooks: workers killed, half of them before they heard an answer", KILLS)
    figure("webhooks: updates acknowledged", len(ledger.acknowledged))
    figure("webhooks: messages taken, and how many of them came again", (len(taken), len(taken) - len(distinct)))
    figure("webhooks: acknowledged and not told", len(missing))
    assert missing == []
    assert losses == Losses()
    assert len(distinct) == changes
    assert {
        device: positions for device, positions in in_order_of_coming(taken).items() if positions != sorted(positions)
    } == {}
    assert all(received.is_signed() for received in taken)
    assert defects == []


async def is_clear(event: asyncio.Event) -> bool:
    return not event.is_set()


async def all_is_told(cluster: Cluster) -> bool:
    """Whether nothing waits, and every change is in the feed and was looked at."""
    statement = """
        SELECT NOT EXISTS (SELECT FROM webhook_delivery WHERE finished_at IS NULL)
            AND NOT EXISTS (SELECT FROM callflow_history WHERE position IS NULL)
            AND NOT EXISTS (SELECT FROM webhook_progress, change_feed WHERE webhook_progress.position < head)"""
    return bool(await fetch_value(cluster, statement))


def in_order_of_coming(taken: list[Received]) -> dict[int, list[int]]:
    """By device, the positions in the feed of what was told of it, each where it came first."""
    found: dict[int, list[int]] = defaultdict(list)
    for received in taken:
        data = received.message["data"]
        if data["position"] not in found[data["device"]]:
            found[data["device"]].append(data["position"])
    return found


async def test_a_service_that_ends_hears_what_it_is_answered_first(cluster: Cluster, tmp_path: Path) -> None:
    async with (
        supervised(cluster.url, tmp_path / "log", **SETTINGS) as service,
        receiving() as receiver,
        admin_of(service, cluster) as client,
    ):
        receiver.delay_seconds = 0.7
        webhook = await add(client, receiver.url)
        assert (await client.post(f"/v1/webhooks/{webhook}/test")).status_code == 202
        await receiver.until(1)
        await service.end()
        await until(lambda: all_is_told(cluster))
        await service.until_started(2)
        assert await fetch_value(cluster, "SELECT attempts FROM webhook_delivery") == 1
        assert await fetch_value(cluster, "SELECT holder IS NULL FROM webhook_progress")
        assert len(receiver.received) == 1
        assert service.defects() == []


async def test_ten_thousand_messages_that_wait_hold_up_nothing(
    cluster: Cluster, figure: "Figure", tmp_path: Path
) -> None:
    async with (
        supervised(cluster.url, tmp_path / "log", workers=2, **SETTINGS) as service,
        receiving() as hanging,
        receiving() as failing,
        receiving() as quick,
        admin_of(service, cluster) as client,
    ):
        hanging.answer = lambda _: None
        failing.answer = lambda _: 500
        slow = [await add(client, each.url) for each in (hanging, failing)]
        port = int(service.url.rpartition(":")[2])
        async with constant_load(port, clients=8) as load:
            await asyncio.sleep(10)
            alone = len(load.asked)
        before = p99_ms(load.asked)
        async with connection_to(cluster) as connection:
            await connection.execute(
                """INSERT INTO webhook_delivery (webhook_id, event, subject, body, expires_at, due_at)
                SELECT webhook, 'callflow.changed', 'device/' || number, '{}', clock_timestamp() + interval '3 days',
                    clock_timestamp()
                FROM generate_series(1, $1::integer) AS number, unnest($2::bigint[]) AS webhook""",
                WAITING,
                slow,
            )
        fast = await add(client, quick.url)
        async with constant_load(port, clients=8) as load:
            await asyncio.sleep(20)
        asked = list(load.asked)
        updates = sum(one.kind == "update" and not one.failure for one in asked)

        async def is_told() -> bool:
            statement = "SELECT count(*) FROM webhook_delivery WHERE webhook_id = $1 AND outcome = 'delivered'"
            return bool(await fetch_value(cluster, statement, fast) >= updates)

        await until(is_told, seconds=_PATIENCE_SECONDS)
        waiting = await fetch_value(cluster, "SELECT count(*) FROM webhook_delivery WHERE finished_at IS NULL")
        defects = service.defects()
        # One more, after all that.
        (page,) = (await client.get(f"/v1/webhooks/{slow[0]}/deliveries?limit=1")).json()["items"]
    figure("webhooks: requests in ten seconds without webhooks, 99th percentile in ms", (alone, before))
    figure(
        "webhooks: requests in twenty seconds with 10,000 messages waiting for each of two", (len(asked), p99_ms(asked))
    )
    figure("webhooks: messages waiting in the end", waiting)
    assert [one.failure for one in asked if one.failure] == []
    assert waiting >= 2 * WAITING
    assert page["status"] == "waiting"
    assert defects == []


@pytest.fixture
def told_of_canaries(tmp_path: Path) -> Iterator[tuple[Cluster, dict[str, str]]]:
    """A cluster that logs every statement, with a world of canaries, and the service's settings for it."""
    keys = f"{ENCRYPTION_KEY},{KEY.get_secret_value()}"
    with running_cluster("log_min_duration_statement=0", "log_parameter_max_length_on_error=-1") as cluster:
        world = tmp_path / "world.yaml"
        write_world(world)
        loaded = run("load", str(world), url=cluster.url, CALLFLOW_ENCRYPTION_KEYS=keys)
        assert loaded.returncode == 0, loaded.stderr
        yield cluster, SETTINGS | {"CALLFLOW_ENCRYPTION_KEYS": keys, "CALLFLOW_LOG_LEVEL": "debug"}


async def test_no_secret_reaches_a_receiver_or_stands_beside_what_was_told(
    told_of_canaries: tuple[Cluster, dict[str, str]], tmp_path: Path
) -> None:
    cluster, settings = told_of_canaries
    log = tmp_path / "log"
    async with (
        supervised(cluster.url, log, **settings) as service,
        receiving() as receiver,
        admin_of(service, cluster) as client,
    ):
        body = {"url": receiver.url, "secret": WEBHOOK_SECRET}
        added = await client.post("/v1/webhooks", json=body)
        assert added.status_code == 201
        answers = [added.text]
        account = {"username": "known", "role": "user", "owner": "admin", "password": MARK, "api_key": MARK}
        for method, path, sent in (
            ("POST", "/v1/accounts", account),
            ("PATCH", "/v1/accounts/20", {"api_key": f"{MARK}2"}),
            ("PATCH", f"/v1/webhooks/{added.json()['id']}", {"secret": WEBHOOK_SECRET}),
            ("POST", f"/v1/webhooks/{added.json()['id']}/test", None),
            ("PATCH", f"/v1/webhooks/{added.json()['id']}", {"secret": f"{WEBHOOK_SECRET}!"}),
            ("GET", "/v1/webhooks", None),
            ("GET", "/v1/changes", None),
        ):
            answers.append((await client.request(method, path, json=sent)).text)
        values = {"u": "admin", "device_id": "4", "callflow_action": "empty", "state": "busy"}
        answers.append((await client.post(UPDATE, data=signed(values, api_key("admin")))).text)
        assert "successfully" in answers[-1]
        await receiver.until(5)
        await until(lambda: all_is_told(cluster))
        answers.append((await client.get(f"/v1/webhooks/{added.json()['id']}/deliveries")).text)
        answers.append((await client.get("/metrics")).text)
    told = [json.dumps(received.headers).encode() + received.body for received in receiver.received]
    assert all(received.is_signed(WEBHOOK_SECRET) for received in receiver.received)
    tables: list[Any] = [
        await fetch_value(cluster, f"SELECT string_agg({table}::text, '') FROM {table}")  # noqa: S608 - ours
        for table in ("webhook", "webhook_delivery", "webhook_attempt", "callflow_history")
    ]
    written = [log.read_bytes(), (cluster.folder / "log").read_bytes()]
    texts = [each.encode() for each in answers] + told + [each.encode() for each in tables] + written
    assert [text[:400] for text in texts if holds_canary(text)] == []
