"""Read the parameters of a MOR call, in each of the encodings that its clients use."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from callflow_service.domain.access import Claim, is_username
from callflow_service.domain.callflow import MAX_CUSTOM_LENGTH, MAX_ID, NAMES_NOTHING, Action, State
from callflow_service.domain.changing import WantedChange
from callflow_service.domain.decoding import decoded, decoded_again
from callflow_service.domain.signature import GET_ORDER, UPDATE_ORDER
from callflow_service.mor.xml_text import without_forbidden

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

ALIASES: Final = {"action": "callflow_action", "foward_to_device": "forward_to_device"}
"""Old names and misspellings that clients use, and the parameter that each stands for."""

_FORMS: Final = frozenset({b"", b"application/x-www-form-urlencoded", b"multipart/form-data"})
_STATES: Final = {state.value: state for state in State}
_ACTIONS: Final = {action.value: action for action in Action}

# PHP's http_build_query sends false as 0, and what PHP signs for false is nothing.
_BOOLEANS: Final = frozenset({"device_callerid", "src_callerid", "voicemail"})
# A blank where a number begins: in a caller ID it can be a + that the client did not escape.
_LOST_PLUS = re.compile(r'(?:^|(?<=[ <"])) (?=[0-9])', re.ASCII)

_ID = re.compile(r"[0-9]+", re.ASCII)
_LONGEST_ID: Final = len(str(MAX_ID))


class RequestUnreadable(Exception):
    """The request cannot be read as what it says it is; the text may be shown to the caller."""

    status: int = 400


class ContentEncoded(RequestUnreadable):
    """The body is compressed, or encoded in another way that no MOR client needs."""

    status = 415


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter as it was sent. `as_php` is what PHP signs for JSON's `true` and `false`: `1` and nothing."""

    name: str
    value: str
    as_php: str | None = None


@dataclass(frozen=True, slots=True)
class Parameters:
    """What was sent and counts: each name once, in the order of the request, none empty, aliases resolved.

    `as_php` has PHP's spelling of those that came as JSON's `true` or `false`.
    """

    values: dict[str, str]
    as_php: dict[str, str]

    def claim(self, signed: tuple[str, ...], *, method_allowed: bool) -> Claim:
        """Who the request says it comes from, where `signed` names the parameters that are signed."""
        username = self.values.get("u")
        came = {name: value for name, value in self.values.items() if name in signed}
        with_plus = {name: _with_plus(value) if name == "custom" else value for name, value in came.items()}
        return Claim(
            # What can be nobody's is asked of nobody: where a separator was lost it holds a hash or a password.
            username=username if username and is_username(username) else None,
            password=self.values.get("p"),
            signature=self.values.get("hash", ""),
            readings=self._spellings(came),
            readings_with_plus=() if with_plus == came else self._spellings(with_plus),
            method_allowed=method_allowed,
        )

    def _spellings(self, reading: dict[str, str]) -> tuple[dict[str, str], ...]:
        as_php = {name: spelt for name, value in reading.items() if (spelt := self.as_php.get(name, value))}
        return (reading,) if as_php == reading else (reading, as_php)

    def update_claim(self, *, method_allowed: bool) -> Claim:
        """Who an update says it comes from."""
        return self.claim(UPDATE_ORDER, method_allowed=method_allowed)

    def get_claim(self, *, method_allowed: bool) -> Claim:
        """Who a get says it comes from."""
        return self.claim(GET_ORDER, method_allowed=method_allowed)

    @property
    def device_id(self) -> int:
        """The device that the request is about, `NAMES_NOTHING` where it names none."""
        return NAMES_NOTHING if (device_id := self._id("device_id")) is None else device_id

    def wanted_change(self) -> WantedChange:
        """What an update asks for.

        Raises:
            RequestUnreadable: `custom` is too long.
        """
        custom = self._sent("custom") or ""
        if len(custom) > MAX_CUSTOM_LENGTH:
            raise RequestUnreadable(f"Custom caller ID is longer than {MAX_CUSTOM_LENGTH} characters")
        return WantedChange(
            device_id=self.device_id,
            state=_STATES.get(self._sent("state") or ""),
            action=_ACTIONS.get(self._sent("callflow_action") or ""),
            forward_to_device=self._id("forward_to_device"),
            external_number=self._sent("external_number"),
            fax_device=self._id("fax_device"),
            device_caller_id=self._is_set("device_callerid"),
            source_caller_id=self._is_set("src_callerid"),
            did_id=self._id("did_id"),
            custom=without_forbidden(custom) or None,
            custom_with_plus=without_forbidden(_with_plus(custom)) or None,
        )

    def _id(self, name: str) -> int | None:
        value = self._sent(name)
        if value is None:
            return None
        if _ID.fullmatch(value) is None:
            return NAMES_NOTHING
        digits = value.lstrip("0") or "0"
        if len(digits) > _LONGEST_ID or int(digits) > MAX_ID:
            return NAMES_NOTHING
        return int(digits)

    def _is_set(self, name: str) -> bool:
        return (self._sent(name) or "").lower() in {"true", "1"}

    def _sent(self, name: str) -> str | None:
        """The value of a parameter; JSON's `false` is signed by those who sign it, but sets nothing."""
        return None if self.as_php.get(name) == "" else self.values.get(name)


