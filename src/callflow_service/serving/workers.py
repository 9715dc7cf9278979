"""Keep worker processes: start them, replace those that are killed, pass signals on to them."""

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Final

from callflow_service.settings import Settings

# Not forked: a worker is to hold nothing of what this process has opened or begun.
_SPAWNING: Final = multiprocessing.get_context("spawn")
# The signal that workers get for each that this process gets. SIGINT itself would make one that is starting write a
# trace.
_PASSED_ON: Final = {signal.SIGTERM: signal.SIGTERM, signal.SIGINT: signal.SIGUSR1}

# A worker that dies sooner than this after its start may have died of starting.
_YOUNG_SECONDS: Final = 10.0
# The first of them are replaced at once all the same: an operator may have killed them.
_AT_ONCE: Final = 3
_FIRST_PAUSE_SECONDS: Final = 0.25
_MOST_DOUBLINGS: Final = 7

_log = logging.getLogger(__name__)

Serve = Callable[[Settings, socket.socket], None]


def keep_workers(number: int, serve: Serve, settings: Settings, listening: socket.socket) -> int:
    """Run `serve` in so many processes until SIGTERM or SIGINT, each of which is passed on to all of them.

    A killed worker is replaced at once, or after a growing pause where workers keep dying young; what waits in the
    listening socket's queue, the others take meanwhile. A worker that exits has failed to start: all are stopped, for
    the others would fail alike.

    Returns:
        The status to exit with: 0, or that of the worker that failed.
    """
    status, is_ending, died_young = 0, False, 0
    with _received_signals() as signals:
        start = partial(_start, serve, settings, listening)
        workers = {start(): time.monotonic() for _ in range(number)}
        while workers:
            ready = wait([signals, *(worker.sentinel for worker in workers)])
            received = signals.recv(64) if signals in ready else b""
            for told in received:
                if told in _PASSED_ON:
                    is_ending = True
                    # This process's copy would keep the queue open when no worker accepts from it any more.
                    listening.close()
                    _tell(workers, _PASSED_ON[signal.Signals(told)])
            for worker in [worker for worker in workers if worker.sentinel in ready]:
                worker.join()
                lived = time.monotonic() - workers.pop(worker)
                if is_ending:
                    continue
                _log.warning("worker died", extra={"fields": {"status": worker.exitcode}})
                if (worker.exitcode or 0) >= 0:
                    status, is_ending = worker.exitcode or 1, True
                    _tell(workers, signal.SIGTERM)
                else:
                    died_young = died_young + 1 if lived < _YOUNG_SECONDS else 0
                    more = died_young - _AT_ONCE
                    pause = _FIRST_PAUSE_SECONDS * 2 ** min(more, _MOST_DOUBLINGS) if more > 0 else 0.0
                    workers[start(pause)] = time.monotonic() + pause
    return status


@contextmanager
def _received_signals() -> Iterator[socket.socket]:
    """A socket from which received signals are read, one byte each."""
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


def _start(serve: Serve, settings: Settings, listening: socket.socket, pause: float = 0.0) -> SpawnProcess:
    worker = _SPAWNING.Process(target=_work, args=(serve, settings, listening, pause))
    worker.start()
    return worker


def _work(serve: Serve, settings: Settings, listening: socket.socket, pause: float) -> None:
    # Ctrl-C and the end of a terminal reach the keeping process alone, which passes them on.
    os.setpgid(0, 0)
    with suppress(KeyboardInterrupt):
        signal.signal(signal.SIGUSR1, lambda *_: signal.raise_signal(signal.SIGINT))
        time.sleep(pause)
        serve(settings, listening)


def _tell(workers: Iterable[SpawnProcess], what: int) -> None:
    for worker in workers:
        if worker.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, what)
