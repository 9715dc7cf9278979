"""Count how often somebody is wrong about an account or a switch user, and refuse him for a while.

What is counted belongs to a name and to the address that it was tried from: who guesses an account's signatures locks
out nobody but his own address.
"""

import hashlib
import math
import time
from collections import OrderedDict
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from cachetools import LRUCache, TTLCache
from limits import RateLimitItem, parse_many
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import RateLimiter, SlidingWindowCounterRateLimiter
from pydantic import SecretStr

from callflow_service.domain.errors import TooManyGuesses

_MOST_REFUSED: Final = 10_000
_MOST_ASKED: Final = 10_000
_ASKED_SECONDS: Final = 1.0
_OF_IPV6: Final = 64
# Nobody is told a shorter time. And in the very moment in which a count begins the library takes it for over.
_LEAST_SECONDS: Final = 1.0


class Guessed(StrEnum):
    """Whose secret is guessed."""

    ACCOUNT = "account"
    SWITCH_USER = "switch_user"


def guesser(guessed: Guessed, name: str, address: IPv4Address | IPv6Address | None) -> str:
    """Who is counted: a name as it was sent, and where from.

    An IPv6 address stands for its /64, for that is what one customer has. The name may be of any length and is nobody
    else's to read, so a digest stands for it.
    """
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{guessed}/{_network(address)}/{digest}"


class Guesses:
    """The wrong guesses of late, under the operator's limits; with Redis those of all workers and instances.

    Each worker counts its own in memory, at once and without a wait. What goes to Redis beside that is asked at most
    once a second for each guesser; while Redis is away each worker goes on with what it counted.

    Args:
        limits: How often somebody may be wrong, as `limits` writes it: `100/minute;1000/hour`.
        redis_url: Where all count together; empty where each worker counts alone.
        most_counts: How many counts a worker keeps: one or two for each name, address and limit.
    """

    def __init__(self, limits: str, redis_url: SecretStr, *, most_counts: int = 20_000) -> None:
        self._limits = parse_many(limits)
        self._counts = SlidingWindowCounterRateLimiter(_BoundedMemory(most_counts))
        self._shared = None
        if redis_url.get_secret_value():
            from callflow_service.credentials import shared_guesses  # noqa: PLC0415 - redis, which serving without it need not load

            self._shared = shared_guesses.SharedGuesses(self._limits, redis_url)
        # Until when, on the monotonic clock. Beside the counts: to be in here takes a limit full of wrong guesses, so
        # nobody gets out of it by making up names.
        self._refused: LRUCache[str, float] = LRUCache(_MOST_REFUSED)
        # Who was wrong of late, so that who never was costs nothing to forgive.
        self._wrong: LRUCache[str, None] = LRUCache(most_counts)
        self._asked: TTLCache[str, None] = TTLCache(_MOST_ASKED, _ASKED_SECONDS)

    def refuse_known(self, who: str) -> None:
        """Refuse who is known to have been wrong too often; waits for nothing.

        Raises:
            TooManyGuesses: He was; right guesses are refused too, or they would show.
        """
        until = self._refused.get(who)
        if until is not None and (seconds := until - time.monotonic()) > 0:
            raise TooManyGuesses(math.ceil(seconds))

    async def refuse(self, who: str) -> None:
        """Refuse who has been wrong too often, here or, where Redis tells in time, elsewhere.

        Raises:
            TooManyGuesses: He was; right guesses are refused too, or they would show.
        """
        self.refuse_known(who)
        if self._shared is not None and who not in self._asked:
            # Noted before it is asked: those beside this one need not ask as well.
            self._asked[who] = None
            seconds = await self._shared.seconds_refused(who)
            if seconds > 0:
                # Asked again when that is over, and not only when what was told is a second old.
                self._asked.pop(who, None)
            self._note(who, seconds)
            self.refuse_known(who)

    async def count(self, who: str) -> None:
        """Count a wrong guess here. Nothing else runs meanwhile: of many guesses at once none comes in between."""
        self._wrong[who] = None
        self._note(who, await count_one(self._counts, self._limits, who))

    async def share(self, who: str) -> None:
        """Tell the others of a wrong guess that was counted here, and hear of theirs."""
        if self._shared is not None:
            self._note(who, await self._shared.count(who))
            self._asked.pop(who, None)

    async def forgive(self, who: str) -> None:
        """Forget the wrong guesses of one who turned out to be right, unless he is refused by now.

        Who guesses is never right, and a client that is wrong now and then is not to be refused in the end for it.
        """
        if who not in self._wrong or self._refused.get(who, 0.0) > time.monotonic():
            return
        self._wrong.pop(who, None)
        await clear_all(self._counts, self._limits, who)
        if self._shared is not None:
            await self._shared.forgive(who)

    async def close(self) -> None:
        """Close every connection."""
        if self._shared is not None:
            await self._shared.close()

    def _note(self, who: str, seconds: float) -> None:
        if seconds > 0:
            self._refused[who] = max(time.monotonic() + seconds, self._refused.get(who, 0.0))


async def count_one(counts: RateLimiter, limits: list[RateLimitItem], who: str) -> float:
    """Count one wrong guess under every limit; how long until every limit has room for another one, as below."""
    for limit in limits:
        await counts.hit(limit, who)
    return await seconds_refused(counts, limits, who)


async def clear_all(counts: RateLimiter, limits: list[RateLimitItem], who: str) -> None:
    """Forget the wrong guesses under every limit."""
    for limit in limits:
        await counts.clear(limit, who)


async def seconds_refused(counts: RateLimiter, limits: list[RateLimitItem], who: str) -> float:
    """How long until every limit has room for another guess, at least a second; 0 where all have it now."""
    seconds = 0.0
    for limit in limits:
        stats = await counts.get_window_stats(limit, who)
        if stats.remaining <= 0:
            seconds = max(seconds, _LEAST_SECONDS, stats.reset_time - time.time())
    return seconds


class _BoundedMemory(MemoryStorage):
    """The library's memory with room for so many counts: the oldest makes way for a new one.

    As it comes it keeps every count until its time is over, hours perhaps, and goes through all of them each time that
    something is counted: who makes up names would fill the memory and then the processor.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        # A plain dictionary looks ever longer for its first key where the first keys are taken away.
        self.expirations = OrderedDict()

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        count = await self.get(key) + amount
        if count == amount:
            while len(self.expirations) >= self._most:
                await self.clear(next(iter(self.expirations)))
            self.expirations[key] = time.time() + expiry
        self.storage[key] = count
        return count


def _network(address: IPv4Address | IPv6Address | None) -> str:
    if isinstance(address, IPv6Address):
        # A service that listens on both sees IPv4 clients like this; they all have the same /64.
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else f"{int(address) >> _OF_IPV6:x}"
    return str(address)
