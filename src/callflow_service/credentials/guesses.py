"""Count how often a client is wrong about an account or a switch user, and refuse it for a while.

Wrong guesses are counted for a name and the address that it was tried from, so that a client that guesses an account's
signatures locks out its own address alone; and for the address over all names, so that one try at each of many names is
limited too.
"""

import hashlib
import math
import time
from collections import OrderedDict
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from cachetools import LRUCache, TTLCache
from limits import parse_many
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from pydantic import SecretStr

from callflow_service.credentials.counting import Counter, Guesser, Refused
from callflow_service.domain.errors import TooManyGuesses
from callflow_service.unpromised import need

_MOST_REFUSED: Final = 10_000
_MOST_ASKED: Final = 10_000
_ASKED_SECONDS: Final = 1.0
_OF_IPV6: Final = 64


class Guessed(StrEnum):
    """Whose secret is guessed."""

    ACCOUNT = "account"
    SWITCH_USER = "switch_user"
    TOKEN = "token"  # noqa: S105 - a kind of secret, not one


def guesser(guessed: Guessed, name: str, address: IPv4Address | IPv6Address | None) -> Guesser:
    """The client that tries a name, as it was sent, from an address.

    An IPv6 address stands for its /64, for that is what one customer has. The name may be of any length and is nobody
    else's to read, so a digest stands for it.
    """
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    everywhere = f"{guessed}/{_network(address)}"
    return Guesser(f"{everywhere}/{digest}", everywhere)


class Guesses:
    """The wrong guesses of late, under the operator's limits; with Redis those of all workers and instances.

    Each worker counts its own in memory, at once and without a wait. What goes to Redis beside that is asked at most
    once a second for each client; while Redis is away each worker goes on with what it counted.

    Args:
        limits: How often a client may be wrong about one name, as `limits` writes it: `100/minute;1000/hour`.
        address_limits: How often all clients of one address may be wrong, whatever the names.
        redis_url: Where all count together; empty where each worker counts alone.
        most_counts: How many counts a worker keeps: one or two for each name, address and limit.
    """

    def __init__(self, limits: str, address_limits: str, redis_url: SecretStr, *, most_counts: int = 20_000) -> None:
        check_limits()
        parsed = parse_many(limits), parse_many(address_limits)
        self._counter = Counter(SlidingWindowCounterRateLimiter(_BoundedMemory(most_counts)), *parsed)
        self._shared = None
        if redis_url.get_secret_value():
            from callflow_service.credentials import shared_guesses  # noqa: PLC0415 - redis, which serving without it need not load

            self._shared = shared_guesses.SharedGuesses(parsed, redis_url)
        # Until when, on the monotonic clock. Kept beside the counts: a key is here after a limit full of wrong guesses,
        # so made-up names cannot push it out.
        self._refused: LRUCache[str, float] = LRUCache(_MOST_REFUSED)
        # Clients that were wrong of late, so that forgiving all others costs nothing.
        self._wrong: LRUCache[Guesser, None] = LRUCache(most_counts)
        self._asked: TTLCache[Guesser, None] = TTLCache(_MOST_ASKED, _ASKED_SECONDS)

    def refuse_known(self, client: Guesser) -> None:
        """Refuse a client that is known to have been wrong too often; waits for nothing.

        Raises:
            TooManyGuesses: It was. Correct secrets are refused as well, so a guesser cannot see a hit.
        """
        until = max(self._refused.get(client.name, 0.0), self._refused.get(client.address, 0.0))
        if until and (seconds := until - time.monotonic()) > 0:
            raise TooManyGuesses(math.ceil(seconds))

    async def refuse(self, client: Guesser) -> None:
        """Refuse a client that was wrong too often, here or, where Redis tells in time, elsewhere.

        Raises:
            TooManyGuesses: It was. Correct secrets are refused as well, so a guesser cannot see a hit.
        """
        self.refuse_known(client)
        if self._shared is not None and client not in self._asked:
            # Noted before Redis is asked: requests beside this one need not ask as well.
            self._asked[client] = None
            refused = await self._shared.seconds_refused(client)
            if any(refused):
                # Asked again when that is over, and not only when what was told is a second old.
                self._asked.pop(client, None)
            self._note(client, refused)
            self.refuse_known(client)

    async def count(self, client: Guesser) -> None:
        """Count a wrong guess here. Nothing else runs meanwhile, for the counts in memory never wait."""
        self._wrong[client] = None
        self._note(client, await self._counter.count(client))

    async def share(self, client: Guesser) -> None:
        """Tell the other workers of a wrong guess that was counted here, and hear of theirs."""
        if self._shared is not None:
            self._note(client, await self._shared.count(client))
            self._asked.pop(client, None)

    async def forgive(self, client: Guesser) -> None:
        """Forget a name's wrong guesses after a right one, unless the client is refused by now.

        A guesser is never right, and a client that is wrong now and then is not to be refused for it in the end. What
        is counted for the address stays: a guesser that has an account of its own could clear it.
        """
        if client not in self._wrong or self._refused.get(client.name, 0.0) > time.monotonic():
            return
        self._wrong.pop(client, None)
        await self._counter.forgive(client)
        if self._shared is not None:
            await self._shared.forgive(client)

    async def close(self) -> None:
        """Close every connection."""
        if self._shared is not None:
            await self._shared.close()

    def _note(self, client: Guesser, refused: Refused) -> None:
        for key, seconds in zip(client, refused, strict=True):
            if seconds > 0:
                self._refused[key] = max(time.monotonic() + seconds, self._refused.get(key, 0.0))


def check_limits() -> None:
    """Check that the library's memory still has what `_BoundedMemory` leans on.

    Raises:
        LibraryChanged: It lacks a name.
    """
    need(MemoryStorage, "clear", "expirations", "get", "incr", "storage")


class _BoundedMemory(MemoryStorage):
    """The library's memory with room for so many counts: the oldest makes way for a new one.

    As it comes it keeps every count until its time is over, hours perhaps, and goes through all of them each time that
    something is counted: made-up names would fill the memory and then the processor.
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
