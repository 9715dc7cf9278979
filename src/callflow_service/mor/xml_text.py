"""Which text XML 1.0 can carry."""

import re

# https://www.w3.org/TR/xml/#charsets
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def without_forbidden(text: str) -> str:
    """The text without the characters that XML 1.0 cannot carry, not even escaped."""
    return _FORBIDDEN.sub("", text)
