"""Lists of callers: numbers, prefixes such as `+3706*`, and `anonymous` for those who show no number.

A leading `+` does not matter. An index holds the entries of all lists, and a caller is in a list where one of a few
texts is an entry of it: the number itself, each prefix of it with a `*`, `anonymous`. So a list of ten thousand costs
what one of ten does.
"""

import re
from typing import Final

from callflow_service.domain.callerid import without_separators

MAX_ENTRIES: Final = 10_000
"""The most entries of a list."""

ANONYMOUS: Final = "anonymous"
"""The entry for callers without a number."""

ENTRY: Final = rf"(\+?[0-9]{{1,32}}\*?|{ANONYMOUS})"
"""What an entry looks like, as a regular expression."""

_ENTRY: Final = re.compile(ENTRY, re.ASCII)


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
