"""Measure the service against the limits of its stack; the last line that is printed is one JSON object.

    run.py [--quick | --pages] [--out FOLDER]

The database is the embedded PostgreSQL in a folder of its own, or that of BENCH_DATABASE_URL, on which databases named
`bench_...` are made anew.
"""

import argparse
import asyncio
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

import asyncpg
import loads
import measuring
import paging
import programs
import sameness
from measuring import Bench, Effort, asking, say, sending
from pydantic import SecretStr

import world
from callflow_service.storage.embedded import start_embedded

_DEVICES: Final = 100_000
_QUICK_DEVICES: Final = 20_000
_RULED_DEVICES: Final = 24_000
_SIZES: Final = (10_000, 1_000_000)

QUICK: Final = Effort(rounds=3, seconds=2, warm_up=1, requests=10_000, endurance=0)
FULL: Final = Effort(rounds=5, seconds=6, warm_up=3, requests=50_000, endurance=180_000)


def compare(bench: Bench, *, devices: int) -> None:
    """Updates and lookups against their limits, on one world; then, unless in a hurry, what only ours is asked for."""
    url = bench.make_world(devices)
    updates, lookups = bench.updates(devices), bench.lookups(devices)
    with ExitStack() as running:
        ours = running.enter_context(programs.ours(url))
        ceiling = running.enter_context(programs.written_as("ceiling", url))
        usual = running.enter_context(programs.written_as("usual", url))
        say(f"the service was ready after {ours.start_seconds:.2f} s; comparing the pages of all programs")
        bench.results["start_seconds"] = ours.start_seconds
        two = {"ours": ours, "ceiling": ceiling}
        sameness.check(url, updates, two | {"usual": usual})
        sameness.check(url, lookups, two)
        rates = bench.alternate(
            "updates", {name: sending(it, updates) for name, it in (two | {"usual": usual}).items()}
        )
        bench.results["update_vs_ceiling"] = measuring.ratio(rates, "ours", "ceiling")
        bench.results["update_vs_usual"] = measuring.ratio(rates, "ours", "usual")
        rates = bench.alternate("lookups", {name: asking(it, lookups) for name, it in two.items()})
        bench.results["lookup_vs_ceiling"] = measuring.ratio(rates, "ours", "ceiling")
        if bench.effort.endurance:
            bench.ask_database(url, devices=devices)
            for name, program in two.items():
                bench.profile(f"{name}, an update", program, updates)
                bench.profile(f"{name}, a lookup", program, lookups)
            bench.compare_p99(ours, ceiling, updates, rate=median(bench.rates["updates"]["ours"]) / 2)
            bench.endure(ours, updates, url)


def compare_rules(bench: Bench, *, devices: int) -> None:
    """Lookups of devices whose forwards have ten rules, none of which holds, against those without rules."""
    url = bench.make_world(devices)
    asyncio.run(world.add_rules(url))
    with programs.ours(url) as ours:
        sides = {
            name: asking(ours, bench.forwarded(devices, with_rules=with_rules))
            for name, with_rules in (("ten rules", True), ("no rules", False))
        }
        rates = bench.alternate("lookups through rules", sides)
    bench.results["rules_vs_none"] = measuring.ratio(rates, "ten rules", "no rules")


def compare_sizes(bench: Bench) -> None:
    """Updates on a million devices against ten thousand."""
    with ExitStack() as running:
        sides = {}
        for devices in _SIZES:
            program = running.enter_context(programs.ours(bench.make_world(devices)))
            sides[f"{devices:,} devices"] = sending(program, bench.updates(devices))
        rates = bench.alternate("sizes", sides)
    small, large = sides
    bench.results["million_vs_ten_thousand"] = measuring.ratio(rates, large, small)


def change_all(bench: Bench, *, devices: int) -> None:
    """Bulk changes of a whole world: its states are set for the first time, then changed, then emptied."""
    url = bench.make_world(devices)
    requests = {"updates": bench.updates(devices), "lookups": bench.lookups(devices)}
    actions = (
        {"action": "forward", "steps": [{"to": {"number": "+37061234567"}}]},
        *({"action": "voicemail"}, {"action": "empty"}),
    )
    with programs.ours(url) as ours:
        bench.change_all(ours, url, requests, [{"otherwise": action} for action in actions])


async def check_durable(url: SecretStr) -> str:
    """The server's version; a server that gives up durability for speed is not measured."""
    connection = await asyncpg.connect(world.address(url))
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        if (value := await connection.fetchval(f"SHOW {setting}")) != "on":
            sys.exit(f"bench: {setting} is {value} on this server; durability stays on here.")
    version: str = await connection.fetchval("SHOW server_version")
    await connection.close()
    return version


def measure(effort: Effort, folder: Path, *, only_pages: bool = False) -> Bench:
    """Everything that the effort is meant for, or the pages of lists alone."""
    given = os.environ.get("BENCH_DATABASE_URL")
    server = SecretStr(given) if given else start_embedded(folder)
    say(f"PostgreSQL {asyncio.run(check_durable(server))}, durable")
    bench = Bench(server, folder, effort)
    if only_pages:
        paging.compare_pages(bench)
        return bench
    compare(bench, devices=_DEVICES if effort.endurance else _QUICK_DEVICES)
    compare_rules(bench, devices=_RULED_DEVICES)
    if effort.endurance:
        compare_sizes(bench)
        change_all(bench, devices=_DEVICES)
        paging.compare_pages(bench)
    return bench


def main() -> None:
    """Measure, write the results and the chart, and print the line."""
    parser = argparse.ArgumentParser(description="Measure the service against the limits of its stack.")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--quick", action="store_true", help="only the ratios of updates and lookups, in about a minute")
    some.add_argument("--pages", action="store_true", help="only the pages of lists, in some minutes")
    parser.add_argument("--out", type=Path, help="folder for results.json and the chart")
    options = parser.parse_args()
    bench = measure(QUICK if options.quick else FULL, world.folder(), only_pages=options.pages)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "results.json").write_text(bench.as_json())
        if not (options.quick or options.pages):
            import chart  # noqa: PLC0415 - the quick run needs no matplotlib

            chart.draw(bench.rates, options.out / "performance.png")
    print(json.dumps({name: round(bench.results[name], 3) for name in measuring.RESULTS if name in bench.results}))


if __name__ == "__main__":
    try:
        main()
    except loads.Missing as missing:
        sys.exit(f"bench: {missing}")
