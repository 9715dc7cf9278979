"""The feed of changes under many overlapping writers, and when who gives positions is killed in the midst of it."""

import asyncio
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from ledger import STATES, Ledger, Losses, add_devices
from supervised import Supervised, supervised

from callflow_service.domain.access import OwnedDevice
from callflow_service.domain.callflow import Device, Forward, FromDevice, State
from callflow_service.domain.changing import Change
from callflow_service.domain.history import Face, Origin, Sender
from callflow_service.domain.tokens import new_token, token_hash
from callflow_service.repositories import callflows
from callflow_service.storage.database import Database
from clusters import Cluster, connection_to, fetch_value, running_cluster, until

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

CHANGES: Final = 50_000
WRITERS: Final = 16
DEVICES: Final = 300
PATIENCE_SECONDS: Final = 300
EVENTS_PER_CONNECTION: Final = 4_000
KILLS: Final = 20
SHARE_TAKEN_BACK: Final = 0.1
LAST: Final = "999999999"
"""The name of the change that comes after all others."""

Headers = dict[str, str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL of this module's own, which writes as carefully as one in use."""
    with running_cluster("fsync=on", "recovery_init_sync_method=syncfs", "max_connections=60") as running:
        yield running


async def token_of_an_admin(cluster: Cluster) -> Headers:
    token = new_token()
    statement = "INSERT INTO token (account_id, name, scope, token_hash) VALUES (1, 'test', 'read', $1)"
    await fetch_value(cluster, statement, token_hash(token))
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True, slots=True)
class Made:
    """A change that was acknowledged: when its commit was asked for at the earliest, and when it was known."""

    request_id: str
    began: float
    ended: float


async def save(connection: asyncpg.Connection, name: str, device: int) -> None:
    """Change a device's flow in one of its states, by the update's own statement."""
    owned = OwnedDevice(Device(device, "SIP", str(device)), 20, "user1", 1, 60)
    change = Change(owned, State(STATES[device % len(STATES)]), Forward.to(name, FromDevice()))
    await callflows.save(connection, change, Origin(1, Face.JSON, Sender(None, name)))


class Writers:
    """Change the same devices all at once.

    Every second one commits each change by itself, as MOR's calls do. The others make several in a transaction that
    they leave open for a while, and take some of them back.
    """

    def __init__(self, cluster: Cluster, devices: Sequence[int], chance: random.Random) -> None:
        self._cluster = cluster
        self._devices = devices
        self._chance = chance
        self._names = map(str, count(1))
        self.made: list[Made] = []
        self.taken_back = 0

    async def work(self) -> None:
        database = Database(self._cluster.url, pool_size=WRITERS // 2, timeout_ms=60_000)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(WRITERS // 2):
                tasks.create_task(self._one_by_one(database))
                tasks.create_task(self._several_at_once())
        await self._change(database, LAST)
        await database.close()

    @property
    def _is_done(self) -> bool:
        return len(self.made) >= CHANGES

    async def _one_by_one(self, database: Database) -> None:
        while not self._is_done:
            await self._change(database, next(self._names))

    async def _change(self, database: Database, name: str) -> None:
        device = self._chance.choice(self._devices)
        began = time.monotonic()
        await database.run(lambda connection: save(connection, name, device))
        self.made.append(Made(name, began, time.monotonic()))

    async def _several_at_once(self) -> None:
        async with connection_to(self._cluster) as connection:
            while not self._is_done:
                transaction = connection.transaction()
                await transaction.start()
                names = []
                # In the order of their ids, or two transactions would wait for each other.
                for device in sorted(self._chance.sample(self._devices, self._chance.randint(1, 20))):
                    names.append(next(self._names))
                    await save(connection, names[-1], device)
                await asyncio.sleep(self._chance.uniform(0, 0.02))
                if self._chance.random() < SHARE_TAKEN_BACK:
                    await transaction.rollback()
                    self.taken_back += len(names)
                    continue
                began = time.monotonic()
                await transaction.commit()
                self.made += [Made(name, began, time.monotonic()) for name in names]


async def read_pages(service: Supervised, headers: Headers) -> list[Any]:
    """Read the feed page by page, up to the last change."""
    found: list[Any] = []
    cursor = "0"
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE_SECONDS, headers=headers) as http:
        while not found or found[-1]["request_id"] != LAST:
            response = await http.get("/v1/changes", params={"after": cursor, "limit": 1000})
            if response.status_code == 200:
                found += response.json()["items"]
                cursor = response.json()["cursor"]
            await asyncio.sleep(0.05)
    return found


async def follow(service: Supervised, headers: Headers) -> tuple[list[Any], int]:
    """Follow the feed up to the last change, and connect again now and then; how often it connected."""
    found: list[Any] = []
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE_SECONDS) as http:
        for connections in count(1):
            last = {"Last-Event-ID": str(found[-1]["position"])} if found else {}
            begun = len(found)
            async with http.stream("GET", "/v1/changes/stream", headers=headers | last) as response:
                assert response.status_code == 200
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        found.append(json.loads(line.removeprefix("data: ")))
                        if found[-1]["request_id"] == LAST:
                            return found, connections
                        if len(found) - begun == EVENTS_PER_CONNECTION:
                            break
    raise AssertionError


@contextmanager
def asleep(service: Supervised, headers: Headers) -> Iterator[None]:
    """A reader that follows the feed and takes nothing of it."""
    address = urlsplit(service.url)
    lines = ("GET /v1/changes/stream HTTP/1.1", "Host: test", *map(": ".join, headers.items()), "", "")
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        connection.sendall("\r\n".join(lines).encode())
        yield


