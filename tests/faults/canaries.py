"""A world whose every secret carries one mark, and the search for that mark in whatever was written."""

import re
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

from callflow_service.world.loading import DEMO_FILE

MARK: Final = "Canary5WanQx"
"""Stands in every secret and nowhere else. It is good base64 too, so that an encryption key can carry it."""

ENCRYPTION_KEY: Final = f"{MARK}{'A' * 31}="
DATABASE_PASSWORD: Final = f"{MARK}-database"
REDIS_PASSWORD: Final = f"{MARK}-redis"
SWITCH_PASSWORD: Final = f"{MARK}-switch"
WEBHOOK_SECRET: Final = f"whsec_{MARK * 4}"
SENT_PASSWORD: Final = f"{MARK}-sent-p"
"""What a client sends as `p` though the account has no password, or another one."""

HASH: Final = re.compile(rb"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])", re.IGNORECASE)


def api_key(username: str) -> str:
    return f"{MARK}-key-{username}"


def account_password(username: str) -> str:
    return f"{MARK}-password-{username}"


def write_world(file: Path) -> None:
    """The demo with canaries for secrets, and an admin of its own for the password: each wrong one is slow."""
    world: dict[str, list[dict[str, Any]]] = yaml.safe_load(DEMO_FILE.read_text())
    admin = world["accounts"][0]
    world["accounts"].append({**admin, "id": 2, "username": "boss", "name": "The Boss"})
    del admin["password"]
    for account in world["accounts"]:
        if "api_key" in account:
            account["api_key"] = api_key(account["username"])
        if "password" in account:
            account["password"] = account_password(account["username"])
    for switch in world["switches"]:
        switch["password"] = SWITCH_PASSWORD
    file.write_text(yaml.safe_dump(world, allow_unicode=True))


def _in_base64(text: str) -> tuple[bytes, ...]:
    """What base64 makes of a text for certain, wherever it stands in what is encoded."""
    shifted = (b64encode(b"\0" * before + text.encode()) for before in range(3))
    # The first characters hold bits of what stands before, the last ones of what follows.
    whole = (len(text) - 2) // 3 * 4
    return tuple(encoded[4 if before else 0 :][: whole - 4] for before, encoded in enumerate(shifted))


_SPELLINGS: Final = (MARK.encode(), *_in_base64(MARK))
_FOLDED_MARK: Final = MARK.lower().encode()


def holds_canary(written: bytes) -> bool:
    """Whether the mark stands there: in any case, or as base64."""
    return _FOLDED_MARK in written.lower() or any(spelling in written for spelling in _SPELLINGS)


def leaks(written: bytes, hashes: Iterable[bytes]) -> list[bytes]:
    """The lines that hold a canary, or a signature that was sent."""
    sent = frozenset(hashes)
    return [
        line[:400]
        for line in written.splitlines()
        if holds_canary(line) or any(found.lower() in sent for found in HASH.findall(line))
    ]
