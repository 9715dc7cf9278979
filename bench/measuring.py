"""What is measured, one method for each number, and where the numbers are kept."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import layers
import loads
import traffic
from programs import Program
from pydantic import SecretStr

import world
from callflow_service.storage.migrating import migrate

RESULTS: Final = (
    *("update_vs_ceiling", "update_vs_usual", "lookup_vs_ceiling", "p99_vs_ceiling", "million_vs_ten_thousand"),
    *("rules_vs_none", "endurance", "rss_mb", "bulk_seconds", "page_vs_page", "search_million_vs_ten_thousand"),
)
"""The numbers of the last line, in its order."""

_PIECE_SECONDS: Final = 15
_MINUTES_BEFORE_THE_LAST: Final = 3
_P99_ROUNDS: Final = 3
_BULK_RATE: Final = 200
_BULK_SECONDS: Final = 15
_SWITCH_TIMEOUT_MS: Final = 300
"""After this the service leaves a lookup's question open; it is the default of CALLFLOW_SWITCH_TIMEOUT_MS."""

_begun = time.monotonic()

Rates = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how often to measure.

    Attributes:
        rounds: How often each program has its turn.
        seconds: How long a turn is.
        warm_up: How many seconds each runs before the first turn.
        requests: How many different requests are sent, over and over.
        endurance: How many updates the service must endure; 0 leaves out all that the quick run does without.
    """

    rounds: int
    seconds: int
    warm_up: int
    requests: int
    endurance: int


@dataclass(frozen=True, slots=True)
class Bench:
    """A server to measure on, a folder for requests, and the numbers so far."""

    server: SecretStr
    folder: Path
    effort: Effort
    results: dict[str, float] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)
    profiles: dict[str, dict[str, float]] = field(default_factory=dict)

    def make_world(self, devices: int) -> SecretStr:
        """A database with the schema and a world of that many devices."""
        say(f"making a world of {devices:,} devices")
        url = asyncio.run(world.create(self.server, devices=devices))
        migrate(url)
        asyncio.run(world.fill(url, devices=devices))
        return url

    def updates(self, devices: int) -> Path:
        """The updates for a world."""
        file = self.folder / f"updates-{devices}.tsv"
        traffic.write_updates(file, devices=devices, count=self.effort.requests)
        return file

    def lookups(self, devices: int) -> Path:
        """The questions for a world."""
        file = self.folder / f"lookups-{devices}.tsv"
        traffic.write_lookups(file, devices=devices, count=self.effort.requests)
        return file

    def forwarded(self, devices: int, *, with_rules: bool) -> Path:
        """The questions about devices that forward, for a world in which half of them have rules."""
        file = self.folder / f"forwarded-{devices}-{with_rules}.tsv"
        traffic.write_forwarded(file, devices=devices, count=self.effort.requests, with_rules=with_rules)
        return file

    def alternate(self, what: str, sides: Mapping[str, Callable[[int], float]]) -> Rates:
        """The rates of each side, A B A B; the warm-up is not counted."""
        for measure in sides.values():
            measure(self.effort.warm_up)
        rates: Rates = {name: [] for name in sides}
        for number in range(self.effort.rounds):
            for name, measure in sides.items():
                rates[name].append(measure(self.effort.seconds))
            now = ", ".join(f"{name} {measured[-1]:,.0f}" for name, measured in rates.items())
            say(f"{what}, round {number + 1} of {self.effort.rounds}: {now} a second")
        self.rates[what] = rates
        return rates

    def ask_database(self, url: SecretStr, *, devices: int) -> None:
        """The same statements without HTTP."""
        for what in ("updates", "lookups"):
            script = self.folder / f"{what}.sql"
            rate = loads.pgbench(url, what, script, devices=devices, seconds=self.effort.seconds * 2)
            say(f"{what} by pgbench: {rate:,.0f} a second")
            self.rates[what]["pgbench"] = [rate]

    def profile(self, what: str, program: Program, requests: Path) -> None:
        """Where the processor time of one request goes."""
        recording = self.folder / "profile.raw"
        self.profiles[what] = layers.measure(program, requests, recording, seconds=self.effort.seconds * 2)
        say(f"{what}, takes {sum(self.profiles[what].values()):,.0f} microseconds of its worker:")
        for layer, microseconds in self.profiles[what].items():
            say(f"    {microseconds:6.0f}  {layer}")

    def compare_p99(self, ours: Program, ceiling: Program, requests: Path, *, rate: float) -> None:
        """The 99th percentile of both at the same rate, in requests a second."""
        ratios = []
        for number in range(_P99_ROUNDS):
            seconds = self.effort.seconds * 2
            mine = loads.at_rate(ours, requests, rate=rate, seconds=seconds)["p99_ms"]
            theirs = loads.at_rate(ceiling, requests, rate=rate, seconds=seconds)["p99_ms"]
            say(f"p99 at {rate:,.0f} a second, round {number + 1} of {_P99_ROUNDS}: {mine:.1f} ms, {theirs:.1f} ms")
            ratios.append(mine / theirs)
        self.results["p99_vs_ceiling"] = median(ratios)

    def endure(self, ours: Program, updates: Path, database: SecretStr) -> None:
        """The last minute of many updates against the first, and the worker's memory on the way.

        Both minutes begin with a checkpoint. After one PostgreSQL logs whole pages for a while, and on which of the two
        that falls must not decide.
        """
        rates: list[float] = []
        memory: list[float] = []
        done = 0.0

        def send(pieces: int) -> None:
            nonlocal done
            for _ in range(pieces):
                numbers = loads.wrk(ours, updates, seconds=_PIECE_SECONDS)
                done += numbers["requests"]
                rates.append(numbers["rate"])
                memory.append(ours.rss_mb)
                say(f"endurance, {done:,.0f} updates: {rates[-1]:,.0f} a second, {memory[-1]:.0f} MB")

        minute = 60 // _PIECE_SECONDS
        asyncio.run(world.checkpoint(database))
        send(minute)
        while done < self.effort.endurance or len(rates) < _MINUTES_BEFORE_THE_LAST * minute:
            send(1)
        asyncio.run(world.checkpoint(database))
        send(minute)
        self.rates["endurance"] = {"ours": rates, "rss_mb": memory}
        self.results["endurance"] = median(rates[-minute:]) / median(rates[:minute])
        self.results["rss_mb"] = memory[-1]

    def change_all(
        self, ours: Program, database: SecretStr, requests: Mapping[str, Path], flows: Sequence[object]
    ) -> None:
        """Bulk changes of every device, one for each of `flows`, while requests of each kind come at a fixed rate."""
        token = asyncio.run(world.make_token(database))
        times: Rates = {"seconds": []} | {f"{kind}, p99 in ms": [] for kind in requests}
        for flow in flows:
            with ThreadPoolExecutor() as beside:
                meanwhile = {
                    kind: beside.submit(loads.at_rate, ours, file, rate=_BULK_RATE, seconds=_BULK_SECONDS)
                    for kind, file in requests.items()
                }
                time.sleep(self.effort.warm_up)
                seconds, states = loads.bulk(ours, token, {"where": {"all": True}, "set": {"no_answer": flow}})
            times["seconds"].append(seconds)
            for kind, numbers in meanwhile.items():
                times[f"{kind}, p99 in ms"].append(numbers.result()["p99_ms"])
            told = ", ".join(f"{name} {measured[-1]:,.1f}" for name, measured in times.items())
            say(f"a bulk change of {states:,} states, while {_BULK_RATE} of each come in a second: {told}")
        self.rates["bulk"] = times
        self.results["bulk_seconds"] = median(times["seconds"])

    def as_json(self) -> str:
        """All the numbers."""
        return json.dumps({"results": self.results, "rates": self.rates, "profiles": self.profiles}, indent=2) + "\n"


def ratio(rates: Rates, one: str, other: str) -> float:
    """The median of the ratios of the rounds."""
    return median(mine / theirs for mine, theirs in zip(rates[one], rates[other], strict=True))


def sending(program: Program, requests: Path) -> Callable[[int], float]:
    """Measure a program's rate by wrk, for some seconds."""
    return lambda seconds: loads.wrk(program, requests, seconds=seconds)["rate"]


def asking(program: Program, lookups: Path) -> Callable[[int], float]:
    """Measure a program's rate of lookups; where many took too long, say so: the service left those open."""

    def measure(seconds: int) -> float:
        numbers = loads.wrk(program, lookups, seconds=seconds)
        if numbers["p99_ms"] > _SWITCH_TIMEOUT_MS:
            say(f"the p99 was {numbers['p99_ms']:.0f} ms, so some lookups were answered with 'carry on'")
        return numbers["rate"]

    return measure


def say(sentence: str) -> None:
    """Progress, on standard error."""
    print(f"[{time.monotonic() - _begun:4.0f} s] {sentence}", file=sys.stderr, flush=True)
