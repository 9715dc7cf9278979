"""Read a world file item by item, with the line of every key."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from callflow_service.resources.models import Section
from callflow_service.world.errors import WorldError
from callflow_service.world.source import WorldText

# libyaml reads a hundred times faster, but a system's own PyYAML may be built without it.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LISTS: Final = frozenset({"allowed_addresses", "trunk.headers", "targets.allow", "targets.deny", "entries"})
# Mappings and lists of them, whose keys may be such in turn, and how deep they may go.
_NESTED: Final = {"weekly": 4, "exceptions": 4, "states": 12}
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})


Value = str | None | list["Value"] | dict[str, "Value"]
"""What stands at a key: the text that is written, or a list or a mapping where one may be."""


@dataclass(frozen=True, slots=True)
class RawItem:
    """One item of a section, as it is written.

    Attributes:
        index: Its place in the section, from 0.
        line: Where it starts, from 1.
        fields: What its keys say: the digits and letters as they are written, quoted or not; None for a key without a
            value. A list only where a key may have one.
        lines: The line of each key, from 1; of a key within a key as `outer.inner`, of an entry of a list as `outer.0`.
    """

    section: Section
    index: int
    line: int
    fields: dict[str, Value]
    lines: dict[str, int]

    @property
    def place(self) -> str:
        """What a message calls it."""
        return f"{self.section}[{self.index}]"


_KNOWN: Final = frozenset(Section)
_SECTIONS: Final = ", ".join(Section)
_LONGEST_SHOWN: Final = 32


def read_items(text: WorldText, file: Path) -> Iterator[RawItem]:
    """The items of a world file in its own order; at no time is more than one in memory.

    Raises:
        WorldError: The file is no YAML or JSON, or not laid out as a world file.
    """
    return _Reader(text, file).items()


def shown_key(key: str) -> str | None:
    """A key as a message may show it; None where it looks like no key, for then it may be a secret in a wrong place."""
    return key if key.isascii() and key.replace("_", "").isalpha() and len(key) <= _LONGEST_SHOWN else None


def is_shown_place(place: str) -> bool:
    """Whether a message may show a place such as `weekly.0.from`."""
    return all(part.isdigit() or shown_key(part) for part in place.split("."))


class _Reader:
    """Goes through the parser's events, which have lines, instead of its objects, which have none."""

    def __init__(self, text: WorldText, file: Path) -> None:
        self._file = file
        self._parser: Iterator[Event] = yaml.parse(text, Loader=_LOADER)

    def items(self) -> Iterator[RawItem]:
        self._next()
        if isinstance(self._next(), StreamEndEvent):
            raise self._error(1, f"the file is empty; it should have at least one of the keys {_SECTIONS}.")
        top = self._next()
        if isinstance(top, ScalarEvent) and _value(top) is None:
            raise self._error(1, f"the file is empty; it should have at least one of the keys {_SECTIONS}.")
        if not isinstance(top, MappingStartEvent):
            raise self._error(_line(top), f"at its top the file must be a mapping with the keys {_SECTIONS}.")
        seen: set[Section] = set()
        while not isinstance(event := self._next(), MappingEndEvent):
            section = self._section(event)
            if section in seen:
                raise self._error(_line(event), f"{section}: this key is there twice.")
            seen.add(section)
            yield from self._section_items(section)
        if not isinstance(self._next(), DocumentEndEvent) or not isinstance(more := self._next(), StreamEndEvent):
            raise self._error(_line(more), "the file holds a second document; there can be only one.")

    def _section(self, event: Event) -> Section:
        if isinstance(event, ScalarEvent) and event.value in _KNOWN:
            return Section(event.value)
        shown = isinstance(event, ScalarEvent) and shown_key(event.value)
        raise self._error(_line(event), f"{shown or 'a key'}: is not known; the keys at the top are {_SECTIONS}.")

    def _section_items(self, section: Section) -> Iterator[RawItem]:
        start = self._next()
        if isinstance(start, ScalarEvent) and _value(start) is None:
            return
        if not isinstance(start, SequenceStartEvent):
            raise self._error(_line(start), f"{section}: must be a list.")
        index = 0
        while not isinstance(event := self._next(), SequenceEndEvent):
            if not isinstance(event, MappingStartEvent):
                raise self._error(_line(event), f"{section}[{index}]: must be a mapping of keys to values.")
            yield self._item(section, index, _line(event))
            index += 1

    def _item(self, section: Section, index: int, line: int) -> RawItem:
        item = RawItem(section, index, line, {}, {})
        while not isinstance(event := self._next(), MappingEndEvent):
            key = self._key(event, item, "")
            value = self._next()
            if key in _NESTED:
                item.fields[key] = self._nested(value, item, key, _NESTED[key])
            elif isinstance(value, MappingStartEvent):
                item.fields[key] = self._mapping(item, key)
            elif isinstance(value, SequenceStartEvent) and key in _LISTS:
                item.fields[key] = self._list(item, key)
            else:
                item.fields[key] = self._text(value, item, key)
        return item

    def _nested(self, event: Event, item: RawItem, place: str, deep: int) -> Value:
        if isinstance(event, SequenceStartEvent) and deep:
            entries: list[Value] = []
            while not isinstance(each := self._next(), SequenceEndEvent):
                item.lines[f"{place}.{len(entries)}"] = _line(each)
                entries.append(self._nested(each, item, f"{place}.{len(entries)}", deep - 1))
            return entries
        if isinstance(event, MappingStartEvent) and deep:
            mapping: dict[str, Value] = {}
            while not isinstance(each := self._next(), MappingEndEvent):
                key = self._key(each, item, f"{place}.")
                mapping[key] = self._nested(self._next(), item, f"{place}.{key}", deep - 1)
            return mapping
        return self._text(event, item, place)

    def _mapping(self, item: RawItem, outer: str) -> dict[str, Value]:
        mapping: dict[str, Value] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            key = self._key(event, item, f"{outer}.")
            value = self._next()
            if isinstance(value, SequenceStartEvent) and (path := f"{outer}.{key}") in _LISTS:
                mapping[key] = self._list(item, path)
            else:
                mapping[key] = self._text(value, item, outer)
        return mapping

    def _list(self, item: RawItem, key: str) -> list[Value]:
        entries: list[Value] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            item.lines[f"{key}.{len(entries)}"] = _line(event)
            entries.append(self._text(event, item, key))
        return entries

    def _key(self, event: Event, item: RawItem, prefix: str) -> str:
        if not isinstance(event, ScalarEvent):
            raise self._error(_line(event), f"{item.place}: a key must be a single word.")
        key = prefix + event.value
        if key in item.lines:
            shown = f".{prefix}{event.value}" if shown_key(event.value) else ""
            raise self._error(_line(event), f"{item.place}{shown}: a key is there twice.")
        item.lines[key] = _line(event)
        return event.value

    def _text(self, event: Event, item: RawItem, key: str) -> str | None:
        if isinstance(event, ScalarEvent):
            return _value(event)
        shown = f".{key}" if is_shown_place(key) else ""
        raise self._error(_line(event), f"{item.place}{shown}: must be a single value, not a list or a mapping.")

    def _next(self) -> Event:
        try:
            event = next(self._parser)
        except yaml.MarkedYAMLError as error:
            raise self._error(_error_line(error), f"this is not {self._format}: {error.problem}.") from None
        except (yaml.YAMLError, ValueError, OverflowError):
            raise self._error(None, f"this is not {self._format}.") from None
        if sign := _special_sign(event):
            sentence = f"a value that starts with {sign} must stand in quotes, for what it means in YAML is not taken."
            raise self._error(_line(event), sentence)
        return event

    @property
    def _format(self) -> str:
        return "JSON" if self._file.suffix.lower() == ".json" else "YAML"

    def _error(self, line: int | None, sentence: str) -> WorldError:
        return WorldError(self._file, line, sentence)


def _special_sign(event: Event) -> str | None:
    # An alias could make a small file a huge world, and a tag could ask for any object.
    if isinstance(event, AliasEvent):
        return "*"
    if getattr(event, "anchor", None) is not None:
        return "&"
    return None if getattr(event, "tag", None) is None else "!"


def _line(event: Event) -> int:
    mark: Any = event.start_mark
    return int(mark.line) + 1


def _value(event: ScalarEvent) -> str | None:
    # The first of `implicit` says that it is written plain, without quotes.
    return None if event.implicit[0] and event.value in _NULLS else str(event.value)


def _error_line(error: yaml.MarkedYAMLError) -> int | None:
    # What was not closed is noticed far below, at the next thing that does not fit or at the end.
    scanned = (error.context or "").startswith("while scanning")
    mark = (error.context_mark if scanned else None) or error.problem_mark
    return None if mark is None else int(mark.line) + 1
