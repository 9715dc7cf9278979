"""Check that the programs that are compared do the same: the same pages, and the same rows in the history."""

import asyncio
import json
import re
import urllib.request
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Final

import asyncpg
import traffic
from programs import Program
from pydantic import SecretStr

from world import address

_REQUESTS: Final = 100

# Of a call, in its marker.
_TIME: Final = re.compile(rb"(?<=_t)[0-9a-z]{6}")
_HISTORY: Final = """
SELECT account_id, face, device_id, state, priority, after
FROM (SELECT * FROM callflow_history ORDER BY id DESC LIMIT $1) AS last ORDER BY id"""


class Different(Exception):
    """A program answers or stores something else than the first one."""


def check(url: SecretStr, requests: Path, compared: Mapping[str, Program]) -> None:
    """Send the first requests of a file to each program, one after the other.

    Raises:
        Different: An answer, or what stands in the history afterwards, differs from the first program's.
    """
    sent = list(islice(traffic.read(requests), _REQUESTS))
    expected: list[object] | None = None
    for name, program in compared.items():
        answers: list[object] = [_answer(program.url + path, headers, body) for path, headers, body in sent]
        answers += asyncio.run(_history(url))
        expected = expected or answers
        for wanted, found in zip(expected, answers, strict=True):
            if wanted != found:
                raise Different(f"{name}: {found!r} is not {wanted!r}")


def _answer(url: str, headers: dict[str, str], body: bytes) -> tuple[int, str, object]:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as response:
        media_type, page = response.headers["Content-Type"], response.read()
        # The order of names means nothing in JSON, and each program answers at a time of its own.
        shown = json.loads(_TIME.sub(b"", page)) if media_type == "application/json" else page
        return response.status, media_type, shown


async def _history(url: SecretStr) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(address(url))
    rows = [tuple(row) for row in await connection.fetch(_HISTORY, _REQUESTS)]
    await connection.close()
    return rows
