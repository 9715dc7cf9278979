"""A real Kamailio with the shipped configuration, between the service and telephones of the tests' own."""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import pytest
import pytest_asyncio
from listener import Listener
from programs import Api, ServiceProcess, SetFlow, StartTelephony, Telephony, start_kamailio
from pydantic import SecretStr
from telephones import HERE, FarEnd, until

from callflow_service.domain.tokens import new_token, token_hash
from callflow_service.settings import driver_url
from callflow_service.world.loading import DEMO_FILE, load_world
from encryption import KEY, KEYS
from mor_requests import UPDATE, StartService, signed

WORLD: Final = Path(__file__).with_name("world.yaml")
SWITCH_PASSWORD: Final = "kamailio-secret"
"""The switch users', as world.yaml has it."""

PHONES: Final = ("reception", "sales", "support", "workshop")
"""Who is registered from the start."""

DEVICES: Final = {
    "reception": 501,
    "sales": 502,
    "support": 503,
    "workshop": 504,
    "unplugged": 505,
    "telefax": 506,
    "store": 507,
}


@pytest_asyncio.fixture(scope="session")
async def start_telephony() -> AsyncIterator[StartTelephony]:
    """Start a Kamailio that asks the service at an address, with the phones registered."""
    async with AsyncExitStack() as running:

        async def start(
            url: str,
            *,
            username: str = "kamailio",
            password: str = SWITCH_PASSWORD,
            phones: tuple[str, ...] = PHONES,
            **settings: str,
        ) -> Telephony:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="callflow-calls-")))
            far_end = FarEnd()
            await far_end.open("phone", "trunk", "voicemail")
            for place in far_end.sockets.values():
                running.callback(place.close)
            connection = {"url": url.rstrip("/"), "username": username, "password": password}
            caller, log = await start_kamailio(running, folder, far_end, connection, settings)
            for name in phones:
                assert await caller.register(name, f"sip:{name}@{far_end.sockets['phone'].address}") == 200
            return Telephony(caller, far_end, log)

        yield start


@pytest_asyncio.fixture(scope="session")
async def listener() -> AsyncIterator[Listener]:
    listening = Listener()
    async with await asyncio.start_server(listening.take, HERE, 0) as server:
        listening.url = f"http://{HERE}:{server.sockets[0].getsockname()[1]}"
        yield listening


@pytest_asyncio.fixture(scope="session")
async def odd_telephony(start_telephony: StartTelephony, listener: Listener) -> Telephony:
    """A telephony that asks a service of the tests' own making."""
    return await start_telephony(listener.url)


@pytest_asyncio.fixture(scope="session")
async def calls_url(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> SecretStr:
    """A database with the demo data, and the phones of these tests."""
    url = await asyncio.to_thread(create_database, migrated_url)
    await load_world(url, DEMO_FILE, keys=KEYS, demo=True)
    await load_world(url, WORLD, keys=KEYS)
    return url


@pytest_asyncio.fixture(scope="session")
async def calls_service(start_service: StartService, calls_url: SecretStr) -> httpx.AsyncClient:
    """The service; it has nearly as long to answer as Kamailio waits, for this is no test of its speed."""
    return await start_service(calls_url, switch_timeout_ms=900)


@pytest.fixture(scope="session")
def calls_url_of_service(calls_service: httpx.AsyncClient) -> str:
    return str(calls_service.base_url).rstrip("/")


@pytest_asyncio.fixture(scope="session")
async def shared_telephony(start_telephony: StartTelephony, calls_url_of_service: str) -> Telephony:
    return await start_telephony(calls_url_of_service)


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


@pytest.fixture
def set_flow(calls_service: httpx.AsyncClient) -> SetFlow:
    """Change a device's call flow by MOR's signed call, as its clients do."""

    async def change(device: str, state: str, action: str = "forward", **more: str) -> None:
        values = {"u": "admin", "device_id": str(DEVICES[device]), "callflow_action": action, "state": state, **more}
        response = await calls_service.post(UPDATE, data=signed(values))
        assert "<status>Callflow was successfully updated</status>" in response.text

    return change


@pytest_asyncio.fixture
async def api(calls_service: httpx.AsyncClient, calls_url: SecretStr) -> Api:
    """Change anything by the JSON API, as an admin, and return the answer."""
    token = new_token()
    url = driver_url(calls_url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    try:
        await connection.execute(
            "INSERT INTO token (account_id, name, scope, token_hash) VALUES (1, 'calls', 'write', $1)",
            token_hash(token),
        )
    finally:
        await connection.close()

    async def change(method: str, path: str, body: Any = None) -> Any:
        response = await calls_service.request(
            method, f"/v1/{path}", json=body, headers={"Authorization": f"Bearer {token}"}
        )
        assert response.status_code in {200, 201, 204}, response.text
        return response.json() if response.content else None

    return change


@pytest_asyncio.fixture
async def service_process(calls_url: SecretStr) -> AsyncIterator[ServiceProcess]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
    environment |= {"CALLFLOW_DATABASE_URL": calls_url.get_secret_value(), "CALLFLOW_SWITCH_TIMEOUT_MS": "900"}
    environment |= {"CALLFLOW_ENCRYPTION_KEYS": KEY.get_secret_value(), "CALLFLOW_DRAIN_SECONDS": "0"}
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
