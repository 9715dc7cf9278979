"""The text of a world file, piece by piece, as the YAML parser can take it."""

import codecs
import os
import re
from pathlib import Path
from typing import BinaryIO, Final

from callflow_service.world.errors import WorldError

_PIECE: Final = 1 << 16
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# What YAML has no place for, https://yaml.org/spec/1.1/#c-printable; the parser would refuse it without a line.
_UNREADABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")

# Any escape is matched, so that an escaped backslash before a `u` is not taken for the start of one.
_ESCAPE: Final = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|.)", re.DOTALL)
# Tabs may indent JSON but not YAML, and these three end a line in YAML but not in JSON.
_JSON_SIGNS: Final = str.maketrans({"\t": " ", "\x85": r"\u0085", "\u2028": r"\u2028", "\u2029": r"\u2029"})


class WorldText:
    """A file's text for the parser, which asks for the next piece with `read`.

    JSON comes out as YAML 1.1 with its lines kept, so one parser reads both and knows the lines of both.

    Attributes:
        size: How many bytes the file has.
        bytes_read: How many of them were read so far.
    """

    def __init__(self, stream: BinaryIO, file: Path) -> None:
        self.size = os.fstat(stream.fileno()).st_size
        self.bytes_read = 0
        self._stream = stream
        self._file = file
        self._is_json = file.suffix.lower() == ".json"
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._lines = 0
        self._held = ""

    def read(self, _size: int = -1) -> str:
        """The next piece, of whatever length; empty at the end.

        Raises:
            WorldError: The file cannot be read, is not UTF-8, or holds a control character.
        """
        while True:
            try:
                raw = self._stream.read(_PIECE)
            except OSError as error:
                raise WorldError(self._file, None, f"cannot be read: {error.strerror}.") from None
            text = self._decode(raw)
            self.bytes_read += len(raw)
            if self._is_json:
                text = self._as_yaml(text, is_last=not raw)
            if text or not raw:
                return text

    def _decode(self, raw: bytes) -> str:
        if not self.bytes_read and raw.startswith(_UTF_16):
            raise WorldError(self._file, 1, "the file is in UTF-16; save it as UTF-8.")
        try:
            text = self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            line = self._lines + error.object.count(b"\n", 0, error.start) + 1
            raise WorldError(self._file, line, "the text is not UTF-8.") from None
        if unreadable := _UNREADABLE.search(text):
            line = self._lines + text.count("\n", 0, unreadable.start()) + 1
            sign = f"U+{ord(unreadable[0]):04X}"
            raise WorldError(self._file, line, f"the text has a character that cannot stand in it, {sign}.")
        self._lines += text.count("\n")
        return text

    def _as_yaml(self, text: str, *, is_last: bool) -> str:
        text = self._held + text
        # No escape goes past one of these. A text without any is too long to be right, wherever it is cut.
        end = len(text) if is_last else max(map(text.rfind, (",", " ", "\n"))) + 1 or len(text)
        self._held = text[end:]
        return _ESCAPE.sub(_join_surrogates, text[:end].translate(_JSON_SIGNS))


def _join_surrogates(escape: re.Match[str]) -> str:
    high, low = escape.groups()
    if high is None:
        return escape[0]
    return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))
