"""The feed of changes: what it tells, in which order, to whom, and how it is followed."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from api_answers import MakeToken, problem
from callflow_service.api.face import api_face
from callflow_service.app import json_house
from callflow_service.components import Components
from callflow_service.domain.tokens import Scope
from callflow_service.mor.face import MorFace
from callflow_service.repositories.changes import BATCH, number
from callflow_service.settings import Settings
from callflow_service.storage.transactions import Transactions
from callflow_service.usecases import feed
from callflow_service.web.faces import Face
from clusters import LONG, until
from mor_requests import UPDATE, StartService, update
from own_demo import OwnDemo, connect
from running import served
from statements import statements

Headers = dict[str, str]
Change = Callable[[str], Awaitable[None]]

VOICEMAIL = {"otherwise": {"action": "voicemail"}}
HISTORY = """INSERT INTO callflow_history (account_id, face, request_id, device_id, state, priority, after)
VALUES (1, 'json', $1, 4, 'busy', 1, '{"action": "empty"}')"""


async def changes(service: httpx.AsyncClient, headers: Headers, **query: Any) -> Any:
    response = await service.get("/v1/changes", params=query, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def now(service: httpx.AsyncClient, headers: Headers) -> str:
    cursor: str = (await changes(service, headers, after="now"))["cursor"]
    return cursor


def told(page: Any) -> list[str]:
    return [item["request_id"] for item in page["items"]]


@pytest_asyncio.fixture
async def history(demo: OwnDemo) -> Change:
    """Write a change into the history, past the service, as a transaction of its own."""

    async def write(name: str) -> None:
        await demo.database.execute(HISTORY, name)

    return write


async def test_every_change_is_told_in_the_order_in_which_it_was_made(house: httpx.AsyncClient, admin: Headers) -> None:
    start = await now(house, admin)
    await house.post(UPDATE, data=update())
    await house.put("/v1/devices/4/callflow/busy", json=VOICEMAIL, headers=admin)
    await house.patch("/v1/devices/5", json={"ring_seconds": 30}, headers=admin)
    await house.post("/v1/accounts", json={"username": "new", "role": "user", "owner": "admin"}, headers=admin)
    await house.delete("/v1/dids/4", headers=admin)
    page = await changes(house, admin, after=start)
    assert [(item["kind"], item["face"]) for item in page["items"]] == [
        ("callflow", "mor"),
        ("callflow", "json"),
        ("device", "json"),
        ("account", "json"),
        ("did", "json"),
    ]
    first = int(start) + 1
    assert [item.pop("position") for item in page["items"]] == list(range(first, first + 5))
    assert page["cursor"] == str(first + 4)
    entries = (await house.get("/v1/history", headers=admin)).json()["items"]
    assert page["items"] == entries[::-1]


async def test_a_reader_goes_on_from_its_cursor(house: httpx.AsyncClient, admin: Headers, history: Change) -> None:
    cursor = await now(house, admin)
    assert await changes(house, admin, after=cursor) == {"items": [], "cursor": cursor}
    for name in "abc":
        await history(name)
    page = await changes(house, admin, after=cursor, limit=2)
    assert told(page) == ["a", "b"]
    page = await changes(house, admin, after=page["cursor"], limit=2)
    assert told(page) == ["c"]
    assert await changes(house, admin, after=page["cursor"]) == {"items": [], "cursor": page["cursor"]}
    assert told(await changes(house, admin, after=cursor)) == ["a", "b", "c"]
    assert told(await changes(house, admin)) == ["a", "b", "c"]


@pytest.mark.parametrize("cursor", ["", "-1", "x", "٣", "1.5", "9" * 18, "9" * 30])
async def test_a_cursor_that_is_none_of_ours_is_refused(house: httpx.AsyncClient, admin: Headers, cursor: str) -> None:
    for path in ("/v1/changes", "/v1/changes/stream"):
        response = await house.get(path, params={"after": cursor}, headers=admin)
        assert problem(response) == (400, "cursor-invalid")
    if cursor.isascii() and cursor:
        response = await house.get("/v1/changes/stream", headers=admin | {"Last-Event-ID": cursor})
        assert problem(response) == (400, "cursor-invalid")


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "since=1"])
async def test_what_the_feed_does_not_know_is_refused(house: httpx.AsyncClient, admin: Headers, query: str) -> None:
    assert problem(await house.get(f"/v1/changes?{query}", headers=admin)) == (422, "invalid")
    assert problem(await house.get("/v1/changes/stream?limit=1", headers=admin)) == (422, "invalid")


@pytest.mark.parametrize("path", ["/v1/changes", "/v1/changes/stream"])
async def test_without_a_token_there_is_no_feed(house: httpx.AsyncClient, path: str) -> None:
    assert problem(await house.get(path)) == (401, "token-missing")


async def test_a_reader_is_told_what_its_account_may_see(
    house: httpx.AsyncClient, admin: Headers, make_token: MakeToken
) -> None:
    start = await now(house, admin)
    for device in (2, 200, 300, 4):
        await house.put(f"/v1/devices/{device}/callflow/busy", json=VOICEMAIL, headers=admin)
    await house.patch("/v1/accounts/20", json={"name": "Another"}, headers=admin)
    seen = {}
    for account in (1, 10, 12, 20, 21, 23):
        token = {"Authorization": f"Bearer {await make_token(account, Scope.READ)}"}
        if account == 23:
            assert problem(await house.get("/v1/changes", headers=token)) == (401, "token-invalid")
            continue
        page = await changes(house, token, after=start)
        seen[account] = [item["device"] for item in page["items"]]
        assert page["cursor"] == str(int(start) + 5)
    assert seen == {1: [2, 200, 300, 4, None], 10: [200], 12: [2, 4], 20: [2, 4], 21: [200]}


async def test_what_commits_later_is_told_later_though_it_began_earlier(
    house: httpx.AsyncClient, admin: Headers, demo: OwnDemo
) -> None:
    cursor = await now(house, admin)
    others = [await connect(demo.url) for _ in range(3)]
    transactions = [other.transaction() for other in others]
    for transaction, other, name in zip(transactions, others, "abc", strict=True):
        await transaction.start()
        await other.execute(HISTORY, f"{name}1")
    await house.post(UPDATE, data=update())
    await transactions[1].commit()
    await others[0].execute(HISTORY, "a2")
    await transactions[2].rollback()
    await transactions[0].commit()
    page = await changes(house, admin, after=cursor)
    assert told(page)[1:] == ["b1", "a1", "a2"]
    assert page["items"][0]["face"] == "mor"
    for other in others:
        await other.close()


async def test_a_reader_that_looks_meanwhile_misses_nothing(
    house: httpx.AsyncClient, admin: Headers, demo: OwnDemo, history: Change
) -> None:
    cursor = await now(house, admin)
    other = await connect(demo.url)
    async with other.transaction():
        await other.execute(HISTORY, "long")
        await history("short")
        page = await changes(house, admin, after=cursor)
        assert told(page) == ["short"]
        assert told(await changes(house, admin, after=page["cursor"])) == []
    await history("after")
    assert told(await changes(house, admin, after=page["cursor"])) == ["long", "after"]
    assert told(await changes(house, admin, after=cursor)) == ["short", "long", "after"]
    await other.close()


async def test_a_change_that_is_taken_back_is_in_no_feed(
    house: httpx.AsyncClient, admin: Headers, demo: OwnDemo, history: Change
) -> None:
    cursor = await now(house, admin)
    transaction = demo.database.transaction()
    await transaction.start()
    await demo.database.execute(HISTORY, "gone")
    await transaction.rollback()
    await history("kept")
    page = await changes(house, admin, after=cursor)
    assert told(page) == ["kept"]
    assert page["cursor"] == str(int(cursor) + 1)


async def test_many_changes_that_nobody_has_read_yet_are_told_page_by_page(
    house: httpx.AsyncClient, admin: Headers, demo: OwnDemo, make_token: MakeToken
) -> None:
    cursor = first = await now(house, admin)
    many = 2 * BATCH + 500
    await demo.database.executemany(HISTORY, [(str(number),) for number in range(1, many + 1)])
    found = []
    while (page := await changes(house, admin, after=cursor, limit=1000))["items"]:
        found += told(page)
        cursor = page["cursor"]
    assert found == [str(number) for number in range(1, many + 1)]
    assert await now(house, admin) == cursor
    nobody = {"Authorization": f"Bearer {await make_token(21, Scope.READ)}"}
    assert await changes(house, nobody, after=first) == {"items": [], "cursor": cursor}


async def test_who_gives_positions_waits_for_who_does_so_already(demo: OwnDemo, history: Change) -> None:
    transactions = Transactions(demo.url, size=2, timeout_ms=1000 * LONG)

    async def is_waiting() -> bool:
        statement = """SELECT count(*) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND query LIKE '%change_feed FOR%'"""
        return await demo.database.fetchval(statement) > 0

    async def give() -> int:
        async with transactions.begin() as session:
            return await number(session)

    await history("first")
    async with transactions.begin() as session:
        assert await number(session) == 1
        giving = asyncio.create_task(give())
        await until(is_waiting)
        await history("second")
    assert await giving == 1
    assert await give() == 0
    await transactions.close()


class Stream:
    """What a stream sends, piece by piece."""

    def __init__(self, response: httpx.Response) -> None:
        self.headers = response.headers
        self._lines = response.aiter_lines()

    async def piece(self) -> dict[str, str]:
        """The next event or comment by its fields, empty at the end of the stream."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(LONG):
            async for line in self._lines:
                if not line:
                    return fields
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
        return {}

    async def change(self) -> Any:
        """The next change, past the comments."""
        while (piece := await self.piece()) and "data" not in piece:
            pass
        if not piece:
            return None
        shown = json.loads(piece["data"])
        assert piece == {"event": "change", "id": str(shown["position"]), "data": piece["data"]}
        return shown

    async def until_end(self) -> list[dict[str, str]]:
        pieces = []
        while piece := await self.piece():
            pieces.append(piece)
        return pieces


