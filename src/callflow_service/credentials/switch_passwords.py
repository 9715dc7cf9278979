"""Hash and check the passwords of switches, fast.

A switch shows its password on every call's way, so a slow hash would delay calls, and a flood of wrong passwords would
take the processor away from them. What a fast hash gives up must be made good by the password: it is chosen once, typed
by nobody, and should be long and random.
"""

import hmac
import os
from typing import Final

_SCHEME: Final = "sha256"
_SALT_BYTES: Final = 16


def hash_switch_password(password: str) -> str:
    """The fast hash of a switch's password, as it is stored: `sha256$SALT$HMAC`, both in hexadecimal."""
    salt = os.urandom(_SALT_BYTES)
    return f"{_SCHEME}${salt.hex()}${_digest(password, salt).hex()}"


def is_switch_password(password: str, stored: str) -> bool:
    """Whether a password is the one that was hashed; takes microseconds, and the same time for every wrong one."""
    scheme, _, rest = stored.partition("$")
    salt, _, digest = rest.partition("$")
    try:
        return scheme == _SCHEME and hmac.compare_digest(_digest(password, bytes.fromhex(salt)), bytes.fromhex(digest))
    except ValueError:
        return False


def _digest(password: str, salt: bytes) -> bytes:
    return hmac.digest(salt, password.encode("utf-8", "surrogatepass"), "sha256")
