"""What is around every request: its client's address, its face, its id, its log line, and an answer to a defect."""

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from ipaddress import IPv6Address, IPv6Network, ip_network
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from callflow_service.watching.logs import REQUESTS, RequestRecord
from callflow_service.web.faces import Faces, plain
from callflow_service.web.request import address

Peer = tuple[str, int] | None
"""The host and the port of a connection's other end, None where there are none."""

Observe = Callable[[Mapping[str, object], float | None], None]
"""Called for each request: what its log line says, and the seconds it took, None where it was refused unread
or is a stream."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_IN_NO_PATH: Final = re.compile(r"[^A-Za-z0-9._/-]")
_MAPPED: Final = "::ffff:"
_MAPPED_BITS: Final = 96

_requests = logging.getLogger(REQUESTS)
# Seeded in each process. An id tells requests apart and is no secret; the system's randomness is slower.
_random = random.Random()  # noqa: S311 - see above


class EachRequest:
    """Gives each request its face, an id, a log line, security headers, and an answer even after a defect.

    Args:
        app: What answers the requests.
        faces: By them the request's face is found.
        observe: Called when a request has ended, in whatever way.
    """

    def __init__(self, app: ASGIApp, faces: Faces, observe: Observe) -> None:
        self._app = app
        self._faces = faces
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on and see to it that it is answered and logged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The time of the request's first byte, where the server noted it.
        started: float = scope.setdefault("began", time.perf_counter())
        path: str = scope["path"]
        scope["face"] = face = self._faces.of(path)
        if face.is_tolerant:
            scope["path"] = plain(path)
        scope["client"] = _unmapped(scope.get("client"))
        name = request_id(scope["headers"] if scope.get("is_from_proxy") else ())
        fields: dict[str, object] = {"request_id": name, "method": scope["method"], "path": _logged_path(path)}
        scope["log"] = fields
        answered = False

        async def send_with_headers(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                fields["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode()), *face.headers]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            fields["outcome"] = "the client went away"
        except asyncio.CancelledError:
            fields["outcome"] = "cancelled"
            raise
        except Exception:
            logging.getLogger(__name__).exception("defect", extra={"fields": {"request_id": name}})
            fields["outcome"] = "defect"
            if not answered:
                await face.failure(500, name)(scope, receive, send_with_headers)
        finally:
            self._tell(scope, fields, time.perf_counter() - started)

    def _tell(self, scope: Scope, fields: dict[str, object], seconds: float) -> None:
        """Count and log a request that has ended."""
        if "call" not in fields and getattr(scope.get("route"), "name", None) in scope["face"].calls:
            # The endpoints behind FastAPI do not name their call themselves.
            fields["call"] = scope["route"].name
            if int(str(fields.get("status", 500))) < HTTPStatus.BAD_REQUEST:
                fields.setdefault("outcome", "ok")
        fields["client"] = scope["client"][0] if scope["client"] else None
        fields["duration_ms"] = round(seconds * 1000, 2)
        # How long a client follows something says nothing about how long it waits.
        self._observe(fields, None if "is_stream" in fields else seconds)
        if _requests.isEnabledFor(logging.INFO):
            _requests.handle(RequestRecord(fields))


class FromProxies:
    """Believes a trusted proxy's `X-Forwarded-For` and `X-Request-ID`, and nobody else's."""

    def __init__(self, app: ASGIApp, trusted: Sequence[str]) -> None:
        self._app = ProxyHeadersMiddleware(app, [_unmapped_network(network) for network in trusted])  # type: ignore[arg-type]  # uvicorn and Starlette write the same types differently

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] == "http":
            scope["client"] = _unmapped(scope.get("client"))
            scope["is_from_proxy"] = self.trusts(scope["client"])
        await self._app(scope, receive, send)  # type: ignore[arg-type]  # likewise

    def trusts(self, peer: Peer) -> bool:
        """Whether a connection is a trusted proxy's."""
        client = _unmapped(peer)
        return client is not None and client[0] in self._app.trusted_hosts


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id that the headers give a request; a new one where they give none."""
    for name, value in headers:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(text):
                return text
    return f"{_random.getrandbits(64):016x}"


def _unmapped(client: Peer) -> Peer:
    """An IPv4 client under its IPv4 address. A socket that listens on IPv6 too has it as `::ffff:192.0.2.1`.

    Every client's address passes here first, so nothing else needs to know of that form.
    """
    if client is None or not client[0].startswith(_MAPPED):
        return client
    found = address(client[0])
    return (str(found.ipv4_mapped), client[1]) if isinstance(found, IPv6Address) and found.ipv4_mapped else client


def _unmapped_network(text: str) -> str:
    network = ip_network(text)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return f"{mapped}/{network.prefixlen - _MAPPED_BITS}" if mapped and network.prefixlen >= _MAPPED_BITS else text


def _logged_path(path: str) -> str:
    """The path up to the first character that none of ours has: what follows may be a query, escaped or misspelt."""
    return _IN_NO_PATH.split(path, maxsplit=1)[0]
