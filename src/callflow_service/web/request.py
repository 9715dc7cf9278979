"""Read a request: its headers, its body, and where it comes from."""

from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address

from fastapi import HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyTooLarge(HTTPException):
    """A request's body is larger than its face reads."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def header(request: Request, name: bytes) -> str:
    """The first header of a name, which is given in small letters; empty where there is none."""
    for found, value in request.scope["headers"]:
        if found == name:
            return str(value, "latin-1")
    return ""


async def read_body(request: Request) -> bytes:
    """The request's body, as far as its face reads it.

    Raises:
        BodyTooLarge: It is larger than that.
        ClientDisconnect: The client closed the connection before it had sent all.
    """
    body = b""
    most: int = request.scope["face"].max_body
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise BodyTooLarge
    return body


class BodyLimit:
    """Lets FastAPI read no more of a body than the request's face does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        left: int = scope["face"].max_body

        async def receive_some() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise BodyTooLarge
            return message

        await self._app(scope, receive_some, send)


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
