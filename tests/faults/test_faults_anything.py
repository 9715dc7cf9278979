"""A hundred thousand damaged requests, on a world whose every secret is a canary: nothing breaks, and none gets out."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import asyncpg
import httpx
import pytest
import pytest_asyncio
from canaries import DATABASE_PASSWORD, ENCRYPTION_KEY, REDIS_PASSWORD, api_key, holds_canary, leaks, write_world
from damaged_questions import DamagingQuestions
from damaged_requests import Damaging
from pydantic import SecretStr
from raw_http import Answer, Counted, Sent, send_all
from supervised import Supervised, supervised

from clusters import Cluster, connection_to, free_port, running_cluster
from mor_requests import ERRORS, GET, answer, get
from switch_questions import NAMES

if TYPE_CHECKING:
    from conftest import Figure

pytestmark = pytest.mark.faults

SEED: Final = int(os.environ.get("CALLFLOW_TEST_SEED", "5"))
CLASSIC: Final = int(os.environ.get("CALLFLOW_TEST_CLASSIC", "100000"))
QUESTIONS: Final = CLASSIC // 10
LARGE: Final = 24
LIMITED: Final = 2000
WORKERS: Final = 2

_CONNECTIONS: Final = 32
_SUCCESS: Final = b"<status>Callflow was successfully updated</status>"
_REQUEST_ID: Final = re.compile(rb"\r\nx-request-id: *([^\r]*)", re.IGNORECASE)
_WORLD: Final = ("account", "device", "did", "switch_user")
_ERROR_TEXTS: Final = {*ERRORS.values(), "User was not found"}

State = tuple[int, str]


@dataclass(slots=True)
class Seen:
    """What was wrong with answers, and the ids of the requests that were answered with success."""

    succeeded: Counter[str] = field(default_factory=Counter)
    server_errors: list[bytes] = field(default_factory=list)
    malformed: list[bytes] = field(default_factory=list)
    telling: list[bytes] = field(default_factory=list)
    _well_formed: set[tuple[str, int, bytes]] = field(default_factory=set)

    def look(self, sent: Sent, answer: Answer) -> None:
        if answer.status >= 500:
            self.server_errors.append(_shown(sent, answer))
        if holds_canary(answer.head) or holds_canary(answer.body):
            self.telling.append(_shown(sent, answer))
        if _SUCCESS in answer.body:
            found = _REQUEST_ID.search(answer.head)
            self.succeeded[found[1].decode() if found else ""] += 1
        face = sent.face or ("mor" if b"\r\ncontent-type: application/xml" in answer.head.lower() else "")
        kept = (face, answer.status, answer.body)
        if face and kept not in self._well_formed and not sent.raw.startswith(b"HEAD "):
            if not _is_well_formed(face, answer):
                self.malformed.append(_shown(sent, answer))
            elif len(self._well_formed) < 10_000:
                self._well_formed.add(kept)


def _shown(sent: Sent, answer: Answer) -> bytes:
    return b"%s: %s ... %d %s" % (sent.kind.encode(), sent.raw[:1000], answer.status, answer.body[:300])


def _is_well_formed(face: str, answer: Answer) -> bool:
    """Whether an answer is what the face promises to write."""
    try:
        match face:
            case "mor":
                return _is_page(answer)
            case "freeswitch":
                return ET.fromstring(answer.body).tag == "document"  # noqa: S314 - our own service wrote it
            case "asterisk" if not answer.body.startswith(b"{"):
                pairs = parse_qsl(answer.body.decode(), keep_blank_values=True, strict_parsing=True)
                return tuple(name for name, _ in pairs) == NAMES
            case _:
                return tuple(json.loads(answer.body))[-len(NAMES) :] == NAMES
    except (ValueError, ET.ParseError):
        return False


def _is_page(answer: Answer) -> bool:
    page = ET.fromstring(answer.body)  # noqa: S314 - our own service wrote it
    if page.tag != "page" or b"\r\ncontent-type: application/xml; charset=utf-8" not in answer.head.lower():
        return False
    error = page.findtext("status/error")
    if answer.status != 200:
        return bool(error)
    if error is not None:
        return error in _ERROR_TEXTS
    return [child.tag for child in page] in (
        ["status", "user", "device", "callflow"],
        ["user", "device", *["callflow"] * 6],
    )


@dataclass(frozen=True, slots=True)
class Stage:
    """A cluster with a database of the service's own, which it enters by a password, and the service's settings."""

    cluster: Cluster
    folder: Path
    settings: dict[str, str]

    @property
    def url(self) -> SecretStr:
        return SecretStr(f"postgresql://callflow:{DATABASE_PASSWORD}@127.0.0.1:{self.cluster.port}/callflow")

    def run(self, *arguments: str) -> None:
        """A command of the service's; what it says goes to a file."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CALLFLOW_")}
        environment = inherited | self.settings | {"CALLFLOW_DATABASE_URL": self.url.get_secret_value()}
        command = [sys.executable, "-m", "callflow_service.cli", *arguments]
        with (self.folder / f"{arguments[0]}.out").open("wb") as out:
            subprocess.run(command, env=environment, stdout=out, stderr=subprocess.STDOUT, check=True, timeout=60)

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection past the service."""
        connection = await asyncpg.connect(f"postgresql://postgres@127.0.0.1:{self.cluster.port}/callflow")
        try:
            yield connection
        finally:
            await connection.close()

    def written(self) -> dict[str, bytes]:
        """What the service, its commands and PostgreSQL have written, by where."""
        files = {file.name: file.read_bytes() for file in self.folder.glob("*.out")}
        return files | {"PostgreSQL's log": (self.cluster.folder / "log").read_bytes()}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The world of canaries, loaded by the program itself."""
    settings = {
        "CALLFLOW_ENCRYPTION_KEYS": ENCRYPTION_KEY,
        "CALLFLOW_LOG_LEVEL": "debug",
        "CALLFLOW_ALLOW_GET": "true",
        "CALLFLOW_GUESS_LIMIT": "100000000/minute",
        "CALLFLOW_ADDRESS_GUESS_LIMIT": "100000000/minute",
        # Patient, so that a busy machine makes no 503 of what is to be decided.
        "CALLFLOW_DATABASE_TIMEOUT_MS": "10000",
        "CALLFLOW_SWITCH_TIMEOUT_MS": "10000",
    }
    # Of every hundred statements one is logged with its parameters, and each one that fails.
    logged = ("log_min_duration_sample=0", "log_statement_sample_rate=0.01", "log_parameter_max_length_on_error=-1")
    with running_cluster(*logged) as cluster:
        asyncio.run(_add_role(cluster))
        stage = Stage(cluster, tmp_path_factory.mktemp("canaries"), settings)
        world = stage.folder / "world.yaml"
        write_world(world)
        stage.run("migrate")
        stage.run("load", str(world))
        yield stage


