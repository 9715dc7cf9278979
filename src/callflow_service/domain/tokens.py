"""Tokens of the JSON API: what one looks like, and what it may do.

`cf_`, 40 random characters, 6 of a checksum. So a typing error, and a scanner that looks for leaked tokens, can tell a
token from other text without asking a database (as GitHub's tokens do it).
"""

import hashlib
import secrets
import zlib
from enum import StrEnum
from string import ascii_letters, digits
from typing import Final

PREFIX: Final = "cf_"
"""What every token begins with."""

_ALPHABET: Final = digits + ascii_letters
_RANDOM: Final = 40
_CHECKSUM: Final = 6


class Scope(StrEnum):
    """What a token may do: only look, or change as well."""

    READ = "read"
    WRITE = "write"


def new_token() -> str:
    """A token that nobody had before."""
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return PREFIX + random + _checksum(random)


def is_token(text: str) -> bool:
    """Whether `text` can be a token: its checksum is right."""
    body = text.removeprefix(PREFIX)
    if not text.startswith(PREFIX) or len(body) != _RANDOM + _CHECKSUM or not body.isascii() or not body.isalnum():
        return False
    return body[_RANDOM:] == _checksum(body[:_RANDOM])


def token_hash(token: str) -> bytes:
    """What is stored of a token: SHA-256, fast, for a token is random and long."""
    return hashlib.sha256(token.encode()).digest()


def _checksum(random: str) -> str:
    number = zlib.crc32(random.encode())
    signs = []
    for _ in range(_CHECKSUM):
        number, rest = divmod(number, len(_ALPHABET))
        signs.append(_ALPHABET[rest])
    return "".join(reversed(signs))
