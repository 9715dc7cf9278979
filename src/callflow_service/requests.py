"""Around every request: its id, its log line, a tolerant path, and an answer even where something broke."""

import asyncio
import inspect
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from callflow_service.watching.logs import REQUESTS, RequestRecord

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_SLASHES = re.compile(r"/{2,}")
_IN_NO_PATH = re.compile(r"[^A-Za-z0-9._/-]")

Endpoint = Callable[[Request], Awaitable[Response]]
Observe = Callable[[Mapping[str, object], float | None], None]
"""Called for each request: what its log line says, and the seconds it took, None where it was refused unread."""

SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_EXPLORER: Final = ("/docs", "/static-offline-docs/")
# The explorer's page has a script and styles within it, and pictures in its styles.
_EXPLORER_HEADERS: Final = (
    *SECURITY_HEADERS[:3],
    (b"content-security-policy", b"default-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"),
)
_TELL_SECONDS: Final = 10.0
_MAPPED: Final = "::ffff:"
_MAPPED_BITS: Final = 96

_requests = logging.getLogger(REQUESTS)
# Seeded anew in each process. An id tells requests apart and is no secret; the system's own randomness is slower.
_random = random.Random()  # noqa: S311 - see above


class EachRequest:
    """The outermost layer: each request gets an id, a log line, security headers, and an answer even where we broke.

    Args:
        app: What answers the requests.
        defect: By the path, the answer where something broke.
        observe: Called when a request has ended, however it did.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        defect: Callable[[str], Response],
        observe: Observe,
    ) -> None:
        self._app = app
        self._defect = defect
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on and see to it that it is answered and logged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # From the request's first byte, where the server noted it.
        started: float = scope.setdefault("began", time.perf_counter())
        path: str = scope["path"]
        scope["client"] = _unmapped(scope.get("client"))
        request_id = _request_id(scope["headers"] if scope.get("is_from_proxy") else ())
        fields: dict[str, object] = {"request_id": request_id, "method": scope["method"], "path": _logged_path(path)}
        scope["log"] = fields
        answered = False

        async def send_with_headers(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                fields["status"] = message["status"]
                ours = _EXPLORER_HEADERS if path.startswith(_EXPLORER) else SECURITY_HEADERS
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *ours]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            fields["outcome"] = "the client went away"
        except asyncio.CancelledError:
            fields["outcome"] = "cancelled"
            raise
        except Exception:
            logging.getLogger(__name__).exception("defect", extra={"fields": {"request_id": request_id}})
            fields["outcome"] = "defect"
            if not answered:
                # By the path as it was made plain on the way.
                await self._defect(scope["path"])(scope, receive, send_with_headers)
        finally:
            seconds = time.perf_counter() - started
            fields["client"] = scope["client"][0] if scope["client"] else None
            fields["duration_ms"] = round(seconds * 1000, 2)
            self._observe(fields, seconds)
            if _requests.isEnabledFor(logging.INFO):
                _requests.handle(RequestRecord(fields))


class FromProxies:
    """Behind a trusted proxy, a request comes from where that says; only such a proxy may name the request's id."""

    def __init__(self, app: ASGIApp, *, trusted: Sequence[str]) -> None:
        self._app = ProxyHeadersMiddleware(app, [_unmapped_network(network) for network in trusted])  # type: ignore[arg-type]  # uvicorn and Starlette write the same types differently

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] == "http":
            scope["client"] = client = _unmapped(scope.get("client"))
            scope["is_from_proxy"] = client is not None and self.trusts(client)
        await self._app(scope, receive, send)  # type: ignore[arg-type]  # likewise

    def trusts(self, peer: tuple[str, int] | None) -> bool:
        """Whether a connection is a trusted proxy's."""
        client = _unmapped(peer)
        return client is not None and client[0] in self._app.trusted_hosts


