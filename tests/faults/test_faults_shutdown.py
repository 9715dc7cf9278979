"""Behind the real nginx, instances and workers come and go while clients ask on."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from constant_load import Load, constant_load
from pydantic import SecretStr
from supervised import Supervised, supervised

from clusters import LONG
from nginx import HERE, run_nginx
from own_demo import open_own_demo

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

CLIENTS = 12
KILLS = 3


@pytest_asyncio.fixture(scope="module")
async def demo(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> AsyncIterator[SecretStr]:
    """The demo data in a database of this module's own."""
    async with open_own_demo(create_database, migrated_url) as own:
        yield own.url


@asynccontextmanager
async def two_instances_under_load(
    url: SecretStr, folder: Path, *, workers: int
) -> AsyncIterator[tuple[list[Supervised], Load]]:
    """Two instances behind nginx, as they are shipped, and clients that ask nginx."""
    settings = {"CALLFLOW_DRAIN_SECONDS": "2", "CALLFLOW_TRUSTED_PROXIES": HERE}
    async with AsyncExitStack() as running:
        instances = [
            await running.enter_async_context(supervised(url, folder / name, workers=workers, **settings))
            for name in ("first", "second")
        ]
        (folder / "nginx").mkdir()
        addresses = (instance.url.removeprefix("http://") for instance in instances)
        nginx = await running.enter_async_context(run_nginx(folder / "nginx", *addresses))
        yield instances, await running.enter_async_context(constant_load(nginx.port, clients=CLIENTS))


@pytest.mark.parametrize(("workers", "rounds"), [(1, 2), (2, 1)])
async def test_no_request_fails_while_one_instance_after_the_other_is_replaced(
    demo: SecretStr, figure: "Figure", tmp_path: Path, workers: int, rounds: int
) -> None:
    async with two_instances_under_load(demo, tmp_path, workers=workers) as (instances, load):
        for instance in rounds * instances:
            starts = instance.starts
            await instance.end()
            await instance.until_started(starts + workers)
    what = f"shutdown: {2 * rounds} instances with {workers} workers replaced"
    figure(f"{what}, requests asked", dict(Counter(asked.kind for asked in load.asked)))
    figure(f"{what}, failed", len(load.failures))
    figure(f"{what}, slowest answer, s", round(max(asked.ended - asked.sent for asked in load.asked), 2))
    assert load.failures == []
    assert [defect for instance in instances for defect in instance.defects()] == []


async def test_a_killed_worker_costs_no_more_than_the_updates_that_it_had_in_work(
    demo: SecretStr, figure: "Figure", tmp_path: Path
) -> None:
    kills, replaced = [], []
    async with two_instances_under_load(demo, tmp_path, workers=2) as (instances, load):
        for number in range(KILLS):
            instance = instances[number % 2]
            starts = instance.starts
            worker = instance.workers()[0]
            killed = time.monotonic()
            worker.kill()
            # A busy machine takes its time to end it.
            await asyncio.to_thread(worker.wait, LONG)
            kills.append((killed, time.monotonic()))
            await instance.until_started(starts + 1)
            replaced.append(round(time.monotonic() - killed, 1))
            await asyncio.sleep(0.5)
    failures = load.failures
    figure(f"shutdown: {KILLS} workers killed, requests asked", len(load.asked))
    figure(f"shutdown: {KILLS} workers killed, failed", dict(Counter(asked.kind for asked in failures)))
    figure("shutdown: seconds until a killed worker was replaced", replaced)
    assert [asked for asked in failures if asked.kind != "update"] == []
    assert [asked for asked in failures if not any(asked.was_in_work(*kill) for kill in kills)] == []
