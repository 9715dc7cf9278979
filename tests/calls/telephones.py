"""SIP telephones of the tests' own, over UDP: one that calls, and those that ring. As much of SIP as calls need."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Final, Self
from uuid import uuid4

HERE: Final = "127.0.0.1"
DOMAIN: Final = "sip.example.org"
ALICE: Final = '"Alice" <sip:37061111111@sip.example.org>'
SESSION: Final = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 8\r\n"
PATIENCE: Final = 8.0
"""How long to wait for what ought to happen at once, in seconds."""

Address = tuple[str, int]


async def until(happened: Callable[[], bool], sentence: str, *, within: float = PATIENCE) -> None:
    """Wait for something; where it does not happen in time, fail with the sentence that says what was waited for."""
    try:
        async with asyncio.timeout(within):
            while not happened():  # noqa: ASYNC110 - what is waited for comes from several sockets
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{sentence}, within {within:g} seconds.") from None


@dataclass(frozen=True)
class Message:
    """A SIP request or response."""

    start: str
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, data: bytes) -> Self:
        head = data.decode("utf-8", "surrogateescape").partition("\r\n\r\n")[0]
        start, *lines = head.split("\r\n")
        fields = (line.partition(":") for line in lines)
        return cls(start, tuple((name.strip().lower(), value.strip()) for name, _, value in fields))

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(value for known, value in self.headers if known == name.lower())

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    @property
    def is_response(self) -> bool:
        return self.start.startswith("SIP/2.0 ")

    @property
    def status(self) -> int:
        return int(self.start.split(" ", 2)[1])

    @property
    def method(self) -> str:
        return self.one("CSeq").split()[1] if self.is_response else self.start.split(" ", 1)[0]

    @property
    def uri(self) -> str:
        return self.start.split(" ")[1]

    @property
    def transaction(self) -> str:
        return self.all("Via")[0].partition("branch=")[2].partition(";")[0]


def written(start: str, headers: list[tuple[str, str]], body: str = "") -> bytes:
    typed = [("Content-Type", "application/sdp")] if body else []
    lines = [start, *(f"{name}: {value}" for name, value in (*headers, *typed, ("Content-Length", str(len(body)))))]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("utf-8", "surrogateescape")


class Socket(asyncio.DatagramProtocol):
    """A UDP socket on a free port, and what to do with each message that comes."""

    def __init__(self, received: Callable[[Message, Address], None]) -> None:
        self._received = received
        self._transport: asyncio.DatagramTransport

    @classmethod
    async def open(cls, received: Callable[[Message, Address], None]) -> Self:
        _, socket = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: cls(received), local_addr=(HERE, 0)
        )
        return socket

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if data.strip():
            self._received(Message.read(data), addr)

    def send(self, data: bytes, to: Address) -> None:
        self._transport.sendto(data, to)

    def close(self) -> None:
        self._transport.close()

    @property
    def address(self) -> str:
        host, port = self._transport.get_extra_info("sockname")
        return f"{host}:{port}"


class Reaction(Enum):
    """What is done with a call that comes: the responses one after the other, a pause in seconds among them."""

    ANSWERS = (180, 200)
    ANSWERS_SOON = (180, 0.3, 200)
    ANSWERS_LATE = (180, 1.5, 200)
    RINGS = (180,)
    BUSY = (486,)
    BUSY_EVERYWHERE = (600,)
    DECLINES = (180, 0.1, 603)
    FORBIDS = (403,)
    UNWANTED = (180, 0.1, 607)
    EXISTS_NOWHERE = (604,)
    ACCEPTABLE_NOWHERE = (180, 0.1, 606)
    SILENT = ()
    EARLY_MEDIA = (183,)
    EARLY_MEDIA_THEN_BUSY = (183, 0.1, 486)
    EARLY_MEDIA_THEN_NOBODY = (183, 0.1, 480)
    RINGS_THEN_BUSY = (180, 0.3, 486)
    RINGS_THEN_FAILS = (180, 0.1, 500)
    TERMINATES = (180, 0.1, 487)
    TERMINATES_AT_ONCE = (487,)
    GONE = (410,)
    INCOMPLETE = (484,)
    ACCEPTS_NO_SUCH_CALL = (488,)
    CHALLENGES = (401,)
    CHALLENGES_AS_PROXY = (407,)
    UNAVAILABLE = (480,)
    UNKNOWN = (404,)
    OUT_OF_SERVICE = (503,)
    FAILS_LATE = (100, 0.5, 503)
    GIVES_UP = (180, 0.1, 408)
    TIMES_OUT = (408,)
    MOVED = (302,)


@dataclass(frozen=True)
class Leg:
    """A call as it arrives somewhere: whom it is for, and all that it shows of the caller and of its way."""

    place: str
    called: str
    caller: str
    diversion: tuple[str, ...] = ()
    history_info: tuple[str, ...] = ()
    privacy: tuple[str, ...] = ()
    identity: tuple[str, ...] = ()


def _leg(place: str, invite: Message) -> Leg:
    identity = ("P-Asserted-Identity", "P-Preferred-Identity", "Remote-Party-ID", "Identity")
    return Leg(
        place=place,
        called=invite.uri.removeprefix("sip:").partition("@")[0],
        caller=invite.one("From").partition(";tag=")[0],
        diversion=invite.all("Diversion"),
        history_info=invite.all("History-Info"),
        privacy=invite.all("Privacy"),
        identity=tuple(value for name in identity for value in invite.all(name)),
    )


def _ends(response: Message, transaction: str) -> bool:
    return response.transaction == transaction and response.status >= 200


@dataclass
class FarEnd:
    """Everything that can be rung: a place for the phones, one for the trunk, one for voicemail.

    `reactions` goes by the place, then by the user part that is called; who is not in it answers. `cancelled_with` is
    what a phone says of a call that was given up.
    """

    reactions: dict[str, Reaction] = field(default_factory=dict)
    cancelled_with: int = 487
    legs: list[Leg] = field(default_factory=list)
    requests: list[Message] = field(default_factory=list)
    responses: list[Message] = field(default_factory=list)
    """What the far end's own requests were answered."""
    sockets: dict[str, Socket] = field(default_factory=dict)
    _proxy: Address = (HERE, 0)

    async def open(self, *places: str) -> None:
        for place in places:
            self.sockets[place] = await Socket.open(self._receiver(place))

    def forget(self) -> None:
        self.reactions.clear()
        self.cancelled_with = 487
        self.legs.clear()
        self.requests.clear()
        self.responses.clear()

    def received(self, method: str) -> list[Message]:
        return [request for request in self.requests if request.method == method]

    async def rings(self, called: str) -> None:
        await until(lambda: any(leg.called == called for leg in self.legs), f"{called} was to ring and did not")

    async def asks(self, place: str, method: str) -> Message:
        """Send a request in the call that was taken last, and return what it is answered."""
        invite = [request for request in self.received("INVITE") if ";tag=" not in request.one("To")][-1]
        transaction = f"z9hG4bK{uuid4().hex}"
        headers = [
            ("Via", f"SIP/2.0/UDP {self.sockets[place].address};rport;branch={transaction}"),
            *(("Route", route) for route in invite.all("Record-Route")),
            ("From", f"{invite.one('To')};tag={place}"),
            ("To", invite.one("From")),
            ("Call-ID", invite.one("Call-ID")),
            ("CSeq", f"7 {method}"),
            ("Max-Forwards", "70"),
            ("Contact", f"<sip:{place}@{self.sockets[place].address}>"),
        ]
        uri = invite.one("Contact").strip("<>")
        self.sockets[place].send(written(f"{method} {uri} SIP/2.0", headers), self._proxy)
        await until(
            lambda: any(_ends(response, transaction) for response in self.responses), f"{method} was to be answered"
        )
        return next(response for response in self.responses if _ends(response, transaction))

    def _receiver(self, place: str) -> Callable[[Message, Address], None]:
        invites: dict[str, Message] = {}

        def received(message: Message, sender: Address) -> None:
            if message.is_response:
                self.responses.append(message)
                return
            self._proxy = sender
            if message.method == "INVITE" and message.transaction in invites:
                return
            self.requests.append(message)
            match message.method:
                case "INVITE":
                    invites[message.transaction] = message
                    if ";tag=" in message.one("To"):
                        self._respond(place, message, 200, sender)
                        return
                    leg = _leg(place, message)
                    self.legs.append(leg)
                    self._react(place, message, sender, self._reaction(leg).value)
                case "CANCEL":
                    self._respond(place, message, 200, sender)
                    self._respond(place, invites[message.transaction], self.cancelled_with, sender)
                case "BYE":
                    self._respond(place, message, 200, sender)

        return received

    def _reaction(self, leg: Leg) -> Reaction:
        return self.reactions.get(leg.place) or self.reactions.get(leg.called, Reaction.ANSWERS)

    def _react(self, place: str, invite: Message, to: Address, steps: tuple[float, ...]) -> None:
        for number, step in enumerate(steps):
            if isinstance(step, float):
                later = steps[number + 1 :]
                asyncio.get_running_loop().call_later(step, self._react, place, invite, to, later)
                return
            self._respond(place, invite, step, to)

    def _respond(self, place: str, request: Message, status: int, to: Address) -> None:
        copied = [
            (name, value) for name, value in request.headers if name in {"via", "record-route", "call-id", "cseq"}
        ]
        tag = "" if ";tag=" in request.one("To") else f";tag={place}"
        headers = [
            *copied,
            ("From", request.one("From")),
            ("To", request.one("To") + tag),
            ("Contact", f"<sip:{place}@{self.sockets[place].address}>"),
        ]
        body = SESSION if (status, request.method) == (200, "INVITE") else ""
        self.sockets[place].send(written(f"SIP/2.0 {status} -", headers, body), to)


