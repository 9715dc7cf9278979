"""PostgreSQL goes away in every way it can, and the service comes back with it by itself."""

import asyncio
from collections.abc import Iterator

import httpx
import psutil
import pytest
import pytest_asyncio

from clusters import LONG, Cluster, connection_to, running_cluster, until
from mor_requests import GET, UPDATE, StartService, answer, get, got, refused, update, updated

UNAVAILABLE = refused("Service is temporarily unavailable", 503)
CONNECTIONS = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL of this module's own, with the demo data."""
    with running_cluster() as running:
        yield running


@pytest_asyncio.fixture
async def service(start_service: StartService, cluster: Cluster) -> httpx.AsyncClient:
    """A service whose connections are all in use already, with the time limits as they come."""
    async with connection_to(cluster) as connection:
        await connection.execute("TRUNCATE callflow")
    service = await start_service(cluster.url, pool_size=CONNECTIONS)
    await asyncio.gather(*(ask(service) for _ in range(CONNECTIONS)))
    assert answer(await ask(service)) == got()
    return service


async def ask(service: httpx.AsyncClient) -> httpx.Response:
    return await service.post(GET, data=get(), timeout=LONG)


async def change(service: httpx.AsyncClient) -> httpx.Response:
    return await service.post(UPDATE, data=update(), timeout=LONG)


def is_unavailable(response: httpx.Response) -> bool:
    """Whether it asks to come again; nothing else may be wrong."""
    if response.status_code == 200:
        return False
    assert (answer(response), response.headers["retry-after"]) == (UNAVAILABLE, "2")
    return True


async def works_again(service: httpx.AsyncClient) -> None:
    """Wait until the calls are answered, on every connection there is."""

    async def all_answered() -> bool:
        calls = (call(service) for call in (change, ask) for _ in range(CONNECTIONS))
        refusals = [is_unavailable(response) for response in await asyncio.gather(*calls)]
        return not any(refusals)

    await until(all_answered)
    assert answer(await change(service)) == updated()
    assert answer(await ask(service)) == got(before_call=("Forward", "IAX2/101", "local", "1", ""))

    async def is_ready() -> bool:
        # What was found last is told again for a second.
        return (await service.get("/health/ready")).status_code == 200

    await until(is_ready)


async def test_calls_work_again_after_postgresql_was_restarted(service: httpx.AsyncClient, cluster: Cluster) -> None:
    with cluster.stopped():
        pass
    await works_again(service)


async def test_while_postgresql_is_gone_calls_are_told_to_come_again(
    service: httpx.AsyncClient, cluster: Cluster
) -> None:
    with cluster.stopped():
        for call in (ask, change):
            assert is_unavailable(await call(service))
        ready = await service.get("/health/ready")
        expected = {"status": "unavailable", "detail": "The database cannot be reached."}
        assert (ready.status_code, ready.json()) == (503, expected)
    await works_again(service)


@pytest.mark.parametrize("path", [GET, UPDATE, "/health/ready"])
async def test_connections_that_were_terminated_are_replaced_unseen(
    service: httpx.AsyncClient, cluster: Cluster, path: str
) -> None:
    async with connection_to(cluster) as connection:
        rows = await connection.fetch(
            """SELECT pid, pg_terminate_backend(pid) AS is_told FROM pg_stat_activity
            WHERE application_name = 'callflow-service'"""
        )
    told = [row["pid"] for row in rows if row["is_told"]]
    assert len(told) >= CONNECTIONS

    async def all_ended() -> bool:
        return not any(psutil.pid_exists(pid) for pid in told)

    await until(all_ended)
    if path == "/health/ready":
        ready = await service.get(path)
        assert (ready.status_code, ready.json()) == (200, {"status": "ok"})
        return
    calls = {GET: ask, UPDATE: change}
    expected = {GET: got(), UPDATE: updated()}
    responses = await asyncio.gather(*(calls[path](service) for _ in range(CONNECTIONS)))
    assert [answer(response) for response in responses] == [expected[path]] * CONNECTIONS


async def test_while_postgresql_hangs_calls_are_told_in_time_to_come_again(
    service: httpx.AsyncClient, cluster: Cluster
) -> None:
    with cluster.frozen():
        # More calls than there are connections: to wait for one of them is in the limit of 1.5 s too.
        calls = asyncio.gather(*(ask(service) for _ in range(2 * CONNECTIONS)))
        for response in await asyncio.wait_for(calls, 5):
            assert is_unavailable(response)
    await works_again(service)
