"""Serve the application: listen, answer, and end without losing a request."""

import asyncio
import gc
import math
import multiprocessing
import signal
import socket
import struct
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Final

import uvicorn

from callflow_service.app import create_app
from callflow_service.serving.connections import PATIENCE_SECONDS, Connection, ServingState, check_uvicorn
from callflow_service.serving.workers import keep_workers
from callflow_service.settings import Settings
from callflow_service.watching.logs import configure_logging
from callflow_service.watching.metrics import shared_by_workers

_FINISH_SECONDS: Final = 30
_HANDSHAKE_SECONDS: Final = 0.002

# Linux's number, which the socket module has no name for.
_SO_ATTACH_FILTER: Final = 26
# Drop a packet where SYN is set and ACK is not, keep every other one.
_DROP_SYN: Final = (
    (0x30, 0, 0, 13),  # load the byte of the flags
    (0x54, 0, 0, 0x12),  # of it, SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


def serve(settings: Settings, listening: socket.socket, *, workers: int) -> None:
    """Listen on a socket that has its address, and serve, until a signal ends it.

    SIGTERM drains: for `settings.drain_seconds` everything is answered as before, each answer is the last of its
    connection, and `/health/ready` says that the service is ending. Then requests in work are finished, for at most 30
    seconds. A second SIGTERM, or SIGINT, skips the first part.

    Raises:
        SystemExit: It could not start, or a worker process could not.
        LibraryChanged: The installed uvicorn lacks a name that is used.
    """
    check_uvicorn()
    if workers == 1:
        _run(settings, listening)
        return
    configure_logging(settings.log_level)
    with shared_by_workers():
        status = keep_workers(workers, _run, settings, listening)
    sys.exit(status)


def _run(settings: Settings, listening: socket.socket) -> None:
    """Serve in this process."""
    configure_logging(settings.log_level)
    config = uvicorn.Config(
        partial(create_app, settings),
        factory=True,
        http=Connection,
        # WebSockets are not served, and the log lines of an installed library for them hold the query.
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=PATIENCE_SECONDS,
        timeout_graceful_shutdown=_FINISH_SECONDS,
    )
    # uvicorn raises the signal again after it has stopped; the process then ends well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with suppress(KeyboardInterrupt):
        _Server(config, settings).run([listening])


class _Server(uvicorn.Server):
    """uvicorn's server, which goes on answering for a while once it is told to end."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self.server_state: ServingState = ServingState()
        self._drain_seconds = settings.drain_seconds
        self._drained_at = math.inf

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start. End as soon as the keeping process is gone, for nothing else would end this one."""
        await super().startup(sockets)
        # Everything allocated by now stays, and requests leave almost no cycles: the collector may run less often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        keeper = multiprocessing.parent_process()
        if keeper is not None:
            asyncio.get_running_loop().add_reader(keeper.sentinel, self._end_forsaken, keeper.sentinel)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end by the first SIGTERM; by anything else, and by the second, end."""
        if sig == signal.SIGTERM and self.started and self._drain_seconds and not self.server_state.is_ending:
            self.server_state.is_ending = True
            self.lifespan.state["ending"].set()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.end_after_answer()
            self._drained_at = time.monotonic() + self._drain_seconds
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Whether to go on to the end."""
        return await super().on_tick(counter) or time.monotonic() >= self._drained_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, finish what is in work; what would go on for ever ends."""
        self.lifespan.state["ending"].set()
        if self.server_state.is_ending:
            for listening in sockets or []:
                await self._stop_listening(listening)
        await super().shutdown(sockets)

    async def _stop_listening(self, listening: socket.socket) -> None:
        """Close, and serve the clients that had connected by then.

        Closing a listening socket resets the connections in its queue, with the requests that they have sent. So first
        a filter keeps new connections out for a few milliseconds (their clients try again, and are refused then), and
        those in the queue are accepted. `tests/faults/test_faults_shutdown.py` counts what is lost.
        """
        with suppress(OSError):
            _drop_newcomers(listening)
        await asyncio.sleep(_HANDSHAKE_SECONDS)
        queue = listening.dup()
        for server in self.servers:
            server.close()
        listening.close()
        waiting = list(_all_of(queue))
        queue.close()
        for client in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._connection, client)

    def _connection(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    def _end_forsaken(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        self.should_exit = True


def _drop_newcomers(listening: socket.socket) -> None:
    """Keep new connections out, and let half-open ones complete.

    Raises:
        OSError: The system knows no such filter.
    """
    program = array("B", b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN))
    address, _ = program.buffer_info()
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_DROP_SYN), address))


def _all_of(queue: socket.socket) -> Iterator[socket.socket]:
    queue.settimeout(0)
    with suppress(BlockingIOError):
        while True:
            client, _ = queue.accept()
            yield client
