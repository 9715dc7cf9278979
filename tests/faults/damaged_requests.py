"""Requests of MOR's clients, good ones and damaged ones; the same seed makes the same."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha1
from random import Random
from typing import Any, Final
from urllib.parse import quote_plus

from canaries import SENT_PASSWORD, account_password, api_key
from raw_http import Ending, Sent

from mor_requests import GET, ORDER, UPDATE

Headers = tuple[tuple[bytes, bytes], ...]
Values = dict[str, Any]

NO_LENGTH: Final = b"none"
"""In the place of a request's length: it tells none."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request before it is written as bytes; without `content_length` it has the right one."""

    method: bytes
    target: bytes
    headers: Headers = ()
    body: bytes = b""
    content_length: bytes | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """An account, what it signs with, and what it has."""

    username: str
    key: str
    devices: tuple[str, ...]
    faxes: tuple[str, ...] = ("2",)
    password: str | None = None


_USER1: Final = ("4", "5", "100")
_CALLERS: Final = (
    Caller("admin", api_key("admin"), (*_USER1, "200", "300", "400", "410")),
    Caller("reseller", api_key("reseller"), ("200",), ("201",)),
    # Without keys of their own they sign with their owners'.
    Caller("user1", api_key("admin"), _USER1),
    Caller("user2", api_key("reseller"), ("200",), ("201",)),
    Caller("legacy", api_key("legacy"), ("400",), ()),
    # Each wrong password costs the service a slow hash: those who have one come seldom, and with the right one.
    Caller("boss", api_key("boss"), _USER1, password=account_password("boss")),
    # Unsigned, so what is damaged may well be stored: it holds no key that could land in a text.
    Caller("open", "", ("410",), (), password=account_password("open")),
)
_CALLER_WEIGHTS: Final = (43, 21, 20, 10, 4, 1, 1)
_STATES: Final = ("before_call", "no_answer", "failed", "busy")
_DIDS: Final = {"4": "1", "5": "2", "200": "4"}

NASTY: Final = (
    *("", " ", "0", "-1", "+1", "00", "1e5", "1.0", "0x10", "1_0", "NaN", "inf", "٤", "\uff14", "²", "4 ", " 4", "4\n"),
    *("9223372036854775807", "9223372036854775808", "9" * 19, "9" * 5000, "0" * 5000 + "4", "-9223372036854775809"),
    *("4\x00", "\x00", "\x01\x08", "\x1b[31m", "\x7f", "\x85", "\r\n", "a\r\nX-Injected: yes", "\t", "\u2028"),
    *("\ufeff", "\ufffe", "\uffff", "\U0010ffff", "\ud800", "a\udfff", "\u202e", "é", "€", "ÿ", "😀", "e\u0301", "İ"),
    *("ß", "\u0430dmin", "<x/>", "]]>", "&#0;", "&amp;", "<!DOCTYPE a [<!ENTITY b 'c'>]>", "--", "'", "''"),
    *("' OR 1=1 --", '"', "\\", "%", "%00", "$1", "${jndi:x}", "{0}", "{name}", "%s%n", "`id`", "../../etc/passwd"),
    *("null", "None", "true", "True", "TRUE", "1", "forward", "fax_detect", "voicemail", "empty", "before_call"),
    *("admin", "boss", "user1", "closed", "blocked", "accountant", "2", "3", "4", "5", "100", "200", "201", "999"),
    *("+37061111111", " 37061111111", "*#", "#", "+", "0" * 32, "0" * 33, "x" * 255, "x" * 256, "é" * 255, "é" * 256),
    *("x" * 10_000, b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"caf\xe9"),
)
"""Values that something somewhere has stumbled over."""

