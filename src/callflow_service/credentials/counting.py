"""Count wrong guesses under several limits at once, in memory or in Redis."""

import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from limits import RateLimitItem
from limits.aio.strategies import RateLimiter

# The minimum Retry-After. `limits` reports 0 s left at the instant a window opens.
_LEAST_SECONDS: Final = 1.0

Refused = tuple[float, float]
"""For how many seconds a client is refused: under its name at its address, and at its address; 0 where it is not."""


class Guesser(NamedTuple):
    """A client whose wrong guesses are counted: under a name at its address, and at its address under any name."""

    name: str
    address: str


class Counter:
    """Counts kept by `limits`.

    Args:
        counts: Where they are.
        for_name: How often a client may be wrong about one name.
        for_address: How often all clients of one address may be wrong, whatever the names.
    """

    def __init__(self, counts: RateLimiter, for_name: list[RateLimitItem], for_address: list[RateLimitItem]) -> None:
        self._counts = counts
        self._for_name: Final = for_name
        self._for_address: Final = for_address

    async def count(self, client: Guesser) -> Refused:
        """Count a wrong guess; for how long the client is refused from now on."""
        for limits, key in ((self._for_name, client.name), (self._for_address, client.address)):
            for limit in limits:
                await self._counts.hit(limit, key)
        return await self.seconds_refused(client)

    async def forgive(self, client: Guesser) -> None:
        """Forget the wrong guesses about the name; those of the address stay."""
        for limit in self._for_name:
            await self._counts.clear(limit, client.name)

    async def seconds_refused(self, client: Guesser) -> Refused:
        """How long until every limit has room for another guess, at least a second; 0 where all have it now."""
        return await self._seconds(self._for_name, client.name), await self._seconds(self._for_address, client.address)

    async def _seconds(self, limits: Iterable[RateLimitItem], key: str) -> float:
        seconds = 0.0
        for limit in limits:
            stats = await self._counts.get_window_stats(limit, key)
            if stats.remaining <= 0:
                seconds = max(seconds, _LEAST_SECONDS, stats.reset_time - time.time())
        return seconds
