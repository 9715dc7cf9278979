"""What the history keeps of a change beside the change itself."""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address


class Face(StrEnum):
    """Where a change came in."""

    MOR = "mor"
    JSON = "json"
    CLI = "cli"
    WORLD = "world"
    WEBHOOK = "webhook"
    """What a webhook's receiver answered, which may disable the webhook."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Where a request came from: the caller's address behind trusted proxies, and the request's id."""

    address: IPv4Address | IPv6Address | None
    request_id: str


@dataclass(frozen=True, slots=True)
class Origin:
    """The account that makes a change, and where from; `undoes` is the history entry that the change takes back.

    `account_id` is None where it is a world file that is loaded.
    """

    account_id: int | None
    face: Face
    sender: Sender
    undoes: int | None = None
