"""Wrong guesses are counted by all services together in a real Redis, and go on being counted while it is away."""

import asyncio
import logging
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import httpx
import psutil
import pytest
import pytest_asyncio
from pydantic import SecretStr

from clusters import free_port, until
from mor_requests import GET, GET_ERRORS, Answer, StartService, answer, get, got, refused
from switch_questions import ALICE, SWITCH

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

LIMIT = 20
TOO_MANY = refused("Too many wrong requests, try again later", 429)
WRONG = refused(GET_ERRORS[4])
AWAY = "Redis cannot be asked"
BACK = "Redis is back"

T = TypeVar("T")
Pair = tuple[httpx.AsyncClient, httpx.AsyncClient]


class Redis:
    """A redis-server that can be killed, frozen and started again."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"redis://:canary@127.0.0.1:{self._port}/0")

    def start(self) -> None:
        settings = {"port": str(self._port), "bind": "127.0.0.1", "requirepass": "canary", "save": ""}
        arguments = [argument for name, value in settings.items() for argument in (f"--{name}", value)]
        command = ["redis-server", *arguments, "--dir", str(self._folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        process.suspend()
        try:
            yield
        finally:
            process.resume()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest_asyncio.fixture
async def pair(
    start_service: StartService, demo_url: SecretStr, redis: Redis, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Pair]:
    """Two services that count together; Redis answers already."""
    caplog.set_level(logging.INFO)
    settings = {"guess_limit": f"{LIMIT}/day", "redis_url": redis.url, "trusted_proxies": ("127.0.0.1",)}
    one, other = [await start_service(demo_url, **settings) for _ in range(2)]

    async def counts_together() -> bool:
        # Each round under a name of its own, that it leaves nothing behind in the counts.
        name = f"nobody {len(caplog.records)}"
        for service in (one, other) * (LIMIT // 2):
            await guess(service, "192.0.2.1", u=name)
        return [answer(await guess(service, "192.0.2.1", u=name)) for service in (one, other)] == [TOO_MANY, TOO_MANY]

    await until(counts_together)
    yield one, other


async def guess(service: httpx.AsyncClient, address: str, *, u: str = "admin") -> httpx.Response:
    headers = {"X-Forwarded-For": address}
    return await service.post(GET, data=get(u=u) | {"hash": "0" * 40}, headers=headers)


async def ask_right(service: httpx.AsyncClient, address: str) -> Answer:
    return answer(await service.post(GET, data=get(), headers={"X-Forwarded-For": address}))


async def ask_switch(service: httpx.AsyncClient, address: str, *, password: str = SWITCH[1]) -> int:
    asked = {**ALICE, "device": "4"}
    auth = (SWITCH[0], password)
    response = await service.post("/switch/opensips", data=asked, auth=auth, headers={"X-Forwarded-For": address})
    return response.status_code


def told(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records)


async def undisturbed(caplog: pytest.LogCaptureFixture, attempt: Callable[[str], Awaitable[T]]) -> T:
    """What comes of an attempt, each from an address of its own, in which Redis was there all the time.

    On a machine that has too much to do, 50 ms can be over before anything was done at all.
    """

    async def are_back() -> bool:
        return told(caplog, BACK) == told(caplog, AWAY)

    for host in range(100, 120):
        await until(are_back)
        before = told(caplog, AWAY)
        found = await attempt(f"192.0.2.{host}")
        if told(caplog, AWAY) == before:
            return found
    pytest.fail("Redis was never there for the length of an attempt.")


async def test_what_one_service_counted_the_other_refuses(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    one, other = pair

    async def attempt(address: str) -> tuple[list[Answer], list[Answer]]:
        wrong = [answer(await guess(one if number % 2 else other, address)) for number in range(LIMIT)]
        return wrong, [await ask_right(service, address) for service in pair]

    assert await undisturbed(caplog, attempt) == ([WRONG] * LIMIT, [TOO_MANY] * 2)
    assert [await ask_right(service, "192.0.2.2") for service in pair] == [got()] * 2


async def test_who_was_wrong_at_one_service_alone_is_refused_by_the_other_at_once(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = pair

    async def attempt(address: str) -> Answer:
        for _ in range(LIMIT):
            await guess(one, address)
        return await ask_right(other, address)

    assert await undisturbed(caplog, attempt) == TOO_MANY


async def test_switch_passwords_are_counted_together(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    one, other = pair

    async def attempt(address: str) -> tuple[list[int], list[int], list[int]]:
        first = [await ask_switch(one if number % 2 else other, address, password="wrong") for number in range(LIMIT)]
        wrong = [await ask_switch(service, address, password="wrong") for service in pair]
        return first, wrong, [await ask_switch(service, address) for service in pair]

    assert await undisturbed(caplog, attempt) == ([401] * LIMIT, [429] * 2, [429] * 2)
    assert [await ask_switch(service, "192.0.2.2") for service in pair] == [200] * 2


async def test_of_many_guesses_at_once_each_service_looks_at_no_more_than_alone(pair: Pair, figure: "Figure") -> None:
    responses = await asyncio.gather(*(guess(service, "192.0.2.1") for service in pair for _ in range(100)))
    looked_at = sum(response.status_code == 200 for response in responses)
    figure(f"200 wrong guesses at once at two services, limit {LIMIT}: looked at", looked_at)
    assert LIMIT <= looked_at <= 2 * LIMIT


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_without_redis_requests_go_on_and_each_service_counts_alone_until_it_is_back(
    pair: Pair, redis: Redis, caplog: pytest.LogCaptureFixture, figure: "Figure", fault: str
) -> None:
    one, other = pair
    for _ in range(LIMIT):
        await guess(one, "192.0.2.3")
    if fault == "killed":
        redis.kill()
        answered = await go_on_alone(pair)
        redis.start()
    else:
        with redis.frozen():
            answered = await go_on_alone(pair)
    assert told(caplog, AWAY) >= 2
    figure(f"Redis {fault}: requests answered as if it had never been there", answered)

    async def attempt(address: str) -> Answer:
        for _ in range(LIMIT):
            await guess(one, address)
        return await ask_right(other, address)

    assert await undisturbed(caplog, attempt) == TOO_MANY
    assert "canary" not in caplog.text


async def go_on_alone(pair: Pair) -> int:
    """Ask both what they answer alone; how many requests that took."""
    one, other = pair
    assert [await ask_right(service, "192.0.2.1") for service in pair] == [got()] * 2
    assert [await ask_switch(service, "192.0.2.1") for service in pair] == [200] * 2
    assert await ask_right(one, "192.0.2.3") == TOO_MANY
    pages = [answer(await guess(other, "192.0.2.1")) for _ in range(LIMIT + 1)]
    assert pages == [WRONG] * LIMIT + [TOO_MANY]
    assert await ask_right(one, "192.0.2.1") == got()
    return 2 + 2 + 1 + len(pages) + 1
