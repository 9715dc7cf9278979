"""A migration is in nobody's way, and nobody is in its way for long."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest
from pydantic import SecretStr

from callflow_service.storage.migrating import migrate
from postgresql import asyncpg_url


async def test_a_migration_that_must_wait_for_a_lock_lets_the_calls_pass_and_comes_through_later(
    create_database: Callable[[], SecretStr],
) -> None:
    url = await asyncio.to_thread(create_database)
    await asyncio.to_thread(migrate, url, "0001")
    backup, caller = await asyncpg.connect(asyncpg_url(url)), await asyncpg.connect(asyncpg_url(url))
    # As a backup does: it holds on to the tables until it has them all.
    backing_up = backup.transaction()
    await backing_up.start()
    await backup.execute("LOCK TABLE account IN ACCESS SHARE MODE")
    migrating = asyncio.create_task(asyncio.to_thread(migrate, url))
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'account'::regclass AND NOT granted"
    async with asyncio.timeout(20):
        while not await backup.fetchval(waiting):  # noqa: ASYNC110 - PostgreSQL tells nobody
            await asyncio.sleep(0.01)
    # Behind the migration, which waits behind the backup; more than a call has would be an error.
    await caller.execute("SET statement_timeout = '1500ms'")
    for _ in range(10):
        await caller.fetch("SELECT id FROM account")
    assert not migrating.done()
    await backing_up.rollback()
    await migrating
    assert await caller.fetchval("SELECT allowed_addresses FROM account LIMIT 1") is None
    for connection in (backup, caller):
        await connection.close()


async def test_a_migration_behind_another_one_says_so_and_holds_nobody_up(
    create_database: Callable[[], SecretStr], caplog: pytest.LogCaptureFixture
) -> None:
    url = await asyncio.to_thread(create_database)
    other = await asyncpg.connect(asyncpg_url(url))
    await other.execute("SELECT pg_advisory_lock(7101300)")
    migrating = asyncio.create_task(asyncio.to_thread(migrate, url))
    said = "Another process migrates this database; this one waits until that is done"
    try:
        async with asyncio.timeout(20):
            while said not in caplog.text:  # noqa: ASYNC110 - the log tells nobody
                await asyncio.sleep(0.01)
        # It asks again and again: nothing that waits for a lock of any kind stands in the database meanwhile.
        assert await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") == 0
        assert not migrating.done()
    finally:
        await other.close()
    await migrating
    assert [record.getMessage() for record in caplog.records].count(said) == 1
