"""Several servers are named: the one that takes writes is used, wherever it stands in the list."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from pydantic import SecretStr

from callflow_service.storage.connecting import connect
from clusters import LONG, Cluster, catch_up, fetch_value, free_port, running_cluster, running_standby
from mor_requests import GET, UPDATE, StartService, answer, get, got, refused, update, updated

LIMITS = {"database_timeout_ms": 6000, "switch_timeout_ms": 12_000}
"""The parts of it that each server gets are kept even by a busy machine."""


@pytest.fixture(scope="module")
def primary() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def standby(primary: Cluster) -> Iterator[Cluster]:
    with running_standby(primary) as running:
        yield running


def named(*ports: int, parameters: str = "") -> SecretStr:
    """The URL of a database on several servers of this machine."""
    return SecretStr(f"postgresql://postgres@{','.join(f'127.0.0.1:{port}' for port in ports)}/postgres{parameters}")


async def changes_and_reads(service: httpx.AsyncClient) -> None:
    assert answer(await service.post(UPDATE, data=update(), timeout=LONG)) == updated()
    expected = got(before_call=("Forward", "IAX2/101", "local", "1", ""))
    assert answer(await service.post(GET, data=get(), timeout=LONG)) == expected


async def test_the_server_that_takes_writes_is_found_behind_one_that_does_not_and_one_that_is_gone(
    start_service: StartService, primary: Cluster, standby: Cluster
) -> None:
    await changes_and_reads(await start_service(named(free_port(), standby.port, primary.port)))


async def test_a_server_that_hangs_leaves_time_for_the_next(
    start_service: StartService, primary: Cluster, standby: Cluster
) -> None:
    service = await start_service(named(standby.port, primary.port), **LIMITS)
    with standby.frozen():
        # Each new connection asks the server that hangs first, until one was had from the next.
        await asyncio.gather(*(changes_and_reads(service) for _ in range(4)))


async def test_where_no_server_takes_writes_calls_are_told_to_come_again(
    start_service: StartService, standby: Cluster
) -> None:
    service = await start_service(named(standby.port, free_port()))
    response = await service.post(GET, data=get(), timeout=LONG)
    assert answer(response) == refused("Service is temporarily unavailable", 503)


async def test_a_replica_may_be_any_of_several(primary: Cluster, standby: Cluster) -> None:
    await catch_up(standby, primary)
    connection = await connect(named(standby.port, primary.port, parameters="?target_session_attrs=any"), timeout=LONG)
    assert await connection.fetchval("SELECT pg_is_in_recovery()") is True
    await connection.close()


async def test_lookups_go_on_at_the_next_replica_when_one_is_gone(
    start_service: StartService, primary: Cluster, standby: Cluster
) -> None:
    replicas = named(free_port(), standby.port)
    service = await start_service(primary.url, read_database_url=replicas, **LIMITS)
    headers = {"Authorization": "Basic c3dpdGNoOnN3aXRjaC1zZWNyZXQ="}
    asked = await service.get("/switch/asterisk?device=4&format=json", headers=headers, timeout=LONG)
    assert asked.json()["action"] in {"none", "ring", "forward"}
    statement = """SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'callflow-service' AND query LIKE 'WITH named%'"""
    assert await fetch_value(standby, statement) == 1
