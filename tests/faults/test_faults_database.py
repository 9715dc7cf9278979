"""The database is away, hangs, is full or locked: everyone is answered in time, and all works again by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import asyncpg
import httpx
import pytest
import pytest_asyncio
from answers import Answers
from ledger import PATIENCE_SECONDS, Ledger, Losses, add_devices
from supervised import Supervised, supervised

from clusters import Cluster, connection_to, fetch_value, running_cluster, until
from switch_questions import ALICE, FACES, NONE, NOT_FOUND, SWITCH, flat, freeswitch_request, read_dialplan

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

UPDATING = 12
ASKING = 12
"""How many callers of each kind there are at once; together more than the service has connections."""

CONNECTIONS = 40
"""How many PostgreSQL takes."""

VOICEMAIL = "INSERT INTO callflow (device_id, state, priority, action) VALUES (100, 'before_call', 1, 'voicemail')"
PAUSE_SECONDS = 0.2
FAULT_SECONDS = 3

MOR_LIMIT_SECONDS = 2
SWITCH_LIMIT_SECONDS = 1
"""What the shipped configurations let a switch wait; the service gives up after a third of it."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL of this module's own, all of whose connections others can take."""
    with running_cluster(f"max_connections={CONNECTIONS}", "superuser_reserved_connections=0") as running:
        yield running


@pytest_asyncio.fixture(scope="module")
async def service(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Supervised]:
    """A service that lives through all of it."""
    async with supervised(cluster.url, tmp_path_factory.mktemp("database") / "log") as running:
        yield running


@asynccontextmanager
async def away(cluster: Cluster) -> AsyncIterator[None]:
    await asyncio.to_thread(cluster.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(cluster.start)


@asynccontextmanager
async def hanging(cluster: Cluster) -> AsyncIterator[None]:
    with cluster.frozen():
        yield


@asynccontextmanager
async def full(cluster: Cluster) -> AsyncIterator[None]:
    """Others have all connections, those that were the service's too."""
    others: list[asyncpg.Connection] = []

    async def have_all() -> bool:
        with suppress(asyncpg.TooManyConnectionsError):
            while len(others) < CONNECTIONS:
                others.append(await asyncpg.connect(cluster.url.get_secret_value()))
        await others[0].execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'callflow-service'"
        )
        return len(others) == CONNECTIONS

    try:
        await until(have_all)
        yield
    finally:
        for other in others:
            await other.close()


@asynccontextmanager
async def locked(cluster: Cluster) -> AsyncIterator[None]:
    """Someone alters the table, or looks as if."""
    async with connection_to(cluster) as connection, connection.transaction():
        await connection.execute("LOCK TABLE callflow IN ACCESS EXCLUSIVE MODE")
        yield


@asynccontextmanager
async def switches_at_work(url: str, answers: Answers) -> AsyncIterator[None]:
    """Switches ask about device 100 meanwhile, as many of each face."""
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for client, face in zip(range(ASKING), FACES * ASKING, strict=False):
            tasks.create_task(keep_asking(url, client, face, answers, stopping))
        try:
            yield
        finally:
            stopping.set()


async def keep_asking(url: str, client: int, face: str, answers: Answers, stopping: asyncio.Event) -> None:
    question = freeswitch_request("101") if face == "freeswitch" else {**ALICE, "device": "100"}
    async with httpx.AsyncClient(base_url=url, auth=SWITCH, timeout=PATIENCE_SECONDS) as http:
        while not stopping.is_set():
            sent = time.monotonic()
            response = await http.post(f"/switch/{face}", data=question)
            if (found := decided(face, response)) is None:
                answers.strange.append(f"{face} {response.status_code} {response.text}")
            else:
                answers.note(client, sent=sent, is_success=found)
            await asyncio.sleep(PAUSE_SECONDS)


def decided(face: str, response: httpx.Response) -> bool | None:
    """Whether it says that the call goes to voicemail, or to carry on; None where it says anything else."""
    if response.status_code != 200:
        return None
    if face == "freeswitch":
        if response.content == NOT_FOUND:
            return False
        actions = read_dialplan(response.content, context="public") or []
        return True if "voicemail" in dict(actions) else None
    told = flat(face, response)
    return False if told == NONE else True if told["action"] == "voicemail" else None


@pytest.mark.parametrize("fault", [away, hanging, full, locked])
async def test_everyone_is_answered_in_time_and_all_works_again_by_itself(
    cluster: Cluster,
    service: Supervised,
    figure: "Figure",
    fault: Callable[[Cluster], AbstractAsyncContextManager[None]],
) -> None:
    for statement in ("TRUNCATE callflow, callflow_history", "DELETE FROM device WHERE id > 10000", VOICEMAIL):
        await fetch_value(cluster, statement)
    devices = await add_devices(cluster, UPDATING)
    ledger = Ledger([service.url], clients=UPDATING)
    updates, lookups = ledger.answers[service.url], Answers(ASKING)

    async def all_work(moment: float) -> float:
        async def have_succeeded() -> bool:
            return updates.all_succeeded_since(moment) and lookups.all_succeeded_since(moment)

        await until(have_succeeded)
        return time.monotonic() - moment

    async with ledger.clients_at_work(devices), switches_at_work(service.url, lookups):
        await all_work(time.monotonic())
        start = time.monotonic()
        async with fault(cluster):
            await asyncio.sleep(FAULT_SECONDS)
        recovery = await all_work(time.monotonic())
    end = time.monotonic()
    slowest_update = updates.slowest_refusal(start, end)
    slowest_lookup = lookups.slowest_refusal(start, end)
    figure(f"database {fault.__name__}: slowest 503 of a call, s", round(slowest_update, 2))
    figure(f"database {fault.__name__}: slowest carry-on of a lookup, s", round(slowest_lookup, 2))
    figure(f"database {fault.__name__}: until every caller succeeded again, s", round(recovery, 2))
    assert await ledger.losses(cluster) == Losses()
    assert (updates.strange, lookups.strange, service.defects(), service.starts) == ([], [], [], 1)
    assert slowest_update < MOR_LIMIT_SECONDS
    assert slowest_lookup < SWITCH_LIMIT_SECONDS
