"""The feed of one process: it gives positions to what was committed, and wakes all who follow."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.access import Account
from callflow_service.domain.errors import StorageUnavailable
from callflow_service.repositories import changes
from callflow_service.repositories.changes import BATCH, Page
from callflow_service.storage.transactions import Transactions
from callflow_service.storage.waking import Listener

_LOOK_SECONDS: Final = 5.0
"""After so long the feed looks by itself: what the command line changes, or an older release, tells nobody."""

_PATIENCE_SECONDS: Final = 1.0


class Feed:
    """Reads the feed for whoever asks once, and for all who follow it in this process by one listening connection.

    Args:
        transactions: Where the feed is read.
        listener: Says when to look. It is connected while somebody follows, and not otherwise.
    """

    def __init__(self, transactions: Transactions, listener: Listener) -> None:
        self._transactions: Final = transactions
        self._listener: Final = listener
        self._one_at_a_time: Final = asyncio.Lock()
        self._head = -1
        self._moved = asyncio.Event()
        self._is_due = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._followers = 0
        self.streams = 0

    async def page(self, viewer: Account | None, *, after: int, limit: int) -> Page:
        """At most `limit` changes that `viewer` may see, all of them where it is None, the newest included.

        Raises:
            StorageUnavailable: The database cannot be asked.
        """
        async with self._transactions.begin() as session:
            found = await changes.page(session, viewer, after=after, limit=limit)
        if found.is_last and len(found.entries) < limit:
            # Also where there are none left to be given: then somebody else has done it meanwhile.
            await self._number()
            async with self._transactions.begin() as session:
                found = await changes.page(session, viewer, after=after, limit=limit)
        return found

    async def head(self, *, now: bool = False) -> int:
        """The last position that was given; with `now`, that of the last change that is committed.

        Raises:
            StorageUnavailable: The database cannot be asked, or more changes wait for their positions than can be given
                them in a moment; some have theirs by then.
        """
        if now and not await self._number():
            raise StorageUnavailable("many changes wait for their positions")
        async with self._transactions.begin() as session:
            return await changes.head(session)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Look for changes meanwhile, as soon as they come."""
        self._followers += 1
        if self._running is None:
            self._head = -1
            self._running = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers:
                running, self._running = self._running, None
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running

    @asynccontextmanager
    async def streamed(self) -> AsyncIterator[None]:
        """As `followed`, and counted in `streams`: by a client, of whom there may be too many."""
        self.streams += 1
        try:
            async with self.followed():
                yield
        finally:
            self.streams -= 1

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A transaction for those who follow: all together take one connection at a time, and leave the others alone.

        Raises:
            StorageUnavailable: The database cannot be asked.
        """
        async with self._one_at_a_time, self._transactions.begin() as session:
            yield session

    async def beyond(self, position: int) -> None:
        """Wait until there is a change after a position; to be awaited while it is followed."""
        while self._head <= position:
            await self._moved.wait()

    async def _number(self) -> bool:
        """Give positions to what is committed by now, or to a part of it where that would take long; whether to all."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < end:
            async with self._transactions.begin() as session:
                if await changes.number(session) < BATCH:
                    return True
        return False

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listener.run(self._is_due.set))
            tasks.create_task(self._look())

    async def _look(self) -> None:
        while True:
            self._is_due.clear()
            try:
                while await self._look_once() == BATCH:
                    pass
            except StorageUnavailable:
                # The listener finds the way back, or the next look.
                pass
            except Exception:
                logging.getLogger(__name__).exception("defect")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_due.wait(), _LOOK_SECONDS)

    async def _look_once(self) -> int:
        async with self.session() as session:
            found = await changes.number(session)
            head = await changes.head(session)
        if head != self._head:
            self._head = head
            # Each who waits looks for itself; the next ones wait for the next move.
            self._moved.set()
            self._moved = asyncio.Event()
        return found
