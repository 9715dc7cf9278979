"""The service as processes of their own, started again whenever they end, as a supervisor does."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import psutil
from pydantic import SecretStr

from clusters import free_port, until
from encryption import KEY

_RESTART_SECONDS: Final = 0.1
_PATIENCE_SECONDS: Final = 60
"""How long a busy machine may take to start a service, or to end it."""


class Supervised:
    """A service on a port of its own.

    Attributes:
        url: Where it answers.
        log: What it has written, its earlier lives included.
        number_of_workers: How many of its processes answer.
    """

    def __init__(self, log: Path, settings: dict[str, str], *, workers: int) -> None:
        self.log = log
        self.number_of_workers = workers
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
        usual = {
            "CALLFLOW_ENCRYPTION_KEYS": KEY.get_secret_value(),
            "CALLFLOW_DRAIN_SECONDS": "0",
            # The tests name their requests' ids, and find them in the history.
            "CALLFLOW_TRUSTED_PROXIES": "127.0.0.1",
        }
        self._environment = inherited | usual | settings
        self._process: asyncio.subprocess.Process | None = None

    async def supervise(self) -> None:
        """Start it, and start it again whenever it ends."""
        with self.log.open("ab") as log:
            while True:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "callflow_service.cli", "serve"),
                    *("--port", str(self._port), "--workers", str(self.number_of_workers)),
                    env=self._environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
                await self._process.wait()
                await asyncio.sleep(_RESTART_SECONDS)

    @property
    def process_id(self) -> int:
        """The first process's id, which stays the same until it is started again."""
        assert self._process is not None
        return self._process.pid

    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        if self.number_of_workers == 1:
            return [psutil.Process(self.process_id)]
        # Of one that has just died and was not buried yet, the command is not to be had.
        commands = [(child, child.as_dict(["cmdline"], ad_value=())["cmdline"]) for child in self._children()]
        return [child for child, command in commands if "spawn_main" in " ".join(command)]

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        children = self._children()
        psutil.Process(self.process_id).kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()

    async def end(self) -> None:
        """Stop it as an operator does."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.terminate()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._process.wait()

    @property
    def starts(self) -> int:
        """How often a worker has started."""
        return self.log.read_bytes().count(b"Application startup complete") if self.log.exists() else 0

    async def until_started(self, starts: int) -> None:
        """Wait until workers have started that often."""

        async def have_started() -> bool:
            return self.starts >= starts

        await until(have_started, seconds=_PATIENCE_SECONDS)

    def defects(self) -> list[str]:
        """What it has logged of defects of its own."""
        return [line for line in self.log.read_text().splitlines() if '"defect"' in line or "Traceback" in line]

    def outcomes(self) -> list[str]:
        """What its log tells of each request it has answered: the outcome, and the detail where there is one."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if '"outcome"' in line]
        return [" ".join([line["outcome"], *([line["detail"]] if "detail" in line else [])]) for line in lines]

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.process_id).children()


@asynccontextmanager
async def supervised(url: SecretStr, log: Path, *, workers: int = 1, **settings: str) -> AsyncIterator[Supervised]:
    """The service on a database, with settings by their names in the environment; it answers already."""
    service = Supervised(log, {"CALLFLOW_DATABASE_URL": url.get_secret_value()} | settings, workers=workers)
    supervising = asyncio.create_task(service.supervise())
    try:
        await service.until_started(workers)
        yield service
    finally:
        supervising.cancel()
        with suppress(asyncio.CancelledError):
            await supervising
        await service.end()
