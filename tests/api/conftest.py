"""The JSON API on a demo of its own, and a token for each of its accounts."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from api_answers import MakeToken
from callflow_service.domain.tokens import Scope, new_token, token_hash
from mor_requests import StartService
from own_demo import OwnDemo, open_own_demo


@pytest_asyncio.fixture
async def demo(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> AsyncIterator[OwnDemo]:
    async with open_own_demo(create_database, migrated_url) as own:
        yield own


@pytest_asyncio.fixture
async def house(start_service: StartService, demo: OwnDemo) -> httpx.AsyncClient:
    """The service on this test's own demo."""
    return await start_service(demo.url)


@pytest.fixture
def make_token(demo: OwnDemo) -> MakeToken:
    """Make a token of an account, past the API."""

    async def make(account: int = 1, scope: Scope = Scope.WRITE, *, expires_at: Any = None) -> str:
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
