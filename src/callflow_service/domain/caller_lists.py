"""Lists of callers: numbers, prefixes such as `+3706*`, and `anonymous` for those who show no number.

A leading `+` does not matter. An index holds the entries of all lists, and a caller is in a list where one of a few
texts is an entry of it (`candidates`), so that a list of ten thousand costs what one of ten does.
"""

import re
from collections.abc import Container
from typing import Final

from callflow_service.domain.callerid import without_separators

MAX_ENTRIES: Final = 10_000
"""The most entries of a list."""

ANONYMOUS: Final = "anonymous"
"""The entry for callers without a number."""

ENTRY: Final = rf"(\+?[0-9]{{1,32}}\*?|{ANONYMOUS})"
"""What an entry looks like, as a regular expression."""

_ENTRY: Final = re.compile(ENTRY, re.ASCII)
_NUMBER: Final = re.compile(r"\+?[0-9]{1,32}", re.ASCII)


def read_entry(text: str) -> str:
    """An entry as it is kept, of one as people type it: without what stands between the digits.

    Raises:
        ValueError: It is no number, no prefix, and not `anonymous`.
    """
    entry = without_separators(text)
    if entry.lower() == ANONYMOUS:
        return ANONYMOUS
    if not _ENTRY.fullmatch(entry):
        raise ValueError("must be a number such as +37061234567, a prefix such as +3706*, or anonymous")
    return entry


def indexed(entry: str) -> str:
    """An entry as the index has it: the `+` does not matter."""
    return entry.removeprefix("+")


def candidates(number: str | None) -> list[str]:
    """The entries, as the index has them, by which a caller is in a list; None or an empty text is an anonymous one.

    A caller whose number has other signs than digits is in no list: it is neither anonymous nor any of the numbers.
    """
    if not number:
        return [ANONYMOUS]
    if not _NUMBER.fullmatch(number):
        return []
    digits = number.removeprefix("+")
    return [digits, *(f"{digits[:length]}*" for length in range(1, len(digits) + 1))]


def matches(number: str | None, entries: Container[str]) -> bool:
    """Whether a caller is in a list of such entries as `indexed` gives."""
    return any(candidate in entries for candidate in candidates(number))
