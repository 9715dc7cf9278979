"""A worker is killed amid bulk changes: each has changed all of its devices, with a history entry for each, or none."""

import asyncio
import os
import random
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from ledger import add_devices
from supervised import supervised

from callflow_service.domain.tokens import new_token, token_hash
from clusters import Cluster, connection_to, fetch_value, running_cluster, until

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

DEVICES = 20_000
KILLS = 10


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster("fsync=on", "recovery_init_sync_method=syncfs") as running:
        yield running


async def test_a_bulk_change_amid_which_the_service_is_killed_is_whole_or_nothing(
    cluster: Cluster, figure: "Figure", tmp_path: Path
) -> None:
    seed = int(os.environ.get("CALLFLOW_TEST_SEED") or secrets.randbits(32))
    figure("bulk: CALLFLOW_TEST_SEED", seed)
    chance = random.Random(seed)  # noqa: S311 - when something is killed is no secret
    await add_devices(cluster, DEVICES)
    token = new_token()
    made = "INSERT INTO token (account_id, name, scope, token_hash) VALUES (1, 'test', 'write', $1) RETURNING id"
    await fetch_value(cluster, made, token_hash(token))
    headers = {"Authorization": f"Bearer {token}"}
    whole = 0
    async with (
        supervised(cluster.url, tmp_path / "log") as service,
        httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60) as client,
    ):
        profile = {"name": "x", "where": {"q": "SIP/"}, "set": {"failed": {"otherwise": {"action": "voicemail"}}}}
        assert (await client.post("/v1/profiles", json=profile)).status_code == 201
        assert (await client.post("/v1/bulk", json=change(0))).status_code == 200
        for number in range(1, KILLS + 1):
            path, body = ("/v1/bulk", change(number)) if number % 2 else ("/v1/profiles/1/apply", None)
            sending = asyncio.create_task(client.post(path, json=body))
            await asyncio.sleep(chance.uniform(0.05, 1.2))
            starts = service.starts
            service.kill()
            with suppress(httpx.HTTPError):
                await sending
            await service.until_started(starts + 1)
            await until(lambda: nobody_writes(cluster), seconds=60)
            whole += await changed_all_or_none(cluster, number)
            await client.post("/v1/profiles/1/withdraw")
    figure("bulk: kills, and how many changes were whole", (KILLS, whole))


def change(number: int) -> dict[str, Any]:
    """A change of each device's busy state, to be told from the others by its number."""
    action = {"action": "forward", "steps": [{"to": {"number": f"37060000{number:03}"}}]}
    return {"where": {"q": "SIP/"}, "set": {"busy": {"otherwise": action}}}


async def nobody_writes(cluster: Cluster) -> bool:
    """Whether what the killed service had begun has ended in the database, too."""
    statement = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'callflow-service' AND xact_start < $1"
    async with connection_to(cluster) as connection:
        now = await connection.fetchval("SELECT clock_timestamp()")
        return bool(await connection.fetchval(statement, now) == 0)


async def changed_all_or_none(cluster: Cluster, number: int) -> bool:
    """Whether the change was made: of each device, with its history, and what a profile remembers; or of none."""
    async with connection_to(cluster) as connection:
        devices = await connection.fetchval("SELECT count(*) FROM device WHERE technology = 'SIP'")
        if number % 2:
            stored = await connection.fetchval(
                "SELECT count(*) FROM callflow WHERE state = 'busy' AND target_number = $1", f"37060000{number:03}"
            )
            told = await connection.fetchval(
                "SELECT count(*) FROM callflow_history WHERE kind = 'callflow' AND after ->> 'target_number' = $1",
                f"37060000{number:03}",
            )
            assert (stored, told) in {(0, 0), (devices, devices)}
        else:
            stored = await connection.fetchval(
                "SELECT count(*) FROM callflow WHERE state = 'failed' AND action = 'voicemail'"
            )
            remembered = await connection.fetchval("SELECT count(*) FROM remembered_flow")
            applied = await connection.fetchval("SELECT applied_states FROM profile")
            assert (stored, remembered, applied) in {(0, 0, 0), (devices, devices, devices)}
        return bool(stored)
