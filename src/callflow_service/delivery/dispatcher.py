"""Deliver to webhooks beside the requests: in each worker, and each webhook by one worker at a time."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from http import HTTPStatus
from secrets import token_hex
from typing import Final

from pydantic import SecretStr

from callflow_service.credentials.api_keys import Keyring, Undecipherable
from callflow_service.delivery.sending import Receiver, Sending
from callflow_service.domain.errors import StorageUnavailable
from callflow_service.domain.history import Face, Origin, Sender
from callflow_service.domain.webhooks import Event
from callflow_service.repositories import changes, deliveries, webhooks
from callflow_service.repositories.deliveries import Attempt, Held, Message
from callflow_service.repositories.history import Entry
from callflow_service.storage.transactions import Transactions
from callflow_service.usecases.feed import Feed

AT_ONCE: Final = 8
"""How many messages are on their way to one webhook at most."""

_MOST_WEBHOOKS: Final = 64
_TURN_SECONDS: Final = 10.0
_LEASE_SECONDS: Final = 5.0
_FIRST_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 30.0
_EXPECT_SECONDS: Final = 5.0
_LOOK_REST_SECONDS: Final = 0.1
_LOOK_SECONDS: Final = 30.0
_TROUBLE_SECONDS: Final = 2.0
_PURGE_SECONDS: Final = 3600.0
_COUNT_SECONDS: Final = 5.0
# A worker answers calls too, so it sends no more than so many messages a second.
_PER_SECOND: Final = 250

_log = logging.getLogger(__name__)

BodyOf = Callable[[Event, Entry], str]
"""What a webhook is sent about a change."""

Observe = Callable[[str, int], None]
"""Count so many messages by what came of them: `delivered`, `failed`, `given_up`; `waiting` is how many wait."""


class Dispatcher:
    """Tells webhooks of changes.

    A webhook is held by one worker at a time, for as long as it takes to send a few messages and some seconds more. So
    no change is taken from the feed twice, messages about one thing go out one after the other, and what a killed
    worker held is another's soon. A message is finished only when its receiver's answer is stored: it is sent at least
    once.

    While there is no webhook, the database is asked once in a while whether there is one, and the feed is not followed.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what it is made of
        self,
        url: SecretStr,
        feed: Feed,
        transactions: Transactions,
        keys: Keyring,
        sending: Sending,
        body_of: BodyOf,
    ) -> None:
        self._url = url
        self._feed = feed
        self._transactions = transactions
        self._keys = keys
        self._sending = sending
        self._body_of = body_of
        self._observe: Observe = lambda *_: None
        self._name = token_hex(8)
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self._expects_until = float("-inf")
        self._is_ending = False
        self._head = 0
        self._next_slot = 0.0
        self._purged_at = self._counted_at = float("-inf")

    def expect(self) -> None:
        """Look at once, and for some seconds again and again: a request is about to add something to do."""
        self._expects_until = time.monotonic() + _EXPECT_SECONDS
        self._woken.set()

    async def run(self, observe: Observe) -> None:
        """Deliver until cancelled; then finish what is on its way."""
        self._observe = observe
        try:
            await self._rest(_FIRST_SECONDS)
            while True:
                while not await self._are_there():
                    self._observe("waiting", 0)
                    await self._rest(_IDLE_SECONDS)
                following = asyncio.create_task(self._follow())
                try:
                    await self._deliver()
                finally:
                    following.cancel()
                await self._transactions.close()
        finally:
            self._is_ending = True
            if self._serving:
                await asyncio.wait(self._serving.values(), timeout=self._sending.seconds + _TROUBLE_SECONDS)
            self._sending.close()
            await self._transactions.close()

    async def _deliver(self) -> None:
        """Deliver until there is no webhook any more."""
        while (pause := await self._look()) is not None or self._serving:
            # What comes in at once is looked at together.
            await asyncio.sleep(_LOOK_REST_SECONDS)
            await self._rest(pause or 0.0)

    async def _rest(self, seconds: float) -> None:
        """Wait until there may be something to do."""
        if time.monotonic() < self._expects_until:
            seconds = min(seconds, _LOOK_REST_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    async def _are_there(self) -> bool:
        """Whether there are webhooks; where nobody can tell, it is asked again later."""
        with suppress(StorageUnavailable):
            return await webhooks.exist(self._url)
        return False

    async def _follow(self) -> None:
        """Look whenever there is something new in the feed, until cancelled."""
        async with self._feed.followed():
            while True:
                await self._feed.beyond(self._head)
                self._woken.set()
                await asyncio.sleep(_LOOK_REST_SECONDS)

    async def _look(self) -> float | None:
        """Begin to serve the webhooks that have something to do. How long there is nothing else, None for ever."""
        try:
            async with self._transactions.begin() as session:
                if not await deliveries.are_there(session):
                    return None
                self._head = await changes.head(session)
                free = _MOST_WEBHOOKS - len(self._serving)
                taken = (
                    await deliveries.take(session, self._name, head=self._head, most=free, seconds=self._lease)
                    if free
                    else []
                )
                until_due = await deliveries.seconds_until_due(session)
                if time.monotonic() - self._counted_at > _COUNT_SECONDS:
                    self._counted_at = time.monotonic()
                    self._observe("waiting", await deliveries.waiting(session))
            for webhook_id in taken:
                task = asyncio.create_task(self._serve(webhook_id))
                self._serving[webhook_id] = task
                task.add_done_callback(partial(self._served, webhook_id))
            await self._purge()
        except StorageUnavailable:
            return _TROUBLE_SECONDS
        except Exception:  # noqa: BLE001 - a defect in one look must not end all deliveries
            _log.exception("defect")
            return _LOOK_SECONDS
        return _LOOK_SECONDS if until_due is None else min(max(until_due, 0.0), _LOOK_SECONDS)

    async def _purge(self) -> None:
        if time.monotonic() - self._purged_at < _PURGE_SECONDS:
            return
        self._purged_at = time.monotonic()
        more = True
        while more:
            async with self._transactions.begin() as session:
                more = await deliveries.purge(session)

    @property
    def _lease(self) -> float:
        return self._sending.seconds + _LEASE_SECONDS

    def _served(self, webhook_id: int, _: asyncio.Task[None]) -> None:
        del self._serving[webhook_id]
        self._woken.set()

    async def _serve(self, webhook_id: int) -> None:
        """Deliver to one webhook for a while."""
        try:
            async with AsyncExitStack() as connections:
                await self._take_turn(webhook_id, connections)
        except StorageUnavailable as error:
            # It is another worker's, or this one's again, when the time is over for which it is held.
            _log.warning("webhook not served", extra={"fields": {"webhook": webhook_id, "detail": str(error)}})
        except Exception:  # noqa: BLE001 - likewise
            _log.exception("defect")

    async def _take_turn(self, webhook_id: int, connections: AsyncExitStack) -> None:
        ends = time.monotonic() + _TURN_SECONDS
        receiver: Receiver | None = None
        key = ("", "")
        made: Sequence[Attempt] = ()
        while True:
            held, messages = await self._round(webhook_id, made, is_last=self._is_ending or time.monotonic() > ends)
            if held is None or not messages:
                return
            if receiver is None or (held.url, held.secret) != key:
                key = (held.url, held.secret)
                try:
                    secret = self._keys.decrypt(held.secret)
                except Undecipherable as error:
                    _log.error("webhook secret cannot be decrypted", extra={"fields": {"webhook": webhook_id}})
                    raise StorageUnavailable("the secret cannot be decrypted") from error
                receiver = await connections.enter_async_context(self._sending.to(held.url, secret))
            made = await asyncio.gather(*(self._send(receiver, message) for message in messages))

    async def _round(
        self, webhook_id: int, made: Sequence[Attempt], *, is_last: bool
    ) -> tuple[Held | None, Sequence[Message]]:
        """Keep what came of the last messages, and get the next, none where it is the end for now."""
        gone = any(attempt.status == HTTPStatus.GONE for attempt in made)
        failed = bool(made) and not any(attempt.is_delivered for attempt in made)
        messages: Sequence[Message] = ()
        given_up = 0
        async with self._transactions.begin() as session:
            held = await deliveries.hold(session, webhook_id, self._name, seconds=self._lease)
            if held and made:
                given_up = await deliveries.record(session, held, made)
            if held and held.is_served and not (is_last or failed or gone):
                if not made:
                    given_up += await deliveries.expire(session, webhook_id)
                # Where something failed just now, one message finds out whether the receiver is back.
                most = 1 if held.failures and not made else AT_ONCE
                messages = await deliveries.due(session, webhook_id, most=most)
                if len(messages) < most and await deliveries.fan_out(session, held, self._body_of):
                    messages = await deliveries.due(session, webhook_id, most=most)
            if held and not messages:
                await deliveries.release(session, webhook_id, self._name)
        if held is None:
            return None, ()
        if gone:
            await self._disable(held)
        self._tell(webhook_id, made, given_up)
        return held, messages

    async def _disable(self, held: Held) -> None:
        origin = Origin(held.account.id, Face.WEBHOOK, Sender(None, f"webhook-{held.id}"))
        async with self._transactions.begin(origin) as session:
            await deliveries.disable(session, held.id, "The receiver answered 410, Gone.")
        _log.warning("webhook disabled", extra={"fields": {"webhook": held.id, "detail": "answered 410"}})

    async def _send(self, receiver: Receiver, message: Message) -> Attempt:
        now = time.monotonic()
        self._next_slot = max(now, self._next_slot) + 1 / _PER_SECOND
        if self._next_slot - now > 1 / _PER_SECOND:
            await asyncio.sleep(self._next_slot - now)
        return await receiver.send(message)

    def _tell(self, webhook_id: int, made: Sequence[Attempt], given_up: int) -> None:
        delivered = sum(attempt.is_delivered for attempt in made)
        for outcome, number in (
            ("delivered", delivered),
            ("failed", len(made) - delivered),
            ("given_up", given_up),
        ):
            if number:
                self._observe(outcome, number)
        if given_up:
            fields = {"webhook": webhook_id, "messages": given_up}
            _log.warning("webhook messages given up", extra={"fields": fields})
