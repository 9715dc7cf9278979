"""The service behind a real PgBouncer in session mode, which is restarted under load."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from callflow_service.storage.migrating import migrate
from callflow_service.world.loading import DEMO_FILE, load_world
from clusters import Cluster, fetch_value, running_cluster, until
from encryption import KEYS
from mor_requests import GET, UPDATE, StartService, answer, get, got, update, updated
from pgbouncer import PgBouncer, running_pgbouncer

pytestmark = pytest.mark.proxy


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


@pytest.fixture
def bouncer(cluster: Cluster) -> Iterator[PgBouncer]:
    with running_pgbouncer(cluster, "session") as running:
        yield running


async def test_updates_and_lookups_and_the_commands_go_through(
    bouncer: PgBouncer, cluster: Cluster, start_service: StartService
) -> None:
    await asyncio.to_thread(migrate, bouncer.url)
    await load_world(bouncer.url, DEMO_FILE, keys=KEYS, demo=True)
    service = await start_service(bouncer.url)
    pages = await asyncio.gather(*(service.post(UPDATE, data=update()) for _ in range(50)))
    assert [answer(page) for page in pages] == [updated()] * 50
    assert answer(await service.post(GET, data=get())) == got(before_call=("Forward", "IAX2/101", "local", "1", ""))
    question = {"called": "37052000001", "format": "json"}
    assert (await service.post("/switch/asterisk", data=question, auth=("switch", "switch-secret"))).status_code == 200
    assert await fetch_value(cluster, "SELECT count(*) FROM callflow_history WHERE before IS NULL") == 1


async def test_a_restart_under_load_costs_503s_and_no_update_that_was_acknowledged(
    bouncer: PgBouncer, cluster: Cluster, start_service: StartService
) -> None:
    service = await start_service(bouncer.url)
    await fetch_value(cluster, "TRUNCATE callflow_history")
    statuses: list[int] = []
    restarted = asyncio.Event()

    async def change() -> None:
        while not restarted.is_set():
            response = await service.post(UPDATE, data=update(), timeout=httpx.Timeout(20))
            statuses.append(response.status_code)
            await asyncio.sleep(0.01)

    async def works() -> bool:
        return answer(await service.post(UPDATE, data=update())) == updated()

    async with asyncio.TaskGroup() as load:
        for _ in range(8):
            load.create_task(change())
        await asyncio.sleep(1)
        await bouncer.restart()
        await until(works)
        await asyncio.sleep(1)
        restarted.set()
    counted = Counter(statuses)
    assert counted.keys() == {200, 503}
    # What was answered is there; what got 503 may be there.
    assert await fetch_value(cluster, "SELECT count(*) FROM callflow_history") >= counted[200]
    assert statuses[-1] == 200
