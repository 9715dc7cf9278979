"""Send bytes as they are over keep-alive connections, and take down what comes back."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

HANG: Final = 30.0
"""Seconds after which a request without an answer counts as hanging."""

_PATIENCE: Final = 1.0
"""Seconds that a request whose end the service may look for in vain is given, before our side ends it."""

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CLOSES: Final = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9])[ \r]")


class Ending(Enum):
    """What the bytes of a request do to the connection they are sent on."""

    KEEPS = auto()
    """The request is whole: it must be answered, and the next one may follow."""

    STOPS = auto()
    """The request is not whole: our side ends it, and no answer is due."""

    BREAKS = auto()
    """Where the request ends is in doubt: an answer or a close is due, and the connection is not used again."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The bytes of one request.

    Attributes:
        kind: The kind of damage.
        face: Whom it asks; empty where the damage may have changed that.
    """

    kind: str
    face: str
    raw: bytes
    ending: Ending = Ending.KEEPS


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it came."""

    status: int
    head: bytes
    body: bytes


@dataclass(slots=True)
class Counted:
    """What came back, by the kind of damage and the status; 0 stands for a connection closed without an answer.

    Attributes:
        unanswered: Whole requests that were not answered.
        hanging: Requests of which neither an answer nor a close came in time.
        slowest: Seconds until all of an answer was there, or the close.
    """

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    unanswered: list[Sent] = field(default_factory=list)
    hanging: list[Sent] = field(default_factory=list)
    slowest: float = 0.0

    def count(self, sent: Sent, answers: list[Answer], seconds: float) -> None:
        """Take down one request."""
        self.slowest = max(self.slowest, seconds)
        for answer in answers:
            self.answers[sent.kind, answer.status] += 1
        if not answers:
            self.answers[sent.kind, 0] += 1
        if not answers and sent.ending is Ending.KEEPS:
            self.unanswered.append(sent)
        if seconds >= HANG:
            self.hanging.append(sent)

    def by_status(self) -> dict[int, int]:
        counted: Counter[int] = Counter()
        for (_, status), number in self.answers.items():
            counted[status] += number
        return dict(sorted(counted.items()))

    def by_kind(self) -> dict[str, int]:
        counted: Counter[str] = Counter()
        for (kind, _), number in self.answers.items():
            counted[kind] += number
        return dict(sorted(counted.items()))


Look = Callable[[Sent, Answer], None]


class _Wire(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.is_closed = False
        self._received = bytearray()
        self._news: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._tell()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it so
        self.is_closed = True
        self._tell()

    async def ask(self, sent: Sent) -> list[Answer]:
        """What comes back, until it is all there or the connection is closed."""
        loop = asyncio.get_running_loop()
        self.transport.write(sent.raw)
        if sent.ending is Ending.STOPS:
            self._end()
        timers = [loop.call_later(HANG, self.transport.abort)]
        if sent.ending is Ending.BREAKS:
            timers.append(loop.call_later(_PATIENCE, self._end))
        answers: list[Answer] = []
        while True:
            while answer := self._take(without_body=sent.raw.startswith(b"HEAD ")):
                # 100 says that the answer proper is still to come.
                if answer.status != 100:
                    answers.append(answer)
            if self.is_closed or (answers and sent.ending is Ending.KEEPS):
                break
            if answers:
                self._end()
            self._news = loop.create_future()
            await self._news
        for timer in timers:
            timer.cancel()
        return answers

    def _tell(self) -> None:
        if self._news and not self._news.done():
            self._news.set_result(None)

    def _end(self) -> None:
        if not self.transport.is_closing():
            self.transport.write_eof()

    def _take(self, *, without_body: bool) -> Answer | None:
        """The next answer, where all of it is there."""
        end = self._received.find(_HEAD_END)
        if end < 0:
            return None
        head = bytes(self._received[: end + 2])
        status, length = _STATUS.match(head), _LENGTH.search(head)
        assert status, head
        start = end + len(_HEAD_END)
        after = start + (int(length[1]) if length and not without_body else 0)
        if len(self._received) < after:
            return None
        body = bytes(self._received[start:after])
        del self._received[:after]
        return Answer(int(status[1]), head, body)


async def send_all(port: int, requests: Iterator[Sent], look: Look, *, connections: int) -> Counted:
    """Send the requests over so many connections at a time, and let `look` see each answer."""
    counted = Counted()

    async def take_turns() -> None:
        wire: _Wire | None = None
        for sent in requests:
            if wire is None or wire.is_closed:
                _, wire = await asyncio.get_running_loop().create_connection(_Wire, "127.0.0.1", port)
            began = time.monotonic()
            answers = await wire.ask(sent)
            counted.count(sent, answers, time.monotonic() - began)
            for answer in answers:
                look(sent, answer)
            if sent.ending is not Ending.KEEPS or any(_CLOSES.search(answer.head) for answer in answers):
                wire.transport.abort()
                wire = None
        if wire:
            wire.transport.abort()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(take_turns())
    return counted
