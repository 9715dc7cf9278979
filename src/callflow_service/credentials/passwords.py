"""Check passwords against their slow hashes, and each right one only once."""

import asyncio
import hmac
import os
from collections.abc import Callable

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cachetools import LRUCache

from callflow_service.credentials.counting import Guesser
from callflow_service.domain.errors import Overloaded

_REMEMBERED = 10_000
_AT_ONCE = 2
# As many as are done in about half a second.
_WAITING = 20


def hash_password(password: str) -> str:
    """The slow hash (Argon2id) of a password, as it is stored."""
    return PasswordHasher().hash(password.encode("utf-8", "surrogatepass"))


def is_password(password: str, password_hash: str) -> bool:
    """Whether a password is the one that was hashed; takes tens of milliseconds."""
    try:
        return PasswordHasher().verify(password_hash, password.encode("utf-8", "surrogatepass"))
    except (VerificationError, InvalidHashError):
        return False


class Passwords:
    """Checks passwords off the event loop, a few at a time, and remembers the right ones.

    Remembered is a keyed digest of the password and its hash, with a key that lives and dies with the process, so a
    client that sends its password every time pays for the slow hash once, and a changed password counts at once.

    Args:
        refuse: Raises `TooManyGuesses` for a client that was wrong too often by now.
    """

    def __init__(self, refuse: Callable[[Guesser], None]) -> None:
        self._refuse = refuse
        self._right: LRUCache[bytes, None] = LRUCache(_REMEMBERED)
        self._key = os.urandom(32)
        # Each check takes 64 MiB; a flood of wrong passwords must wait in line, not fill the memory.
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._checking: dict[tuple[Guesser, bytes], asyncio.Task[bool]] = {}

    def is_remembered(self, password: str, password_hash: str) -> bool:
        """Whether this password was found right before; fast."""
        return self._digest(password, password_hash) in self._right

    async def is_right(self, password: str, password_hash: str, client: Guesser) -> bool:
        """Whether the password is right; slow the first time.

        Args:
            password: What was sent.
            password_hash: What is stored.
            client: Where it came from, as wrong guesses are counted.

        Raises:
            TooManyGuesses: While this one waited for its turn, others of the same client were wrong too often.
            Overloaded: The line is too long.
        """
        if self.is_remembered(password, password_hash):
            return True
        # A client's first requests often come together: they are one check, and one place in the line.
        asked = client, self._digest(password, password_hash)
        checking = self._checking.get(asked)
        if checking is None:
            if len(self._checking) >= _AT_ONCE + _WAITING:
                raise Overloaded
            checking = asyncio.create_task(self._check(password, password_hash, client))
            self._checking[asked] = checking
            checking.add_done_callback(lambda _: self._checking.pop(asked))
        # A client that goes away must not take the answer from others that wait for the same one.
        return await asyncio.shield(checking)

    async def _check(self, password: str, password_hash: str, client: Guesser) -> bool:
        async with self._turns:
            self._refuse(client)
            right = await asyncio.to_thread(is_password, password, password_hash)
        if right:
            self._right[self._digest(password, password_hash)] = None
        return right

    def _digest(self, password: str, password_hash: str) -> bytes:
        text = f"{password_hash}\0{password}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, text, "sha256")
