"""Watch the statements that the service in this process sends to PostgreSQL."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from callflow_service.repositories.webhooks import EXIST
from callflow_service.storage.database import PING
from callflow_service.storage.waking import NOTIFY


async def _nothing(_: list[str]) -> None:
    """Nothing is to be done before a statement."""


@asynccontextmanager
async def statements(before_each: Callable[[list[str]], Awaitable[None]] = _nothing) -> AsyncIterator[list[str]]:
    """The statements that are sent meanwhile; `before_each` is awaited before each, with all up to it."""
    sent: list[str] = []
    is_before_one = False
    ways = {name: getattr(asyncpg.Connection, name) for name in ("fetch", "fetchval", "execute", "prepare")}

    def watched(way: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def send(connection: asyncpg.Connection, statement: str, *arguments: Any, **options: Any) -> Any:
            nonlocal is_before_one
            if not is_before_one and statement not in {PING, NOTIFY, EXIST}:
                sent.append(statement)
                is_before_one = True
                await before_each(sent)
                is_before_one = False
            return await way(connection, statement, *arguments, **options)

        return send

    for name, way in ways.items():
        setattr(asyncpg.Connection, name, watched(way))
    try:
        yield sent
    finally:
        for name, way in ways.items():
            setattr(asyncpg.Connection, name, way)
