"""A real PostgreSQL for every test: the one of CALLFLOW_TEST_DATABASE_URL, else the embedded one."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from callflow_service.embedded import start_embedded
from callflow_service.migrating import migrate
from callflow_service.settings import driver_url
from pydantic import SecretStr


def asyncpg_url(url: SecretStr) -> str:
    """The URL as asyncpg itself takes it."""
    return driver_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


async def execute(url: SecretStr, statement: str) -> None:
    connection = await asyncpg.connect(asyncpg_url(url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[SecretStr]:
    """The address of the server's own database."""
    given = os.environ.get("CALLFLOW_TEST_DATABASE_URL")
    if given:
        yield SecretStr(given)
        return
    with tempfile.TemporaryDirectory(prefix="callflow-test-") as folder:
        yield start_embedded(Path(folder))


@pytest.fixture(scope="session")
def create_database(postgresql: SecretStr) -> Iterator[Callable[..., SecretStr]]:
    """Make an empty database, or a copy of another one; all are dropped in the end."""
    made: list[str] = []

    def create(template: SecretStr | None = None) -> SecretStr:
        name = f"callflow_test_{uuid4().hex[:12]}"
        source = f' TEMPLATE "{driver_url(template).database}"' if template else ""
        asyncio.run(execute(postgresql, f'CREATE DATABASE "{name}"{source}'))
        made.append(name)
        return SecretStr(driver_url(postgresql).set(database=name).render_as_string(hide_password=False))

    yield create
    for name in made:
        asyncio.run(execute(postgresql, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def migrated_url(create_database: Callable[..., SecretStr]) -> SecretStr:
    """An empty database with the schema, to be copied and left alone."""
    url = create_database()
    migrate(url)
    return url
