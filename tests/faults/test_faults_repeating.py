"""Workers are killed while the same request comes to them under one key: it is one change, and one answer."""

import asyncio
import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from supervised import Supervised, supervised

from callflow_service.domain.tokens import new_token, token_hash
from clusters import Cluster, connection_to, running_cluster, until

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

ROUNDS = 10
"""How many changes are asked for, each with a kill in between."""

PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL of this module's own."""
    with running_cluster("fsync=off") as running:
        yield running


async def until_added(service: Supervised, headers: dict[str, str], body: dict[str, Any]) -> httpx.Response:
    """The answer at last, however often the request must be sent."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            # A connection of its own each time, so that another worker may get it.
            async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=10) as client:
                try:
                    response = await client.post("/v1/devices", json=body)
                except httpx.TransportError:
                    response = None
            if response is not None and response.status_code not in {409, 503}:
                return response
            await asyncio.sleep(0.02)


async def test_one_key_is_one_change_whoever_is_killed(cluster: Cluster, figure: "Figure", tmp_path: Path) -> None:
    seed = int(os.environ.get("CALLFLOW_TEST_SEED") or secrets.randbits(32))
    figure("the same key: CALLFLOW_TEST_SEED", seed)
    chance = random.Random(seed)  # noqa: S311 - what is killed when is no secret
    token = new_token()
    replayed = 0
    await _add_token(cluster, token)
    async with supervised(cluster.url, tmp_path / "log", workers=2) as service:
        for number in range(ROUNDS):
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": f"round {number}"}
            body = {"technology": "SIP", "name": f"round{number}", "owner": "user1"}
            starts = service.starts
            async with asyncio.TaskGroup() as asking:
                answers = [asking.create_task(until_added(service, headers, body)) for _ in range(2)]
                await asyncio.sleep(chance.uniform(0, 0.04))
                chance.choice(service.workers()).kill()
            await service.until_started(starts + 1)
            last = await until_added(service, headers, body)
            told = {(each.status_code, each.content) for each in [last, *(task.result() for task in answers)]}
            assert len(told) == 1, told
            assert last.status_code == 201
            replayed += sum("idempotency-replayed" in task.result().headers for task in answers)
        await _assert_nothing_of_a_worker_that_dies_at_work_remains(service, cluster, token)
    async with connection_to(cluster) as connection:
        names = [row[0] for row in await connection.fetch("SELECT name FROM device WHERE name LIKE 'round%'")]
        entries = await connection.fetchval("SELECT count(*) FROM callflow_history WHERE kind = 'device'")
    defects = service.defects()
    figure("the same key: changes asked for, twice each", ROUNDS)
    figure("the same key: first answers given again", replayed)
    assert sorted(names) == sorted({f"round{number}" for number in range(ROUNDS)})
    assert entries == ROUNDS + 1
    assert defects == []


async def _assert_nothing_of_a_worker_that_dies_at_work_remains(
    service: Supervised, cluster: Cluster, token: str
) -> None:
    """Every worker is killed while the change waits for a lock, and so before its transaction ends."""
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "killed at work"}
    body = {"technology": "SIP", "name": "late", "owner": "user1"}
    starts = service.starts
    async with connection_to(cluster) as connection:
        async with connection.transaction():
            await connection.execute("LOCK TABLE device")
            asked = asyncio.create_task(until_added(service, headers, body))

            async def is_waiting() -> bool:
                return await connection.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted") is True

            await until(is_waiting)
            for worker in service.workers():
                worker.kill()
        await service.until_started(starts + 2)
        assert (await asked).status_code == 201
        assert await connection.fetchval("SELECT count(*) FROM device WHERE name = 'late'") == 1


async def _add_token(cluster: Cluster, token: str) -> None:
    async with connection_to(cluster) as connection:
        await connection.execute(
            "INSERT INTO token (account_id, name, scope, token_hash) VALUES (1, 'test', 'write', $1)", token_hash(token)
        )
