"""A device of somebody else cannot be told from one that is not there by how long its answer takes."""

import asyncio
import random
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import pytest
import pytest_asyncio
from pydantic import SecretStr
from supervised import Supervised, supervised

from mor_requests import GET, UPDATE, get, refused, update
from own_demo import open_own_demo

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

FOREIGN = ("200", "201", "300", "400", "410", "420")
MISSING = ("299", "209", "399", "409", "499", "429")
"""Of user1: none of them his own. What is asked differs in its digits alone."""

PAIRS = 1500
WARM_UP = 100
RESAMPLES = 300

MOST_DIFFERENCE = 0.1
"""Of the median, with 95 % certainty."""

MOST_GUESSED_RIGHT = 0.6
"""Who has nothing to go by guesses one half right; with so many pairs, chance alone brings nobody beyond 0.55."""

FLOWS = """
INSERT INTO callflow (device_id, state, priority, action, target_device_id, caller_id)
SELECT device, state, 1, 'forward', 201, 'device'
FROM unnest(ARRAY[200, 201, 300, 400, 410, 420]) AS device,
    unnest(ARRAY['before_call', 'no_answer', 'busy', 'failed']) AS state"""
"""What is set for a device that is there must not show either."""


@dataclass(frozen=True, slots=True)
class Question:
    """One way to ask about a device, and the answer where it is not the caller's."""

    path: str
    values: Callable[[str], Mapping[str, str]]
    error: str


QUESTIONS = {
    "device_id of device_callflow_get": Question(GET, lambda device: get(device, u="user1"), "Device was not found"),
    "device_id": Question(UPDATE, lambda device: update(u="user1", device_id=device), "Device was not found"),
    "forward_to_device": Question(
        UPDATE, lambda device: update(u="user1", forward_to_device=device), "Local device was not found"
    ),
    "fax_device": Question(
        UPDATE,
        lambda device: update(u="user1", callflow_action="fax_detect", forward_to_device=None, fax_device=device),
        "FAX device was not found",
    ),
}


@pytest_asyncio.fixture(scope="module")
async def service(
    create_database: Callable[..., SecretStr], migrated_url: SecretStr, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Supervised]:
    """The service as a process of its own, that it is timed and not the test."""
    async with open_own_demo(create_database, migrated_url) as demo:
        await demo.database.execute(FLOWS)
        async with supervised(demo.url, tmp_path_factory.mktemp("timing") / "log") as running:
            yield running


@pytest.mark.parametrize("parameter", QUESTIONS)
async def test_a_foreign_device_takes_as_long_as_a_missing_one(
    service: Supervised, figure: "Figure", parameter: str
) -> None:
    foreign, missing = await asyncio.to_thread(take_times, service.url, QUESTIONS[parameter])
    median = statistics.median(missing)
    difference = statistics.median(foreign) - median
    low, high = likely_differences(foreign, missing)
    guessed_right = share_guessed_right(foreign, missing)
    figure(
        f"{parameter}, foreign or missing, {PAIRS} pairs",
        f"median {median:.0f} µs, difference {difference:+.1f} µs (95 %: {low:+.1f} to {high:+.1f}), "
        f"told apart by time: {guessed_right:.1%} (chance: 50 %)",
    )
    # A machine with much else to do makes the interval wide, which is no fault of the service.
    assert max(low, -high) < MOST_DIFFERENCE * median
    assert guessed_right < MOST_GUESSED_RIGHT


def take_times(url: str, question: Question) -> tuple[list[float], list[float]]:
    """Ask about foreign and missing devices in a random order; the microseconds that each answer took."""
    address = urlsplit(url)
    chance = random.Random(20)  # noqa: S311 - no secret
    order = [FOREIGN, MISSING] * (WARM_UP + PAIRS)
    chance.shuffle(order)
    times: dict[tuple[str, ...], list[float]] = {FOREIGN: [], MISSING: []}
    page = refused(question.error)[2].encode()
    with socket.create_connection((address.hostname, address.port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.settimeout(60)
        for devices in order:
            sent = request(question.path, question.values(chance.choice(devices)))
            started = time.perf_counter_ns()
            line.sendall(sent)
            answer = b""
            while not answer.endswith(b"</page>\n"):
                answer += line.recv(65_536)
            times[devices].append((time.perf_counter_ns() - started) / 1000)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"\r\n\r\n" + page)
    return times[FOREIGN][WARM_UP:], times[MISSING][WARM_UP:]


def request(path: str, values: Mapping[str, str]) -> bytes:
    body = urlencode(values).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: callflow\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    return head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def likely_differences(ones: list[float], others: list[float]) -> tuple[float, float]:
    """Between which two the difference of the medians is in 95 of 100 samples drawn anew from these (bootstrap)."""
    chance = random.Random(95)  # noqa: S311 - no secret
    drawn = [
        statistics.median(chance.choices(ones, k=len(ones))) - statistics.median(chance.choices(others, k=len(others)))
        for _ in range(RESAMPLES)
    ]
    cuts = statistics.quantiles(drawn, n=40)
    return cuts[0], cuts[-1]


def share_guessed_right(ones: list[float], others: list[float]) -> float:
    """How often an attacker is right who learns from one half of the times where to cut, and judges the other half."""
    half = len(ones) // 2
    known = [(time, 1) for time in ones[:half]] + [(time, -1) for time in others[:half]]
    # How many more of the ones than of the others lie below each time, and so how well a cut there would tell them.
    below, best, cut = 0, 0, 0.0
    for time_taken, side in sorted(known):
        below += side
        if abs(below) > abs(best):
            best, cut = below, time_taken
    ones_below = sum(time <= cut for time in ones[half:])
    others_below = sum(time <= cut for time in others[half:])
    right = ones_below + half - others_below if best > 0 else others_below + half - ones_below
    return right / (2 * half)
