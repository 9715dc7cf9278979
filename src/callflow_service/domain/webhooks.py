"""What webhooks are told of, where they may be, and how long they are tried."""

import re
import secrets
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Event(StrEnum):
    """What a webhook can be told of: every event name there is."""

    CALLFLOW_CHANGED = "callflow.changed"
    TARGET_SUSPICIOUS = "target.suspicious"
    ACCOUNT_ADDED = "account.added"
    ACCOUNT_CHANGED = "account.changed"
    ACCOUNT_DELETED = "account.deleted"
    DEVICE_ADDED = "device.added"
    DEVICE_CHANGED = "device.changed"
    DEVICE_DELETED = "device.deleted"
    DID_ADDED = "did.added"
    DID_CHANGED = "did.changed"
    DID_DELETED = "did.deleted"
    SWITCH_ADDED = "switch.added"
    SWITCH_CHANGED = "switch.changed"
    SWITCH_DELETED = "switch.deleted"
    PROFILE_ADDED = "profile.added"
    PROFILE_CHANGED = "profile.changed"
    PROFILE_DELETED = "profile.deleted"
    SCHEDULE_ADDED = "schedule.added"
    SCHEDULE_CHANGED = "schedule.changed"
    SCHEDULE_DELETED = "schedule.deleted"
    CALLER_LIST_ADDED = "caller_list.added"
    CALLER_LIST_CHANGED = "caller_list.changed"
    CALLER_LIST_DELETED = "caller_list.deleted"
    WEBHOOK_ADDED = "webhook.added"
    WEBHOOK_CHANGED = "webhook.changed"
    WEBHOOK_DELETED = "webhook.deleted"


PING: Final = "ping"
"""What a test sends; it comes whatever events a webhook is told of."""

PATIENCE: Final = timedelta(days=3)
"""How long after a change it is given up to tell of it."""

_WAITS: Final = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(hours=2),
    timedelta(hours=4),
    timedelta(hours=8),
)
_LONGEST_REST: Final = timedelta(minutes=1)

MAX_URL: Final = 2048
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every secret begins with
_SECRET_BYTES: Final = 32
_LEAST_SECRET_BYTES: Final = 24
_MOST_SECRET_BYTES: Final = 64
_IN_A_URL: Final = re.compile(r"[!-~]+")


def event_of(kind: str, *, is_new: bool, is_gone: bool) -> Event | None:
    """The event that a change of the history is; None where there is no name for it, as of a newer release's change."""
    if kind == "target":
        return Event.TARGET_SUSPICIOUS
    name = "switch" if kind == "switch_user" else kind
    what = "added" if is_new and kind != "callflow" else "deleted" if is_gone else "changed"
    try:
        return Event(f"{name}.{what}")
    except ValueError:
        return None


def subject_of(kind: str, resource: str | None, device_id: int | None) -> str:
    """What a change is about: changes of one subject are told in their order."""
    return f"{kind}/{resource}" if device_id is None else f"device/{device_id}"


def wait_after(attempts: int) -> timedelta:
    """How long to wait after a message could not be delivered for the so-manieth time."""
    return _WAITS[min(attempts, len(_WAITS)) - 1]


def rest_after(failures: int) -> timedelta:
    """How long to leave a webhook alone after so many failures in a row, whatever waits for it."""
    return min(timedelta(seconds=0.25 * 2.0 ** min(failures, 10)), _LONGEST_REST)


def new_secret() -> str:
    """A secret to sign with, as Standard Webhooks writes it."""
    return SECRET_PREFIX + b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def is_secret(text: str) -> bool:
    """Whether it is a secret as Standard Webhooks has them: 24 to 64 bytes in base64 after `whsec_`."""
    if not text.startswith(SECRET_PREFIX):
        return False
    try:
        key = b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (Base64Error, ValueError):
        return False
    return _LEAST_SECRET_BYTES <= len(key) <= _MOST_SECRET_BYTES


def url_problem(url: str) -> str | None:
    """What is wrong with how a webhook's address is written; None where nothing is."""
    if len(url) > MAX_URL or not _IN_A_URL.fullmatch(url) or "\\" in url:
        return f"must be at most {MAX_URL} characters of ASCII, without blanks"
    try:
        parts = urlsplit(url)
        has_place = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_place = False
    if not has_place or parts.scheme not in {"http", "https"}:
        return "must begin with http:// or https:// and name a host"
    if "@" in parts.netloc:
        return "must not have a user or a password in it"
    return "must not have a fragment" if "#" in url else None


def address_in(url: str) -> Address | None:
    """The address that a URL names; None where it names a host, whose addresses are looked up for each message."""
    try:
        return ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return None


def may_reach(address: Address, networks: Sequence[Network]) -> bool:
    """Whether messages may go to an address: a public one, or one in the networks that the operator names."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if any(address in network for network in networks):
        return True
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    # Addresses that carry an IPv4 address within lead there by way of a gateway.
    return isinstance(address, IPv4Address) or not (address.sixtofour or address.teredo or address.is_site_local)
