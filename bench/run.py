"""Measure the service against the limits of its stack; the last line that is printed is one JSON object.

    run.py [--quick] [--out FOLDER]

The database is the embedded PostgreSQL in a folder of its own, or that of BENCH_DATABASE_URL, on which databases named
`bench_...` are made anew.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import asyncpg
from callflow_service.embedded import start_embedded
from callflow_service.migrating import migrate
from pydantic import SecretStr

import loads
import programs
import sameness
import traffic
import world
from programs import Program

_DEVICES: Final = 100_000
_SMALL: Final = 10_000
_LARGE: Final = 1_000_000
_REQUESTS: Final = 50_000
_QUICK_REQUESTS: Final = 10_000
_ENDURANCE_UPDATES: Final = 360_000
"""An hour of 100 updates a second."""

_PIECE_SECONDS: Final = 15.0

_begun = time.monotonic()


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how often to measure: `rounds` of `seconds` for each program, after a warm-up of `warm_up` seconds."""

    rounds: int
    seconds: float
    warm_up: float


QUICK: Final = Effort(rounds=2, seconds=2.5, warm_up=1)
FULL: Final = Effort(rounds=5, seconds=6, warm_up=3)

Rates = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Bench:
    """A server to measure on, and a folder for requests and results."""

    server: SecretStr
    folder: Path
    requests: int
    effort: Effort

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
        traffic.write_updates(file, devices=devices, count=self.requests)
        return file

    def lookups(self, devices: int) -> Path:
        """The questions for a world."""
        file = self.folder / f"lookups-{devices}.tsv"
        traffic.write_lookups(file, devices=devices, count=self.requests)
        return file

    def alternate(self, what: str, sides: Mapping[str, Callable[[float], float]]) -> Rates:
        """The rates of each side, A B A B; what runs first is warmed up, and not counted."""
        for measure in sides.values():
            measure(self.effort.warm_up)
        rates: Rates = {name: [] for name in sides}
        for number in range(self.effort.rounds):
            for name, measure in sides.items():
                rates[name].append(measure(self.effort.seconds))
            now = ", ".join(f"{name} {measured[-1]:,.0f}" for name, measured in rates.items())
            say(f"{what}, round {number + 1} of {self.effort.rounds}: {now} a second")
        return rates


def ratio(rates: Rates, one: str, other: str) -> float:
    """The median of the ratios of the rounds."""
    return median(mine / theirs for mine, theirs in zip(rates[one], rates[other], strict=True))


def sending(program: Program, requests: Path) -> Callable[[float], float]:
    """Measure a program's rate by wrk."""
    return lambda seconds: loads.wrk(program, requests, seconds=seconds)["rate"]


def compare(bench: Bench, results: dict[str, float], rates: dict[str, Rates], *, full: bool) -> None:
    """Updates and lookups against their limits, on one world."""
    url = bench.make_world(_DEVICES)
    updates, lookups = bench.updates(_DEVICES), bench.lookups(_DEVICES)
    with ExitStack() as running:
        ours = running.enter_context(programs.ours(url))
        ceiling = running.enter_context(programs.written_as("ceiling", url))
        usual = running.enter_context(programs.written_as("usual", url))
        results["start_seconds"] = round(ours.start_seconds, 2)
        say("comparing the pages of all programs")
        sameness.check(url, updates, {"ours": ours, "ceiling": ceiling, "usual": usual})
        sameness.check(url, lookups, {"ours": ours, "ceiling": ceiling})
        three = {"ours": ours, "ceiling": ceiling, "usual": usual}
        rates["updates"] = bench.alternate("updates", {name: sending(it, updates) for name, it in three.items()})
        results["update_vs_ceiling"] = ratio(rates["updates"], "ours", "ceiling")
        results["update_vs_usual"] = ratio(rates["updates"], "ours", "usual")
        two = {"ours": ours, "ceiling": ceiling}
        rates["lookups"] = bench.alternate("lookups", {name: sending(it, lookups) for name, it in two.items()})
        results["lookup_vs_ceiling"] = ratio(rates["lookups"], "ours", "ceiling")
        if full:
            for kind in ("update", "lookup"):
                script = bench.folder / f"{kind}.sql"
                rate = loads.pgbench(url, kind, script, devices=_DEVICES, seconds=10)
                rates[f"{kind}s"]["pgbench"] = [rate]
                say(f"pgbench, {kind}s: {rate:,.0f} a second")
            results["p99_vs_ceiling"] = _p99(bench, ours, ceiling, updates, rate=median(rates["updates"]["ours"]) / 2)
            results |= _endurance(bench, ours, updates, rates)


