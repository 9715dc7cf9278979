"""The marker of a call: which devices have diverted it so far, and where it is now.

The switch keeps the marker and sends it back with its next question, so the service keeps nothing about calls.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from callflow_service.domain.callflow import MAX_ID, State

MAX_HOPS: Final = 64
"""The most diversions that a marker can hold."""

MAX_LENGTH: Final = 2048
"""The longest marker that is looked at, in characters."""

_LETTERS: Final = {State.BEFORE_CALL: "u", State.NO_ANSWER: "n", State.BUSY: "b", State.FAILED: "f"}
_STATES: Final = {letter: state for state, letter in _LETTERS.items()}
_ELSEWHERE: Final = "x"

_ID = r"(?:0|[1-9][0-9]{0,18})"
_FLOW_ID = r"[A-Za-z0-9.-]{1,64}"
_MARKER = re.compile(rf"(?:{_ID}[unbf]\.){{0,{MAX_HOPS}}}(?:{_ID}|{_ELSEWHERE})_{_FLOW_ID}", re.ASCII)
_IS_FLOW_ID = re.compile(_FLOW_ID, re.ASCII)


@dataclass(frozen=True, slots=True)
class Hop:
    """One diversion: this device passed the call on in this state."""

    device_id: int
    state: State


@dataclass(frozen=True, slots=True)
class Path:
    """The way of a call, oldest hop first; `current` is the device it is at, None outside of what we know.

    `str` gives the marker: `4u.5n.100_FLOW` was diverted by device 4 before the call, then by device 5 that did not
    answer, and is at device 100; `x` in place of 100 is a number outside.
    """

    flow_id: str
    hops: tuple[Hop, ...]
    current: int | None

    def __str__(self) -> str:
        hops = "".join(f"{hop.device_id}{_LETTERS[hop.state]}." for hop in self.hops)
        return f"{hops}{_ELSEWHERE if self.current is None else self.current}_{self.flow_id}"


def parse(text: str) -> Path | None:
    """The path that `text` is the marker of, None if it is none."""
    if len(text) > MAX_LENGTH or not _MARKER.fullmatch(text):
        return None
    way, _, flow_id = text.partition("_")
    *parts, last = way.split(".")
    hops = tuple(Hop(int(part[:-1]), _STATES[part[-1]]) for part in parts)
    current = None if last == _ELSEWHERE else int(last)
    if max((hop.device_id for hop in hops), default=0) > MAX_ID or (current or 0) > MAX_ID:
        return None
    return Path(flow_id, hops, current)


def new_flow_id(call_id: str, random: Callable[[], str]) -> str:
    """The id of a whole call: the switch's own where a marker can carry it, else its hash, else what `random` gives.

    `random` gives a fresh hexadecimal text of at most 64 characters, for a call that the switch gave no id.
    """
    if _IS_FLOW_ID.fullmatch(call_id):
        return call_id
    if call_id:
        return hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return random()