@asynccontextmanager
async def follow(service: httpx.AsyncClient, headers: Headers, **query: str) -> AsyncIterator[Stream]:
    async with service.stream("GET", "/v1/changes/stream", params=query, headers=headers, timeout=LONG) as response:
        assert response.status_code == 200, await response.aread()
        stream = Stream(response)
        assert await stream.piece() == {"": "open"}
        yield stream


@pytest.fixture
def only_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed does not look by itself."""
    monkeypatch.setattr(feed, "_LOOK_SECONDS", 3600)


@pytest_asyncio.fixture(scope="session")
async def restless(start_service: StartService, api_demo: OwnDemo) -> httpx.AsyncClient:
    """Another service on the same demo, whose streams have a comment again and again, and of which two may be open."""

    def faces(settings: Settings, parts: Components) -> Iterable[Face]:
        yield MorFace(parts.call_flows, settings.allow_get, settings.error_envelope).face()
        yield api_face(replace(json_house(settings, parts), comment_seconds=0.05))

    return await start_service(api_demo.url, make_faces=faces, max_streams=2, database_timeout_ms=20_000)


@pytest.mark.usefixtures("only_when_told")
async def test_a_stream_is_told_of_each_change_as_it_comes(
    house: httpx.AsyncClient, restless: httpx.AsyncClient, admin: Headers
) -> None:
    async with follow(house, admin, after="now") as stream:
        assert stream.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
        for service in (house, restless):
            await service.post(UPDATE, data=update())
            assert (await stream.change())["face"] == "mor"
            await service.put("/v1/devices/4/callflow/busy", json=VOICEMAIL, headers=admin)
            shown = await stream.change()
            assert shown == (await changes(house, admin, after=str(shown["position"] - 1)))["items"][0]


@pytest.mark.usefixtures("only_when_told")
async def test_a_stream_that_waits_asks_the_database_nothing(
    house: httpx.AsyncClient, admin: Headers, history: Change
) -> None:
    await history("first")
    async with follow(house, admin, after="0") as stream, follow(house, admin, after="now"):
        assert (await stream.change())["request_id"] == "first"
        await asyncio.sleep(0.3)
        async with statements() as sent:
            await asyncio.sleep(0.5)
        assert sent == []


@pytest.mark.usefixtures("only_when_told")
async def test_a_stream_survives_the_loss_of_its_listening_connection(
    house: httpx.AsyncClient, admin: Headers, demo: OwnDemo
) -> None:
    cut = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE query LIKE 'LISTEN%' AND datname = current_database()"""

    async def is_cut() -> bool:
        return await demo.database.fetchval(cut) > 0

    async with follow(house, admin, after="now") as stream:
        for _ in range(2):
            await until(is_cut)
            await house.post(UPDATE, data=update())
            assert (await stream.change())["face"] == "mor"


