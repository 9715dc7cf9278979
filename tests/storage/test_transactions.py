"""What needs several statements is done as a whole or not at all, planned as usual, and never waits for ever."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.errors import StorageUnavailable
from callflow_service.storage.transactions import Transactions
from callflow_service.tables import AccountRow, DeviceRow
from clusters import Cluster, running_cluster


@pytest_asyncio.fixture
async def transactions(
    create_database: Callable[..., SecretStr], migrated_url: SecretStr
) -> AsyncIterator[Transactions]:
    url = await asyncio.to_thread(create_database, migrated_url)
    transactions = Transactions(url, size=1, timeout_ms=500)
    async with transactions.begin() as session:
        session.add(
            AccountRow(id=1, username="a", name="A", role="admin", pbx_addon=False, api_enabled=True, blocked=False)
        )
    yield transactions
    await transactions.close()


def device(id_: int, owner_id: int = 1) -> DeviceRow:
    return DeviceRow(
        id=id_, technology="SIP", name="1", owner_id=owner_id, caller_number="", caller_name="", ring_seconds=60
    )


async def ids(session: AsyncSession) -> list[int]:
    return list(await session.exec(select(DeviceRow.id).order_by(DeviceRow.id)))


async def test_a_transaction_is_committed_in_the_end_and_taken_back_after_an_error(transactions: Transactions) -> None:
    async with transactions.begin() as session:
        session.add(device(1))

    async def fail_at_the_second() -> None:
        async with transactions.begin() as session:
            session.add(device(2))
            await session.flush()
            session.add(device(3, owner_id=999))

    with pytest.raises(IntegrityError):
        await fail_at_the_second()
    async with transactions.begin() as session:
        assert await ids(session) == [1]


async def test_lists_are_planned_as_postgresql_plans_them(transactions: Transactions) -> None:
    async with transactions.begin() as session:
        connection = await session.connection()
        for name, usual in (("enable_seqscan", "on"), ("plan_cache_mode", "auto")):
            assert (await connection.exec_driver_sql(f"SHOW {name}")).scalar_one() == usual


async def test_a_transaction_that_takes_too_long_is_told_in_time_and_frees_its_connection(
    transactions: Transactions,
) -> None:
    started = time.monotonic()
    with pytest.raises(StorageUnavailable):
        async with transactions.begin() as session:
            await (await session.connection()).exec_driver_sql("SELECT pg_sleep(30)")
    assert time.monotonic() - started < 10
    async with transactions.begin() as session:
        assert await ids(session) == []


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as running:
        yield running


async def test_while_postgresql_is_gone_it_is_said_and_afterwards_it_works_again(cluster: Cluster) -> None:
    transactions = Transactions(cluster.url, size=1, timeout_ms=5000)
    async with transactions.begin() as session:
        before = await ids(session)
    with cluster.stopped(), pytest.raises(StorageUnavailable):
        async with transactions.begin() as session:
            await ids(session)
    async with transactions.begin() as session:
        assert await ids(session) == before
    await transactions.close()