_BAD_PERCENT: Final = (
    *(b"%", b"%4", b"%zz", b"%%", b"%u0041", b"%00", b"%0d%0a", b"%ff%fe", b"%c0%80", b"%ed%a0%80", b"%f4%90%80%80"),
    *(b"%E2%82", b"+%", b"\xff", b"\x00", b"&&", b"==", b"&=&", b";", b"%26", b"%3D", b"#", b"?"),
)
_TYPES: Final = (
    *(b"text/plain", b"application/xml", b"application/octet-stream"),
    *(b"application/x-www-form-urlencoded; charset=utf-16", b"application/json; charset=utf-7"),
    *(b"application/json;" + b"a=b;" * 500, b"APPLICATION/JSON", b"application/json, text/xml"),
    *(b"multipart/form-data", b"multipart/form-data; boundary=", b'multipart/form-data; boundary="'),
    *(b"multipart/mixed; boundary=x", b";", b"/", b"\xff\xfe", b'x; y="\\'),
    *(b"multipart/form-data; boundary*=utf-8''x", b"a" * 5000, b"application/json\x0b"),
    *(b"multipart/form-data; boundary=" + b"b" * 5000, b"multipart/form-data; boundary=\xff"),
    *(b'a; b="\xe9"; b*0=c; b*1=d',),
)
_METHODS: Final = (
    *(b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"HEAD", b"TRACE", b"PROPFIND", b"get", b"POST2", b"CONNECT"),
    *(b"X" * 500,),
)
_TARGETS: Final = (
    *(b"/billing/api/", b"/billing/api", b"/api//device_callflow_get", b"//billing//api//device_callflow_update//"),
    *(b"/api/%00", b"/billing/api/device_callflow_updat%65", b"/billing/api/../api/device_callflow_get"),
    *(b"/api/device_callflow_get/x", b"/billing/api/" + b"a" * 5000, b"/api/" + b"/" * 5000, b"*", b"billing/api/x"),
    *(b"http://other.example/api/x", b"/api/\xff", b"/api/%ff%fe", b"/api/device_callflow_get;x=1"),
    *(b"/api/device_callflow_get#x", b"/api/%2e%2e/%2e%2e", b"/\\api", b"?", b"", b"http://", b"http://[::1", b"//"),
    *(b"/api/device_callflow_get?" + b"%" * 500, b"/api/device callflow_get", b"/api/\x01"),
)
_STARTS: Final = (*(b"GET / HTTP/0.9", b"PRI * HTTP/2.0", b"GET /api/x", b"\x16\x03\x01\x02", b"\r\n" * 50),)
_BOMBS: Final[tuple[Headers, ...]] = (
    tuple((b"X-%d" % number, b"v" * 100) for number in range(500)),
    ((b"X-Long", b"v" * 60 * 1024),),
    ((b"X", b"\x01"), (b"Y", b"\xff"), (b"Z", b"")),
    ((b"", b""),),
    ((b"Folded", b"a\r\n b"),),
    ((b"Space ", b"a"),),
    ((b"X-Request-Id", b"\xff" * 100), (b"X-Forwarded-For", b"'; --"), (b"Forwarded", b"for=\x7f")),
    ((b"Expect", b"100-continue"), (b"Upgrade", b"h2c"), (b"Connection", b"Upgrade, HTTP2-Settings")),
    ((b"Connection", b"close"), (b"Content-Encoding", b"gzip"), (b"Range", b"bytes=0-1")),
    ((b"traceparent", b"00-" + b"z" * 55), (b"tracestate", b"=" * 1000), (b"baggage", b"%" * 1000)),
)
_FORM: Final = b"application/x-www-form-urlencoded"
_JSON: Final = b"application/json"
_BOUNDARY: Final = b"----b0undary"
_PARTS: Final = b"multipart/form-data; boundary=" + _BOUNDARY
_LARGE: Final = 10 * 1024 * 1024


