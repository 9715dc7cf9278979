"""Build from the settings what the faces stand on."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING

from callflow_service.almanac.opening import open_schedules
from callflow_service.api.webhooks import message_of
from callflow_service.credentials.api_keys import Keyring
from callflow_service.credentials.guesses import Guesses
from callflow_service.credentials.passwords import Passwords
from callflow_service.delivery.dispatcher import Dispatcher
from callflow_service.delivery.sending import Sending
from callflow_service.settings import Settings
from callflow_service.storage.database import Database
from callflow_service.storage.replica import ReplicaFirst
from callflow_service.storage.transactions import Transactions
from callflow_service.storage.waking import Listener, Teller
from callflow_service.usecases.admission import Admission
from callflow_service.usecases.call_flows import CallFlows
from callflow_service.usecases.calls import Calls
from callflow_service.usecases.feed import Feed
from callflow_service.usecases.policing import Policing
from callflow_service.usecases.switch_users import SwitchUsers
from callflow_service.watching.metrics import Metrics, watch

if TYPE_CHECKING:
    from callflow_service.watching.tracing import Tracing

# Connections for lists and bulk changes, opened when they are first needed: calls have the pool to themselves.
_TRANSACTIONS = 2
# A hundred thousand devices take seconds, and a busy or slow machine several times that.
_BULK_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Components:
    """What lives as long as the application: connections, counts, and the use cases on them."""

    database: Database
    reading: Database | ReplicaFirst
    transactions: Transactions
    bulk: Transactions
    teller: Teller
    feed: Feed
    guesses: Guesses
    keys: Keyring
    call_flows: CallFlows
    calls: Calls
    dispatcher: Dispatcher
    tracing: "Tracing | None"

    @property
    def has_replica(self) -> bool:
        """Whether lookups are answered from a database of their own."""
        return self.reading is not self.database

    @asynccontextmanager
    async def running(self, metrics: Metrics | None) -> AsyncIterator[None]:
        """Look at the connections and deliver to webhooks meanwhile, and close everything in the end."""
        beside = [self.dispatcher.run(metrics.observe_messages if metrics else _observe_nothing)]
        if metrics:
            beside.append(watch(metrics, self.database, self.reading))
        async with lifetime(beside, self._closing()):
            yield

    @asynccontextmanager
    async def at_hand(self) -> AsyncIterator[None]:
        """Close everything in the end; meanwhile nothing goes on but what is asked for."""
        async with lifetime([], self._closing()):
            yield

    def _closing(self) -> list[Callable[[], Awaitable[None]]]:
        closing: list[Callable[[], Awaitable[None]]] = [
            self.teller.close,
            self.guesses.close,
            self.calls.users.close,
            self.reading.close,
            self.transactions.close,
            self.bulk.close,
            self.database.close,
        ]
        if self.tracing:
            closing.append(partial(asyncio.to_thread, self.tracing.stop))
        return closing


def build_components(settings: Settings) -> Components:
    """Everything that the settings ask for. It connects to the database when it is first asked something."""
    database = Database(
        settings.database_url,
        pool_size=settings.pool_size,
        timeout_ms=settings.database_timeout_ms,
        max_in_flight=settings.max_in_flight,
    )
    reading = _reading(settings, database)
    policing = Policing(settings.country or None)
    teller = Teller(database)
    timeout_ms = settings.database_timeout_ms
    transactions = Transactions(settings.database_url, size=_TRANSACTIONS, timeout_ms=timeout_ms, tell=teller)
    feed = Feed(transactions, Listener(settings.database_url, timeout_ms=timeout_ms))
    guesses = Guesses(settings.guess_limit, settings.address_guess_limit, settings.redis_url)
    keys = Keyring(settings.encryption_keys, settings.data_dir)
    return Components(
        database=database,
        reading=reading,
        transactions=transactions,
        bulk=Transactions(settings.database_url, size=1, timeout_ms=timeout_ms, seconds=_BULK_SECONDS, tell=teller),
        teller=teller,
        feed=feed,
        guesses=guesses,
        keys=keys,
        call_flows=CallFlows(
            database,
            Admission(
                settings.api_enabled,
                settings.hash_policy,
                guesses,
                Passwords(guesses.refuse_known),
                keys,
            ),
            policing,
            teller,
        ),
        calls=Calls(
            reading,
            SwitchUsers(reading, guesses),
            settings.technologies,
            settings.max_diversions,
            settings.max_legs,
            settings.ring_seconds,
            partial(open_schedules, time_zone=settings.time_zone),
            policing,
        ),
        dispatcher=_dispatcher(settings, keys, feed),
        tracing=_start_tracing() if settings.tracing_enabled else None,
    )


def _dispatcher(settings: Settings, keys: Keyring, feed: Feed) -> Dispatcher:
    networks = [ip_network(network) for network in settings.webhook_networks]
    return Dispatcher(
        settings.database_url,
        feed,
        Transactions(settings.database_url, size=_TRANSACTIONS, timeout_ms=settings.database_timeout_ms),
        keys,
        Sending(networks, seconds=settings.webhook_timeout_ms / 1000),
        message_of,
    )


def _reading(settings: Settings, primary: Database) -> Database | ReplicaFirst:
    """Where the switches' questions are answered from."""
    if not settings.read_database_url.get_secret_value():
        return primary
    # Half of a switch's time for the replica, so that half is left for the primary.
    timeout_ms = min(settings.database_timeout_ms, settings.switch_timeout_ms // 2)
    replica = Database(
        settings.read_database_url,
        pool_size=settings.pool_size,
        timeout_ms=timeout_ms,
        max_in_flight=settings.max_in_flight,
        wanted="any",
    )
    return ReplicaFirst(replica, primary)


def _start_tracing() -> "Tracing":
    from callflow_service.watching.tracing import Tracing  # noqa: PLC0415 - the packages of the extra `tracing`

    return Tracing()


@asynccontextmanager
async def lifetime(
    beside: Iterable[Coroutine[None, None, None]], closing: Iterable[Callable[[], Awaitable[None]]]
) -> AsyncIterator[None]:
    """Run what is `beside` meanwhile and close everything in the end, also where something fails to close."""
    async with AsyncExitStack() as ends:
        for close in reversed(list(closing)):
            ends.push_async_callback(close)
        for running in beside:
            ends.push_async_callback(_cancel, asyncio.create_task(_logged(running)))
        yield


def _observe_nothing(_outcome: str, _number: int) -> None:
    pass


async def _logged(running: Coroutine[None, None, None]) -> None:
    """Run beside the requests. Nothing awaits the result, so a defect is logged here."""
    try:
        await running
    except Exception:
        logging.getLogger(__name__).exception("defect")


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
