"""Ten times the load that the service can carry: what is accepted is answered in time, the rest is told so."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import psutil
import pytest
from ledger import STATES, add_devices
from supervised import supervised

from clusters import Cluster, running_cluster
from mor_requests import UPDATE, update

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

FLOOD = Path(__file__).with_name("flood.py")
FEW_CONNECTIONS = 32
MANY_CONNECTIONS = 500
"""More than twice as many as the service has calls in work at most."""

TIMES = 10
MOR_LIMIT_SECONDS = 2
MEMORY_LIMIT_MB = 64
"""What the flood may cost in memory, its connections included."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a flood; rates are per second."""

    seconds: float
    offered: int
    closed: int
    answers: dict[str, list[float]]

    def rate(self, status: str) -> float:
        return len(self.answers.get(status, ())) / self.seconds

    def percentiles(self, status: str) -> tuple[float, float]:
        """The 50th and the 99th, in seconds."""
        found = quantiles(self.answers[status], n=100)
        return found[49], found[98]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL of this module's own."""
    with running_cluster() as running:
        yield running


def written(values: dict[str, str]) -> str:
    body = urlencode(values)
    head = [
        f"POST {UPDATE} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/x-www-form-urlencoded",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", body])


async def flood(url: str, requests: Path, connections: int, seconds: float, rate: float | None = None) -> Outcome:
    program = (sys.executable, str(FLOOD), url, str(requests), str(connections), str(seconds))
    rates = () if rate is None else (str(rate),)
    process = await asyncio.create_subprocess_exec(*program, *rates, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    found: dict[str, Any] = json.loads(output)
    return Outcome(**found)


async def highest_memory(process: psutil.Process, highest: list[float]) -> None:
    """Look at the process's memory, in MB, until this is cancelled."""
    while True:
        highest.append(process.memory_info().rss / 1e6)
        await asyncio.sleep(0.2)


async def test_under_ten_times_the_load_what_is_accepted_is_answered_in_time_and_memory_is_bounded(
    cluster: Cluster, figure: "Figure", tmp_path: Path
) -> None:
    devices = await add_devices(cluster, 100)
    changes = [
        update(device_id=str(device), state=state, forward_to_device=None, external_number=str(device))
        for device in devices
        for state in STATES
    ]
    requests = tmp_path / "requests"
    requests.write_text("".join(json.dumps(written(values)) + "\n" for values in changes))
    async with supervised(cluster.url, tmp_path / "log") as service:
        await flood(service.url, requests, FEW_CONNECTIONS, 2)
        carried = await flood(service.url, requests, FEW_CONNECTIONS, 4)
        process = psutil.Process(service.process_id)
        memory = [process.memory_info().rss / 1e6]
        watching = asyncio.create_task(highest_memory(process, memory))
        flooded = await flood(service.url, requests, MANY_CONNECTIONS, 15, TIMES * carried.rate("200"))
        told = len(service.outcomes())
        afterwards = await flood(service.url, requests, FEW_CONNECTIONS, 4)
        watching.cancel()
        figure("overload: can carry, updates/s", round(carried.rate("200")))
        figure("overload: offered, updates/s", round(flooded.offered / flooded.seconds))
        for status, what in (("200", "accepted"), ("503", "refused")):
            median, slow = flooded.percentiles(status)
            figure(f"overload: {what}, updates/s", round(flooded.rate(status)))
            figure(f"overload: {what}, p50 and p99, s", f"{median:.3f} {slow:.3f}")
        figure("overload: afterwards, updates/s", round(afterwards.rate("200")))
        figure(
            "overload: memory before, at most, afterwards, MB", f"{memory[0]:.0f} {max(memory):.0f} {memory[-1]:.0f}"
        )
        assert (flooded.closed, flooded.answers.keys(), service.defects()) == (0, {"200", "503"}, [])
        assert flooded.percentiles("200")[1] < MOR_LIMIT_SECONDS
        assert max(memory) - memory[0] < MEMORY_LIMIT_MB
        # Without the cheap refusal next to nothing came through.
        assert flooded.rate("200") > carried.rate("200") / 4
        assert (afterwards.answers.keys(), set(service.outcomes()[told:])) == ({"200"}, {"ok"})