def read_parameters(query: bytes, content_type: str, body: bytes) -> Parameters:
    """The parameters of one request: of the query, then of the body, whose `Content-Type` decides how it is read.

    Raises:
        RequestUnreadable: The body is not what its `Content-Type` says, or of a type that is not read at all.
    """
    sent: dict[str, Parameter] = {}
    for parameter in (*_form(query), *_body(content_type, body)):
        # The last of a repeated name wins, and stands where it stood.
        sent.pop(parameter.name, None)
        sent[parameter.name] = parameter
    values: dict[str, str] = {}
    as_php: dict[str, str] = {}
    present = {name: parameter for name, parameter in sent.items() if parameter.value}
    for name, parameter in present.items():
        own_name = ALIASES.get(name, name)
        if own_name != name and own_name in present:
            continue
        values[own_name] = parameter.value
        if parameter.as_php is not None:
            as_php[own_name] = parameter.as_php
        elif own_name in _BOOLEANS and parameter.value == "0":
            as_php[own_name] = ""
    if values.get("external_number", "").startswith(" "):
        # A + that the client did not escape.
        values["external_number"] = "+" + values["external_number"][1:]
    return Parameters(values, as_php)


def _with_plus(text: str) -> str:
    return _LOST_PLUS.sub("+", text)


def _body(content_type: str, body: bytes) -> Iterator[Parameter]:
    if not body:
        return iter(())
    media_type, options = parse_options_header(content_type)
    if media_type in _FORMS and body.lstrip().startswith(b"{"):
        # Some clients send JSON and leave the type of a form.
        with suppress(RequestUnreadable):
            return iter(list(_json(body)))
    match media_type:
        case b"" | b"application/x-www-form-urlencoded":
            return _form(body)
        case b"multipart/form-data":
            return _multipart(body, options.get(b"boundary", b""))
        case b"application/json":
            return _json(body)
        case _:
            raise RequestUnreadable("Request body is of a type that is not read here")


def _form(encoded: bytes) -> Iterator[Parameter]:
    # Decoded as Latin-1, each character is a byte, so that a value can still be told to be UTF-8 or not.
    for name, value in parse_qsl(encoded.decode("latin-1"), keep_blank_values=True, encoding="latin-1"):
        yield Parameter(decoded(name.encode("latin-1")), decoded(value.encode("latin-1")))


def _json(body: bytes) -> Iterator[Parameter]:
    try:
        text = body.decode("utf-8-sig")
        damaged = False
    except UnicodeDecodeError:
        text = body.decode("utf-8-sig", "surrogateescape")
        damaged = True
    try:
        # A number counts as the digits sent.
        pairs = json.loads(
            text,
            object_pairs_hook=lambda found: found,
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError):
        raise RequestUnreadable("Request body is not the JSON that its Content-Type says") from None
    # An object comes as its pairs, so an empty list is an empty object too, as some clients send it.
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise RequestUnreadable("Request body is not a JSON object")
    for name, value in pairs:
        if isinstance(value, bool):
            yield Parameter(name, "true" if value else "false", "1" if value else "")
        elif isinstance(value, str):
            yield Parameter(name, decoded_again(value) if damaged else value)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _multipart(body: bytes, boundary: bytes) -> Iterator[Parameter]:
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError:
        # Not only what is parsed is refused: a boundary can be too long.
        parts.ended = False
    if not boundary or not parts.ended:
        raise RequestUnreadable("Request body is not the multipart form that its Content-Type says")
    return iter(parts.parameters)


class _Parts:
    """Collects the parts of a multipart form while they are parsed; file parts are as not there."""

    def __init__(self) -> None:
        self.parameters: list[Parameter] = []
        self.ended = False
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._data = b""

    def callbacks(self) -> "MultipartCallbacks":
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = self._data = b""

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _end_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        # Some clients send a name beyond ASCII as filename*=, which the parser leaves out.
        is_file = b"filename" in options or b"filename*=" in self._disposition.lower()
        if b"name" in options and not is_file:
            self.parameters.append(Parameter(decoded(options[b"name"]), decoded(self._data)))

    def _end(self) -> None:
        self.ended = True