@dataclass
class Call:
    """A call that the caller placed."""

    caller: "Caller"
    uri: str
    headers: list[tuple[str, str]]
    transaction: str
    responses: list[Message] = field(default_factory=list)

    async def ends(self, *, within: float = PATIENCE) -> int:
        """The final status; where it is a refusal, it was acknowledged."""
        await until(lambda: self._final is not None, "The call was to be answered or refused", within=within)
        assert self._final is not None
        return self._final.status

    @property
    def final(self) -> Message:
        assert self._final is not None
        return self._final

    @property
    def _final(self) -> Message | None:
        return next((response for response in self.responses if response.status >= 200), None)

    async def cancel(self) -> None:
        """Hang up before anybody answered, and wait for the end."""
        self.caller.send("CANCEL", self.uri, self.headers, self.transaction)
        await self.ends()

    async def hang_up(self) -> None:
        """End the call that is up, and wait until the other side agreed."""
        headers, uri = self._within()
        transaction = self.caller.send("BYE", uri, [*headers, ("CSeq", "3 BYE")])
        await until(lambda: transaction in self.caller.done, "The far end was to agree to the end of the call")

    async def ask_again(self) -> Message:
        """Change the call that is up, as a telephone does that holds it, and return the answer."""
        headers, uri = self._within()
        transaction = self.caller.send("INVITE", uri, [*headers, ("CSeq", "2 INVITE")], body=SESSION)
        await until(lambda: transaction in self.caller.done, "The far end was to agree to the change")
        self.caller.send("ACK", uri, [*headers, ("CSeq", "2 ACK")])
        return self.caller.done[transaction]

    def acknowledge(self) -> None:
        if self.final.status >= 300:
            headers = [(name, value) for name, value in self.headers if name not in {"To", "CSeq"}]
            to = [("To", self.final.one("To")), ("CSeq", "1 ACK")]
            self.caller.send("ACK", self.uri, [*headers, *to], self.transaction)
        else:
            headers, uri = self._within()
            self.caller.send("ACK", uri, [*headers, ("CSeq", "1 ACK")])

    def _within(self) -> tuple[list[tuple[str, str]], str]:
        kept = [(name, value) for name, value in self.headers if name in {"From", "Call-ID", "Contact", "Max-Forwards"}]
        routes = [("Route", route) for route in reversed(self.final.all("Record-Route"))]
        return [*routes, *kept, ("To", self.final.one("To"))], self.final.one("Contact").strip("<>")


