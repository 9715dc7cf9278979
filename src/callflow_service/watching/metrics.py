"""Count what Prometheus reads: calls, lookups, connections, and how far the replica is behind."""

import asyncio
import logging
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, cast

from asyncpg import PostgresError
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import disable_created_metrics
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from callflow_service import __version__
from callflow_service.domain.errors import Overloaded
from callflow_service.domain.routing import RouteAction
from callflow_service.domain.targets import Refusal
from callflow_service.storage.database import Database, PoolUse
from callflow_service.storage.replica import ReplicaFirst

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""

# 0.3 s is when a switch is told to carry on, as the settings come.
_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)

# Read by prometheus_client when it is first imported: a process counts in this folder's files, or for itself.
_SHARED_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"

_SWITCH: Final = "switch."
_CARRY_ON: Final = "carry on: "
_DECISIONS: Final = frozenset(RouteAction)
_OVERLOADED: Final = "overloaded"
_TROUBLES: Final = ("database unavailable", "defect", "out of time", _OVERLOADED)
_KINDS: Final = ("account", "switch_user")
_MESSAGES: Final = ("delivered", "failed", "given_up")
_WATCH_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


@contextmanager
def shared_by_workers() -> Iterator[None]:
    """Let the worker processes that are started meanwhile count together.

    They count in files of a temporary folder, where the counts of those that died stay too. It goes in the end.
    """
    with tempfile.TemporaryDirectory(prefix="callflow-metrics-") as folder:
        os.environ[_SHARED_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_SHARED_FOLDER]


