"""A primary with a synchronous standby: one of them dies, and what was acknowledged is there."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from answers import Answers
from ledger import Ledger, Losses, add_devices
from pydantic import SecretStr
from supervised import Supervised, supervised

from clusters import Cluster, fetch_value, free_port, new_standby, running_cluster, until

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

CLIENTS = 8
DEVICES = 200
LOAD_SECONDS = 2

MOR_LIMIT_SECONDS = 2
FAILOVER_LIMIT_SECONDS = 5


class Pair:
    """Two servers that take turns at being the primary, each always on the same port.

    Attributes:
        primary: The one that takes writes.
        standby: The one that every commit waits for.
    """

    def __init__(self, primary: Cluster, running: ExitStack) -> None:
        self.primary = primary
        self.standby: Cluster | None = None
        self._ports = (primary.port, free_port())
        self._running = running
        self._copies = 0

    @property
    def url(self) -> SecretStr:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return SecretStr(f"postgresql://postgres@{hosts}/postgres")

    async def add_standby(self) -> Cluster:
        """The standby, copied from the primary where there is none yet."""
        if self.standby is None:
            self._copies += 1
            (port,) = set(self._ports) - {self.primary.port}
            self.standby = await asyncio.to_thread(new_standby, self.primary, f"standby{self._copies}", port)
            self._running.enter_context(self.standby.running())
            # After the copy, so that a standby that becomes primary waits for nobody.
            await fetch_value(self.primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
            await fetch_value(self.primary, "SELECT pg_reload_conf()")
        await until(self._is_synchronous)
        return self.standby

    async def promote_standby(self) -> None:
        """Make the standby the primary; the one that was is not used again."""
        assert self.standby is not None
        await asyncio.to_thread(self.standby.promote)
        self.primary, self.standby = self.standby, None

    async def _is_synchronous(self) -> bool:
        return await fetch_value(self.primary, "SELECT sync_state FROM pg_stat_replication") == "sync"


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with running_cluster() as primary, ExitStack() as running:
        yield Pair(primary, running)


@pytest_asyncio.fixture(scope="module")
async def service(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Supervised]:
    """A service that knows both servers, and lives through all of it."""
    async with supervised(pair.url, tmp_path_factory.mktemp("failover") / "log") as running:
        yield running


@asynccontextmanager
async def dies(primary: Cluster) -> AsyncIterator[None]:
    """Who connects is refused."""
    await asyncio.to_thread(primary.kill)
    yield


@asynccontextmanager
async def falls_silent(primary: Cluster) -> AsyncIterator[None]:
    """As a machine without power does: nothing answers, nothing is refused. It never comes back."""
    with primary.frozen():
        yield
        await asyncio.to_thread(primary.kill)


async def begin(pair: Pair) -> range:
    """Devices of which nothing is set."""
    for statement in ("TRUNCATE callflow, callflow_history", "DELETE FROM device WHERE id > 10000"):
        await fetch_value(pair.primary, statement)
    return await add_devices(pair.primary, DEVICES)


async def all_succeed(answers: Answers) -> None:
    moment = time.monotonic()

    async def have_succeeded() -> bool:
        return answers.all_succeeded_since(moment)

    await until(have_succeeded)


async def test_while_the_synchronous_standby_is_gone_calls_are_told_in_time_to_come_again(
    pair: Pair, service: Supervised, figure: "Figure"
) -> None:
    devices = await begin(pair)
    standby = await pair.add_standby()
    ledger = Ledger([service.url], clients=CLIENTS)
    answers = ledger.answers[service.url]
    async with ledger.clients_at_work(devices):
        await all_succeed(answers)
        start = time.monotonic()
        await asyncio.to_thread(standby.kill)
        await asyncio.sleep(LOAD_SECONDS)
        await asyncio.to_thread(standby.start)
        back = time.monotonic()
        await all_succeed(answers)
    end = time.monotonic()
    slowest = answers.slowest_refusal(start, end)
    figure("standby gone: slowest 503 of a call, s", round(slowest, 2))
    figure("standby gone: until every caller succeeded again, s", round(end - back, 2))
    assert await ledger.losses(pair.primary) == Losses()
    assert (answers.strange, service.defects(), service.starts) == ([], [], 1)
    assert slowest < MOR_LIMIT_SECONDS


async def test_a_promoted_standby_is_found_without_a_restart_and_has_all_that_was_acknowledged(
    pair: Pair, service: Supervised, figure: "Figure"
) -> None:
    devices = await begin(pair)
    ledger = Ledger([service.url], clients=CLIENTS)
    answers = ledger.answers[service.url]
    outages = []
    for fails in (dies, falls_silent, dies):
        await pair.add_standby()
        async with ledger.clients_at_work(devices):
            await asyncio.sleep(LOAD_SECONDS)
            start = time.monotonic()
            async with fails(pair.primary):
                failed = time.monotonic()
                await pair.promote_standby()
                promoted = time.monotonic()
                await all_succeed(answers)
            outages.append(answers.longest_without_success(start, time.monotonic()))
        after_promotion = answers.first_success_since(promoted)
        losses = await ledger.losses(pair.primary)
        figure(f"failover, primary {fails.__name__}: promotion takes, s", round(promoted - failed, 2))
        figure(f"failover, primary {fails.__name__}: first success after it, s", round(after_promotion, 2))
        figure(f"failover, primary {fails.__name__}: longest time without success, s", round(outages[-1], 2))
        figure("failover: acknowledged so far", len(ledger.acknowledged))
        figure("failover: acknowledged and lost", len(losses.without_history) + len(losses.overwritten))
        assert losses == Losses()
    assert (answers.strange, service.defects(), service.starts) == ([], [], 1)
    assert max(outages) < FAILOVER_LIMIT_SECONDS
