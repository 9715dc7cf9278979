"""Keep worker processes: start them, replace those that are killed, pass on what they are told."""

import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Final

from callflow_service.settings import Settings

# Not forked: a worker is to hold nothing of what this process has opened or begun.
_SPAWNING: Final = multiprocessing.get_context("spawn")
# What the workers are told where this process is told; SIGINT itself would make one that has just begun write a trace.
_PASSED_ON: Final = {signal.SIGTERM: signal.SIGTERM, signal.SIGINT: signal.SIGUSR1}

_log = logging.getLogger(__name__)

Serve = Callable[[Settings, socket.socket], None]


def keep_workers(number: int, serve: Serve, settings: Settings, listening: socket.socket) -> int:
    """Run `serve` in so many processes until SIGTERM or SIGINT, which each of them gets as often as this one.

    One that is killed is replaced at once; what waits for an answer in the listening socket's queue, the others take.
    One that ends by itself could not start, and no other one could: all of them end.

    Returns:
        The status to exit with: 0, or that of the worker that failed.
    """
    status, is_ending = 0, False
    with _received_signals() as signals:
        workers = [_start(serve, settings, listening) for _ in range(number)]
        while workers:
            ready = wait([signals, *(worker.sentinel for worker in workers)])
            received = signals.recv(64) if signals in ready else b""
            for told in received:
                if told in _PASSED_ON:
                    is_ending = True
                    # It would keep the queue open that nobody takes from any more.
                    listening.close()
                    _tell(workers, _PASSED_ON[signal.Signals(told)])
            for worker in [worker for worker in workers if worker.sentinel in ready]:
                worker.join()
                workers.remove(worker)
                if is_ending:
                    continue
                _log.warning("worker died", extra={"fields": {"status": worker.exitcode}})
                if (worker.exitcode or 0) >= 0:
                    status, is_ending = worker.exitcode or 1, True
                    _tell(workers, signal.SIGTERM)
                else:
                    workers.append(_start(serve, settings, listening))
    return status


@contextmanager
def _received_signals() -> Iterator[socket.socket]:
    """A socket from which the signals that come are read, a byte for each."""
    reading, writing = socket.socketpair()
    reading.settimeout(0)
    writing.settimeout(0)
    handlers = {number: signal.signal(number, lambda *_: None) for number in _PASSED_ON}
    before = signal.set_wakeup_fd(writing.fileno())
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        reading.close()
        writing.close()


def _start(serve: Serve, settings: Settings, listening: socket.socket) -> SpawnProcess:
    worker = _SPAWNING.Process(target=_work, args=(serve, settings, listening))
    worker.start()
    return worker


def _work(serve: Serve, settings: Settings, listening: socket.socket) -> None:
    # A terminal's Ctrl-C and its end are for the process that keeps this one, which passes them on.
    os.setpgid(0, 0)
    with suppress(KeyboardInterrupt):
        signal.signal(signal.SIGUSR1, lambda *_: signal.raise_signal(signal.SIGINT))
        serve(settings, listening)


def _tell(workers: list[SpawnProcess], what: int) -> None:
    for worker in workers:
        if worker.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, what)
