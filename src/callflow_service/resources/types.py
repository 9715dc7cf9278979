"""What one field can say, and the sentence where it says something else: every pattern and every length, once."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

from callflow_service.almanac.numbers import is_country
from callflow_service.domain import caller_lists, number_patterns, schedules, targets
from callflow_service.domain.access import USERNAME
from callflow_service.domain.callflow import EXTERNAL_NUMBER, MAX_ID

MAX_RING_SECONDS: Final = 3600
"""The longest ring time, in seconds."""

MAX_NETWORKS: Final = 100
"""The most networks that an account's requests may be allowed from."""

_MAPPED_BITS: Final = 96

# Control characters, line separators and what XML 1.0 cannot carry (https://www.w3.org/TR/xml/#charsets).
_FORBIDDEN: Final = r"\u0000-\u001f\u007f-\u009f\u2028\u2029\ud800-\udfff\ufffe\uffff"
_INNER: Final = f"[^{_FORBIDDEN}]"
_OUTER: Final = rf"[^\s{_FORBIDDEN}]"
DATE: Final = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
NETWORK: Final = r"[0-9A-Fa-f.:]{2,45}(/[0-9]{1,3})?"
TECHNOLOGY: Final = r"[A-Za-z][A-Za-z0-9]{0,15}"
# Nothing that a dialplan could expand or that could end a header: no blanks, quotes, $ or backslashes.
TEMPLATE: Final = r"([A-Za-z0-9@:/.;=_+&,%~*#\[\]()-]|\{(name|technology|domain|number)\}){0,255}"


@dataclass(frozen=True, slots=True)
class _Text:
    """A text that matches a pattern, and what is said of one that does not."""

    pattern: str
    sentence: str

    def __get_pydantic_core_schema__(self, source: type[str], handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": f"^{self.pattern}$"}

    def _check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(self.sentence)
        return text


def _whole_number(least: int, most: int) -> BeforeValidator:
    def read(text: object) -> object:
        if isinstance(text, int) and not isinstance(text, bool):
            # As JSON has it; a file has digits.
            text = str(text)
        if not isinstance(text, str):
            text = ""
        # The length is checked first because reading very many digits is slow, and refused by Python.
        digits = text.lstrip("0") or text[-1:]
        if digits.isascii() and digits.isdecimal() and len(digits) <= len(str(most)) and least <= int(digits) <= most:
            return int(digits)
        raise ValueError(f"must be a whole number from {least} to {most}")

    return BeforeValidator(read)


def _read_network(text: object) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text if isinstance(text, str) and re.fullmatch(NETWORK, text) else "")
    except ValueError:
        raise ValueError("must be addresses, or networks such as 192.0.2.0/24 and 2001:db8::/32") from None
    # Requests of IPv4 addresses that are written as IPv6 count as IPv4's, so the networks do.
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= _MAPPED_BITS:
        return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


Network = Annotated[
    IPv4Network | IPv6Network,
    PlainValidator(_read_network),
    WithJsonSchema({"type": "string", "pattern": f"^{NETWORK}$"}),
]


def _country(code: str) -> str:
    if not is_country(code):
        raise ValueError("must be a country's ISO code such as LT")
    return code


def _time_zone(name: str) -> str:
    schedules.time_zone(name)
    return name


def _date(text: str) -> str:
    try:
        if re.fullmatch(DATE, text, re.ASCII):
            date.fromisoformat(text)
            return text
    except ValueError:
        pass
    raise ValueError("must be a date such as 2026-12-24")


Id = Annotated[int, _whole_number(0, MAX_ID), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_ID})]
RingSeconds = Annotated[
    int,
    _whole_number(1, MAX_RING_SECONDS),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_RING_SECONDS}),
]
Username = Annotated[
    str, _Text(USERNAME, "must be 1 to 64 of a-z A-Z 0-9 . _ @ + - and blanks, with no blank at the ends")
]
Line = Annotated[str, _Text(f"{_INNER}{{1,255}}", "must be 1 to 255 characters, none of them a control character")]
CallerName = Annotated[
    str, _Text(f"{_INNER}{{0,255}}", "must be at most 255 characters, none of them a control character")
]
CallerNumber = Annotated[
    str,
    _Text(
        r"(\+?[0-9*#]{1,32}|[A-Za-z0-9._-]{1,64})?",
        "must be 1 to 32 of 0-9 * # with or without a + before them, or 1 to 64 letters, digits, dots, dashes or "
        "underscores",
    ),
]
Secret = Annotated[str, _Text(r"[^\ud800-\udfff]{1,1024}", "must be 1 to 1024 characters")]
Key = Line
PasswordHash = Annotated[
    str, _Text(r"\$argon2id\$[A-Za-z0-9+/=,$]{1,1000}", "must be the hash of a password, as export prints it")
]
SwitchPasswordHash = Annotated[
    str, _Text(r"sha256\$[0-9a-f]{2,128}\$[0-9a-f]{64}", "must be the hash of a switch's password, as export prints it")
]
EncryptedKey = Annotated[
    str, _Text(r"fernet:[A-Za-z0-9_=-]{1,4000}", "must be an encrypted API key, as export prints it")
]
Technology = Annotated[
    str,
    _Text(TECHNOLOGY, "must be a letter of A-Z and then at most 15 letters or digits"),
    AfterValidator(str.upper),
]
DeviceName = Annotated[
    str,
    _Text(
        f"{_OUTER}({_INNER}{{0,62}}{_OUTER})?",
        "must be 1 to 64 characters, none of them a control character, with no blank at the ends",
    ),
]
Number = Annotated[
    str,
    _Text(EXTERNAL_NUMBER, "must be 1 to 32 of 0-9 * # with a digit among them, with or without a + before them"),
]
Domain = Annotated[str, _Text(r"[A-Za-z0-9.:\[\]_-]{1,255}", "must be a host, or a host and a port as host:port")]
Country = Annotated[str, AfterValidator(_country), WithJsonSchema({"type": "string", "pattern": "^[A-Z]{2}$"})]
Region = Annotated[str, _Text("[A-Za-z0-9 -]{1,64}", "must be 1 to 64 letters, digits, blanks or dashes")]
TimeZone = Annotated[
    str, AfterValidator(_time_zone), WithJsonSchema({"type": "string", "examples": ["Europe/Vilnius"]})
]
Date = Annotated[str, AfterValidator(_date), WithJsonSchema({"type": "string", "format": "date"})]
TimeOfDay = Annotated[str, _Text(f"({schedules.TIME_OF_DAY}|24:00)", "must be a time of day such as 08:30")]
Entry = Annotated[
    str,
    AfterValidator(caller_lists.read_entry),
    WithJsonSchema({"type": "string", "examples": ["+37061234567", "+3706*", caller_lists.ANONYMOUS]}),
]
Prefix = Annotated[str, _Text(targets.PREFIX, "must be a + and up to 15 digits, or 1 to 15 of 0-9 * #")]
NumberPattern = Annotated[
    str,
    AfterValidator(number_patterns.read_pattern),
    WithJsonSchema({"type": "string", "maxLength": number_patterns.MAX_LENGTH}),
]


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time from the years 1 to 9999 in UTC") from None


SentMoment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A point in time as clients send it, with its zone."""
