"""Send requests at a fixed rate, whatever the answers take, and tell how long each took from when it was due.

wrk sends its next request when an answer came, so a server that stalls is asked less and looks better than it is.

    open_loop.py URL FILE RATE SECONDS
"""

import asyncio
import json
import sys
import time
from collections import deque
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import traffic
import uvloop

_CONNECTIONS: Final = 64
_AT_A_STRETCH: Final = 8
_LAST_SECONDS: Final = 5


class _Connection(asyncio.Protocol):
    """One connection: a request out, its answer in, and free again."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._due = 0.0
        self._buffer = b""
        self._length = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, due: float, request: bytes) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._length < 0:
            head, end, _ = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            self._load.failed += not head.startswith(b"HTTP/1.1 200")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            self._length = len(head) + len(end) + int(lengths[0].partition(b":")[2])
        if len(self._buffer) >= self._length:
            self._buffer, self._length = b"", -1
            self._load.answered(self, time.perf_counter() - self._due)

    def close(self) -> None:
        self._transport.close()


class _Load:
    """The requests that are due, and the connections that are free for them."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        # In turn: a connection that lay idle for longer than the server keeps it would be met as it closes.
        self._free: deque[_Connection] = deque()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._wanted = -1
        self._complete = asyncio.Event()

    def due(self, at: float, request: bytes) -> None:
        if self._free:
            self._free.popleft().ask(at, request)
        else:
            self._waiting.append((at, request))

    def answered(self, connection: _Connection, latency: float) -> None:
        self.latencies.append(latency)
        self.free(connection)
        if len(self.latencies) == self._wanted:
            self._complete.set()

    async def all_answered(self, count: int) -> None:
        self._wanted = count
        if len(self.latencies) < count:
            await self._complete.wait()

    def free(self, connection: _Connection) -> None:
        if self._waiting:
            connection.ask(*self._waiting.popleft())
        else:
            self._free.append(connection)


async def _send(url: str, file: Path, rate: float, seconds: float) -> dict[str, float]:
    address = urlsplit(url)
    load = _Load()
    connections = []
    for _ in range(_CONNECTIONS):
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(load), address.hostname or "", address.port or 80
        )
        connections.append(connection)
        load.free(connection)
    count = int(rate * seconds)
    requests = islice(cycle([_written(*request) for request in traffic.read(file)]), count)
    start = time.perf_counter()
    for number, request in enumerate(requests):
        at = start + number / rate
        if (early := at - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        elif number % _AT_A_STRETCH == 0:
            # Late, but the answers must be read too.
            await asyncio.sleep(0)
        load.due(at, request)
    with suppress(TimeoutError):
        await asyncio.wait_for(load.all_answered(count), _LAST_SECONDS)
    for connection in connections:
        connection.close()
    times = sorted(load.latencies)
    failed = load.failed + count - len(times)
    return {"requests": count, "failed": failed} | {
        f"p{part}_ms": times[len(times) * part // 100] * 1000 for part in (50, 90, 99)
    }


def _written(path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def main() -> None:
    """Run the load of the command line, and print its result as JSON."""
    url, file, rate, seconds = sys.argv[1:]
    print(json.dumps(uvloop.run(_send(url, Path(file), float(rate), float(seconds)))))


if __name__ == "__main__":
    main()
