"""The feed: every change in the order of the commits, page by page or as it comes."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Send

from callflow_service.api.callflow import entry_shape
from callflow_service.api.dependencies import ApiRoute, House, Reader, TheHouse, token_account
from callflow_service.api.lists import MAX_LIMIT
from callflow_service.api.problems import Problem
from callflow_service.api.shapes import as_json
from callflow_service.domain.errors import StorageUnavailable
from callflow_service.repositories import changes
from callflow_service.repositories.changes import Page
from callflow_service.repositories.history import Entry

router = APIRouter(prefix="/v1/changes", tags=["Changes"], route_class=ApiRoute)

_NOW: Final = "now"
_AT_ONCE: Final = 100
_AGAIN_SECONDS: Final = 1.0
_DIGITS: Final = 18
# The connection closes with the stream, and its client must know so before it asks for the next one.
_HEADERS: Final = {"X-Accel-Buffering": "no", "Connection": "close"}

Cursor = Annotated[
    str | None,
    Field(description="Where to go on, as `cursor` has it; `now`: with what comes from here on; else the beginning"),
]


class Where(BaseModel):
    """From where on the changes are told."""

    model_config = ConfigDict(extra="forbid")

    after: Cursor = None


class Which(Where):
    """Which part of the feed is asked for."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="How many changes at most")] = 100


class Change(BaseModel):
    """One change of one thing: an entry of the history, with its position in the feed."""

    position: int
    id: int
    at: str
    kind: str = Field(description="`callflow`, or the table of what was changed")
    resource: str | None = Field(description="The key of what was changed, where it is no call flow")
    account: str | None
    face: str
    address: str | None
    request_id: str
    device: int | None
    state: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    undoes: int | None


class Changes(BaseModel):
    """Some changes in their order, and where to go on. There may be more also where there are no items."""

    items: list[Change]
    cursor: str


class EventStream(StreamingResponse):
    """Server-sent events. FastAPI's own response for them takes a generator alone, which cannot refuse."""

    media_type = "text/event-stream"

    async def stream_response(self, send: Send) -> None:
        """Send it all. Where the client goes away, what it came from ends too."""
        async with aclosing(cast("AsyncGenerator[bytes]", self.body_iterator)):
            await super().stream_response(send)


@router.get("", response_model=Changes)
async def list_changes(which: Annotated[Which, Query()], caller: Reader, house: TheHouse) -> Response:
    """Every change of flows and resources that you may see, in the order in which they were committed."""
    after = await _position(house, which.after)
    page = await house.feed.page(caller.account, after=after, limit=which.limit)
    return as_json({"items": [_shown(entry) for entry in page.entries], "cursor": str(page.cursor)})


@router.get("/stream", response_class=EventStream)
async def follow_changes(
    request: Request,
    where: Annotated[Where, Query()],
    caller: Reader,  # noqa: ARG001 - lets in; what it may see is looked up again and again
    house: TheHouse,
    last_event_id: Annotated[str | None, Header(description="Goes on after this one, before `after`")] = None,
) -> Response:
    """The same as server-sent events, each as soon as it is committed, with its cursor for an id.

    It ends when the token works no longer, and when the service ends: connect again with `Last-Event-ID`.
    """
    ending: asyncio.Event = request.state.ending
    if ending.is_set():
        raise Problem("unavailable", "The service is ending.", headers={"Retry-After": "2"})
    if house.feed.streams >= house.max_streams:
        detail = f"{house.max_streams} streams are open here already, and no more may be."
        raise Problem("unavailable", detail, headers={"Retry-After": "10"})
    after = await _position(house, last_event_id or where.after)
    request.scope["log"]["is_stream"] = True
    return EventStream(_Following(request, house, ending, after).events(), headers=_HEADERS)


@dataclass(slots=True)
class _Following:
    """One open stream. It holds no connection to the database while it waits."""

    request: Request
    house: House
    ending: asyncio.Event
    cursor: int

    async def events(self) -> AsyncIterator[bytes]:
        """What is sent, until the service ends or the token works no longer."""
        yield format_sse_event(comment="open")
        every = self.house.comment_seconds
        due = time.monotonic() + every
        with suppress(Problem):
            async with self.house.feed.streamed():
                while not self.ending.is_set():
                    page = await self._page()
                    if page and page.entries:
                        yield b"".join(map(_event, page.entries))
                    if page:
                        self.cursor = page.cursor
                    if page is None or page.is_last:
                        await self._rest(due, is_away=page is None)
                    if time.monotonic() >= due:
                        due = time.monotonic() + every
                        yield format_sse_event(comment="nothing new for a while")

    async def _page(self) -> Page | None:
        """What comes next, as far as the account may see it now; None where the database cannot be asked.

        Raises:
            Problem: The token works no longer.
        """
        try:
            async with self.house.feed.session() as session:
                account = await token_account(self.request, self.house, session)
                return await changes.page(session, account, after=self.cursor, limit=_AT_ONCE)
        except StorageUnavailable:
            return None

    async def _rest(self, until: float, *, is_away: bool) -> None:
        """Wait for the next change or the end of the service, no longer than until a time."""
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(self.ending.wait())]
        seconds = max(0.0, until - time.monotonic())
        if is_away:
            seconds = min(seconds, _AGAIN_SECONDS)
        else:
            waiting.append(asyncio.create_task(self.house.feed.beyond(self.cursor)))
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()


async def _position(house: House, cursor: str | None) -> int:
    """The position that a cursor means.

    Raises:
        Problem: `cursor-invalid`: it is none of ours, or of the database before it was restored.
    """
    if cursor is None:
        return 0
    if cursor == _NOW:
        return await house.feed.head(now=True)
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _DIGITS):
        raise Problem("cursor-invalid")
    position = int(cursor)
    if position > await house.feed.head():
        raise Problem("cursor-invalid")
    return position


def _shown(entry: Entry) -> dict[str, Any]:
    return {"position": entry[0].position, **entry_shape(entry)}


def _event(entry: Entry) -> bytes:
    data = json.dumps(_shown(entry), ensure_ascii=False, default=str)
    return format_sse_event(data_str=data, event="change", id=str(entry[0].position))