def out_of_order(found: Sequence[Any], made: Sequence[Made]) -> list[tuple[str, str]]:
    """Changes that are told after one whose commit was only asked for when theirs was known already."""
    when = {each.request_id: each for each in made}
    latest, wrong = Made("", 0, 0), []
    for item in found:
        this = when[item["request_id"]]
        if this.ended < latest.began:
            wrong.append((latest.request_id, this.request_id))
        latest = max(latest, this, key=lambda each: each.began)
    return wrong


def broken_chains(found: Sequence[Any]) -> list[str]:
    """Changes of a state that do not begin with what the one before them left."""
    left: dict[tuple[int, str], Any] = {}
    broken = []
    for item in found:
        state = (item["device"], item["state"])
        if item["before"] != left.get(state, item["before"]):
            broken.append(item["request_id"])
        left[state] = item["after"]
    return broken


async def test_many_overlapping_changes_are_told_once_and_in_the_order_of_their_commits(
    cluster: Cluster, figure: "Figure", tmp_path: Path
) -> None:
    headers = await token_of_an_admin(cluster)
    devices = await add_devices(cluster, DEVICES)
    writers = Writers(cluster, devices, random.Random(11))  # noqa: S311 - no secret
    async with supervised(cluster.url, tmp_path / "log", workers=2) as service:
        with asleep(service, headers):
            async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(read_pages(service, headers))
                following = tasks.create_task(follow(service, headers))
                started = time.monotonic()
                await writers.work()
                written = time.monotonic()
            caught_up = time.monotonic()
        defects = service.defects()
    paged, (streamed, connections) = reading.result(), following.result()
    figure("feed: changes", len(writers.made))
    figure("feed: changes taken back", writers.taken_back)
    figure("feed: changes a second, while two readers followed", round(len(writers.made) / (written - started)))
    figure("feed: seconds from the last change until both had it", round(caught_up - written, 2))
    figure("feed: connections of the stream", connections)
    assert len(paged) == len(writers.made)
    assert {item["request_id"] for item in paged} == {each.request_id for each in writers.made}
    assert [item["position"] for item in paged] == list(range(1, len(paged) + 1))
    assert streamed == paged
    assert out_of_order(paged, writers.made) == []
    assert broken_chains(paged) == []
    assert defects == []


# While somebody holds one of them, whoever gives changes their positions waits in the midst of it.
HOLD = "SELECT id FROM callflow_history WHERE position IS NULL ORDER BY id DESC LIMIT 1 FOR UPDATE"
WAITS = """SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'callflow-service' AND wait_event_type = 'Lock' AND query LIKE '%SET position%'"""


async def kill_while_positions_are_given(cluster: Cluster, service: Supervised, headers: Headers) -> None:
    """SIGKILL to a service that has given some changes their positions and not committed it."""

    async def is_held() -> bool:
        return await holding.fetchval(HOLD) is not None

    async def is_at_it() -> bool:
        return await fetch_value(cluster, WAITS) > 0

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE_SECONDS) as http:
            with suppress(httpx.TransportError):
                # Until it is cut off: one that waits too long is answered 503.
                while True:
                    await http.get("/v1/changes", params={"after": "now"}, headers=headers)

    starts = service.starts
    async with connection_to(cluster) as holding, asyncio.TaskGroup() as tasks:
        async with holding.transaction():
            await until(is_held)
            asking = tasks.create_task(ask())
            await until(is_at_it)
            service.kill()
        await asking
    await service.until_started(starts + service.number_of_workers)


async def test_who_gives_positions_may_be_killed_in_the_midst_of_it(
    cluster: Cluster, figure: "Figure", tmp_path: Path
) -> None:
    headers = await token_of_an_admin(cluster)
    for statement in ("TRUNCATE callflow, callflow_history", "DELETE FROM device WHERE id > 10000"):
        await fetch_value(cluster, statement)
    devices = await add_devices(cluster, DEVICES)
    first = await fetch_value(cluster, "SELECT head FROM change_feed")
    async with (
        supervised(cluster.url, tmp_path / "writing") as writing,
        supervised(cluster.url, tmp_path / "reading", workers=1) as reading,
    ):
        ledger = Ledger([writing.url], clients=6)
        async with ledger.clients_at_work(devices):
            for _ in range(KILLS):
                await kill_while_positions_are_given(cluster, reading, headers)
        async with httpx.AsyncClient(base_url=reading.url, timeout=PATIENCE_SECONDS, headers=headers) as http:
            told: list[Any] = []
            cursor = str(first)
            while (page := (await http.get("/v1/changes", params={"after": cursor, "limit": 1000})).json())["items"]:
                told += page["items"]
                cursor = page["cursor"]
        losses = await ledger.losses(cluster)
        defects = [*writing.defects(), *reading.defects()]
    figure("feed: kills while positions were given", KILLS)
    figure("feed: updates acknowledged meanwhile", len(ledger.acknowledged))
    names = Counter(item["request_id"] for item in told)
    assert [item["position"] for item in told] == list(range(first + 1, first + 1 + len(told)))
    assert [name for name, times in names.items() if times > 1] == []
    assert [each.request_id for each in ledger.acknowledged if each.request_id not in names] == []
    assert broken_chains(told) == []
    assert losses == Losses()
    assert defects == []
