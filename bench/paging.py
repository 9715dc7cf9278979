"""Pages of lists in a large world: is each as cheap as the first one, and a search as cheap as in a small world?"""

import asyncio
import base64
import http.client
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import asyncpg
import programs
from measuring import Bench, say
from pydantic import SecretStr

import world

SIZES: Final = (10_000, 1_000_000)
_LIMIT: Final = 100
_ROUNDS: Final = 15

# Two resellers have a tenth of all devices: one here and there, one in a row in the middle. One user has a thousandth.
# A thousand devices have a Cyrillic name, in the large world as in the small one: their pages are equally long.
_LARGE_ACCOUNTS: Final = """
UPDATE account SET owner_id = 2 WHERE role = 'user' AND id % 10 = 3;
UPDATE account SET owner_id = 3 WHERE role = 'user' AND id % 10 <> 3
    AND id BETWEEN 1000000 + {devices} * 44 / 1000 AND 1000000 + {devices} * 55 / 1000;
UPDATE device SET owner_id = 1000007 WHERE id % 1000 = 7;
UPDATE device SET caller_name = 'Приёмная ' || id WHERE id % ({devices} * 997 / 1000000) = 0"""

_HISTORY: Final = """
INSERT INTO callflow_history (account_id, face, request_id, device_id, state, priority, after, position)
SELECT 1, 'api', 'bench', n::bigint * 7919 % {devices} + 1, 'busy', 1, '{{"action": "empty"}}', n
FROM generate_series(1, {devices}) AS n ORDER BY n;
UPDATE change_feed SET head = {devices}"""

_VIEWERS: Final = {
    "admin": (1, "true"),
    "reseller, here and there": (2, "2 IN (account.id, account.owner_id)"),
    "reseller, in a row": (3, "3 IN (account.id, account.owner_id)"),
    "user": (1_000_007, "account.id = 1000007"),
}
"""Who asks: the account's id, and which devices it may see."""

_FILTERS: Final = {
    "all": ({}, "true"),
    "sort=-id": ({"sort": "-id"}, "true"),
    "owner": ({"owner": "user7"}, "account.username = 'user7'"),
    "technology": ({"technology": "SIP"}, "device.technology = 'SIP'"),
    "forwarding": (
        {"forwarding": "true"},
        "EXISTS (SELECT FROM callflow WHERE device_id = device.id AND action <> 'empty')",
    ),
}
_SEARCHES: Final = {
    "common": ({"q": "device"}, "device.caller_name LIKE 'Device%'"),
    "rare": ({"q": "37060007777"}, "device.caller_number = '37060007777'"),
    "absent": ({"q": "nobody has this"}, "false"),
    "Cyrillic": ({"q": "приём"}, "device.caller_name LIKE 'Приём%'"),
}
_DEVICES: Final = "SELECT device.id FROM device JOIN account ON account.id = device.owner_id WHERE {} AND {} ORDER BY 1"
_ENTRIES: Final = """SELECT callflow_history.id FROM callflow_history JOIN device ON device.id = device_id
    JOIN account ON account.id = device.owner_id WHERE {} ORDER BY 1 DESC"""
_POSITIONS: Final = """SELECT position FROM callflow_history JOIN device ON device.id = device_id
    JOIN account ON account.id = device.owner_id WHERE {} ORDER BY 1"""


@dataclass(frozen=True, slots=True)
class _Question:
    """A page of a list: who asks, for what, at which place, and the keys that are the right answer."""

    token: str
    path: str
    place: str
    keys: Sequence[int]


def compare_pages(bench: Bench) -> None:
    """The first, the middle and the last page of each list; and each search in a small world and in a large one."""
    with ExitStack() as running:
        sides = {}
        for devices in SIZES:
            url = bench.make_world(devices)
            say("giving it large accounts and a long history")
            has_trigrams = asyncio.run(_enlarge(url, devices))
            sides[devices] = (running.enter_context(programs.ours(url)), url)
        if not has_trigrams:
            say("this PostgreSQL has no pg_trgm, so searches are not measured")
        small, large = SIZES
        times = {}
        questions = {size: asyncio.run(_questions(url, has_trigrams)) for size, (_, url) in sides.items()}
        for what, places in questions[large].items():
            asked = {(large, question.place): question for question in places}
            if what in _searches():
                asked |= {(small, question.place): question for question in questions[small][what][:1]}
            measured = _alternate({size: program.url for size, (program, _) in sides.items()}, asked)
            times[what] = measured
            told = ", ".join(
                f"{place}{'' if size == large else f' of {size:,}'} {1000 * min(seconds):.1f}"
                for (size, place), seconds in measured.items()
            )
            say(f"{what}: {told} ms")
    _conclude(bench, times)


def _searches() -> set[str]:
    return {f"devices, {viewer}, {name}" for viewer in _VIEWERS for name in _SEARCHES}


