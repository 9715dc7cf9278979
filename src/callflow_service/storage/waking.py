"""Waking those who wait for changes: NOTIFY beside the requests that change something, LISTEN where somebody waits."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from asyncpg import InterfaceError, InternalClientError, PostgresError
from pydantic import SecretStr

from callflow_service.domain.errors import StorageUnavailable
from callflow_service.storage.connecting import Connector, connect_options
from callflow_service.storage.database import PING, Database

CHANNEL: Final = "callflow_changes"
"""What is notified and listened to."""

NOTIFY: Final = f"NOTIFY {CHANNEL}"
"""Sent a few times a second at most while something is changed."""

_REST_SECONDS: Final = 0.2
_AGAIN_SECONDS: Final = 1.0
_PING_SECONDS: Final = 10.0
_TROUBLE: Final = (OSError, TimeoutError, PostgresError, InterfaceError, InternalClientError)

Tell = Callable[[], None]
"""Called after something was changed and committed."""


class Teller:
    """Tells all who listen that something was changed.

    It does so beside the requests and on a connection of theirs: a NOTIFY in a change's own transaction would have
    PostgreSQL commit one such transaction after the other.
    """

    def __init__(self, database: Database) -> None:
        self._database: Final = database
        self._is_due = False
        self._closing = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    def __call__(self) -> None:
        """Tell at once, or as soon as it was quiet for a moment."""
        self._is_due = True
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())

    async def close(self) -> None:
        """Tell what is still to be told, at once."""
        self._closing.set()
        if self._telling:
            await self._telling

    async def _tell(self) -> None:
        try:
            while self._is_due:
                self._is_due = False
                # Who was not told looks by itself after a while.
                with suppress(StorageUnavailable):
                    await self._database.run(lambda connection: connection.execute(NOTIFY))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), _REST_SECONDS)
        finally:
            self._telling = None


class Listener:
    """A connection that hears of changes, made anew when it is lost."""

    def __init__(self, url: SecretStr, *, timeout_ms: int) -> None:
        self._timeout: Final = timeout_ms / 1000
        self._options: Final = connect_options(url) | {"server_settings": {"application_name": "callflow-service"}}
        self._connect: Final = Connector()

    async def run(self, heard: Callable[[], None]) -> None:
        """Call `heard` for whatever is heard, and whenever something may have been missed, until cancelled."""
        while True:
            try:
                await self._listen(heard)
            except _TROUBLE:
                # Who waits looks by itself until there is a connection again.
                pass
            except Exception:
                logging.getLogger(__name__).exception("defect")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _listen(self, heard: Callable[[], None]) -> None:
        connection: Any = await self._connect(timeout=self._timeout, **self._options)
        try:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, lambda *_: heard())
            heard()
            while not lost.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), _PING_SECONDS)
                # A firewall may have forgotten the connection, and then nothing comes and nothing fails.
                await connection.execute(PING, timeout=self._timeout)
        finally:
            connection.terminate()
