"""Check passwords against their slow hashes, and each right one only once."""

import asyncio
import hmac
import os

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cachetools import LRUCache

_REMEMBERED = 10_000
_AT_ONCE = 2


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
    """Checks passwords off the event loop and remembers the right ones.

    Remembered is a keyed digest of the password and its hash, with a key that lives and dies with the process, so a
    client that sends its password every time pays for the slow hash once, and a changed password counts at once.
    """

    def __init__(self) -> None:
        self._right: LRUCache[bytes, None] = LRUCache(_REMEMBERED)
        self._key = os.urandom(32)
        # Each check takes 64 MiB; a flood of wrong passwords must wait in line, not fill the memory.
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def is_remembered(self, password: str, password_hash: str) -> bool:
        """Whether this password was found right before; fast."""
        return self._digest(password, password_hash) in self._right

    async def is_right(self, password: str, password_hash: str) -> bool:
        """Whether the password is right; slow the first time."""
        if self.is_remembered(password, password_hash):
            return True
        async with self._turns:
            right = await asyncio.to_thread(is_password, password, password_hash)
        if right:
            self._right[self._digest(password, password_hash)] = None
        return right

    def _digest(self, password: str, password_hash: str) -> bytes:
        text = f"{password_hash}\0{password}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, text, "sha256")
