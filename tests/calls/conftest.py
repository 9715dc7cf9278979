"""A real Kamailio with the shipped configuration, between the service and telephones of the tests' own."""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import httpx
import pytest
import pytest_asyncio
from callflow_service.settings import driver_url
from callflow_service.world.loading import DEMO_FILE, load_world
from mor_requests import UPDATE, StartService, signed
from pydantic import SecretStr
from telephones import DOMAIN, HERE, Caller, FarEnd, until

SHIPPED: Final = Path(__file__).parents[2] / "switches" / "kamailio"
WORLD: Final = Path(__file__).with_name("world.yaml")
PHONES: Final = ("reception", "sales", "support", "workshop")
"""Who is registered from the start."""

DEVICES: Final = {"reception": 501, "sales": 502, "support": 503, "workshop": 504, "unplugged": 505, "telefax": 506, "store": 507}


@dataclass(frozen=True)
class Telephony:
    """A running Kamailio, a telephone to call it with, and everything that it can ring."""

    caller: Caller
    far_end: FarEnd
    log: Path

    def warnings(self) -> list[str]:
        """What Kamailio has said of its questions."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line.partition("callflow: ")[2] for line in lines if "callflow: " in line]


StartTelephony = Callable[..., Awaitable[Telephony]]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind((HERE, 0))
        port: int = bound.getsockname()[1]
        return port


def write_connections(folder: Path, url: str, password: str) -> Path:
    """The shipped file with the service's address and the password changed, as its operator would."""
    changes = {
        "url = http://127.0.0.1:8000": f"url = {url}",
        "username = switch\n": "username = kamailio\n",
        "password = switch-secret": f"password = {password}",
    }
    text = (SHIPPED / "callflow-http.cfg").read_text()
    for shipped, wanted in changes.items():
        assert text.count(shipped) == 1, f"The shipped callflow-http.cfg was to say {shipped!r} once."
        text = text.replace(shipped, wanted)
    file = folder / "callflow-http.cfg"
    file.write_text(text)
    return file


async def start_kamailio(
    running: AsyncExitStack, folder: Path, far_end: FarEnd, defines: dict[str, str]
) -> tuple[Caller, Path]:
    """Start Kamailio on a free port, and wait until it answers; a port that somebody else took is tried again."""
    program = shutil.which("kamailio", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.fail(
            "Real calls need Kamailio: Debian packages kamailio, kamailio-extra-modules, kamailio-json-modules and "
            "kamailio-utils-modules."
        )
    log = folder / "kamailio.log"
    for _ in range(3):
        port = free_port()
        settings = {
            "LISTEN": f"udp:{HERE}:{port}",
            "DOMAIN": f'"{DOMAIN}"',
            "TRUNK": f'"{far_end.sockets["trunk"].address}"',
            "VOICEMAIL": f'"sip:{far_end.sockets["voicemail"].address}"',
            "PROCESSES": "2",
            **defines,
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                program,
                *("-f", SHIPPED / "kamailio.cfg", "-DD", "-E", "-m", "32", "-M", "4", "-w", folder, "-Y", folder),
                *(part for name, value in settings.items() for part in ("-A", f"{name}={value}")),
                stdout=output,
                stderr=output,
            )
        caller = await Caller((HERE, port)).open()
        for _ in range(40):
            if process.returncode is not None:
                break
            if await caller.is_answered(within=0.25):
                running.push_async_callback(_stop, process)
                running.callback(caller.close)
                return caller, log
        caller.close()
        await _stop(process)
    pytest.fail(f"Kamailio was to start and did not:\n{log.read_text(errors='replace')}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


@pytest_asyncio.fixture(scope="session")
async def start_telephony() -> AsyncIterator[StartTelephony]:
    """Start a Kamailio that asks the service at an address, with the phones registered."""
    async with AsyncExitStack() as running:

        async def start(url: str, password: str = "kamailio-secret", **defines: str) -> Telephony:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="callflow-calls-")))
            far_end = FarEnd()
            await far_end.open("phone", "trunk", "voicemail")
            for place in far_end.sockets.values():
                running.callback(place.close)
            connections = write_connections(folder, url, password)
            caller, log = await start_kamailio(
                running, folder, far_end, {"CALLFLOW_CONNECTIONS": f'"{connections}"', **defines}
            )
            for name in PHONES:
                await caller.register(name, f"sip:{name}@{far_end.sockets['phone'].address}")
            return Telephony(caller, far_end, log)

        yield start


@pytest_asyncio.fixture(scope="session")
async def calls_url(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> SecretStr:
    """A database with the demo data, and the phones of these tests."""
    url = await asyncio.to_thread(create_database, migrated_url)
    await load_world(url, DEMO_FILE, demo=True)
    await load_world(url, WORLD)
    return url


@pytest_asyncio.fixture(scope="session")
async def calls_service(start_service: StartService, calls_url: SecretStr) -> httpx.AsyncClient:
    """The service; it has nearly as long to answer as Kamailio waits, for this is no test of its speed."""
    return await start_service(calls_url, switch_timeout_ms=900)


@pytest_asyncio.fixture(scope="session")
async def shared_telephony(start_telephony: StartTelephony, calls_service: httpx.AsyncClient) -> Telephony:
    return await start_telephony(str(calls_service.base_url).rstrip("/"))


@pytest_asyncio.fixture
async def telephony(shared_telephony: Telephony, no_flows: None) -> Telephony:  # noqa: ARG001 - sets the stage
    """The telephony that most tests share, with nothing set and nobody rung yet."""
    shared_telephony.far_end.forget()
    return shared_telephony


@pytest_asyncio.fixture
async def no_flows(calls_url: SecretStr) -> None:
    url = driver_url(calls_url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        await connection.execute("TRUNCATE callflow, callflow_history")
    finally:
        await connection.close()


SetFlow = Callable[..., Awaitable[None]]


@pytest.fixture
def set_flow(calls_service: httpx.AsyncClient) -> SetFlow:
    """Change a device's call flow by MOR's signed call, as its clients do."""

    async def change(device: str, state: str, action: str = "forward", **more: str) -> None:
        values = {"u": "admin", "device_id": str(DEVICES[device]), "callflow_action": action, "state": state, **more}
        response = await calls_service.post(UPDATE, data=signed(values))
        assert "<status>Callflow was successfully updated</status>" in response.text

    return change


@dataclass
class ServiceProcess:
    """The service as a process of its own, to be stopped and frozen."""

    process: asyncio.subprocess.Process
    url: str

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.thaw()
        await _stop(self.process)


@pytest_asyncio.fixture
async def service_process(calls_url: SecretStr) -> AsyncIterator[ServiceProcess]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    environment |= {"CALLFLOW_DATABASE_URL": calls_url.get_secret_value(), "CALLFLOW_SWITCH_TIMEOUT_MS": "900"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callflow_service.cli", "serve", "--port", "0"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
    url = line.removeprefix("Serving on ").partition(",")[0]
    service = ServiceProcess(process, url)
    try:
        async with httpx.AsyncClient(base_url=url) as client:
            await _is_ready(client)
        yield service
    finally:
        await service.stop()


async def _is_ready(client: httpx.AsyncClient) -> None:
    ready = False

    async def ask() -> None:
        nonlocal ready
        while not ready:
            try:
                ready = (await client.get("/health/ready")).status_code == 200
            except httpx.TransportError:
                await asyncio.sleep(0.05)

    asking = asyncio.create_task(ask())
    try:
        await until(lambda: ready, "The service was to get ready", within=30)
    finally:
        asking.cancel()
