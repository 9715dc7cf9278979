"""The JSON API on a demo that each test finds as it was loaded, and tokens for its accounts."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Final

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from api_answers import MakeToken
from callflow_service.domain.tokens import Scope, new_token, token_hash
from mor_requests import StartService
from own_demo import OwnDemo, open_own_demo

TABLES: Final = ("account", "device", "did", "switch_user")
"""What the demo loads, in an order that references allow."""


@pytest_asyncio.fixture(scope="session")
async def api_demo(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> AsyncIterator[OwnDemo]:
    """A demo that the tests of the API share, with a copy of every row beside it."""
    async with open_own_demo(create_database, migrated_url) as own:
        for table in TABLES:
            await own.database.execute(f"CREATE TABLE as_loaded_{table} AS TABLE {table}")
        yield own


@pytest_asyncio.fixture(scope="session")
async def api_service(start_service: StartService, api_demo: OwnDemo) -> httpx.AsyncClient:
    # A busy machine is no reason for another answer.
    return await start_service(api_demo.url, database_timeout_ms=20_000)


@pytest_asyncio.fixture
async def demo(api_demo: OwnDemo) -> OwnDemo:
    """The demo as it was loaded: no call flow, no history, no token."""
    async with api_demo.database.transaction():
        await api_demo.database.execute(
            f"TRUNCATE callflow_history, remembered_flow, target_alert, {', '.join(TABLES)} CASCADE"
        )
        for table in TABLES:
            await api_demo.database.execute(f"INSERT INTO {table} SELECT * FROM as_loaded_{table}")  # noqa: S608 - ours
    await api_demo.database.execute("ALTER SEQUENCE callflow_history_id_seq RESTART")
    return api_demo


@pytest_asyncio.fixture
async def house(api_service: httpx.AsyncClient, demo: OwnDemo) -> httpx.AsyncClient:  # noqa: ARG001 - sets the stage
    """The service on the demo as it was loaded."""
    return api_service


@pytest.fixture
def make_token(demo: OwnDemo) -> MakeToken:
    """Make a token of an account, past the API."""

    async def make(account: int = 1, scope: Scope = Scope.WRITE, *, expires_at: datetime | None = None) -> str:
        token = new_token()
        await demo.database.execute(
            "INSERT INTO token (account_id, name, scope, token_hash, expires_at) VALUES ($1, 'test', $2, $3, $4)",
            account,
            scope,
            token_hash(token),
            expires_at,
        )
        return token

    return make


@pytest_asyncio.fixture
async def admin(make_token: MakeToken) -> dict[str, str]:
    """The header of an admin's token."""
    return {"Authorization": f"Bearer {await make_token()}"}
