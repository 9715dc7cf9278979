"""What a client may do with a connection: how long it may take, how much it may send, and what it gets for nonsense.

nginx in front has such bounds too. They are here for the clients and switches that come without it.
"""

import asyncio
import logging
import re
import time
from typing import Any, Final, cast

import httptools
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server, ServerState

from callflow_service.unpromised import need
from callflow_service.web.faces import NOBODYS, Face, Faces
from callflow_service.web.middleware import request_id
from callflow_service.web.overload import Refusal

PATIENCE_SECONDS: Final = 10
"""How long a client may take to send a request's head, counted from its connection or its last answer; then to send the
whole body; then to take the answer."""

MAX_HEAD: Final = 64 * 1024
"""Maximum bytes that are read while a request's head is incomplete, or between two parts of its body. What arrived in
one piece with their first byte comes on top."""

_NEW_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 1.0
_MOST_TURNED_AWAY: Final = 1000
"""Maximum number of requests a second that are refused, over all connections."""

_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")

_log = logging.getLogger(__name__)


_USED: Final[tuple[tuple[type, tuple[str, ...]], ...]] = (
    (
        HttpToolsProtocol,
        (
            *("app_state", "client", "cycle", "flow", "headers", "loop", "parser", "pipeline", "scope", "server_state"),
            *("timeout_keep_alive", "timeout_keep_alive_task", "transport", "url"),
            *(
                "_unset_keepalive_if_required",
                "timeout_keep_alive_handler",
                "shutdown",
                "on_body",
                "on_headers_complete",
            ),
            *("on_message_begin", "on_message_complete", "pause_writing", "resume_writing"),
        ),
    ),
    (
        RequestResponseCycle,
        ("disconnected", "keep_alive", "message_event", "more_body", "response_complete", "response_started"),
    ),
    (FlowControl, ("pause_reading", "resume_reading")),
    (ServerState, ("connections", "default_headers")),
    (LifespanOn, ("state",)),
    (Server, ("lifespan", "on_tick", "server_state", "servers", "should_exit", "shutdown", "started", "startup")),
)
"""The names of uvicorn's that are used in this package. Its classes are public, these are not promised."""


def check_uvicorn() -> None:
    """Check that the installed uvicorn has what is used of it.

    Raises:
        LibraryChanged: It has not.
    """
    for owner, names in _USED:
        need(owner, *names)


