"""A service of the tests' own making: it takes questions, and answers as badly as it is told to."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Final

REFUSAL: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def answer(body: bytes, *, status: str = "200 OK", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def ring(device: str, *, path: str = "501_x", seconds: int = 1) -> bytes:
    """The answer that rings a device which was not diverted to."""
    route = {"uri": f"sip:{device}@sip.example.org", "headers": {}, "fr_inv_timer": seconds * 1000}
    document = {"version": "1.0", "routing": "serial", "routes": [route], "action": "ring", "path": path, "reason": ""}
    return answer(json.dumps(document).encode())


@dataclass
class Listener:
    """Takes questions and gives its `answers` one after the other, 503 where it has none left.

    While `is_open` is not set, it gives no answer at all.
    """

    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    heads: list[bytes] = field(default_factory=list)
    questions: list[dict[str, str]] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)

    def forget(self) -> None:
        self.is_open.set()
        self.heads.clear()
        self.questions.clear()
        self.answers.clear()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            self.heads.append(head)
            self.questions.append(json.loads(await reader.readexactly(length)))
            await self.is_open.wait()
            writer.write(self.answers.pop(0) if self.answers else REFUSAL)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            # The switch waits no longer.
            pass
        finally:
            writer.close()