async def _add_role(cluster: Cluster) -> None:
    rules = cluster.folder / "pg_hba.conf"
    rules.write_text(f"host all callflow 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    async with connection_to(cluster) as connection:
        # What the operator says himself, he must not let PostgreSQL log.
        await connection.execute("SET log_min_duration_sample = -1")
        await connection.execute(f"CREATE ROLE callflow LOGIN PASSWORD '{DATABASE_PASSWORD}'")
        await connection.execute("CREATE DATABASE callflow OWNER callflow")
        await connection.execute("SELECT pg_reload_conf()")


@dataclass(frozen=True, slots=True)
class Onslaught:
    """All that came of what was sent.

    Attributes:
        memory: Of each worker, before and after, in MiB.
        world: The tables that nothing here may change, before and after.
        history: The request id of each change, and what it left, by device and state, oldest first.
        flows: What is stored in the end, by device and state.
        still_serves: The answer to a request that came after all of them.
        written: Everything that was written anywhere, by where.
    """

    classic: Counted
    asked: Counted
    seen: Seen
    hashes: set[bytes]
    seconds: float
    memory: tuple[list[int], list[int]]
    world: tuple[str, str]
    history: list[tuple[str, State, str]]
    flows: dict[State, str]
    still_serves: tuple[int, str, str]
    starts: int
    written: dict[str, bytes]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def onslaught(stage: Stage) -> Onslaught:
    """Everything is sent once; each test looks at something else that came of it."""
    random = Random(SEED)  # noqa: S311 - no secret
    damaging, questions, seen = Damaging(random), DamagingQuestions(random), Seen()
    async with (
        supervised(stage.url, stage.folder / "service.out", workers=WORKERS, **stage.settings) as service,
        stage.database() as database,
    ):
        port = int(service.url.rpartition(":")[2])
        # First what makes a process as large as it gets by itself: caches, connections, prepared statements.
        warming_up = Damaging(Random(0)).requests(1000, large=2)  # noqa: S311 - no secret
        await send_all(port, warming_up, lambda *_: None, connections=_CONNECTIONS)
        await database.execute("TRUNCATE callflow, callflow_history")
        before = _memory(service), await _dump(database, *_WORLD)
        began = time.monotonic()
        classic = await send_all(port, damaging.requests(CLASSIC, large=LARGE), seen.look, connections=_CONNECTIONS)
        asked = await send_all(port, questions.requests(QUESTIONS), seen.look, connections=_CONNECTIONS)
        seconds = time.monotonic() - began
        after = _memory(service), await _dump(database, *_WORLD)
        history = await database.fetch("SELECT request_id, device_id, state, after FROM callflow_history ORDER BY id")
        flows = await database.fetch("SELECT device_id, state, to_jsonb(callflow) AS flow FROM callflow")
        stored = await _dump(database, *_WORLD, "callflow", "callflow_history")
        async with httpx.AsyncClient(base_url=service.url) as client:
            page = answer(await client.post(GET, data=get("300", key=api_key("admin"))))
            told = {path: await client.get(path) for path in ("/metrics", "/openapi.json", "/docs", "/health/ready")}
        starts = service.starts
    pages = {path: b"%r" % response.headers.raw + response.content for path, response in told.items()}
    return Onslaught(
        classic=classic,
        asked=asked,
        seen=seen,
        hashes=damaging.hashes,
        seconds=seconds,
        memory=(before[0], after[0]),
        world=(before[1], after[1]),
        history=[(row["request_id"], (row["device_id"], row["state"]), row["after"]) for row in history],
        flows={(row["device_id"], row["state"]): row["flow"] for row in flows},
        still_serves=page,
        starts=starts,
        written=stage.written() | pages | {"database": stored.encode()},
    )


def _memory(service: Supervised) -> list[int]:
    return [worker.memory_info().rss >> 20 for worker in service.workers()]


async def _dump(database: asyncpg.Connection, *tables: str) -> str:
    statement = "SELECT string_agg(t::text, E'\\n' ORDER BY t::text) FROM {} AS t"
    return "\n".join([await database.fetchval(statement.format(table)) or "" for table in tables])


def test_every_request_is_answered_or_its_connection_closed(onslaught: Onslaught, figure: "Figure") -> None:
    figure("damaged requests, seed", SEED)
    figure("classic requests answered, by status (0: closed without an answer)", onslaught.classic.by_status())
    figure("classic requests, by damage", onslaught.classic.by_kind())
    figure("switch requests answered, by status", onslaught.asked.by_status())
    figure("seconds for all of them", round(onslaught.seconds))
    figure("slowest answer, seconds", round(max(onslaught.classic.slowest, onslaught.asked.slowest), 2))
    for counted, number in ((onslaught.classic, CLASSIC), (onslaught.asked, QUESTIONS)):
        assert counted.hanging == []
        assert counted.unanswered == []
        assert sum(counted.answers.values()) >= number


def test_no_request_breaks_the_service(onslaught: Onslaught) -> None:
    assert onslaught.seen.server_errors == []
    assert onslaught.starts == WORKERS
    assert b'"defect"' not in onslaught.written["service.out"]
    assert b"Traceback" not in onslaught.written["service.out"]
    assert b"ERROR:" not in onslaught.written["PostgreSQL's log"]
    assert "<device>SIP/3001</device>" in onslaught.still_serves[2]


def test_every_answer_is_what_its_face_promises_to_write(onslaught: Onslaught) -> None:
    assert onslaught.seen.malformed == []


def test_nothing_changes_but_by_success(onslaught: Onslaught, figure: "Figure") -> None:
    figure("updates that succeeded", len(onslaught.history))
    # Counted, for a bit turned over in one request's id may make another one's of it.
    assert Counter(request_id for request_id, _, _ in onslaught.history) == onslaught.seen.succeeded
    assert onslaught.flows == {state: after for _, state, after in onslaught.history}
    assert onslaught.world[0] == onslaught.world[1]


def test_no_secret_is_written_anywhere(onslaught: Onslaught, figure: "Figure") -> None:
    figure("bytes written by the service and PostgreSQL, and searched", sum(map(len, onslaught.written.values())))
    assert onslaught.seen.telling == []
    found = {where: leaks(text, onslaught.hashes)[:5] for where, text in onslaught.written.items()}
    assert {where: lines for where, lines in found.items() if lines} == {}


async def test_limits_and_traces_tell_no_secret_either(stage: Stage, figure: "Figure") -> None:
    """With a limit for guesses, a Redis that is away, and traces that are sent."""
    random = Random(SEED)  # noqa: S311 - no secret
    damaging, questions, seen = Damaging(random), DamagingQuestions(random), Seen()
    log = stage.folder / "limited.out"
    async with collecting() as (endpoint, traces):
        settings = stage.settings | {
            "CALLFLOW_GUESS_LIMIT": "20/minute;1000/hour",
            "CALLFLOW_REDIS_URL": f"redis://:{REDIS_PASSWORD}@127.0.0.1:{free_port()}/0",
            "CALLFLOW_TRACING_ENABLED": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        }
        async with supervised(stage.url, log, workers=WORKERS, **settings) as service:
            port = int(service.url.rpartition(":")[2])
            classic = await send_all(port, damaging.requests(LIMITED, large=1), seen.look, connections=_CONNECTIONS)
            asked = await send_all(port, questions.requests(LIMITED // 10), seen.look, connections=_CONNECTIONS)
            async with httpx.AsyncClient(base_url=service.url) as client:
                metrics = await client.get("/metrics")
    figure("answers with a limit for guesses, by status", f"{classic.by_status()}, {asked.by_status()}")
    figure("bytes of traces", len(traces))
    assert (seen.server_errors, seen.malformed, seen.telling) == ([], [], [])
    assert classic.by_status()[429] > 0
    assert len(traces) > 100_000
    for text in (log.read_bytes(), bytes(traces), metrics.content):
        assert leaks(text, damaging.hashes) == []


@asynccontextmanager
async def collecting() -> AsyncIterator[tuple[str, bytearray]]:
    """A collector of traces: where it is, and every byte that it is sent."""
    received = bytearray()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: *([0-9]+)", head, re.IGNORECASE)
                received.extend(head + await reader.readexactly(int(length[1]) if length else 0))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", received


def test_memory_stays_bounded(onslaught: Onslaught, figure: "Figure") -> None:
    before, after = onslaught.memory
    figure("memory of each worker before and after, MiB", f"{before}, {after}")
    assert max(after) < max(before) + 100
