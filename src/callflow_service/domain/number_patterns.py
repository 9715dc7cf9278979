"""Patterns that narrow which numbers an account may forward to: a part of regular expressions that ends in time.

Python's regular expressions can take years for one number. What makes them so is left out: groups, and with them
repetitions of repetitions and choices of choices.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

MAX_LENGTH: Final = 255
"""The longest pattern."""

_ATOM: Final = r"(?:[0-9#]|\\[+*#d]|\.|\[\^?(?:[0-9](?:-[0-9])?|[+*#])+\])"
_REPEATED: Final = r"(?:[?*+]|\{[0-9]{1,2}(?:,[0-9]{0,2})?\})"
_CHOICE: Final = rf"(?:{_ATOM}{_REPEATED}?)+"
NUMBER_PATTERN: Final = rf"\^?{_CHOICE}(?:\|{_CHOICE})*\$?"
"""What a pattern looks like, as a regular expression."""

_PATTERN: Final = re.compile(NUMBER_PATTERN)
_MOST_REPEATED: Final = 3
_IS_REPEATED: Final = re.compile(r"(?<!\\)[?*+](?![^\[]*\])|,")
_SENTENCE: Final = (
    r"must be such as \+370[56]\d{7}|1\d{2}: digits, # \+ \* \d . and [...], each with ? * + or {n,m}, and | between "
    "choices; no groups, and at most three of ? * + {n,m} in a choice"
)


def read_pattern(text: str) -> str:
    """The pattern, where it is one.

    Raises:
        ValueError: It is none, or could take too long.
    """
    if len(text) > MAX_LENGTH or not _PATTERN.fullmatch(text):
        raise ValueError(_SENTENCE)
    if any(len(_IS_REPEATED.findall(choice)) > _MOST_REPEATED for choice in text.split("|")):
        raise ValueError(_SENTENCE)
    try:
        re.compile(text)
    except (re.error, OverflowError):
        raise ValueError(_SENTENCE) from None
    return text


def fits_all(number: str, patterns: Iterable[str]) -> bool:
    """Whether a number, as it is stored, fits every pattern as a whole: an account's, and those of all above it."""
    return all(_compiled(pattern).fullmatch(number) for pattern in patterns)


@lru_cache(4_096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.removeprefix("^").removesuffix("$"), re.ASCII)