def good_values(random: Random) -> tuple[Caller, str, Values]:
    """A caller, a path, and the parameters of a request that it may make."""
    caller: Caller = random.choices(_CALLERS, _CALLER_WEIGHTS)[0]
    device = random.choice(caller.devices)
    if random.random() < 0.15:
        return caller, GET, {"device_id": device}
    state = random.choice(_STATES)
    action = random.choice(("forward", "forward", "forward", "voicemail", "empty", "fax_detect"))
    values: Values = {"device_id": device, "callflow_action": action, "state": state}
    match action:
        case "fax_detect" if caller.faxes:
            values |= {"state": "before_call", "fax_device": random.choice(caller.faxes)}
        case "fax_detect":
            values["callflow_action"] = "empty"
        case "forward" if random.random() < 0.5:
            values["forward_to_device"] = random.choice(caller.devices)
        case "forward":
            values["external_number"] = f"+3706{random.randrange(10**7):07}"
    caller_id = random.randrange(6)
    if caller_id == 0:
        values["src_callerid"] = "true"
    elif caller_id == 1:
        values["custom"] = f"Caller {random.randrange(10**6)}"
    elif caller_id == 2 and device in _DIDS:
        values["did_id"] = _DIDS[device]
    return caller, UPDATE, values


def as_bytes(value: object) -> bytes:
    """A value as it goes into a form."""
    if isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "surrogatepass")


