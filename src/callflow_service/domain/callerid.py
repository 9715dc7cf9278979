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
from callflow_service.domain.decoding import user_part

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
_WITHOUT_SEPARATORS: Final = str.maketrans("", "", " -.()/\u00a0")
# Stands for what is not on the list until runs of it, with the blanks around them, become one blank.
_DROPPED: Final = "\ufffe"
_DROPPED_RUN = re.compile(rf" *{_DROPPED}[{_DROPPED} ]*")
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
class Wish:
    """What the caller asked to be withheld: of the caller ID, and whether the diversions that came in are."""

    caller: Privacy
    diversions: bool


def read_wish(privacy_header: str, otherwise: str) -> Wish:
    """The caller's wish by the `Privacy` headers (RFC 3323, RFC 7044), comma-joined as they came.

    Values are separated by `;`, `,` or blanks. A header without any value that is known here says nothing: then
    `otherwise` counts, the switch's own reading of the call.
    """
    if not privacy_header:
        return Wish(Privacy.from_wire(otherwise), diversions=False)
    values = _PRIVACY_VALUES.intersection(re.split(r"[;,\s]+", privacy_header.lower()))
    if not values:
        return Wish(Privacy.from_wire(otherwise), diversions=False)
    caller = Privacy.OFF if values.isdisjoint(_WITHHOLDS_CALLER) else Privacy.FULL
    return Wish(caller, diversions=not values.isdisjoint(_WITHHOLDS_DIVERSIONS))


_WITHHOLDS_CALLER: Final = frozenset({"id", "user", "header", "session"})
_WITHHOLDS_DIVERSIONS: Final = frozenset({"history", "header", "session"})
_PRIVACY_VALUES: Final = _WITHHOLDS_CALLER | _WITHHOLDS_DIVERSIONS | {"none"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a leg says is calling; an empty number or name is one that is not known."""

    number: str
    name: str
    privacy: Privacy

    @classmethod
    def from_wire(cls, number: str, name: str, *, privacy: Privacy) -> Self:
        """The original caller as a switch reports it, with all that is not on the allow-lists left out."""
        return cls(clean_caller_number(number), clean_name(name), privacy)

    @property
    def is_number_withheld(self) -> bool:
        """Whether the leg must not show the number."""
        return self.privacy in {Privacy.NUMBER, Privacy.FULL}

    @property
    def is_anonymous(self) -> bool:
        """Whether the caller shows no number: withheld, missing, or `anonymous` in its place (RFC 3323)."""
        return self.is_number_withheld or self.number.lower() in {"", "anonymous"}


def clean_number(text: str) -> str:
    """`text` if it is an optional `+` and 1 to 32 of `0-9 * #`, else nothing."""
    return text if _NUMBER.fullmatch(text) else ""


def without_separators(text: str) -> str:
    """`text` without the blanks and signs that people write between the digits of a number."""
    return text.translate(_WITHOUT_SEPARATORS)


def clean_caller_number(text: str) -> str:
    """`text` if it is a number, or 1 to 64 letters, digits, `.`, `-`, `_` (a caller such as `alice`), else nothing."""
    return text if _CALLER_AS_IT_CAME.fullmatch(text) else clean_number(text)


def clean_name(text: str) -> str:
    """The letters of any script with their combining marks, digits, spaces and `. - _ '` of `text`.

    A run of other characters becomes one blank, so that words stay apart; at most `MAX_NAME_LENGTH` are left. Nothing
    is left of a text with `$ { }`, a backslash, a backtick, a control character, a line separator or half a surrogate
    pair: a caller that sends one of these wants something else than to be called by it.
    """
    if _REFUSED.search(text):
        return ""
    return _kept(text, signs=_NAME_SIGNS, length=MAX_NAME_LENGTH)


def clean_line(text: str) -> str:
    """One line for a log: as a name, with `/ ; : , ( ) + * #` besides, cut to its length."""
    return _kept(text, signs=_LINE_SIGNS, length=MAX_LINE_LENGTH)


def clean_username(text: str) -> str:
    """`text` if it is at most 255 letters, digits, spaces and `. - _ ' @ +`, else nothing: half a name is another's."""
    return text if text == _kept(text, signs=_USERNAME_SIGNS, length=MAX_USERNAME_LENGTH) else ""


def parse_custom(text: str) -> tuple[str, str]:
    """Number and name of a custom caller ID: `number`, `"Name" number`, `"Name" <number>`, or a name alone.

    A number may be written as people do: `+370 (600) 00-001`, `tel:+37060000001`, `sip:37060000001@host`. Both are
    clean, and either may be empty; a name that is refused leaves a good number standing.
    """
    text = text.strip()
    if number := _written_number(text):
        return number, ""
    if text.endswith(">") and "<" in text:
        name, _, rest = text[:-1].rpartition("<")
    elif text.startswith('"') and '"' in text[1:]:
        name, _, rest = text.rpartition('"')
    else:
        name, rest = text, ""
    return _written_number(rest.strip()), clean_name(name)


def _written_number(text: str) -> str:
    """The number that `text` writes, empty where it is none."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() in {"sip", "sips"}:
        return clean_number(user_part(rest.partition("@")[0]))
    if colon and scheme.lower() == "tel":
        text = rest.partition(";")[0]
    return clean_number(without_separators(text)) if any(sign in digits for sign in text) else ""


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
    # What is far beyond the limit is cut before all else: composing takes quadratic time on a long run of marks.
    text = text[: 4 * length]
    if signs.issuperset(text):
        return text[:length].strip()
    composed = unicodedata.normalize("NFC", text)
    kept: list[str] = []
    follows_letter = False
    for sign in composed:
        category = unicodedata.category(sign)[0]
        follows_letter = category == "L" or (category == "M" and follows_letter)
        kept.append(sign if follows_letter or sign in signs else _DROPPED)
    return _DROPPED_RUN.sub(" ", "".join(kept))[:length].strip()
