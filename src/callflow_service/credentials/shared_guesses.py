"""Count wrong guesses in Redis, where all workers and instances see them, and do without while it is away."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Final, TypeVar

from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from callflow_service.credentials.counting import Counter, Guesser, Refused

_PATIENCE_SECONDS: Final = 0.05
_REST_SECONDS: Final = 1.0
_MOST_CONNECTIONS: Final = 10
_NOT_REFUSED: Final = (0.0, 0.0)

T = TypeVar("T")

_log = logging.getLogger(__name__)


class SharedGuesses:
    """The counts in Redis. No request waits for it longer than 50 ms; while it is away, one task looks for it."""

    def __init__(self, limits: tuple[list[RateLimitItem], list[RateLimitItem]], url: SecretStr) -> None:
        self._pool = BlockingConnectionPool.from_url(
            url.get_secret_value(),
            max_connections=_MOST_CONNECTIONS,
            timeout=_PATIENCE_SECONDS,
            socket_timeout=_REST_SECONDS,
            socket_connect_timeout=_REST_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis(connection_pool=self._pool)
        # The library is given connections and not the address: it wants a port in it, and quotes it in its errors.
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix="callflow",
            connection_pool=self._pool,  # type: ignore[arg-type]  # documented, but not in its type
        )
        self._counter = Counter(SlidingWindowCounterRateLimiter(storage), *limits)
        self._looking: asyncio.Task[None] | None = None

    async def count(self, client: Guesser) -> Refused:
        """Count a wrong guess, if Redis is there to count it; for how long the client is refused from now on."""
        return await self._asked(self._counter.count(client)) or _NOT_REFUSED

    async def forgive(self, client: Guesser) -> None:
        """Forget the wrong guesses about the name, if Redis is there to forget them."""
        await self._asked(self._counter.forgive(client))

    async def seconds_refused(self, client: Guesser) -> Refused:
        """For how long the client is refused; not at all where Redis does not tell."""
        return await self._asked(self._counter.seconds_refused(client)) or _NOT_REFUSED

    async def close(self) -> None:
        """Close every connection."""
        if self._looking:
            self._looking.cancel()
        await self._pool.disconnect()

    async def _asked(self, asking: Coroutine[None, None, T]) -> T | None:
        if self._looking:
            asking.close()
            return None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await asking
        except (RedisError, OSError, TimeoutError) as error:
            if not self._looking:
                _log.warning("Redis cannot be asked (%s); each worker counts wrong guesses alone", type(error).__name__)
                self._looking = asyncio.create_task(self._look_until_it_is_back())
            return None

    async def _look_until_it_is_back(self) -> None:
        is_away = True
        while is_away:
            await asyncio.sleep(_REST_SECONDS)
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(_REST_SECONDS):
                    await self._redis.ping()
                is_away = False
        _log.info("Redis is back; wrong guesses are counted together again")
        self._looking = None
