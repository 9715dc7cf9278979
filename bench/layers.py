"""Where the processor time of one request goes, layer by layer: a sampling profiler beside wrk."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import loads
from programs import Program

LAYERS: Final = (
    ("log line: logging, JSON", r"logging/__init__|JsonLines|watching/logs"),
    ("SQLAlchemy: session", r"sqlalchemy/orm/|sqlalchemy/ext/asyncio/session|sqlmodel/"),
    ("SQLAlchemy: pool and connection", r"sqlalchemy/pool/|sqlalchemy/engine/base|sqlalchemy/ext/asyncio/engine"),
    ("SQLAlchemy: asyncpg dialect, greenlet", r"sqlalchemy/dialects/|sqlalchemy/connectors/|sqlalchemy/util/"),
    ("SQLAlchemy: rows and the rest", r"sqlalchemy/"),
    ("asyncpg", r"asyncpg/"),
    ("XML page: xmltodict", r"xmltodict|xml/sax"),
    ("XML page: ours", r"callflow_service/mor/(pages|xml_text)"),
    ("parameters", r"callflow_service/mor/parameters|python_multipart"),
    ("signature, rights, decision", r"callflow_service/domain/(signature|access|changing|errors|callflow)"),
    ("router", r"callflow_service/domain/(routing|diversion|path|callerid|dialing)"),
    ("switch user", r"callflow_service/(usecases/switch_users|credentials/switch_passwords)"),
    ("guesses", r"callflow_service/credentials/(guesses|counting|shared_guesses)|limits/|cachetools/"),
    ("API keys", r"callflow_service/credentials/api_keys|cryptography/"),
    ("metrics", r"callflow_service/watching/metrics|prometheus_client/"),
    ("switch answer", r"callflow_service/switch/(answers|questions|kamailio|flat|freeswitch)"),
    ("face", r"callflow_service/(mor|switch)/face"),
    ("repositories", r"callflow_service/repositories/"),
    ("use cases, database", r"callflow_service/(usecases|storage)/"),
    ("request id, path", r"callflow_service/web/"),
    ("the program itself", r"\((ceiling|usual)\.py|bench/(ceiling|usual)\.py"),
    ("FastAPI", r"fastapi/"),
    ("Starlette: routing, middleware", r"starlette/(routing|middleware|applications|_exception)"),
    ("Starlette: request, response", r"starlette/"),
    ("uvicorn, httptools", r"uvicorn/|callflow_service/serving/"),
    ("event loop, sockets (uvloop)", r"asyncio/(runners|base_events|events)|uvloop"),
)
"""The layers and the files they are in. A sample counts for the innermost of its frames that is in one."""

_OTHER: Final = "other"
_SAMPLES_A_SECOND: Final = 250
_PATTERNS: Final = tuple((layer, re.compile(pattern)) for layer, pattern in LAYERS)


def measure(program: Program, requests: Path, recording: Path, *, seconds: int) -> dict[str, float]:
    """Microseconds of the worker's processor time for one request, by layer, the largest first.

    A sample that was taken while the kernel copied to a socket counts for the layer that wrote to it.

    Raises:
        loads.Missing: py-spy is not installed.
        RuntimeError: It may not look into another process, or a request failed.
    """
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if spy is None:
        raise loads.Missing("py-spy is not installed.")
    command = (spy, "record", "--pid", str(program.process.pid), "--rate", str(_SAMPLES_A_SECOND), "--format", "raw")
    before = program.cpu_seconds
    with subprocess.Popen(
        (*command, "--duration", str(seconds), "--output", str(recording)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as recorder:
        numbers = loads.wrk(program, requests, seconds=seconds)
        spent = (program.cpu_seconds - before) / numbers["requests"] * 1e6
        _, trouble = recorder.communicate()
    if recorder.returncode:
        raise RuntimeError(f"py-spy failed: {trouble.decode().strip()}")
    return {layer: share * spent for layer, share in _shares(recording).items()}


def _shares(recording: Path) -> dict[str, float]:
    samples: Counter[str] = Counter()
    for line in recording.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        samples[_layer(stack.split(";"))] += int(count)
    return {layer: count / samples.total() for layer, count in samples.most_common()}


def _layer(frames: list[str]) -> str:
    for frame in reversed(frames):
        for layer, pattern in _PATTERNS:
            if pattern.search(frame):
                return layer
    return _OTHER
