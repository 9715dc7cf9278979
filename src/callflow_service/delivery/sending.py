"""Send one message: to an address that may be reached, within bounds of time and size, signed."""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import SOCK_STREAM, gaierror, getaddrinfo
from typing import Final

import httpx
from standardwebhooks import Webhook

from callflow_service import __version__
from callflow_service.domain.webhooks import Network, may_reach
from callflow_service.repositories.deliveries import Attempt, Message

_READ_BYTES: Final = 64 * 1024
_ADDRESSES: Final = 3
_LOOKUPS: Final = 64
_HEADERS: Final = {"Content-Type": "application/json", "User-Agent": f"callflow-service/{__version__}"}
_SUCCESS: Final = range(200, 300)
_REDIRECT: Final = range(300, 400)

_log = logging.getLogger(__name__)


class NoAddress(Exception):
    """A name leads nowhere, or to addresses only that may not be reached."""


class Sending:
    """How messages are sent.

    Args:
        networks: Where they may go besides public addresses.
        seconds: How long a receiver may take.
    """

    def __init__(self, networks: Sequence[Network], *, seconds: float) -> None:
        self.seconds: Final = seconds
        self._networks = networks
        # Their own threads: a name server that hangs must not take those that other work needs.
        self._lookups = ThreadPoolExecutor(_LOOKUPS, "webhook-lookup")

    @asynccontextmanager
    async def to(self, url: str, secret: str) -> AsyncIterator["Receiver"]:
        """A receiver, to which connections are kept open meanwhile."""
        transport = _CheckedAddresses(self._networks, self._lookups)
        async with httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False) as client:
            yield Receiver(client, url, Webhook(secret), self.seconds)

    def close(self) -> None:
        """Look up no more names."""
        self._lookups.shutdown(wait=False, cancel_futures=True)


class Receiver:
    """Where the messages of one webhook go."""

    def __init__(self, client: httpx.AsyncClient, url: str, signing: Webhook, seconds: float) -> None:
        self._client = client
        self._url = url
        self._signing = signing
        self._seconds = seconds

    async def send(self, message: Message) -> Attempt:
        """Try once to deliver a message."""
        at, started = datetime.now(UTC), time.monotonic()
        status, problem = await self._status(message, at)
        return Attempt(message, at, round((time.monotonic() - started) * 1000), status, problem)

    async def _status(self, message: Message, at: datetime) -> tuple[int | None, str | None]:
        name = f"msg_{message.id}"
        headers = _HEADERS | {
            "webhook-id": name,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": self._signing.sign(name, at, message.body),
        }
        status: int | None = None
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._client.stream("POST", self._url, content=message.body, headers=headers, timeout=None) as answer,
            ):
                status = answer.status_code
                # A connection whose answer was read whole can be used again.
                left = _READ_BYTES
                async for part in answer.aiter_raw():
                    left -= len(part)
                    if left < 0:
                        break
        except Exception as error:  # noqa: BLE001 - whatever a receiver does is no defect of ours
            if status is None:
                return None, _sentence(error)
        return status, _problem_of(status)


class _CheckedAddresses(httpx.AsyncBaseTransport):
    """Looks a name up, and connects to an address that was checked: it is not looked up again in between.

    `Host` and the name in the certificate stay those of the URL. A name is looked up once in the life of this, which is
    short.
    """

    def __init__(self, networks: Sequence[Network], lookups: ThreadPoolExecutor) -> None:
        self._networks = networks
        self._lookups = lookups
        self._found: dict[str, asyncio.Task[list[IPv4Address | IPv6Address]]] = {}
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._transport is None:
            verify: ssl.SSLContext | bool = _tls() if request.url.scheme == "https" else False
            self._transport = httpx.AsyncHTTPTransport(verify=verify, trust_env=False)
        host = request.url.raw_host.decode("ascii")
        if host not in self._found or (self._found[host].done() and self._found[host].exception()):
            self._found[host] = looking = asyncio.create_task(self._addresses(host))
            # Where nobody waits for it any more, nobody is to hear of its failure.
            looking.add_done_callback(lambda done: done.cancelled() or done.exception())
        *others, last = await asyncio.shield(self._found[host])
        for address in others:
            try:
                return await self._transport.handle_async_request(_to(address, host, request))
            except httpx.ConnectError:
                # Nothing was sent yet; the host's next address may be reached.
                continue
        return await self._transport.handle_async_request(_to(last, host, request))

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()

    async def _addresses(self, host: str) -> list[IPv4Address | IPv6Address]:
        """Where a host is, as far as that may be reached.

        Raises:
            NoAddress: Nowhere.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._lookups, _look_up, host)
        except (gaierror, UnicodeError):
            raise NoAddress("Its name was not found.") from None
        allowed = [address for address in found if may_reach(address, self._networks)]
        if not allowed:
            raise NoAddress("Its name leads to no public address.")
        return allowed[:_ADDRESSES]


def _look_up(host: str) -> list[IPv4Address | IPv6Address]:
    found = getaddrinfo(host.strip("[]"), None, type=SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(place[0])) for *_, place in found))


def _to(address: IPv4Address | IPv6Address, host: str, request: httpx.Request) -> httpx.Request:
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions=request.extensions | {"sni_hostname": host.strip("[]")},
    )


@cache
def _tls() -> ssl.SSLContext:
    # Reading the certificate authorities takes some milliseconds, so it is done once, and only where it is needed.
    return httpx.create_ssl_context()


def _problem_of(status: int | None) -> str | None:
    if status is None or status in _SUCCESS:
        return None
    return f"It answered {status}." + (" Redirects are not followed." if status in _REDIRECT else "")


def _sentence(error: Exception) -> str:
    match error:
        case NoAddress():
            return str(error)
        case TimeoutError():
            return "It did not answer in time."
        case httpx.ConnectError() if _is_tls(error):
            return "No secure connection could be made: its certificate is not valid, or it speaks no TLS."
        case httpx.ConnectError():
            return "It could not be connected to."
        case httpx.TransportError():
            return "It did not answer by HTTP, or hung up."
        case _:
            _log.error("defect", exc_info=error)
            return "It could not be sent to."


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
