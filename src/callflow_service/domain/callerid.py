"""Caller IDs: what of one may reach a switch, and what each diversion makes of it.

Dialplans expand what they are given (`${system(...)}` in a caller ID name runs a command on some switches), so nothing
goes out that is not on an allow-list.
"""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from string import ascii_letters, digits
from typing import Final, Self, assert_never

from callflow_service.domain.callflow import AsItComes, CallerId, Custom, FromDevice, FromDid

MAX_NAME_LENGTH: Final = 64
"""The longest caller ID name, in characters."""

MAX_USERNAME_LENGTH: Final = 255
"""The longest username that is told to a switch, in characters."""

MAX_LINE_LENGTH: Final = 1000
"""The longest line of explanation, in characters."""

_NUMBER = re.compile(r"\+?[0-9*#]{1,32}", re.ASCII)
_CALLER_AS_IT_CAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_NAME_SIGNS: Final = frozenset(f"{ascii_letters}{digits} .-_'")
_LINE_SIGNS: Final = _NAME_SIGNS | frozenset("/;:,()+*#")
_USERNAME_SIGNS: Final = _NAME_SIGNS | frozenset("@+")
# What a dialplan expands, then control characters, line and paragraph separators, halves of surrogate pairs.
_REFUSED = re.compile(r"[${}\\`\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Privacy(StrEnum):
    """What of the caller is withheld from the called party."""

    OFF = "off"
    NAME = "name"
    NUMBER = "number"
    FULL = "full"

    @classmethod
    def from_wire(cls, text: str) -> "Privacy":
        """The privacy that `text` asks for; what is missing or unknown is off."""
        return _PRIVACIES.get(text.strip().lower(), Privacy.OFF)


_PRIVACIES: Final = {privacy.value: privacy for privacy in Privacy}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a leg says is calling; an empty number or name is one that is not known."""

    number: str
    name: str
    privacy: Privacy

    @classmethod
    def from_wire(cls, number: str, name: str, *, privacy: str) -> Self:
        """The original caller as a switch reports it, with all that is not on the allow-lists left out."""
        return cls(clean_caller_number(number), clean_name(name), Privacy.from_wire(privacy))


def clean_number(text: str) -> str:
    """`text` if it is an optional `+` and 1 to 32 of `0-9 * #`, else nothing."""
    return text if _NUMBER.fullmatch(text) else ""


def clean_caller_number(text: str) -> str:
    """`text` if it is a number, or 1 to 64 letters, digits, `.`, `-`, `_` (a caller such as `alice`), else nothing."""
    return text if _CALLER_AS_IT_CAME.fullmatch(text) else clean_number(text)


def clean_name(text: str) -> str:
    """The letters of any script, digits, spaces and `. - _ '` of `text`, at most `MAX_NAME_LENGTH` of them.

    Nothing is left of a text with `$ { }`, a backslash, a backtick, a control character, a line separator or half a
    surrogate pair: whoever sends one of these wants something else than to be called by it.
    """
    if _REFUSED.search(text):
        return ""
    return _kept(text, signs=_NAME_SIGNS, length=MAX_NAME_LENGTH)


def clean_line(text: str) -> str:
    """One line for a log: the letters of `text`, digits, spaces and `. - _ ' / ; : , ( ) + * #`, cut to its length."""
    return _kept(text, signs=_LINE_SIGNS, length=MAX_LINE_LENGTH)


def clean_username(text: str) -> str:
    """`text` if it is at most 255 letters, digits, spaces and `. - _ ' @ +`, else nothing: half a name is another's."""
    return text if text == _kept(text, signs=_USERNAME_SIGNS, length=MAX_USERNAME_LENGTH) else ""


def parse_custom(text: str) -> tuple[str, str]:
    """Number and name of a custom caller ID: `number`, `"Name" number`, `"Name" <number>`, or a name alone.

    Both are clean, and either may be empty; a name that is refused leaves a good number standing.
    """
    text = text.strip()
    if number := clean_number(text):
        return number, ""
    if text.endswith(">") and "<" in text:
        name, _, rest = text[:-1].rpartition("<")
    elif text.startswith('"') and '"' in text[1:]:
        name, _, rest = text.rpartition('"')
    else:
        name, rest = text, ""
    return clean_number(rest.strip()), clean_name(name)


def fold(caller: Caller, *, own: Caller, choice: CallerId) -> Caller:
    """The caller ID after one diversion.

    `caller` is what reached the diverting device, `own` the caller ID of that device, `choice` what its flow asks for.
    A number that is not the caller's own is shown openly: the caller's privacy protects the caller's number alone.
    """
    match choice:
        case FromDevice() if own.number:
            return own
        case FromDevice():
            return Caller(caller.number, own.name or caller.name, caller.privacy)
        case AsItComes():
            return caller
        case FromDid(number=did):
            return Caller(clean_number(did), "", Privacy.OFF)
        case Custom(text=text):
            number, name = parse_custom(text)
            number = number or own.number or caller.number
            return Caller(number, name, caller.privacy if number == caller.number else Privacy.OFF)
        case _ as never:
            assert_never(never)


def _kept(text: str, *, signs: frozenset[str], length: int) -> str:
    if len(text) <= length and signs.issuperset(text):
        return text.strip()
    # Composing takes quadratic time on a long run of combining marks, so what is far beyond the limit is cut before it.
    composed = unicodedata.normalize("NFC", text[: 4 * length])
    kept = "".join([sign for sign in composed if sign in signs or unicodedata.category(sign).startswith("L")])
    # Letters that a dropped mark kept apart can compose now.
    return unicodedata.normalize("NFC", kept)[:length].strip()