class Caller:
    """A telephone that places calls through a proxy, and registers whoever is to be rung."""

    def __init__(self, proxy: Address) -> None:
        self._proxy = proxy
        self._numbers = count(1)
        self._calls: dict[str, Call] = {}
        self._socket: Socket
        self.done: dict[str, Message] = {}
        """The final responses to everything but calls."""
        self.requests: list[Message] = []
        """What came from the far end in calls that are up; each is answered with 200."""

    async def open(self) -> Self:
        self._socket = await Socket.open(self._received)
        return self

    def close(self) -> None:
        self._socket.close()

    async def place(
        self, called: str, *headers: tuple[str, str], caller: str = ALICE, max_forwards: int = 70, uri: str = ""
    ) -> Call:
        uri = uri or f"sip:{called}@{DOMAIN}"
        sent = [
            ("From", f"{caller};tag=caller"),
            ("To", f"<{uri}>"),
            ("Call-ID", uuid4().hex),
            ("CSeq", "1 INVITE"),
            ("Contact", f"<sip:caller@{self._socket.address}>"),
            ("Max-Forwards", str(max_forwards)),
            *headers,
        ]
        call = Call(self, uri, sent, f"z9hG4bK{uuid4().hex}")
        self._calls[call.transaction] = call
        self.send("INVITE", uri, sent, call.transaction, body=SESSION)
        return call

    def repeat(self, call: Call) -> None:
        """Send a call once more, as a telephone does that has heard nothing yet."""
        self.send("INVITE", call.uri, call.headers, call.transaction, body=SESSION)

    async def is_answered(self, *, within: float) -> bool:
        """Whether the proxy says that it is there."""
        transaction = self._ask("OPTIONS", [("To", f"<sip:{DOMAIN}>")])
        try:
            await until(lambda: transaction in self.done, "", within=within)
        except AssertionError:
            return False
        return True

    async def register(self, name: str, contact: str, *, expires: int = 3600) -> int:
        """The status that the registration is answered with."""
        transaction = self._ask(
            "REGISTER", [("To", f"<sip:{name}@{DOMAIN}>"), ("Contact", f"<{contact}>"), ("Expires", str(expires))]
        )
        await until(lambda: transaction in self.done, f"The registration of {name} was to be answered")
        return self.done[transaction].status

    def send(
        self, method: str, uri: str, headers: list[tuple[str, str]], transaction: str = "", *, body: str = ""
    ) -> str:
        transaction = transaction or f"z9hG4bK{uuid4().hex}"
        via = ("Via", f"SIP/2.0/UDP {self._socket.address};rport;branch={transaction}")
        if method == "CANCEL":
            headers = [(name, "1 CANCEL" if name == "CSeq" else value) for name, value in headers]
        self._socket.send(written(f"{method} {uri} SIP/2.0", [via, *headers], body), self._proxy)
        return transaction

    def _ask(self, method: str, headers: list[tuple[str, str]]) -> str:
        own = [
            ("From", f"<sip:tests@{DOMAIN}>;tag=tests"),
            ("Call-ID", uuid4().hex),
            ("CSeq", f"{next(self._numbers)} {method}"),
            ("Max-Forwards", "70"),
        ]
        return self.send(method, f"sip:{DOMAIN}", [*own, *headers])

    def _received(self, message: Message, sender: Address) -> None:
        if not message.is_response:
            self.requests.append(message)
            copied = {"via", "from", "to", "call-id", "cseq", "record-route"}
            headers = [(name, value) for name, value in message.headers if name in copied]
            self._socket.send(written("SIP/2.0 200 OK", headers), sender)
            return
        call = self._calls.get(message.transaction)
        if message.method == "INVITE" and call:
            call.responses.append(message)
            if message.status >= 200:
                call.acknowledge()
        elif message.status >= 200:
            self.done[message.transaction] = message
