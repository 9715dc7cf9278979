"""Clients that send nothing, or next to nothing, are in nobody's way, and are hung up on."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
import pytest
from constant_load import Load, constant_load, p99_ms
from pydantic import SecretStr
from supervised import supervised

from clusters import LONG
from mor_requests import UPDATE
from nginx import HERE, run_nginx
from own_demo import open_own_demo

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

EACH: Final = 67
"""How many there are of each kind, at the service and again at nginx: 201 at each."""

HEAD: Final = f"POST {UPDATE} HTTP/1.1\r\nHost: callflow.test\r\n".encode()
KINDS: Final = {
    "nothing": (b"", b""),
    "half a head": (HEAD, b"X-Slow: 1234567890"),
    "half a body": (HEAD + b"Content-Length: 1000\r\n\r\n", b"u=admin&device_id"),
}
"""What comes at once, and what comes byte by byte."""

LATE: Final = "Request did not arrive in time"


async def be_slow(port: int, kind: str) -> bytes:
    """Send byte after byte, each after a third of a second, until hung up on; give back what was said to that."""
    reader, writer = await asyncio.open_connection(HERE, port)
    at_once, bytewise = KINDS[kind]
    writer.write(at_once)

    async def drip() -> None:
        for byte in bytewise:
            await asyncio.sleep(0.33)
            writer.write(bytes([byte]))

    dripping = asyncio.create_task(drip())
    page = b""
    with suppress(ConnectionResetError):
        _, _, page = (await reader.read()).partition(b"\r\n\r\n")
    dripping.cancel()
    writer.close()
    return page


@asynccontextmanager
async def clients_at(ports: dict[str, int]) -> AsyncIterator[dict[str, Load]]:
    async with AsyncExitStack() as running:
        yield {
            where: await running.enter_async_context(constant_load(port, clients=4)) for where, port in ports.items()
        }


async def test_slow_clients_hold_nobody_up_and_are_hung_up_on(
    create_database: Callable[..., SecretStr], migrated_url: SecretStr, figure: "Figure", tmp_path: Path
) -> None:
    (tmp_path / "nginx").mkdir()
    async with AsyncExitStack() as running:
        demo = await running.enter_async_context(open_own_demo(create_database, migrated_url))
        service = await running.enter_async_context(supervised(demo.url, tmp_path / "log"))
        address = service.url.removeprefix("http://")
        nginx = await running.enter_async_context(run_nginx(tmp_path / "nginx", address))
        ports = {"the service": int(address.partition(":")[2]), "nginx": nginx.port}
        process = psutil.Process(service.process_id)

        def memory_mb() -> float:
            return round(process.memory_info().rss / 1e6, 1)

        async with clients_at(ports) as loads:
            await asyncio.sleep(4)
            began = time.monotonic()
            figure("slow clients: memory of the service without them, MB", memory_mb())
            async with asyncio.timeout(2 * LONG):
                slow = {
                    where: {kind: [asyncio.create_task(be_slow(port, kind)) for _ in range(EACH)] for kind in KINDS}
                    for where, port in ports.items()
                }
                await asyncio.sleep(5)
                figure("slow clients: memory of the service with 402 of them, MB", memory_mb())
                figure("slow clients: connections of the service", len(process.net_connections("tcp")))
                told = {
                    (where, kind): Counter(await asyncio.gather(*tasks))
                    for where, kinds in slow.items()
                    for kind, tasks in kinds.items()
                }
            figure("slow clients: seconds until all were hung up on", round(time.monotonic() - began, 1))
            figure("slow clients: memory of the service after them, MB", memory_mb())
        for where, load in loads.items():
            before = [asked for asked in load.asked if asked.ended < began]
            during = [asked for asked in load.asked if asked.sent > began]
            figure(f"slow clients: p99 at {where} without and with them, ms", (p99_ms(before), p99_ms(during)))
    assert [load.failures for load in loads.values()] == [[], []]
    for (where, kind), pages in told.items():
        ((page, number),) = pages.items()
        is_told = (where, kind) == ("the service", "half a body")
        assert (LATE.encode() in page, number) == (is_told, EACH)
    assert service.defects() == []
