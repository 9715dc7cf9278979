"""Questions of the four switches, good ones and damaged ones; the same seed makes the same."""

import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any, Final
from urllib.parse import quote_plus

from canaries import SENT_PASSWORD, SWITCH_PASSWORD
from damaged_requests import NASTY, Request, as_bytes, written
from raw_http import Ending, Sent

from switch_questions import FACES, FREESWITCH_REQUEST

_NASTY: Final = (
    *NASTY,
    *("37052000001", "+37052000001", "1002", "101", "alice", "anonymous", "${strftime()}", "a,b", "[x=1]"),
    *("user/1@h|user/2@h", "<sip:1@h>;reason=user-busy;counter=99", "<sip:1@h>;counter=" + "9" * 5000),
    *("<sip:" * 2000, ",;<>" * 500, '"\\"" <sip:x>', "<sip:1@h?Reason=SIP%3Bcause%3D302>;index=1"),
    *("1;index=1.1;cause=486" * 300, "v1.c1.4-busy", "v1..", "-", "." * 5000),
)
_SHARED: Final = (
    "called",
    "device",
    "path",
    "state",
    "caller_number",
    "caller_name",
    "privacy",
    "call_id",
    "diversion",
)
_NAMES: Final = (*_SHARED, "history_info", "explain", "format")
_BODIES: Final = (
    *(b"[" * 100_000, b'{"device":' * 5_000, b'{"device": NaN}', b'{"device": ' + b"9" * 60_000 + b"}", b"[]"),
    *(b"null", b'"x"', b"{", b'{"device": "4", "device": "5"}'),
    *(b'{"called": ["x"], "path": {"a": 1}, "state": null}', b'{"called": "\\ud800"}', b"\xff\xfe", b"", b"\x00"),
    *(b"%", b"&&==", b"=" * 1000, b"device=4&" * 7000, b"n=v&" * 20_000, b"x" * 65_537),
)
_JSON: Final = b"application/json"
_FORM: Final = b"application/x-www-form-urlencoded"


class DamagingQuestions:
    """Makes the questions; `face` is the switch that asks."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._made = 0

    def requests(self, number: int) -> Iterator[Sent]:
        """So many questions."""
        kinds = (
            self._unharmed,
            self._values,
            self._values,
            self._values,
            self._flips,
            self._bodies,
            self._credentials,
            self._head,
        )
        for _ in range(number):
            yield self._random.choice(kinds)(self._random.choice(FACES))

    def _unharmed(self, face: str) -> Sent:
        return self._sent("unharmed", face, self._encoded(face, self._good(face)))

    def _values(self, face: str) -> Sent:
        values = self._good(face)
        names = tuple(FREESWITCH_REQUEST) if face == "freeswitch" and self._random.random() < 0.3 else tuple(values)
        for _ in range(self._random.choice((1, 1, 2, 5))):
            values[self._random.choice(names)] = self._random.choice(_NASTY)
        return self._sent("values", face, self._encoded(face, values))

    def _flips(self, face: str) -> Sent:
        request = self._encoded(face, self._good(face))
        body = bytearray(request.body)
        for _ in range(self._random.choice((1, 2, 8)) if body else 0):
            body[self._random.randrange(len(body))] ^= 1 << self._random.randrange(8)
        if self._random.random() < 0.3:
            body = body[: self._random.randrange(len(body) + 1)]
        return self._sent("flips", face, replace(request, body=bytes(body)))

    def _bodies(self, face: str) -> Sent:
        request = self._encoded(face, self._good(face))
        headers = (*request.headers[:1], (b"Content-Type", self._random.choice((_JSON, _FORM, b"text/plain", b"\xff"))))
        return self._sent(
            "bodies", face, replace(request, method=b"POST", headers=headers, body=self._random.choice(_BODIES))
        )

    def _credentials(self, face: str) -> Sent:
        request = self._encoded(face, self._good(face))
        wrong = self._random.choice(
            (
                _basic("switch", SENT_PASSWORD),
                _basic("nobody", SENT_PASSWORD),
                _basic("", ""),
                _basic("switch", f"{SWITCH_PASSWORD}\x00"),
                b"Basic " + b"=" * 500,
                b"Basic \xff\xff",
                b"Basic " + b64encode(b"\xff\xfe:" + SENT_PASSWORD.encode()),
                b"Basic " + b64encode(SENT_PASSWORD.encode()),
                b"Bearer " + SENT_PASSWORD.encode(),
                b"",
                b"basic  " + b64encode(f"switch:{SWITCH_PASSWORD}".encode()),
            )
        )
        return self._sent(
            "credentials", face, replace(request, headers=((b"Authorization", wrong), *request.headers[1:]))
        )

    def _head(self, face: str) -> Sent:
        raw = bytearray(self._unharmed(face).raw)
        end = raw.find(b"\r\n\r\n")
        for _ in range(self._random.choice((1, 1, 3))):
            raw[self._random.randrange(end)] ^= 1 << self._random.randrange(8)
        return Sent("head", "", bytes(raw), Ending.BREAKS)

    def _good(self, face: str) -> dict[str, Any]:
        number = self._random.choice(("1002", "101", "37052000001", "+37052000002", "2001", "37061111111", "4"))
        if face == "freeswitch":
            names = tuple(name for name in FREESWITCH_REQUEST if not name.startswith("variable_") or "sip_h" in name)
            values: dict[str, Any] = {name: FREESWITCH_REQUEST[name] for name in names}
            return values | {
                "Hunt-Destination-Number": number,
                "variable_sip_call_id": f"c{self._random.randrange(99)}",
            }
        values = {
            "called": number,
            "caller_number": "37061111111",
            "caller_name": "Alice",
            "call_id": "c1",
            "explain": "1",
        }
        if self._random.random() < 0.3:
            values["state"] = self._random.choice(("before_call", "no_answer", "busy", "failed"))
        if self._random.random() < 0.2:
            values |= {self._random.choice(_NAMES): self._random.choice(_NASTY)}
        return values

    def _encoded(self, face: str, values: dict[str, Any]) -> Request:
        headers = ((b"Authorization", _basic("switch", SWITCH_PASSWORD)),)
        path = f"/switch/{face}".encode()
        pairs = "&".join(
            f"{quote_plus(as_bytes(name))}={quote_plus(as_bytes(value))}" for name, value in values.items()
        )
        match self._random.randrange(2 if face == "freeswitch" else 4):
            case 0:
                return Request(b"GET", path + b"?" + pairs.encode(), headers)
            case 1:
                return Request(b"POST", path, (*headers, (b"Content-Type", _FORM)), pairs.encode())
            case _:
                texts = {
                    name: value.decode("latin-1") if isinstance(value, bytes) else value
                    for name, value in values.items()
                }
                return Request(b"POST", path, (*headers, (b"Content-Type", _JSON)), json.dumps(texts).encode())

    def _sent(self, kind: str, face: str, request: Request) -> Sent:
        self._made += 1
        return Sent(kind, face, written(request, b"ask-%d" % self._made))


def _basic(username: str, password: str) -> bytes:
    return b"Basic " + b64encode(f"{username}:{password}".encode())