def _conclude(bench: Bench, times: Mapping[str, Mapping[tuple[int, str], Sequence[float]]]) -> None:
    small, large = SIZES
    pages, sizes = {}, {}
    for what, measured in times.items():
        here = [min(seconds) for (size, _), seconds in measured.items() if size == large]
        if len(here) > 1:
            pages[what] = max(here) / min(here)
        if (small, "first") in measured:
            sizes[what] = min(measured[large, "first"]) / min(measured[small, "first"])
        bench.rates[what] = {f"{size} {place}": list(seconds) for (size, place), seconds in measured.items()}
    for name, ratios in (("page_vs_page", pages), ("search_million_vs_ten_thousand", sizes)):
        for what, value in sorted(ratios.items(), key=lambda each: -each[1]):
            say(f"{name}: {value:.2f}  {what}")
        if ratios:
            bench.results[name] = max(ratios.values())
    noise = median(median(seconds) / min(seconds) for measured in times.values() for seconds in measured.values())
    say(f"noise: the median time was {noise:.2f} times the least")


def _alternate(
    urls: Mapping[int, str], asked: Mapping[tuple[int, str], _Question]
) -> dict[tuple[int, str], list[float]]:
    """The seconds of each page, one after the other, round after round; the first rounds are not counted."""
    connections = {size: http.client.HTTPConnection(urlsplit(url).netloc) for size, url in urls.items()}
    times: dict[tuple[int, str], list[float]] = {which: [] for which in asked}
    warm_up = 3
    for number in range(_ROUNDS + warm_up):
        for which, question in asked.items():
            started = time.perf_counter()
            connection = connections[which[0]]
            connection.request("GET", question.path, headers={"Authorization": f"Bearer {question.token}"})
            response = connection.getresponse()
            body = response.read()
            seconds = time.perf_counter() - started
            key = "position" if "/changes" in question.path else "id"
            keys = [item[key] for item in json.loads(body)["items"]] if response.status == 200 else body  # noqa: PLR2004 - an HTTP status
            if keys != question.keys:
                raise RuntimeError(f"{question.path} brought {keys!r} instead of {question.keys}")
            if number >= warm_up:
                times[which].append(seconds)
    for connection in connections.values():
        connection.close()
    return times


async def _enlarge(url: SecretStr, devices: int) -> bool:
    """Give the world what long lists need; whether searches have an index here."""
    connection = await asyncpg.connect(world.address(url))
    await connection.execute(_LARGE_ACCOUNTS.format(devices=devices))
    await connection.execute(_HISTORY.format(devices=devices))
    await connection.execute("VACUUM ANALYZE")
    has_trigrams = bool(await connection.fetchval("SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'"))
    await connection.close()
    await world.checkpoint(url)
    return has_trigrams


async def _questions(url: SecretStr, has_trigrams: bool) -> dict[str, list[_Question]]:  # noqa: FBT001 - read once
    connection = await asyncpg.connect(world.address(url))

    async def keys(statement: str) -> list[int]:
        return [row[0] for row in await connection.fetch(statement)]

    found: dict[str, list[_Question]] = {}
    narrowed = _FILTERS | (_SEARCHES if has_trigrams else {})
    for viewer, (account, sees) in _VIEWERS.items():
        token = await world.make_token(url, account=account)
        for name, (query, condition) in narrowed.items():
            ids = await keys(_DEVICES.format(sees, condition))
            if query.get("sort"):
                ids.reverse()
            found[f"devices, {viewer}, {name}"] = list(_three(token, "/v1/devices", query, ids, "cursor"))
        entries = await keys(_ENTRIES.format(sees))
        found[f"history, {viewer}"] = list(_three(token, "/v1/history", {}, entries, "cursor"))
        if viewer != "user":
            # What a user may not see is passed over in parts, so the first page takes longer, up to a bound.
            positions = await keys(_POSITIONS.format(sees))
            found[f"changes, {viewer}"] = list(_three(token, "/v1/changes", {}, positions, "after"))
    await connection.close()
    return found


def _three(token: str, path: str, query: Mapping[str, str], keys: list[int], name: str) -> Iterator[_Question]:
    """The first, the middle and the last page, all of the same length; the first alone where there are not three."""
    places = {"first": 0}
    if len(keys) >= 3 * _LIMIT:
        places |= {"middle": len(keys) // 2, "last": len(keys) - _LIMIT}
    for place, number in places.items():
        more: dict[str, Any] = {"limit": _LIMIT, **query}
        if number:
            after = keys[number - 1]
            encoded = base64.urlsafe_b64encode(str(after).encode()).decode().rstrip("=")
            more[name] = after if name == "after" else encoded
        yield _Question(token, f"{path}?{urlencode(more)}", place, keys[number : number + _LIMIT])