def _p99(bench: Bench, ours: Program, ceiling: Program, updates: Path, *, rate: float) -> float:
    ratios = []
    for number in range(3):
        p99 = {}
        for name, program in (("ours", ours), ("ceiling", ceiling)):
            measured = loads.at_rate(program, updates, rate=rate, seconds=bench.effort.seconds * 2)
            p99[name] = measured["p99_ms"]
        say(f"p99 at {rate:,.0f} a second, round {number + 1} of 3: {p99['ours']:.1f} ms, {p99['ceiling']:.1f} ms")
        ratios.append(p99["ours"] / p99["ceiling"])
    return median(ratios)


def _endurance(bench: Bench, ours: Program, updates: Path, rates: dict[str, Rates]) -> dict[str, float]:
    """The last minute against the first of many updates, and the worker's memory at the end."""
    measured, memory, done = [], [], 0.0
    while done < _ENDURANCE_UPDATES:
        numbers = loads.wrk(ours, updates, seconds=_PIECE_SECONDS)
        done += numbers["requests"]
        measured.append(numbers["rate"])
        memory.append(ours.rss_mb)
        say(f"endurance: {done:,.0f} of {_ENDURANCE_UPDATES:,} updates, {measured[-1]:,.0f} a second, {memory[-1]:.0f} MB")
    minute = int(60 / _PIECE_SECONDS)
    rates["endurance"] = {"ours": measured, "rss_mb": memory}
    (bench.folder / "memory.json").write_text(json.dumps(memory))
    return {"endurance": median(measured[-minute:]) / median(measured[:minute]), "rss_mb": memory[-1]}


def compare_sizes(bench: Bench, results: dict[str, float], rates: dict[str, Rates]) -> None:
    """Updates on a million devices against ten thousand."""
    with ExitStack() as running:
        sides = {}
        for devices in (_SMALL, _LARGE):
            url = bench.make_world(devices)
            program = running.enter_context(programs.ours(url))
            sides[f"{devices:,} devices"] = sending(program, bench.updates(devices))
        rates["sizes"] = bench.alternate("sizes", sides)
    small, large = rates["sizes"]
    results["million_vs_ten_thousand"] = ratio(rates["sizes"], large, small)


async def check_durable(url: SecretStr) -> str:
    """The server's version; a server that gives up durability for speed is not measured."""
    connection = await asyncpg.connect(world.address(url))
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        if (value := await connection.fetchval(f"SHOW {setting}")) != "on":
            sys.exit(f"bench: {setting} is {value} on this server; durability stays on here.")
    version: str = await connection.fetchval("SHOW server_version")
    await connection.close()
    return version


def say(sentence: str) -> None:
    """Progress, on standard error."""
    print(f"[{time.monotonic() - _begun:4.0f} s] {sentence}", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, write the results and the chart, and print the line."""
    parser = argparse.ArgumentParser(description="Measure the service against the limits of its stack.")
    parser.add_argument("--quick", action="store_true", help="only the first three ratios, in under a minute")
    parser.add_argument("--out", type=Path, help="folder for results.json and the chart")
    options = parser.parse_args()
    results: dict[str, float] = {}
    rates: dict[str, Rates] = {}
    with tempfile.TemporaryDirectory(prefix="callflow-bench-") as name:
        folder = Path(name)
        given = os.environ.get("BENCH_DATABASE_URL")
        server = SecretStr(given) if given else start_embedded(folder)
        say(f"PostgreSQL {asyncio.run(check_durable(server))}, durable")
        effort, requests = (QUICK, _QUICK_REQUESTS) if options.quick else (FULL, _REQUESTS)
        bench = Bench(server, folder, requests, effort)
        compare(bench, results, rates, full=not options.quick)
        if not options.quick:
            compare_sizes(bench, results, rates)
    results = {name: round(value, 3) for name, value in results.items()}
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "results.json").write_text(json.dumps({"results": results, "rates": rates}, indent=2) + "\n")
        if not options.quick:
            import chart  # noqa: PLC0415 - the quick run needs no matplotlib

            chart.draw(rates, options.out / "performance.png")
    print(json.dumps(results))


if __name__ == "__main__":
    try:
        main()
    except loads.Missing as missing:
        sys.exit(f"bench: {missing}")
