"""The shipped Compose files: what they say, and that what they start works in the order in which they start it."""

import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from graphlib import TopologicalSorter
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml

from callflow_service.settings import PREFIX, Settings
from clusters import LONG, free_port, new_cluster, until
from encryption import KEY
from nginx import HERE, run_nginx
from postgresql import execute

TREE = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((TREE / "docker-compose.yml").read_text())
EXAMPLES = yaml.safe_load((TREE / "docker-compose.override.example.yml").read_text())
ENV_FILE = {"POSTGRES_PASSWORD": "letters4and5digits", "CALLFLOW_ENCRYPTION_KEYS": KEY.get_secret_value()}


def merged(one: Any, other: Any) -> Any:
    """Two Compose files as one: maps by key, lists one after the other, else the later one's."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **{key: merged(one[key], value) if key in one else value for key, value in other.items()}}
    return [*one, *other] if isinstance(one, list) and isinstance(other, list) else other


BOTH = merged(COMPOSE, EXAMPLES)


@pytest.mark.parametrize("compose", [COMPOSE, EXAMPLES, BOTH], ids=["compose", "examples", "both"])
def test_it_is_what_the_compose_specification_allows(compose: dict[str, Any]) -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(compose, json.loads(schema.read_text()))


def test_every_setting_can_be_set_but_those_that_the_container_fixes() -> None:
    fixed = {"DATA_DIR", "HOST", "PORT"}
    expected = {PREFIX + name.upper() for name in Settings.model_fields} - {PREFIX + name for name in fixed}
    for compose in (COMPOSE, BOTH):
        assert set(compose["services"]["service"]["environment"]) == expected
        assert set(compose["services"]["migrate"]["environment"]) == expected


def test_every_file_that_is_mounted_is_there() -> None:
    mounts = [volume for service in COMPOSE["services"].values() for volume in service.get("volumes", ())]
    sources = [source for source in (mount.partition(":")[0] for mount in mounts) if source.startswith(".")]
    assert len(sources) == 3
    assert [source for source in sources if not (TREE / source).exists()] == []


def test_the_service_trusts_the_subnet_that_its_network_has() -> None:
    (pool,) = COMPOSE["networks"]["callflow"]["ipam"]["config"]
    assert COMPOSE["services"]["service"]["environment"]["CALLFLOW_TRUSTED_PROXIES"] == pool["subnet"]


def test_nginx_alone_can_be_reached_from_outside() -> None:
    for compose in (COMPOSE, BOTH):
        assert [name for name, service in compose["services"].items() if "ports" in service] == ["nginx"]


def interpolated(text: str) -> str:
    """A value with what .env has for ${NAME:?...} in it."""
    return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: ENV_FILE[found[1]], text)


class Engine:
    """Starts what Compose would, as processes of this machine instead of containers."""

    def __init__(self, folder: Path, running: AsyncExitStack) -> None:
        self._folder = folder
        self._running = running
        self._cluster = new_cluster(folder / "postgres")
        self._port = str(free_port())
        self.started: list[str] = []
        self.address = ""

    async def start(self, name: str) -> None:
        """Start one of the services, and wait until those that depend on it may start."""
        starters = {
            "postgres": self._postgres,
            "migrate": self._migrate,
            "service": self._service,
            "nginx": self._nginx,
        }
        await starters[name](COMPOSE["services"][name])
        self.started.append(name)

    def _here(self, text: str) -> str:
        """What a container is told, with the addresses that this machine has for it."""
        return (
            interpolated(text)
            .replace("@postgres:5432", f"@{HERE}:{self._cluster.port}")
            .replace(":8000", f":{self._port}")
        )

    def _environment(self, service: dict[str, Any]) -> dict[str, str]:
        fixed = {"CALLFLOW_HOST": HERE, "CALLFLOW_PORT": self._port, "CALLFLOW_TRUSTED_PROXIES": HERE}
        given = {name: self._here(value) for name, value in service["environment"].items() if value is not None}
        return {**os.environ, **given, **fixed}

    async def _run(self, *command: str, environment: dict[str, str] | None = None) -> int:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.DEVNULL)
        return await asyncio.wait_for(process.wait(), LONG)

    async def _healthy(self, *command: str) -> None:
        async def is_healthy() -> bool:
            return await self._run(*command) == 0

        await until(is_healthy)

    async def _postgres(self, service: dict[str, Any]) -> None:
        self._running.enter_context(self._cluster.running())
        settings = {name: interpolated(value) for name, value in service["environment"].items()}
        user, password = settings["POSTGRES_USER"], settings["POSTGRES_PASSWORD"]
        await execute(self._cluster.url, f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        await execute(self._cluster.url, f"CREATE DATABASE {settings['POSTGRES_DB']} OWNER {user}")
        _, program, *options = service["healthcheck"]["test"]
        await self._healthy(str(self._cluster.programs / program), *options, f"--port={self._cluster.port}")

    async def _migrate(self, service: dict[str, Any]) -> None:
        command = (sys.executable, "-m", "callflow_service.cli", *service["command"])
        assert await self._run(*command, environment=self._environment(service)) == 0

    async def _service(self, service: dict[str, Any]) -> None:
        # The image's own command.
        command = (sys.executable, "-m", "callflow_service.cli", "serve")
        process = await asyncio.create_subprocess_exec(*command, env=self._environment(service))

        async def stop() -> None:
            process.terminate()
            assert await asyncio.wait_for(process.wait(), LONG) == 0

        self._running.push_async_callback(stop)
        _, _, *options = service["healthcheck"]["test"]
        await self._healthy(sys.executable, *(self._here(option) for option in options))

    async def _nginx(self, _: dict[str, Any]) -> None:
        folder = self._folder / "nginx"
        folder.mkdir()
        nginx = await self._running.enter_async_context(run_nginx(folder, f"{HERE}:{self._port}"))
        self.address = f"http://{HERE}:{nginx.port}"


@asynccontextmanager
async def engine() -> AsyncIterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="callflow-test-") as folder:
        async with AsyncExitStack() as running:
            yield Engine(Path(folder), running)


@pytest.mark.proxy
async def test_what_compose_starts_works_in_the_order_in_which_it_is_started() -> None:
    needed = {name: list(service.get("depends_on", ())) for name, service in COMPOSE["services"].items()}
    async with engine() as starting:
        for name in TopologicalSorter(needed).static_order():
            await starting.start(name)
        assert starting.started == ["postgres", "migrate", "service", "nginx"]
        async with httpx.AsyncClient(base_url=starting.address) as client:
            ready = await client.get("/health/ready")
            refused = await client.post("/billing/api/device_callflow_get", data={"u": "nobody", "device_id": "1"})
        assert (ready.status_code, ready.json()) == (200, {"status": "ok"})
        assert "User was not found" in refused.text
