"""Where the time of one request goes: from a py-spy recording to microseconds by layer."""

import re
from collections import Counter
from pathlib import Path
from typing import Final

LAYERS: Final = (
    ("log line: logging, JSON", r"logging/__init__\.py|requests\.py:format|callflow_service/requests\.py\b.*format"),
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
    ("switch user", r"callflow_service/switch_(users|passwords)"),
    ("switch answer", r"callflow_service/switch/(answers|questions|kamailio|flat|freeswitch)"),
    ("face", r"callflow_service/(mor|switch)/face"),
    ("repositories", r"callflow_service/repositories/"),
    ("service, database session", r"callflow_service/(service|database)"),
    ("request id, path", r"callflow_service/requests"),
    ("FastAPI", r"fastapi/"),
    ("Starlette: routing, middleware", r"starlette/(routing|middleware|applications|_exception)"),
    ("Starlette: request, response", r"starlette/"),
    ("uvicorn, httptools", r"uvicorn/"),
    ("event loop, sockets (uvloop)", r"asyncio/(runners|base_events|events)|uvloop"),
)
"""The layers and the files they are in. A sample counts for the innermost of its frames that is in one."""

_OTHER: Final = "other"
_PATTERNS: Final = tuple((layer, re.compile(pattern)) for layer, pattern in LAYERS)


def shares(recording: Path) -> dict[str, float]:
    """Which part of the samples of a raw recording fell into each layer, largest first."""
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