def _as_text(value: object) -> str:
    """A value as the service reads it."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")
    return "" if value is None or isinstance(value, list | dict) else str(value)


class Damaging:
    """Makes the requests: each has a kind of damage, and an id that is found again in the history of what it changed.

    Attributes:
        hashes: Every right signature that was sent.
    """

    def __init__(self, random: Random) -> None:
        self.hashes: set[bytes] = set()
        self._random = random
        self._made = 0
        kinds: dict[Callable[[], Sent], int] = {
            self._unharmed: 5,
            self._values: 25,
            self._names: 8,
            self._percent: 9,
            self._flips: 12,
            self._cut: 6,
            self._spliced: 7,
            self._json: 9,
            self._multipart: 9,
            self._type: 4,
            self._framing: 3,
            self._head: 3,
        }
        self._kinds = tuple(kinds)
        self._weights = tuple(kinds.values())

    def requests(self, number: int, *, large: int) -> Iterator[Sent]:
        """So many requests, `large` of them with bodies of 10 MB."""
        every = number // large
        for made in range(number):
            if made % every == every // 2:
                yield self._large()
            else:
                kind: Callable[[], Sent] = self._random.choices(self._kinds, self._weights)[0]
                yield kind()

    def _unharmed(self) -> Sent:
        return self._sent("unharmed", self._good())

    def _values(self) -> Sent:
        """Values as no client sends them, and signed, so that they are looked at."""
        caller, path, values = good_values(self._random)
        names = ORDER if path == UPDATE else ("device_id",)
        for _ in range(self._random.choice((1, 1, 1, 2, 4))):
            values[self._random.choice(names)] = self._random.choice(NASTY)
        others: Values = {}
        if self._random.random() < 0.05:
            others[self._random.choice(("u", "hash", "API_Secret_Key", "test"))] = self._random.choice(NASTY)
        return self._sent("values", self._encoded(caller, path, values, others))

    def _names(self) -> Sent:
        """Repeated, misspelt, unknown and very many names."""
        caller, path, values = good_values(self._random)
        pairs = self._pairs(caller, path, values, {})
        match self._random.randrange(6):
            case 0:
                pairs += [(self._random.choice(pairs)[0], self._random.choice(NASTY)) for _ in range(3)]
            case 1:
                pairs += [(name, value) for name, value in pairs if name not in {"p", "hash"}]
            case 2:
                pairs += [("action", "empty"), ("foward_to_device", "5"), ("action", "")]
            case 3:
                pairs = [(f"{name}[]" if self._random.random() < 0.3 else name, value) for name, value in pairs]
            case 4:
                pairs += [(as_bytes(self._random.choice(NASTY)), "x"), (b"\xff\x00", b"\xff"), ("", "")]
            case _ if self._random.random() < 0.05:
                pairs += [(f"n{number}", "v") for number in range(5000)]
            case _:
                self._random.shuffle(pairs)
        return self._sent("names", self._encode_pairs(path, pairs))

    def _percent(self) -> Sent:
        """Percent signs and bytes that escape nothing, or something that is no text."""
        request = self._good(("form", "query"))
        bad = self._random.choice(_BAD_PERCENT)
        if request.body:
            return self._sent("percent", replace(request, body=self._inserted(request.body, bad)))
        path, _, query = request.target.partition(b"?")
        bad = bad.replace(b"\x00", b"%00").replace(b"\xff", b"%ff").replace(b"#", b"%23")
        return self._sent("percent", replace(request, target=path + b"?" + self._inserted(query, bad)))

    def _flips(self) -> Sent:
        """Single bits turned over in the body."""
        request = self._good(("form", "json", "multipart"))
        body = bytearray(request.body)
        for _ in range(self._random.choice((1, 1, 2, 8))):
            body[self._random.randrange(len(body))] ^= 1 << self._random.randrange(8)
        return self._sent("flips", replace(request, body=bytes(body)))

    def _cut(self) -> Sent:
        request = self._good(("form", "json", "multipart"))
        return self._sent("cut", replace(request, body=request.body[: self._random.randrange(len(request.body))]))

    def _spliced(self) -> Sent:
        """The head of one body and the tail of another one, which holds no secret that could land in a username."""
        request = self._good(("form", "json", "multipart"))
        _, path, values = good_values(self._random)
        other = self._encode_pairs(path, list(values.items()), self._random.choice(("form", "json", "multipart"))).body
        head = request.body[: self._random.randrange(len(request.body))]
        return self._sent("spliced", replace(request, body=head + other[self._random.randrange(len(other)) :]))

    def _json(self) -> Sent:
        """JSON that is not meant well, deep, huge or damaged."""
        caller, path, values = good_values(self._random)
        good = json.dumps(dict(self._pairs(caller, path, values, {})))
        depth = self._random.choice((50, 900, 1100, 5000))
        if self._random.random() < 0.02:
            depth = self._random.choice((10_000, 100_000))
        number = self._random.choice(("NaN", "Infinity", "-Infinity", "1e999", "-0", "4.0", "9" * 4301, "9" * 60_000))
        scalar = self._random.choice(
            ("null", "true", "4", '"u"', "[]", "{}", "[[]]", "[1]", "", " ", "{", '{"', '{"u"')
        )
        bodies = (
            "[" * depth,
            '{"u":' * depth,
            f'{good[:-1]}, "deep": {"[" * depth}{"]" * depth}}}',
            f"{good[:-1]}, {good[1:]}",
            f'{good[:-1]}, "device_id": {number}}}',
            f'{good[:-1]}, "device_id": [4], "state": {{"busy": 1}}, "u": null}}',
            f'{good[:-1]}, "custom": "\\ud800", "external_number": "\\u0000"}}',
            scalar,
            good.encode(self._random.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-le", "cp500"))),
            good.replace('"', "'"),
            good + self._random.choice(("//", "/**/", "\x00", "x", "{}")),
            b'{"u": "admin\xe9", "custom": "\xff\\ud83d", "device_id": "4"}',
        )
        return self._sent("json", _post(path, _JSON, as_bytes(self._random.choice(bodies))))

    def _multipart(self) -> Sent:
        """Forms in parts whose parts are not where they should be."""
        caller, path, values = good_values(self._random)
        good = _multipart(self._pairs(caller, path, values, {}))
        part = b'--%s\r\nContent-Disposition: form-data; name="n"\r\n\r\nv\r\n' % _BOUNDARY
        disposition = self._random.choice((b"", b"attachment;", b"\xff;", b"form-data" * 500))
        header = self._random.choice((b"X", b"", b"\x00", b"A" * 5000, b"C d", b":"))
        bodies = (
            good.replace(_BOUNDARY, b"other"),
            good.replace(b"\r\n", b"\n"),
            good.replace(b"\r\n\r\n", b"\r\n", 1),
            good.replace(b'name="', b"name=", 2),
            good.replace(b"form-data;", b'form-data; filename="a.txt";', 1),
            good.replace(b"form-data;", disposition, 1),
            good.replace(b"Content-Disposition", header, 1),
            good.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1),
            good[: -len(_BOUNDARY) - 6] + self._random.choice((b"", b"--", b"\r\n", b"\x00" * 100)),
            good + self._random.choice((b"trailing", b"\r\n" * 100, good)),
            self._inserted(good, b"--" + _BOUNDARY),
            self._inserted(good, b"\r\n--" + _BOUNDARY + b"\r\n"),
            part * (800 if self._random.random() < 0.05 else 20) + good,
            (b"--" + _BOUNDARY + b"\r\n") * 200,
        )
        return self._sent("multipart", _post(path, _PARTS, self._random.choice(bodies)))

    def _type(self) -> Sent:
        """A body that is called something else than it is."""
        request = self._good(("form", "json", "multipart"))
        kind = self._random.choice(_TYPES)
        headers = ((b"Content-Type", kind),) * self._random.choice((1, 1, 1, 2))
        return self._sent("type", replace(request, headers=headers))

    def _framing(self) -> Sent:
        """Lengths and chunks that do not fit what is sent."""
        request = self._good(("form", "json"))
        body, length = request.body, len(request.body)
        lengths = (
            *((Ending.STOPS, b"%d" % (length + 50)), (Ending.STOPS, b"9" * 18), (Ending.BREAKS, b"%d" % (length // 2))),
            *((Ending.BREAKS, wrong) for wrong in (b"-1", b"+%d" % length, b"0x10", b"9" * 40, b"", b"1, 2", b"0")),
        )
        chunk, last = b"%x\r\n%s\r\n" % (length, body), b"0\r\n\r\n"
        chunks = (
            (Ending.KEEPS, chunk + last),
            (Ending.KEEPS, b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in body) + last),
            (Ending.STOPS, b"%x\r\n%s" % (length + 1, body)),
            *((Ending.BREAKS, wrong + chunk + last) for wrong in (b"zz\r\n", b"-5\r\n", b"f" * 40 + b"\r\n", b"\r\n")),
            (Ending.BREAKS, (chunk + last).replace(b"\r\n", b"\n")),
            (Ending.BREAKS, chunk + b"0\r\n" + b"Trailer: x\r\n" * 50 + b"\r\n"),
        )
        match self._random.randrange(3):
            case 0:
                ending, content_length = self._random.choice(lengths)
                request = replace(request, content_length=content_length)
            case 1:
                ending, body = self._random.choice(chunks)
                request = _chunked(request, body)
            case _:
                ending = Ending.BREAKS
                coding = self._random.choice((b"gzip, chunked", b"xchunked", b"chunked, identity", b"", b"chunked"))
                both = self._random.choice((NO_LENGTH, b"%d" % length, b"0"))
                request = replace(_chunked(request, chunk + last, coding), content_length=both)
        return self._sent("framing", request, ending)

    def _head(self) -> Sent:
        """Methods, paths and headers that nobody needs, and bits turned over in the head."""
        request = self._good()
        match self._random.randrange(5):
            case 0:
                request = replace(request, method=self._random.choice(_METHODS))
            case 1:
                request = replace(request, target=self._random.choice(_TARGETS))
            case 2:
                request = replace(request, headers=(*request.headers, *self._random.choice(_BOMBS)))
            case 3:
                return Sent("head", "", self._random.choice(_STARTS) + b"\r\n\r\n" + request.body, Ending.BREAKS)
            case _:
                raw = bytearray(self._sent("head", request).raw)
                end = raw.find(b"\r\n\r\n")
                for _ in range(self._random.choice((1, 1, 3))):
                    raw[self._random.randrange(end)] ^= 1 << self._random.randrange(8)
                return Sent("head", "", bytes(raw), Ending.BREAKS)
        return self._sent("head", request, Ending.BREAKS, face="")

    def _large(self) -> Sent:
        """10 MB of a body: a form, JSON, parts, or chunks without end."""
        form = b"custom=" + b"x" * _LARGE
        match self._random.randrange(4):
            case 0:
                request = _post(UPDATE, _FORM, form)
            case 1:
                request = _post(UPDATE, _JSON, b'{"custom": "%s"}' % (b"x" * _LARGE))
            case 2:
                request = _post(UPDATE, _PARTS, _multipart([("custom", b"x" * _LARGE)]))
            case _:
                chunks = (b"8000\r\n%s\r\n" % (b"x" * 0x8000)) * (_LARGE // 0x8000)
                request = _chunked(_post(UPDATE, _JSON, b""), chunks + b"0\r\n\r\n")
        return self._sent("large", request, Ending.BREAKS)

    def _good(self, encodings: tuple[str, ...] = ("form", "query", "json", "multipart", "get")) -> Request:
        caller, path, values = good_values(self._random)
        pairs = self._pairs(caller, path, values, {})
        if self._random.random() < 0.3:
            self._random.shuffle(pairs)
        return self._encode_pairs(path, pairs, self._random.choice(encodings))

    def _encoded(self, caller: Caller, path: str, values: Values, others: Values) -> Request:
        return self._encode_pairs(path, self._pairs(caller, path, values, others))

    def _pairs(self, caller: Caller, path: str, values: Values, others: Values) -> list[tuple[Any, Any]]:
        """All that a client sends, signed: the password, and the secret key, as some do."""
        names = ORDER if path == UPDATE else ("device_id",)
        signed = "".join(_as_text(values.get(name, "")) for name in names)
        digest = sha1((signed + caller.key).encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
        if caller.key:
            self.hashes.add(digest.encode())
        sent = {"u": caller.username, **values, "hash": digest}
        if caller.password or self._random.random() < 0.5:
            sent["p"] = caller.password or SENT_PASSWORD
        if caller.key and self._random.random() < 0.5:
            sent["API_Secret_Key"] = caller.key
        return list((sent | others).items())

    def _encode_pairs(self, path: str, pairs: list[tuple[Any, Any]], encoding: str | None = None) -> Request:
        match encoding or self._random.choice(("form", "form", "query", "json", "multipart", "get")):
            case "form":
                return _post(path, _FORM, _form(pairs))
            case "query":
                return Request(b"POST", path.encode() + b"?" + _form(pairs))
            case "get":
                return Request(b"GET", path.encode() + b"?" + _form(pairs))
            case "multipart":
                return _post(path, _PARTS, _multipart(pairs))
            case _:
                values: Values = {_as_text(name): _as_text(value) for name, value in pairs}
                if values.get("device_id") in {"4", "5"}:
                    values["device_id"] = int(values["device_id"])
                return _post(path, _JSON, json.dumps(values).encode())

    def _inserted(self, text: bytes, inserted: bytes) -> bytes:
        at = self._random.randrange(len(text) + 1)
        return text[:at] + inserted + text[at:]

    def _sent(self, kind: str, request: Request, ending: Ending = Ending.KEEPS, *, face: str = "mor") -> Sent:
        self._made += 1
        return Sent(kind, face, written(request, b"fuzz-%d" % self._made), ending)


def written(request: Request, request_id: bytes) -> bytes:
    """A request as bytes."""
    lines = [b"%s %s HTTP/1.1\r\nHost: fuzz\r\nX-Request-Id: %s\r\n" % (request.method, request.target, request_id)]
    lines += [b"%s: %s\r\n" % header for header in request.headers]
    length = b"%d" % len(request.body) if request.content_length is None else request.content_length
    if length != NO_LENGTH:
        lines.append(b"Content-Length: %s\r\n" % length)
    return b"".join((*lines, b"\r\n", request.body))


def _chunked(request: Request, chunks: bytes, coding: bytes = b"chunked") -> Request:
    headers = (*request.headers, (b"Transfer-Encoding", coding))
    return replace(request, headers=headers, body=chunks, content_length=NO_LENGTH)


def _post(path: str, content_type: bytes, body: bytes) -> Request:
    return Request(b"POST", path.encode(), ((b"Content-Type", content_type),), body)


def _form(pairs: list[tuple[Any, Any]]) -> bytes:
    return "&".join(f"{quote_plus(as_bytes(name))}={quote_plus(as_bytes(value))}" for name, value in pairs).encode()


def _multipart(pairs: list[tuple[Any, Any]]) -> bytes:
    parts = (
        b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
        % (_BOUNDARY, as_bytes(name), as_bytes(value))
        for name, value in pairs
    )
    return b"".join((*parts, b"--%s--\r\n" % _BOUNDARY))