async def test_what_nobody_told_is_found_after_a_while(
    house: httpx.AsyncClient, admin: Headers, history: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_LOOK_SECONDS", 0.05)
    async with follow(house, admin, after="now") as stream:
        await history("untold")
        assert (await stream.change())["request_id"] == "untold"


async def test_a_stream_goes_on_after_the_last_event_that_came(
    house: httpx.AsyncClient, admin: Headers, history: Change
) -> None:
    for name in "abc":
        await history(name)
    async with follow(house, admin) as stream:
        first = await stream.change()
    headers = admin | {"Last-Event-ID": str(first["position"])}
    await history("d")
    async with follow(house, headers, after="now") as stream:
        assert [(await stream.change())["request_id"] for _ in "bcd"] == ["b", "c", "d"]


async def test_a_stream_has_a_comment_now_and_then(restless: httpx.AsyncClient, admin: Headers) -> None:
    async with follow(restless, admin, after="now") as stream:
        assert [await stream.piece() for _ in range(3)] == 3 * [{"": "nothing new for a while"}]


async def test_a_stream_is_told_nothing_of_another_account_s_changes(
    house: httpx.AsyncClient, admin: Headers, make_token: MakeToken
) -> None:
    user = {"Authorization": f"Bearer {await make_token(20, Scope.READ)}"}
    async with follow(house, user, after="now") as stream:
        for device in (200, 4):
            await house.put(f"/v1/devices/{device}/callflow/busy", json=VOICEMAIL, headers=admin)
        assert (await stream.change())["device"] == 4


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM token",
        "UPDATE token SET expires_at = now()",
        "UPDATE account SET blocked = true WHERE id = 20",
        "UPDATE account SET api_enabled = false WHERE id = 20",
        "UPDATE account SET allowed_addresses = '{192.0.2.0/24}' WHERE id = 20",
    ],
)
async def test_a_stream_ends_once_its_token_would_be_refused(
    restless: httpx.AsyncClient, make_token: MakeToken, demo: OwnDemo, statement: str
) -> None:
    token = await make_token(20, Scope.READ, expires_at=datetime.now(UTC) + timedelta(days=1))
    async with follow(restless, {"Authorization": f"Bearer {token}"}, after="now") as stream:
        await demo.database.execute(statement)
        await stream.until_end()