class Metrics:
    """What one worker counts, and what all workers counted.

    Labels hold no text of a caller's: outcomes are those of the faces' own tables, everything else is an enumeration.

    Args:
        calls: The calls there are, as the log lines name them, and the face of each.
        has_replica: Whether a replica is watched.
    """

    def __init__(self, calls: Mapping[str, str], *, has_replica: bool) -> None:
        self._faces = calls
        # With several workers, when a value was made says nothing.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library lacks the types
        self._folder = os.environ.get(_SHARED_FOLDER)
        self._registry = CollectorRegistry()
        self._counted: dict[tuple[object, object, object], tuple[tuple[Counter, ...], Histogram]] = {}
        self._calls = self._counter(
            "callflow_calls", "Requests that are no lookups, by what came of them.", "face", "call", "outcome"
        )
        self._lookups = self._counter(
            "callflow_lookups",
            "Lookups by what the switch was told; why, where it was told to carry on.",
            "switch",
            "decision",
            "why",
        )
        self._loops = self._counter(
            "callflow_loops_cut", "Forwards that were refused for a loop or for the limit of diversions.", "switch"
        )
        self._targets = self._counter(
            "callflow_targets_refused",
            "Forwards refused for their number, when set or when called.",
            "reason",
        )
        self._guesses = self._counter("callflow_guesses_refused", "Requests refused after too many wrong ones.", "kind")
        self._overload = self._counter("callflow_refused_overload", "Requests refused because too many were in work.")
        self._seconds = Histogram(
            "callflow_request_seconds",
            "From a request's first byte to its answer's last.",
            ("call",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._pool = self._gauge("callflow_pool_connections", "Database connections of all workers.", "sum", "state")
        self._pool_size = self._gauge("callflow_pool_size", "Most database connections of all workers.", "sum")
        self._messages = self._counter(
            "callflow_webhook_messages", "Tries to send messages to webhooks, and messages given up.", "outcome"
        )
        self._waiting = self._gauge(
            "callflow_webhook_messages_waiting", "Messages that wait for webhooks, as it was last looked at.", "max"
        )
        self._gauge("callflow_build_info", "The release that runs.", "max", "version").labels(__version__).set(1)
        if has_replica:
            self._lag = self._gauge(
                "callflow_replica_lag_seconds", "How old what the replica shows may be; +Inf while it is away.", "max"
            )
            self._replica_up = self._gauge(
                "callflow_replica_up", "Whether the replica answers, 0 where one worker finds it away.", "min"
            )
        self._begin(calls)

    def _begin(self, calls: Iterable[str]) -> None:
        """Have at 0 what alerts look at: Prometheus does not see the first event of a counter that was not there."""
        for kind in _KINDS:
            self._guesses.labels(kind)
        for reason in Refusal:
            self._targets.labels(reason)
        for outcome in _MESSAGES:
            self._messages.labels(outcome)
        self._counters(None, None, "defect")
        for call in calls:
            switch = call.removeprefix(_SWITCH)
            if switch == call:
                outcomes = ["ok", *_TROUBLES]
            else:
                outcomes = [*RouteAction, *(_CARRY_ON + trouble for trouble in _TROUBLES)]
                self._loops.labels(switch)
            for outcome in outcomes:
                self._counters(call, None, outcome)

    def observe(self, fields: Mapping[str, object], seconds: float | None) -> None:
        """Count one request by the fields of its log line, and the time it took where that is known."""
        key = (fields.get("call"), fields.get("status"), fields.get("outcome"))
        counted = self._counted.get(key)
        if counted is None:
            # To find them by their labels takes longer than to count, so it is done once.
            counted = self._counted[key] = self._counters(*key)
        counters, duration = counted
        for counter in counters:
            counter.inc()
        if seconds is not None:
            duration.observe(seconds)
        for reason in cast(Sequence[str], fields.get("targets_refused", ())):
            self._targets.labels(reason).inc()
        if "loops_cut" in fields:
            self._loops.labels(str(fields["call"]).removeprefix(_SWITCH)).inc(float(str(fields["loops_cut"])))

    def observe_pools(self, *pools: PoolUse) -> None:
        """Tell what this worker's database connections do."""
        self._pool_size.set(sum(pool.size for pool in pools))
        self._pool.labels("in_use").set(sum(pool.in_use for pool in pools))
        self._pool.labels("idle").set(sum(pool.idle for pool in pools))

    def observe_replica(self, lag_seconds: float | None) -> None:
        """Tell how far the replica is behind, None where it cannot be asked."""
        self._replica_up.set(lag_seconds is not None)
        self._lag.set(math.inf if lag_seconds is None else lag_seconds)

    def observe_messages(self, outcome: str, number: int) -> None:
        """Count messages to webhooks by what came of them, or tell how many are `waiting`."""
        if outcome == "waiting":
            self._waiting.set(number)
        else:
            self._messages.labels(outcome).inc(number)

    def exposition(self) -> bytes:
        """Everything that all workers counted, in Prometheus' text format; where there are several, it reads files."""
        if self._folder is None:
            return generate_latest(self._registry)
        _forget_the_dead(Path(self._folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, self._folder)  # type: ignore[no-untyped-call]  # the library lacks the types
        return generate_latest(registry)

    def _counters(self, call: object, status: object, outcome: object) -> tuple[tuple[Counter, ...], Histogram]:
        """What counts requests with these fields, and their time."""
        name, text = str(call or "other"), str(outcome or status)
        switch = name.removeprefix(_SWITCH)
        asked = switch != name
        why = "" if text in _DECISIONS else text.removeprefix(_CARRY_ON)
        counters: list[Counter] = []
        if asked:
            counters.append(self._lookups.labels(switch, "carry_on" if why else text, why))
        else:
            counters.append(self._calls.labels(self._faces.get(name, "other"), name, text))
        if why == _OVERLOADED:
            counters.append(self._overload)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            counters.append(self._guesses.labels(_KINDS[asked]))
        return tuple(counters), self._seconds.labels(name)

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(name, says, labels, registry=self._registry)

    def _gauge(self, name: str, says: str, over_workers: str, *labels: str) -> Gauge:
        mode: Any = f"live{over_workers}"
        return Gauge(name, says, labels, registry=self._registry, multiprocess_mode=mode)


async def watch(metrics: Metrics, database: Database, reading: Database | ReplicaFirst) -> None:
    """Look every few seconds at what does not come with requests, until cancelled."""
    replica = reading if isinstance(reading, ReplicaFirst) else None
    while True:
        metrics.observe_pools(database.pool_use, *([replica.pool_use] if replica else []))
        if replica:
            try:
                with suppress(Overloaded):
                    metrics.observe_replica(await replica.lag_seconds())
            except PostgresError:
                # Not every hosted PostgreSQL has the functions that tell.
                _log.exception("The replica does not tell how far it is behind; it is asked no more")
                metrics.observe_replica(None)
                replica = None
        await asyncio.sleep(_WATCH_SECONDS)


def _forget_the_dead(folder: Path) -> None:
    """Let what dead workers had no longer be there; what they counted stays."""
    for pid in {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # the library lacks the types
