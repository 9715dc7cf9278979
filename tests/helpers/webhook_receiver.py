"""A receiver of webhooks, and a check of signatures by the specification's words alone."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
HERE = "127.0.0.2"
"""Where receivers listen; the tests' services are told that webhooks may be there."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    head: str
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> Any:
        return json.loads(self.body)

    def is_signed(self, secret: str = SECRET) -> bool:
        """Whether the signature is right: HMAC-SHA256, in base64, over id, time and body with dots between."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return self.headers["webhook-signature"] == f"v1,{signature}"


class Receiver:
    """Keeps what comes, and answers what `answer` says."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer: Callable[[Received], int | bytes | None] = lambda _: 200
        self.delay_seconds = 0.0
        self.port = 0
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://{HERE}:{self.port}/hook"

    async def until(self, number: int) -> list[Received]:
        """Wait until so many have come."""
        async with asyncio.timeout(60):
            while len(self.received) < number:  # noqa: ASYNC110 - nobody tells when
                await asyncio.sleep(0.02)
        return self.received

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                received = Received(first, headers, body)
                self.received.append(received)
                answer = self.answer(received)
                await asyncio.sleep(self.delay_seconds)
                if answer is None:
                    await asyncio.sleep(3600)
                if isinstance(answer, int):
                    answer = f"HTTP/1.1 {answer} Said\r\nContent-Length: 2\r\n\r\nok".encode()
                writer.write(answer or b"")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving(address: str = HERE) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(receiver.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, address, 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
