"""Clients that ask without pause, over connections that they keep and over new ones, and note each answer."""

import asyncio
import random
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final
from urllib.parse import urlencode

from mor_requests import GET, UPDATE, get, signed
from switch_questions import SWITCH

_PAUSE_SECONDS: Final = 0.05
_GIVE_UP_SECONDS: Final = 20
_KEPT: Final = 0.7
"""How much of what is asked leaves the connection open for the next."""

# What a switch is told where the answer would come too late, as on a machine that is busy with other things.
_OUT_OF_TIME: Final = b"action=none&"
_NGINX_WAITS_SECONDS: Final = 0.5
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_AUTHORIZATION: Final = f"Authorization: Basic {b64encode(':'.join(SWITCH).encode()).decode()}\r\n"


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and what is in every right answer to it."""

    kind: str
    path: str
    form: dict[str, str]
    right: bytes
    more_headers: str = ""

    def encoded(self, *, keep: bool) -> bytes:
        body = urlencode(self.form)
        close = "" if keep else "Connection: close\r\n"
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: callflow.test\r\n{self.more_headers}{close}"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()


QUESTIONS: Final = (
    Question(
        "update",
        UPDATE,
        signed(
            {
                "u": "admin",
                "device_id": "4",
                "callflow_action": "forward",
                "state": "busy",
                "external_number": "+37060000000",
            }
        ),
        b"<status>Callflow was successfully updated</status>",
    ),
    Question("get", GET, get("100"), b"<device>SIP/101</device>"),
    Question(
        "lookup",
        "/switch/asterisk",
        {"called": "1002", "caller_number": "37061111111", "call_id": "c1"},
        b"action=ring&",
        _AUTHORIZATION,
    ),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was made; times are of the monotonic clock, and `failure` is empty where its answer was right."""

    kind: str
    sent: float
    ended: float
    failure: str

    def was_in_work(self, start: float, end: float) -> bool:
        """Whether it was at any time between the two."""
        return self.sent <= end and self.ended >= start


@dataclass(frozen=True, slots=True)
class Load:
    """Clients at work against one port."""

    port: int
    asked: list[Asked] = field(default_factory=list)

    @property
    def failures(self) -> list[Asked]:
        return [one for one in self.asked if one.failure]

    async def ask_on(self, chance: random.Random) -> None:
        """Ask and ask again, until cancelled."""
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            for question in cycle(chance.sample(QUESTIONS, len(QUESTIONS))):
                sent = time.monotonic()
                closes, kind, failure = True, question.kind, ""
                try:
                    async with asyncio.timeout(_GIVE_UP_SECONDS):
                        connection = connection or await asyncio.open_connection("127.0.0.1", self.port)
                        head, body = await _ask(*connection, question.encoded(keep=chance.random() < _KEPT))
                    closes = b"\r\nconnection: close\r\n" in head.lower()
                    if body.startswith(_OUT_OF_TIME) or (
                        question.kind == "lookup" and time.monotonic() - sent > _NGINX_WAITS_SECONDS
                    ):
                        kind = f"{question.kind} out of time"
                    elif not head.startswith(b"HTTP/1.1 200 ") or question.right not in body:
                        failure = f"{head!r} {body!r}"
                except (OSError, EOFError, TimeoutError) as error:
                    failure = repr(error)
                self.asked.append(Asked(kind, sent, time.monotonic(), failure))
                if closes and connection:
                    connection[1].close()
                    connection = None
                await asyncio.sleep(chance.uniform(0, 2 * _PAUSE_SECONDS))
        finally:
            if connection:
                connection[1].close()


def p99_ms(asked: Iterable[Asked]) -> float:
    """The time that one request in a hundred took longer than, in milliseconds."""
    times = sorted(one.ended - one.sent for one in asked)
    return round(times[int(len(times) * 0.99)] * 1000, 1)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[bytes, bytes]:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head, await reader.readexactly(int(length[1]) if length else 0)


@asynccontextmanager
async def constant_load(port: int, *, clients: int) -> AsyncIterator[Load]:
    """So many clients, each of which asks, and asks again a twentieth of a second after it was answered."""
    load = Load(port)
    tasks = [asyncio.create_task(load.ask_on(random.Random(number))) for number in range(clients)]  # noqa: S311 - no secrets
    try:
        yield load
        assert not any(task.done() for task in tasks), "a client gave up"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