async def test_no_more_streams_are_open_than_may_be(restless: httpx.AsyncClient, admin: Headers) -> None:
    async with follow(restless, admin), follow(restless, admin):
        response = await restless.get("/v1/changes/stream", headers=admin)
        assert problem(response) == (503, "unavailable")
        assert response.headers["retry-after"] == "10"
        assert response.json()["detail"] == "2 streams are open here already, and no more may be."

    async def is_let_in() -> bool:
        async with restless.stream("GET", "/v1/changes/stream", headers=admin) as again:
            return again.status_code == 200

    await until(is_let_in)


async def test_a_service_that_is_told_to_end_ends_its_streams(admin: Headers, demo: OwnDemo, tmp_path: Path) -> None:
    with served(demo.url, tmp_path / "log", CALLFLOW_DRAIN_SECONDS="3") as service:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as client:
            async with follow(client, admin, after="now") as stream:
                service.process.send_signal(signal.SIGTERM)
                await stream.until_end()
            refused = await client.get("/v1/changes/stream", headers=admin)
            assert problem(refused) == (503, "unavailable")
            assert refused.headers["retry-after"] == "2"
        assert await asyncio.to_thread(service.process.wait, LONG) == 0


@pytest.mark.parametrize("told_by", [signal.SIGTERM, signal.SIGINT])
async def test_a_service_that_does_not_drain_ends_its_streams_too(
    admin: Headers, demo: OwnDemo, tmp_path: Path, told_by: int
) -> None:
    with served(demo.url, tmp_path / "log") as service:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as client,
            follow(client, admin, after="now") as stream,
        ):
            service.process.send_signal(told_by)
            await stream.until_end()
        assert await asyncio.to_thread(service.process.wait, LONG) == 0


async def test_the_document_names_the_stream_s_media_type(house: httpx.AsyncClient) -> None:
    paths = (await house.get("/openapi.json")).json()["paths"]
    assert list(paths["/v1/changes/stream"]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]
