"""What docs/operations.md tells the operator to do is done here, by its own words, and brings what it promises."""

import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from clusters import LONG, Cluster, fetch_value, free_port, running_cluster, until
from encryption import KEY
from mor_requests import GET, UPDATE, answer, get, got, refused, update, updated
from own_demo import connect, open_own_demo
from switch_questions import ALICE, SWITCH

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/operations.md").read_text()
BLOCKS = dict(re.findall(r"^```sh\n# tested: ([^\n]+)\n(.+?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE))
"""What the document has to paste, by name."""

OLD_RELEASE = "3049a6e"
"""The commit that was released as 0.1.0."""

TABLES = ("account", "callflow", "callflow_history", "device", "did", "switch_user")
WITH_KEY = {"CALLFLOW_ENCRYPTION_KEYS": KEY.get_secret_value()}


@dataclass(frozen=True, slots=True)
class Instance:
    """A service that runs, and how to ask it."""

    process: asyncio.subprocess.Process
    http: httpx.AsyncClient

    async def stop(self) -> None:
        self.process.terminate()
        assert await asyncio.wait_for(self.process.wait(), LONG) == 0


@dataclass(frozen=True, slots=True)
class Release:
    """A release of the program, with its settings.

    Attributes:
        source: Its code where it is not the code under test.
    """

    url: SecretStr
    settings: dict[str, str]
    source: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        given = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
        if self.source:
            given["PYTHONPATH"] = str(self.source / "src")
        given["PATH"] = f"{Path(sys.executable).parent}:{given['PATH']}"
        return given | {"CALLFLOW_DATABASE_URL": self.url.get_secret_value()} | self.settings

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of a command."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "callflow_service.cli", *arguments),
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), LONG)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def do(self, *arguments: str) -> str:
        """Standard output of a command that succeeds."""
        status, out, err = await self.run(*arguments)
        assert status == 0, err
        return out

    @asynccontextmanager
    async def serving(self, *arguments: str) -> AsyncIterator[Instance]:
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "callflow_service.cli", "serve", "--port", str(port), *arguments),
            env=self.environment,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=LONG) as client:

                async def is_ready() -> bool:
                    assert process.returncode is None
                    try:
                        return (await client.get("/health/ready")).is_success
                    except httpx.ConnectError:
                        return False

                await until(is_ready)
                yield Instance(process, client)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def paste(block: str, environment: dict[str, str], *, user: str | None = None) -> None:
    """Do what the document says, letter by letter."""
    script = ("sh", "-eu", "-c", BLOCKS[block])
    done = subprocess.run(
        script, env=environment, user=user, cwd="/", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


async def everything(url: SecretStr) -> dict[str, list[str]]:
    """All rows of all tables."""
    database = await connect(url)
    try:
        return {name: await _rows(database, name) for name in TABLES}
    finally:
        await database.close()


async def _rows(database: asyncpg.Connection, table: str) -> list[str]:
    return [row["text"] for row in await database.fetch(f"SELECT t::text AS text FROM {table} t ORDER BY 1")]  # noqa: S608 - our own names


async def forward(service: httpx.AsyncClient, number: str) -> None:
    """Forward the calls of device 4."""
    response = await service.post(UPDATE, data=update(forward_to_device=None, external_number=number))
    assert answer(response) == updated(data=number)


async def is_forwarded(service: httpx.AsyncClient, number: str) -> None:
    response = await service.post(GET, data=get())
    assert answer(response) == got(before_call=("Forward", number, "external", "1", ""))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL whose files may be copied."""
    with running_cluster() as running:
        yield running


@pytest.fixture
def folder(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder beside the cluster's, which belongs to whoever runs the cluster."""
    made = owned(cluster.folder.parent / tmp_path_factory.mktemp("operations").name, cluster)
    yield made
    shutil.rmtree(made)


def owned(folder: Path, cluster: Cluster) -> Path:
    """A new folder of whoever runs the cluster."""
    folder.mkdir()
    owner = cluster.folder.stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    return folder


def only(folder: Path, pattern: str) -> str:
    """The one thing in a folder whose name fits."""
    (found,) = folder.glob(pattern)
    return str(found)


@pytest.fixture
def environment(cluster: Cluster, folder: Path) -> dict[str, str]:
    """What the document's commands take from the environment."""
    return Release(cluster.url, {}).environment | {
        "PATH": f"{cluster.programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(cluster.port),
        "PGUSER": "postgres",
        "PGDATABASE": "postgres",
        "BACKUP": str(folder),
    }


async def test_a_restored_dump_has_what_was_and_takes_signatures_with_the_kept_key_alone(
    cluster: Cluster, folder: Path, environment: dict[str, str], figure: "Figure"
) -> None:
    release = Release(cluster.url, WITH_KEY)
    # ROTATE
    async with release.serving() as service:
        for number in ("1", "2", "3"):
            await forward(service.http, number)
        before = await everything(cluster.url)
        paste("dump", environment)
        await forward(service.http, "4")

    restored = SecretStr(cluster.url.get_secret_value().rpartition("/")[0] + "/callflow_restored")
    dump = only(folder, "callflow-*.dump")
    paste("restore", environment | {"DUMP": dump, "RESTORED_URL": restored.get_secret_value(), **WITH_KEY})
    assert await everything(restored) == before

    other_key = (await release.do("new-key")).strip()
    with_other_key = Release(restored, {"CALLFLOW_ENCRYPTION_KEYS": other_key})
    status, out, err = await with_other_key.run("serve", "--port", "0")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "CALLFLOW_ENCRYPTION_KEYS" in err

    async with Release(restored, WITH_KEY).serving() as service:
        await is_forwarded(service.http, "3")
        await forward(service.http, "5")
    after = await everything(restored)
    assert len(after.pop("callflow_history")) == len(before.pop("callflow_history")) + 1
    assert {name for name in after if after[name] != before[name]} == {"callflow"}
    figure("a dump restored, rows as they were", sum(len(rows) for rows in before.values()))


async def test_a_moment_between_two_changes_is_had_again_from_base_backup_and_archive(
    cluster: Cluster, folder: Path, environment: dict[str, str], figure: "Figure"
) -> None:
    copy = folder / "restored"
    environment |= {"WAL": str(owned(folder / "wal", cluster)), "PGDATA": str(copy)}
    release = Release(cluster.url, WITH_KEY)
    # ROTATE
    paste("archive", environment, user=cluster.user)
    with cluster.stopped():
        pass
    async with release.serving() as service:
        await forward(service.http, "10")
        paste("base backup", environment, user=cluster.user)
        await forward(service.http, "11")
        until_then = await fetch_value(cluster, "SELECT clock_timestamp()::text")
        before = await everything(cluster.url)
        await forward(service.http, "666")
    await archived(cluster)

    base = only(folder, "base-*")
    paste("point in time", environment | {"BASE": base, "UNTIL": until_then}, user=cluster.user)
    restored = Cluster(copy, free_port(), cluster.programs, cluster.user)
    with restored.running():

        async def is_there() -> bool:
            return await fetch_value(restored, "SELECT NOT pg_is_in_recovery()") is True

        await until(is_there)
        paste("after point in time", environment | {"PGPORT": str(restored.port)}, user=cluster.user)
        assert await everything(restored.url) == before
        async with Release(restored.url, release.settings).serving() as service:
            await is_forwarded(service.http, "11")
            await forward(service.http, "12")
    figure("a moment had again, history rows up to it", len(before["callflow_history"]))


async def archived(cluster: Cluster) -> None:
    """Wait until all that was written by now is in the archive."""
    segment = await fetch_value(cluster, "SELECT pg_walfile_name(pg_switch_wal())")

    async def is_archived() -> bool:
        return await fetch_value(cluster, "SELECT last_archived_wal >= $1 FROM pg_stat_archiver", segment) is True

    await until(is_archived)


async def test_old_history_is_kept_in_a_file_and_deleted(
    cluster: Cluster, folder: Path, environment: dict[str, str]
) -> None:
    insert = """
        INSERT INTO callflow_history (changed_at, account_id, face, request_id, device_id, state, priority, after)
        SELECT now() - $1::text::interval, 1, 'mor', 'r' || n, 4, 'busy', 1, '{}' FROM generate_series(1, $2::int) n"""
    await fetch_value(cluster, "TRUNCATE callflow_history")
    await fetch_value(cluster, insert, "401 days", 25_000)
    await fetch_value(cluster, insert, "399 days", 7)
    paste("keep history", environment)
    paste("prune history", environment)
    assert await fetch_value(cluster, "SELECT count(*) FROM callflow_history") == 7
    assert len((folder / "history.csv").read_text().splitlines()) == 1 + 25_000


@dataclass(slots=True)
class Traffic:
    """Callers who change a call flow through one instance, read it through another and ask a third as a switch does.

    Attributes:
        instances: Those that nginx would send requests to.
        step: What is being done meanwhile.
        slowest: The longest time that an answer took in each step, in seconds.
        wrong: What was not answered as it should have been.
    """

    instances: list[Instance] = field(default_factory=list)
    step: str = "before"
    slowest: dict[str, float] = field(default_factory=dict)
    rounds: Counter[int] = field(default_factory=Counter)
    in_work: Counter[int] = field(default_factory=Counter)
    requests: int = 0
    wrong: list[str] = field(default_factory=list)

    async def caller(self, device: int, called: str) -> None:
        # Among the shorter ones are emergency numbers, which are no targets.
        for number in range(1_000, 1_000_000):
            for asked in (self._update, self._get, self._lookup):
                instance = random.choice(self.instances)  # noqa: S311 - no secret
                self.in_work[id(instance)] += 1
                self.requests += 1
                step, started = self.step, time.perf_counter()
                try:
                    await asked(instance.http, device, called, str(number))
                except (httpx.HTTPError, AssertionError) as error:
                    self.wrong.append(f"{step}: {asked.__name__}: {error!r}")
                finally:
                    self.in_work[id(instance)] -= 1
                    self.slowest[step] = max(time.perf_counter() - started, self.slowest.get(step, 0))
                # Some hundred requests a second: more would only make the steps slow that are looked at.
                await asyncio.sleep(0.02)
            self.rounds[device] += 1

    async def _update(self, service: httpx.AsyncClient, device: int, _: str, number: str) -> None:
        values = update(device_id=str(device), forward_to_device=None, external_number=number)
        response = await service.post(UPDATE, data=values)
        assert response.status_code == 200
        assert f"<data>{number}</data>" in response.text, response.text

    async def _get(self, service: httpx.AsyncClient, device: int, _: str, number: str) -> None:
        response = await service.post(GET, data=get(str(device)))
        assert response.status_code == 200
        assert f"<data>{number}</data>" in response.text, response.text

    async def _lookup(self, service: httpx.AsyncClient, device: int, called: str, number: str) -> None:
        # Not through the helper that wants every name: the release before has fewer.
        response = await service.post("/switch/opensips", json={**ALICE, "called": called}, auth=SWITCH)
        found = response.json()
        assert (found["action"], found["device"], found["dial"]) == ("forward", str(device), f"sip:{number}@127.0.0.1")

    async def goes_on(self) -> None:
        """Wait until every caller has made some more rounds."""
        self.step = "between the steps"
        before = self.rounds.copy()

        async def made() -> bool:
            return all(self.rounds[device] >= before[device] + 10 for device in CALLED)

        await until(made)

    async def take_out(self, instance: Instance) -> None:
        """Send nothing to an instance any more, as nginx does whose file says `down`, and stop it."""
        self.instances.remove(instance)

        async def is_idle() -> bool:
            return self.in_work[id(instance)] == 0

        await until(is_idle)
        await instance.stop()


CALLED = {4: "37052000001", 5: "37052000002", 200: "37052000004"}
"""Devices, and the numbers that reach them."""


@pytest.fixture
def old_source(tmp_path: Path) -> Path:
    """The code of the release before this one."""
    done = subprocess.run(("git", "-C", ROOT, "archive", OLD_RELEASE), capture_output=True, timeout=LONG, check=False)
    if done.returncode:
        pytest.skip(f"This clone does not hold release 0.1.0, the commit {OLD_RELEASE}.")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


async def test_an_upgrade_in_the_documents_order_costs_no_request(
    create_database: Callable[..., SecretStr], old_source: Path, figure: "Figure"
) -> None:
    url = await asyncio.to_thread(create_database)
    # More than the 300 ms that are usual, so that a machine busy with other things makes no lookup late.
    patient = {"CALLFLOW_SWITCH_TIMEOUT_MS": "2000"}
    old = Release(url, patient, old_source)
    new = Release(url, WITH_KEY | patient)
    traffic = Traffic()
    async with AsyncExitStack() as running:
        olds = [await running.enter_async_context(old.serving("--demo")) for _ in range(2)]
        traffic.instances.extend(olds)
        async with asyncio.TaskGroup() as callers:
            calling = [callers.create_task(traffic.caller(*called)) for called in CALLED.items()]
            await traffic.goes_on()
            traffic.step = "migrate"
            await new.do("migrate")
            await traffic.goes_on()
            for instance in olds:
                traffic.step = "start"
                traffic.instances.append(await running.enter_async_context(new.serving()))
                await traffic.goes_on()
                traffic.step = "take out"
                await traffic.take_out(instance)
                await traffic.goes_on()
            traffic.step = "rotate-key"
            await new.do("rotate-key")
            await traffic.goes_on()
            for task in calling:
                task.cancel()
    assert traffic.wrong == []
    database = await connect(url)
    plain = await database.fetchval("SELECT count(*) FROM account WHERE api_key NOT LIKE 'fernet:%'")
    history = await database.fetchval("SELECT count(*) FROM callflow_history")
    await database.close()
    assert plain == 0
    assert history >= sum(traffic.rounds.values())
    figure("an upgrade of two instances, requests and failures", (traffic.requests, len(traffic.wrong)))
    slowest = {step: f"{seconds * 1000:.0f} ms" for step, seconds in traffic.slowest.items()}
    figure("an upgrade of two instances, slowest answer during each step", slowest)


async def test_the_way_back_after_rotate_key_is_a_world_file_loaded_by_the_old_release(
    create_database: Callable[..., SecretStr], migrated_url: SecretStr, old_source: Path
) -> None:
    async with open_own_demo(create_database, migrated_url) as demo:
        old = Release(demo.url, {}, old_source)
        async with old.serving() as service:
            assert answer(await service.http.post(GET, data=get())) == refused("Incorrect hash")
            await old.do("load", str(old_source / "src/callflow_service/world/demo.yaml"))
            assert answer(await service.http.post(GET, data=get())) == got()
        async with Release(demo.url, WITH_KEY).serving() as service:
            assert answer(await service.http.post(GET, data=get())) == got()


async def test_an_old_release_refuses_the_new_ones_settings(
    create_database: Callable[..., SecretStr], old_source: Path
) -> None:
    url = await asyncio.to_thread(create_database)
    status, out, err = await Release(url, WITH_KEY, old_source).run("serve", "--port", "0")
    assert (status, out) == (1, "")
    assert err.startswith("callflow-service: Unknown setting CALLFLOW_ENCRYPTION_KEYS; ")
