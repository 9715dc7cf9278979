"""The service, its workers and PostgreSQL are killed again and again: what was acknowledged is there."""

import asyncio
import os
import random
import secrets
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from answers import Answers
from ledger import PATIENCE_SECONDS, Ledger, Losses, add_devices
from supervised import Supervised, supervised

from clusters import Cluster, connection_to, running_cluster, until

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

DEVICES = 600
CLIENTS = 6
TIMES_EACH = 5
"""How often each kind of kill comes; there are four kinds."""


class Killer:
    """Kills of each kind; each ends when what was killed works again, and tells whose clients could notice."""

    def __init__(self, chance: random.Random, cluster: Cluster, services: list[Supervised], ledger: Ledger) -> None:
        self._chance = chance
        self._cluster = cluster
        self._services = services
        self._ledger = ledger

    async def service(self) -> list[Answers]:
        service = self._chance.choice(self._services)
        starts = service.starts
        service.kill()
        await service.until_started(starts + service.number_of_workers)
        return await self._works_again([service])

    async def worker(self) -> list[Answers]:
        service = self._services[0]
        starts = service.starts
        self._chance.choice(service.workers()).kill()
        await service.until_started(starts + 1)
        return await self._works_again([service])

    async def postgresql(self) -> list[Answers]:
        await asyncio.to_thread(self._cluster.kill)
        await asyncio.to_thread(self._cluster.start)
        return await self._works_again(self._services)

    async def backend(self) -> list[Answers]:
        async with connection_to(self._cluster) as connection:
            statement = "SELECT pid FROM pg_stat_activity WHERE application_name = 'callflow-service' ORDER BY pid"
            # Right after another kill there may be none yet.
            while not (rows := await connection.fetch(statement)):  # noqa: ASYNC110 - nobody tells when
                await asyncio.sleep(0.05)
            # PostgreSQL ends all others then, for what they share may be damaged, and starts anew by itself.
            os.kill(self._chance.choice(rows)["pid"], signal.SIGKILL)
        return await self._works_again(self._services)

    async def _works_again(self, services: list[Supervised]) -> list[Answers]:
        answers = [self._ledger.answers[service.url] for service in services]
        moment = time.monotonic()

        async def all_succeed() -> bool:
            return all(service.all_succeeded_since(moment) for service in answers)

        await until(all_succeed, seconds=PATIENCE_SECONDS)
        return answers


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL of this module's own, which writes as carefully as one in use."""
    # To sync each file by itself before a recovery takes it ten seconds on a slow disk.
    with running_cluster("fsync=on", "recovery_init_sync_method=syncfs") as running:
        yield running


async def test_nothing_acknowledged_is_lost_whatever_is_killed(
    cluster: Cluster, figure: "Figure", tmp_path: Path
) -> None:
    seed = int(os.environ.get("CALLFLOW_TEST_SEED") or secrets.randbits(32))
    figure("kills: CALLFLOW_TEST_SEED", seed)
    chance = random.Random(seed)  # noqa: S311 - what is killed when is no secret
    outages: dict[str, list[float]] = defaultdict(list)
    devices = await add_devices(cluster, DEVICES)
    async with (
        supervised(cluster.url, tmp_path / "two workers", workers=2) as two_workers,
        supervised(cluster.url, tmp_path / "one worker") as one_worker,
    ):
        services = [two_workers, one_worker]
        ledger = Ledger([service.url for service in services], clients=CLIENTS)
        killer = Killer(chance, cluster, services, ledger)
        kills = TIMES_EACH * [killer.service, killer.worker, killer.postgresql, killer.backend]
        chance.shuffle(kills)
        async with ledger.clients_at_work(devices):
            for kill in kills:
                await asyncio.sleep(chance.uniform(0.1, 0.7))
                start = time.monotonic()
                noticing = await kill()
                end = time.monotonic()
                outage = max(answers.longest_without_success(start, end) for answers in noticing)
                outages[kill.__name__].append(outage)
        losses = await ledger.losses(cluster)
        defects = [line for service in services for line in service.defects()]
    figure("kills: by kind", dict(Counter(kill.__name__ for kill in kills)))
    figure("kills: states", len({attempt.state for attempt in ledger.attempts}))
    figure("kills: updates sent", len(ledger.attempts))
    figure("kills: updates acknowledged", len(ledger.acknowledged))
    figure("kills: updates told to come again", sum(answers.refusals for answers in ledger.answers.values()))
    for kind, seconds in sorted(outages.items()):
        figure(f"kills: longest time without success, {kind}, s", round(max(seconds), 2))
    figure("kills: acknowledged and lost", len(losses.without_history) + len(losses.overwritten))
    assert losses == Losses()
    assert [answers.strange for answers in ledger.answers.values()] == [[], []]
    assert defects == []
