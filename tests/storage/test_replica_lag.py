"""How far a real standby is behind, and what is said where it cannot tell."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from asyncpg import Connection

from callflow_service.storage.database import Database, PoolUse
from callflow_service.storage.replica import ReplicaFirst
from clusters import Cluster, catch_up, fetch_value, paused, running_cluster, running_standby, until

PATIENCE_MS = 2000


@pytest.fixture(scope="module")
def primary() -> Iterator[Cluster]:
    with running_cluster() as primary:
        yield primary


@pytest.fixture(scope="module")
def standby(primary: Cluster) -> Iterator[Cluster]:
    with running_standby(primary) as standby:
        yield standby


@pytest_asyncio.fixture
async def reading(primary: Cluster, standby: Cluster) -> AsyncIterator[ReplicaFirst]:
    await catch_up(standby, primary)
    pools = [Database(cluster.url, pool_size=2, timeout_ms=PATIENCE_MS) for cluster in (standby, primary)]
    reading = ReplicaFirst(pools[0], pools[1])
    yield reading
    for pool in pools:
        await pool.close()


async def is_current(reading: ReplicaFirst) -> bool:
    return await reading.lag_seconds() == 0


async def is_late(reading: ReplicaFirst) -> bool:
    return ((await reading.lag_seconds()) or 0) > 0


async def test_a_standby_that_has_replayed_all_is_not_behind(reading: ReplicaFirst) -> None:
    await until(lambda: is_current(reading))


async def test_a_standby_that_does_not_replay_falls_behind_and_catches_up(
    reading: ReplicaFirst, primary: Cluster, standby: Cluster
) -> None:
    async with paused(standby):
        await fetch_value(primary, "SELECT pg_logical_emit_message(true, '', '')")
        await until(lambda: is_late(reading))
    await until(lambda: is_current(reading))


async def test_a_standby_that_has_lost_its_primary_is_behind_though_it_has_replayed_all_it_got(
    reading: ReplicaFirst, primary: Cluster
) -> None:
    await until(lambda: is_current(reading))
    with primary.stopped():
        await until(lambda: is_late(reading))
    await until(lambda: is_current(reading))


async def test_a_standby_that_is_away_tells_nothing(reading: ReplicaFirst, standby: Cluster) -> None:
    with standby.stopped():
        assert await reading.lag_seconds() is None
    await until(lambda: is_current(reading))


async def test_a_primary_in_the_place_of_a_replica_is_not_behind(primary: Cluster) -> None:
    pool = Database(primary.url, pool_size=2, timeout_ms=PATIENCE_MS)
    assert await ReplicaFirst(pool, pool).lag_seconds() == 0
    await pool.close()


async def test_a_pool_tells_what_its_connections_do(primary: Cluster) -> None:
    pool = Database(primary.url, pool_size=3, timeout_ms=PATIENCE_MS)
    assert pool.pool_use == PoolUse(3, in_use=0, idle=0)

    async def look(connection: Connection) -> PoolUse:
        await connection.fetchval("SELECT 1")
        return pool.pool_use

    assert await pool.run(look) == PoolUse(3, in_use=1, idle=0)
    assert pool.pool_use == PoolUse(3, in_use=0, idle=1)
    await pool.close()
