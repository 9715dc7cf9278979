"""A real standby answers the switches: what it knows, and what happens while it is late, gone or hanging."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import httpx
import pytest
import pytest_asyncio

from clusters import Cluster, catch_up, fetch_value, paused, running_cluster, running_standby, until
from mor_requests import GET, UPDATE, StartService, answer, get, got, refused, update, updated
from switch_questions import NONE, answered, ask

LIMIT = {"switch_timeout_ms": 2000}
"""Half of it is for the replica; both halves are kept even by a busy machine."""


@dataclass(frozen=True, slots=True)
class Pair:
    primary: Cluster
    standby: Cluster

    async def catch_up(self) -> None:
        await catch_up(self.standby, self.primary)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A primary with the demo data, and a standby that streams from it."""
    with running_cluster() as primary, running_standby(primary) as standby:
        yield Pair(primary, standby)


@pytest_asyncio.fixture
async def service(start_service: StartService, pair: Pair) -> httpx.AsyncClient:
    """A service that was asked nothing yet, on a demo where nothing is set."""
    await fetch_value(pair.primary, "TRUNCATE callflow")
    await pair.catch_up()
    return await start_service(pair.primary.url, read_database_url=pair.standby.url, **LIMIT)


async def forward(service: httpx.AsyncClient, number: str) -> None:
    """Forward the calls of device 4."""
    values = update(forward_to_device=None, external_number=number, src_callerid="1")
    assert answer(await service.post(UPDATE, data=values)) == updated(data=number, callerid_type="Same as comes")


def forwarded(number: str) -> dict[str, str]:
    """The answer to a call to device 4 that is forwarded."""
    return answered(
        "forward",
        dial=f"sip:{number}@127.0.0.1",
        ring_seconds="60",
        device="4",
        path="4u.x_c1",
        reason="unconditional",
        payer="user1",
        payer_device="4",
        leg="2",
        diversion="<sip:37052000001@127.0.0.1>;reason=unconditional;counter=1;privacy=off",
        history_info="<sip:37052000001@127.0.0.1?Privacy=none>;index=1, "
        f"<sip:{number}@127.0.0.1;cause=302>;index=1.1;mp=1",
    )


async def lookup(service: httpx.AsyncClient) -> dict[str, str]:
    return await ask(service, device="4")


async def last_lookup(cluster: Cluster) -> datetime | None:
    """When the cluster was last asked by a service for what a switch wants to know; None where it never was."""
    statement = """SELECT max(query_start) FROM pg_stat_activity
        WHERE application_name = 'callflow-service' AND query LIKE 'WITH named%'"""
    return cast("datetime | None", await fetch_value(cluster, statement))


async def test_a_lookup_is_answered_by_the_replica(service: httpx.AsyncClient, pair: Pair) -> None:
    await forward(service, "111")
    await pair.catch_up()
    before = await last_lookup(pair.primary), await last_lookup(pair.standby)
    assert await lookup(service) == forwarded("111")
    after = await last_lookup(pair.primary), await last_lookup(pair.standby)
    assert [then == now for then, now in zip(before, after, strict=True)] == [True, False]


async def test_calls_are_answered_while_the_primary_is_gone(service: httpx.AsyncClient, pair: Pair) -> None:
    await forward(service, "111")
    await pair.catch_up()
    with pair.primary.stopped():
        assert await lookup(service) == forwarded("111")
        response = await service.post(UPDATE, data=update())
        assert answer(response) == refused("Service is temporarily unavailable", 503)
        assert await lookup(service) == forwarded("111")
    await forward(service, "222")
    await pair.catch_up()
    assert await lookup(service) == forwarded("222")


async def test_a_lookup_sees_a_change_as_soon_as_the_replica_has_replayed_it(
    service: httpx.AsyncClient, pair: Pair
) -> None:
    await forward(service, "111")
    await pair.catch_up()
    async with paused(pair.standby):
        await forward(service, "222")
        assert await lookup(service) == forwarded("111")
    await pair.catch_up()
    assert await lookup(service) == forwarded("222")


async def test_updates_and_gets_go_to_the_primary(service: httpx.AsyncClient, pair: Pair) -> None:
    async with paused(pair.standby):
        await forward(service, "111")
        before_call = ("Forward", "111", "external", "2", "")
        assert answer(await service.post(GET, data=get())) == got(before_call=before_call)
        # Nothing is set, as far as the standby knows.
        assert await lookup(service) == answered("none", device="4")


async def test_while_the_replica_is_gone_lookups_are_answered_by_the_primary(
    service: httpx.AsyncClient, pair: Pair
) -> None:
    await forward(service, "111")
    await pair.catch_up()
    assert await lookup(service) == forwarded("111")
    with pair.standby.stopped():
        for number in ("222", "333"):
            await forward(service, number)
            assert await lookup(service) == forwarded(number)
    # Before that it would rightly answer with what was.
    await pair.catch_up()
    assert await last_lookup(pair.standby) is None

    async def is_asked_again() -> bool:
        assert await lookup(service) == forwarded("333")
        return await last_lookup(pair.standby) is not None

    await until(is_asked_again)


async def test_while_the_replica_hangs_lookups_are_answered_by_the_primary_in_time(
    service: httpx.AsyncClient, pair: Pair
) -> None:
    await forward(service, "111")
    await pair.catch_up()
    assert await lookup(service) == forwarded("111")
    # Whoever answers with the number from before is the replica.
    async with paused(pair.standby):
        with pair.standby.frozen():
            await forward(service, "222")
            # Out of time they would carry on.
            answers = await asyncio.gather(*(lookup(service) for _ in range(4)))
            assert [*answers, await lookup(service)] == [forwarded("222")] * 5

        async def is_asked_again() -> bool:
            told = await lookup(service)
            assert told in (forwarded("111"), forwarded("222"))
            return told == forwarded("111")

        await until(is_asked_again)


async def test_a_service_that_starts_while_the_replica_hangs_asks_it_once_it_is_back(
    service: httpx.AsyncClient, pair: Pair
) -> None:
    with pair.standby.frozen():
        await forward(service, "111")
        assert await lookup(service) == forwarded("111")
    await pair.catch_up()
    before = await last_lookup(pair.standby)

    async def is_asked() -> bool:
        assert await lookup(service) == forwarded("111")
        return await last_lookup(pair.standby) != before

    await until(is_asked)


async def test_calls_carry_on_while_both_are_gone(service: httpx.AsyncClient, pair: Pair) -> None:
    await forward(service, "111")
    await pair.catch_up()
    assert await lookup(service) == forwarded("111")
    with pair.standby.stopped(), pair.primary.stopped():
        assert await lookup(service) == NONE

    async def is_answered() -> bool:
        return await lookup(service) == forwarded("111")

    await until(is_answered)
