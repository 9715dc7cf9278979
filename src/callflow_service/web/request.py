"""Read a request: its headers, its body, and where it comes from."""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.requests import Request


class BodyTooLarge(Exception):
    """A request's body is larger than is read."""


def header(request: Request, name: bytes) -> str:
    """The first header of a name, which is given in small letters; empty where there is none."""
    for found, value in request.scope["headers"]:
        if found == name:
            return str(value, "latin-1")
    return ""


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body.

    Raises:
        BodyTooLarge: It is larger than `limit` bytes, of which no more were kept than that.
        ClientDisconnect: The client closed the connection before it had sent all.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge
    return body


def client_address(request: Request) -> IPv4Address | IPv6Address | None:
    """Where a request comes from, behind a trusted proxy as that says; None where that is no address."""
    return address(request.client.host) if request.client else None


@lru_cache(4096)
def address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a text is; None where it is none, for a proxy may tell a name, or "unknown"."""
    try:
        return ip_address(host)
    except ValueError:
        return None
