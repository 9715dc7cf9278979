"""Send requests at a fixed rate, whatever becomes of those before, and note how each was answered.

    flood.py URL FILE CONNECTIONS SECONDS [RATE]

It is a process of its own, so that its clock does not wait for a test's other work. The file has a request a line, as
JSON texts. Without a rate each connection sends its next request when it has an answer.
"""

import asyncio
import json
import sys
import time
from collections import defaultdict
from itertools import cycle
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

import uvloop

_TICK_SECONDS: Final = 0.002
_LAST_SECONDS: Final = 30
"""How long the last answers may take; they are waited for, so that nothing is in work when the next flood comes."""


class _Connection(asyncio.Protocol):
    """One connection: a request out, its answer in, and free again."""

    def __init__(self, flood: "_Flood") -> None:
        self._flood = flood
        self._buffer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> None:
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if len(body) >= int(length):
            status, self._buffer = head[9:12].decode(), b""
            self._flood.answered(self, status, time.perf_counter() - self._sent)

    def connection_lost(self, _: Exception | None) -> None:
        self._flood.lost()


class _Flood:
    """The requests that are to be sent, the connections that are free for them, and what became of the others."""

    def __init__(self, requests: list[bytes], *, is_open: bool) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.free: list[_Connection] = []
        self.closed = 0
        self._requests = cycle(requests)
        self._is_open = is_open
        self._is_over = False
        self._unanswered = 0
        self._complete = asyncio.Event()

    def send(self, connection: _Connection) -> None:
        self._unanswered += 1
        connection.ask(next(self._requests))

    def answered(self, connection: _Connection, status: str, seconds: float) -> None:
        self._unanswered -= 1
        if not self._is_over:
            self.seconds[status].append(seconds)
        if self._is_open or self._is_over:
            self.free.append(connection)
        else:
            self.send(connection)
        if not self._unanswered:
            self._complete.set()

    def lost(self) -> None:
        self.closed += not self._is_over

    async def over(self) -> None:
        self._is_over = True
        if self._unanswered:
            self._complete.clear()
            await asyncio.wait_for(self._complete.wait(), _LAST_SECONDS)


async def _run(
    url: str, requests: list[bytes], connections: int, seconds: float, *, rate: float | None
) -> dict[str, Any]:
    address = urlsplit(url)
    flood = _Flood(requests, is_open=rate is not None)
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        _, connection = await loop.create_connection(lambda: _Connection(flood), address.hostname, address.port)
        flood.free.append(connection)
    start = time.perf_counter()
    offered = 0
    if rate is None:
        for connection in flood.free:
            flood.send(connection)
        flood.free = []
        await asyncio.sleep(seconds)
    while rate is not None and (passed := time.perf_counter() - start) < seconds:
        due = int(rate * passed) - offered
        offered += due
        for connection in flood.free[:due]:
            flood.send(connection)
        del flood.free[:due]
        await asyncio.sleep(_TICK_SECONDS)
    taken = time.perf_counter() - start
    await flood.over()
    return {"seconds": taken, "offered": offered, "closed": flood.closed, "answers": flood.seconds}


def main() -> None:
    """Run the flood of the command line, and print what came of it as JSON."""
    url, file, connections, seconds, *rate = sys.argv[1:]
    requests = [json.loads(line).encode() for line in Path(file).read_text().splitlines()]
    running = _run(url, requests, int(connections), float(seconds), rate=float(rate[0]) if rate else None)
    sys.stdout.write(json.dumps(uvloop.run(running)))


if __name__ == "__main__":
    main()