class Refusal:
    """What clients are answered, at once and in place of all else, while too much is in work.

    A refusal must cost next to nothing, or refusing takes the processor from what was accepted. So it is written to the
    connection as it stands here, and one line now and then tells how many there were.

    Args:
        page: The answer.
        is_due: Whether to refuse a request, by its path and query as they came.
        observe: Called for each request that is refused.
        trusts: Whether a peer may name its requests' ids.
    """

    def __init__(
        self,
        page: Response,
        *,
        is_due: Callable[[bytes], bool],
        observe: Observe,
        trusts: Callable[[tuple[str, int] | None], bool],
    ) -> None:
        self.is_due = is_due
        self._observe = observe
        self._trusts = trusts
        phrase = HTTPStatus(page.status_code).phrase.encode()
        lines = [b"HTTP/1.1 %d %s" % (page.status_code, phrase)]
        lines += [b"%s: %s" % header for header in (*page.raw_headers, *SECURITY_HEADERS)]
        self._head = b"\r\n".join([*lines, b"x-request-id: "])
        self._body = bytes(page.body)
        self._fields: Final = {"status": page.status_code, "outcome": "overloaded"}
        self._refused = 0
        self._told_at = float("-inf")

    def written(
        self, headers: Iterable[tuple[bytes, bytes]], peer: tuple[str, int] | None, *, keep_alive: bool
    ) -> bytes:
        """The whole answer to a request with these headers, as it goes over the wire."""
        self._observe(self._fields, None)
        self._refused += 1
        if time.monotonic() - self._told_at >= _TELL_SECONDS:
            self._told_at = time.monotonic()
            logging.getLogger(__name__).warning("overloaded", extra={"fields": {"refused": self._refused}})
            self._refused = 0
        connection = b"" if keep_alive else b"connection: close\r\n"
        return b"%s%s\r\n%s\r\n%s" % (
            self._head,
            _request_id(headers if self._trusts(peer) else ()).encode(),
            connection,
            self._body,
        )


class TolerantPath:
    """Below the given prefixes, reads a doubled slash as one and takes no notice of a trailing one."""

    def __init__(self, app: ASGIApp, *, prefixes: tuple[str, ...]) -> None:
        self._app = app
        self._prefixes: Final = tuple(prefix + "/" for prefix in prefixes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, its path made plain."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if "//" in path or path.endswith("/"):
                tolerant = _SLASHES.sub("/", path).rstrip("/")
                if f"{tolerant}/".startswith(self._prefixes):
                    scope["path"] = tolerant
        await self._app(scope, receive, send)


class FastLane:
    """Hands a request straight to its endpoint where path and method say which; all others go on to the application.

    Matching these routes among all others, solving dependencies that they do not have and keeping exit stacks that stay
    empty would cost a request more than its decision does.

    Args:
        app: What answers all other requests.
        routes: Those whose endpoints take the request and give the response, and nothing else.

    Raises:
        ValueError: A route has dependencies, which would be skipped, and its security with them.
    """

    def __init__(self, app: ASGIApp, *, routes: Iterable[APIRoute]) -> None:
        self._app = app
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        for route in routes:
            taken = [parameter.annotation for parameter in inspect.signature(route.endpoint).parameters.values()]
            if route.dependencies or taken != [Request]:
                raise ValueError(f"{route.path} needs what FastAPI does for a route; it cannot go the fast way")
            self._endpoints |= {(method, route.path): route.endpoint for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        endpoint = self._endpoints.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
        else:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)


def client_address(request: Request) -> IPv4Address | IPv6Address | None:
    """Where a request comes from, behind a trusted proxy as that says; None where that is no address."""
    return _address(request.client.host) if request.client else None


def header(request: Request, name: bytes) -> str:
    """The first header of a name, in small letters; empty where there is none."""
    for found, value in request.scope["headers"]:
        if found == name:
            return str(value, "latin-1")
    return ""


@lru_cache(4096)
def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        # A proxy may tell a name, or "unknown".
        return None


def _unmapped(client: tuple[str, int] | None) -> tuple[str, int] | None:
    """An IPv4 client by its IPv4 address, also where the socket listens on IPv6 and has it as `::ffff:192.0.2.1`.

    Addresses come in here and nowhere else.
    """
    if client is None or not client[0].startswith(_MAPPED):
        return client
    address = _address(client[0])
    return (str(address.ipv4_mapped), client[1]) if isinstance(address, IPv6Address) and address.ipv4_mapped else client


def _unmapped_network(text: str) -> str:
    network = ip_network(text)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return f"{mapped}/{network.prefixlen - _MAPPED_BITS}" if mapped and network.prefixlen >= _MAPPED_BITS else text


def _logged_path(path: str) -> str:
    """The path up to the first character that none of ours holds: what follows may be a query, escaped or misspelt."""
    return _IN_NO_PATH.split(path, maxsplit=1)[0]


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(text):
                return str(text)
    return f"{_random.getrandbits(64):016x}"
