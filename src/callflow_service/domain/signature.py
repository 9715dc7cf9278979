"""MOR's signature: SHA-1 over the values of a request, joined with nothing between them, then the key.

The scheme binds values to no names and stops no replay; that is MOR's, not ours to change. What is ours
is which strings count (`HashPolicy`), because the public documentation has told it differently over the years.
"""

import hmac
from collections.abc import Iterator, Mapping
from enum import StrEnum
from hashlib import sha1
from typing import Final

UPDATE_ORDER: Final = (
    "device_id",
    "callflow_action",
    "state",
    "forward_to_device",
    "external_number",
    "fax_device",
    "voicemail",
    "device_callerid",
    "src_callerid",
    "did_id",
    "custom",
)
"""The parameters of `device_callflow_update` that are signed, in the order of MOR's documentation."""

GET_ORDER: Final = ("device_id",)
"""The parameter of `device_callflow_get` that is signed."""

_STATE_FIRST: Final = ("device_id", "state", "callflow_action", *UPDATE_ORDER[3:])
_COMPAT_ORDERS: Final = (("device_id", "state", "callflow_action"), ("device_id",))


class HashPolicy(StrEnum):
    """Which signatures an account accepts.

    `STRICT` binds every value that was sent. `COMPAT` also takes what clients in the field sign, which leaves
    the target out. `OFF` asks for a password instead.
    """

    STRICT = "strict"
    COMPAT = "compat"
    OFF = "off"


def strict_strings(values: Mapping[str, str]) -> Iterator[str]:
    """The strings that may be signed for an update under every policy: all that was sent, in three orders.

    Args:
        values: What was sent of `UPDATE_ORDER`, aliases under their own name's, in the order of the request.
    """
    yield _join(values, UPDATE_ORDER)
    yield _join(values, _STATE_FIRST)
    # Without the device in front, one hash would fit a second request with its values swapped.
    if next(iter(values), None) == "device_id":
        yield "".join(values.values())


def compat_strings(values: Mapping[str, str]) -> Iterator[str]:
    """The strings that clients in the field sign, and that only `HashPolicy.COMPAT` takes."""
    for order in _COMPAT_ORDERS:
        yield _join(values, order)


def digests(string: str, key: str) -> Iterator[str]:
    """The hashes of one string: as UTF-8 and, for old clients, as Latin-1 where that can be and differs.

    Lower-case hexadecimal. Lone surrogates, which JSON can carry, are hashed as they are encoded.
    """
    signed = string + key
    encoded = signed.encode("utf-8", "surrogatepass")
    yield sha1(encoded, usedforsecurity=False).hexdigest()
    if len(encoded) != len(signed) and all(character <= "\xff" for character in signed):
        yield sha1(signed.encode("latin-1"), usedforsecurity=False).hexdigest()


def matches(signature: str, key: str, strings: Iterator[str]) -> bool:
    """Whether the signature is right for one of the strings, in either case. Each comparison takes constant time."""
    sent = signature.lower().encode("utf-8", "surrogatepass")
    return any(hmac.compare_digest(sent, digest.encode()) for string in strings for digest in digests(string, key))


def _join(values: Mapping[str, str], order: tuple[str, ...]) -> str:
    return "".join(values.get(name, "") for name in order)