class ServingState(ServerState):
    """What the connections of a server share.

    Attributes:
        is_ending: Whether each answer is to be the last one of its connection.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_ending = False


class Connection(HttpToolsProtocol):
    """uvicorn's connection with bounds on time and memory, and with the faces' own words for what is no HTTP.

    uvicorn's own stops its clock at a request's first byte, and reads headers without end. `tests/test_serving.py`
    has a test for each method here.
    """

    server_state: ServingState

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for the first request."""
        super().connection_made(cast("asyncio.Transport", _InOnePiece(transport, self.loop)))
        self.url = b""
        self._unused = 0
        self._is_in_first_line = True
        self._is_refused = False
        self._is_turned_away = False
        self._untaken: asyncio.TimerHandle | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._close_in(self.timeout_keep_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop every clock."""
        self._unset_keepalive_if_required()
        for timer in (self._untaken, self._resting):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on. Unlike in uvicorn, a byte stops no clock: the whole head of a request does."""
        if self._is_refused:
            return
        self._unused += len(data)
        if self._is_in_first_line:
            data = self._escaped(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            if self._has_readable_address():
                # Not the client's fault: one of our methods, or of uvicorn's, that the parser calls.
                _log.exception("defect", exc_info=error.__context__ or error)
                self._refuse(500, data)
            else:
                self._refuse(400, data)
        except httptools.HttpParserError:
            self._refuse(400, data)
        else:
            if self._unused > MAX_HEAD:
                self._refuse(400, data)
            elif self.timeout_keep_alive_task is None and self._waits_for_body():
                self._close_in(self.timeout_keep_alive)

    def on_message_begin(self) -> None:
        """Note when a request began: a switch's time limit counts from its first byte."""
        super().on_message_begin()
        self.scope["began"] = time.perf_counter()  # type: ignore[typeddict-unknown-key]  # ASGI lets servers add their own

    def on_headers_complete(self) -> None:
        """Start on a request: from here on its time is the application's."""
        self._unused = 0
        self._unset_keepalive_if_required()
        refusal: Refusal | None = self.app_state.get("refusal")
        is_next = self.cycle is None or self.cycle.response_complete
        if refusal and is_next and refusal.is_due(self.url):
            self._is_turned_away = True
            self._close_in(self.timeout_keep_alive)
            return
        super().on_headers_complete()
        if self.server_state.is_ending:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Hand on a part of the body."""
        self._unused = 0
        if not self._is_turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the body's clock, if it had not come with the head."""
        self._is_in_first_line = True
        if self._is_turned_away:
            self._turn_away()
            return
        if not self.cycle.response_complete:
            self._unset_keepalive_if_required()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Stop waiting for a client that does not take its answer."""
        super().pause_writing()
        self._untaken = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has taken most of it."""
        if self._untaken:
            self._untaken.cancel()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection whose time is over; a client that has begun a body is told why."""
        if self._waits_for_body() and not self._is_refused:
            self._refuse(408)
        else:
            self.transport.abort()

    def end_after_answer(self) -> None:
        """Close once the request in work is answered; where none is, after the next."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close after the answer that is in work.

        A connection that is new, or in the middle of a head, gets a second: its request is on its way.
        """
        is_idle = self.cycle is None or self.cycle.response_complete
        if self.server_state.is_ending and is_idle and (self.cycle is None or self._unused):
            self._close_in(_NEW_SECONDS)
        else:
            super().shutdown()

    def _escaped(self, data: bytes) -> bytes:
        """Escape what is not ASCII in a request's first line: some clients send a query as it was typed.

        The parser takes none of it. Escaped, it is read like every value: as UTF-8, else as Latin-1.
        """
        line, newline, rest = data.partition(b"\n")
        self._is_in_first_line = not newline
        if line.isascii():
            return data
        return _NOT_ASCII.sub(lambda found: b"%%%02X" % ord(found[0]), line) + newline + rest

    def _turn_away(self) -> None:
        """Answer a request that has come whole, for which nothing else was done."""
        self._is_turned_away = False
        refusal: Refusal = self.app_state["refusal"]
        keep_alive = self.parser.should_keep_alive() and not self.server_state.is_ending
        self.transport.write(refusal.written(self.url, self.headers, self.client, keep_alive=keep_alive))
        if not keep_alive:
            self.transport.close()
            return
        self._close_in(self.timeout_keep_alive)
        # A client that asks again at once ignores `Retry-After`. Reading and refusing requests uses CPU that accepted
        # requests need, so all such connections together are read at a bounded rate.
        self.flow.pause_reading()
        rest = len(self.server_state.connections) / _MOST_TURNED_AWAY
        self._resting = self.loop.call_later(rest, self.flow.resume_reading)

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read on as if no other protocol had been asked for, and close after the answer.

        Java's client asks for HTTP/2 with the first request of each connection. The parser
        then takes the body for the other protocol's.
        """
        if self.cycle is None or self.cycle.response_complete:
            # It has been refused.
            self.transport.close()
            return
        self.cycle.keep_alive = False
        framing = [header for header in self.headers if header[0] in {b"content-length", b"transfer-encoding"}]
        if framing:
            self.cycle.more_body = True
            self.parser = httptools.HttpRequestParser(_Body(self))
            head = b"".join(b"%s: %s\r\n" % header for header in framing)
            self.data_received(b"POST / HTTP/1.1\r\n%s\r\n%s" % (head, rest))

    def _has_readable_address(self) -> bool:
        try:
            return httptools.parse_url(self.url).path is not None
        except httptools.HttpParserInvalidURLError:
            return False

    def _waits_for_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body and not self.cycle.response_started

    def _close_in(self, seconds: float) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _refuse(self, status: int, data: bytes = b"") -> None:
        """Answer what is no HTTP, or too much or too little of it, and close."""
        self._is_refused = True
        if self.pipeline:
            # Several requests are pipelined and one is broken: an answer could not be matched to its request.
            self.transport.abort()
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or not cycle.more_body:
                # The client waits for the answer to its previous request.
                cycle.keep_alive = False
                return
            cycle.disconnected = True
            cycle.message_event.set()
        client = self.client[0] if self.client else None
        name = request_id(())
        _log.info("not a request", extra={"fields": {"request_id": name, "status": status, "client": client}})
        # The parser does not tell a target that it cannot read.
        target = self.url or b" ".join(data.split(b" ", 2)[1:2])
        faces: Faces | None = self.app_state.get("faces")
        face: Face = faces.of_target(target) if faces else NOBODYS
        page = face.failure(status, name, {"Connection": "close", "X-Request-ID": name})
        headers = (*self.server_state.default_headers, *page.raw_headers, *face.headers)
        head = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(b"%s%s\r\n%s" % (STATUS_LINE[status], head, page.body))
        # Half-close and linger: closing with unread input sends a reset, and the client might lose the page.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._close_in(_LINGER_SECONDS)


class _InOnePiece:
    """A transport that sends the head of an answer with what follows it.

    uvicorn writes the two one by one; each write costs a system call and a packet, and wakes the client for half an
    answer.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all else is the transport's own
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Hold a piece until the next one, or until the event loop's next round."""
        if self._held:
            self._transport.write(self._held + data)
            self._held = b""
        else:
            self._held = data
            self._loop.call_soon(self._send)

    def write_eof(self) -> None:
        """Send what is held, and no more after it."""
        self._send()
        self._transport.write_eof()

    def close(self) -> None:
        """Close, once what is held is sent."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._held:
            self._transport.write(self._held)
            self._held = b""


class _Body:
    """The callbacks of a parser that reads only the body: the connection has the head already."""

    def __init__(self, connection: Connection) -> None:
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete
