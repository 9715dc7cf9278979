"""The marker of a call: which devices have diverted it so far, where it is now, and when it began.

The switch keeps the marker and sends it back with its next question, so the service keeps nothing about calls.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from callflow_service.domain.callflow import MAX_ID, MAX_RULES, MAX_STEPS, State

MAX_HOPS: Final = 64
"""The most diversions that a marker can hold."""

MAX_LEFT: Final = 64
"""The most devices that a marker can hold beside its way."""

MAX_LENGTH: Final = 4096
"""The longest marker that is looked at, in characters."""

_LETTERS: Final = {State.BEFORE_CALL: "u", State.NO_ANSWER: "n", State.BUSY: "b", State.FAILED: "f"}
_STATES: Final = {letter: state for state, letter in _LETTERS.items()}
_ELSEWHERE: Final = "x"

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
# The signs of a number that a marker has no room for, and what stands for them.
_SIGNS: Final = str.maketrans("*#", "sh")
_SIGNS_BACK: Final = str.maketrans("sh", "*#")

_ID = r"(?:0|[1-9][0-9]{0,18})"
_FLOW_ID = r"[A-Za-z0-9.-]{1,64}"
_WAY = rf"(?:{_ID}[unbf]\.){{0,{MAX_HOPS}}}(?:{_ID}|{_ELSEWHERE})"
_CHOICES = rf"[0-9]{{1,2}}-[0-9]{{1,2}}(?:-[0-9]{{1,2}}-[0-9]{{1,2}}){{0,{MAX_HOPS - 1}}}"
_LEFT = rf"{_ID}(?:-{_ID}){{0,{MAX_LEFT - 1}}}"
_MARKER = re.compile(
    rf"(?P<way>{_WAY})_(?P<flow_id>{_FLOW_ID})"
    rf"(?:_t(?P<began>[0-9a-z]{{1,8}})(?:\.k(?P<legs>[0-9]{{1,3}}))?(?:\.n(?P<called>[0-9sh]{{1,32}}))?"
    rf"(?:\.c(?P<choices>{_CHOICES}))?(?:\.r(?P<left>{_LEFT}))?)?",
    re.ASCII,
)
_IS_FLOW_ID = re.compile(_FLOW_ID, re.ASCII)
_CALLED = re.compile(r"\+?([0-9*#]{1,32})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Hop:
    """One diversion: this device passed the call on in this state, by this rule and step of its forward.

    `rule` counts from 1, and 0 is what holds where no rule does; `step` counts from 1.
    """

    device_id: int
    state: State
    rule: int = 0
    step: int = 1


@dataclass(frozen=True, slots=True)
class Path:
    """The way of a call, oldest hop first; `current` is the device it is at, None outside of what we know.

    `str` gives the marker: `4u.5n.100_FLOW` was diverted by device 4 before the call, then by device 5 that did not
    answer, and is at device 100; `x` in place of 100 is a number outside.

    Attributes:
        began: When the call's first question came, in seconds since 1970; None in markers of a former release.
        legs: How many legs had rung when this one was begun, None where each state of the way says so itself.
        called: The number by which the call came in, without its `+`; empty where that is not known.
        left: The devices that had the call and did not take it, and are not on its way any more.
    """

    flow_id: str
    hops: tuple[Hop, ...]
    current: int | None
    began: int | None = None
    legs: int | None = None
    called: str = ""
    left: tuple[int, ...] = ()

    def __str__(self) -> str:
        hops = "".join(f"{hop.device_id}{_LETTERS[hop.state]}." for hop in self.hops)
        way = f"{hops}{_ELSEWHERE if self.current is None else self.current}_{self.flow_id}"
        if self.began is None:
            return way
        details = f"_t{_in_base_36(self.began)}"
        if self.legs is not None:
            details += f".k{self.legs}"
        if self.called:
            details += f".n{self.called.translate(_SIGNS)}"
        if self.hops and any(hop.rule or hop.step != 1 for hop in self.hops):
            details += ".c" + "-".join(f"{hop.rule}-{hop.step}" for hop in self.hops)
        if self.left:
            details += ".r" + "-".join(map(str, self.left))
        return way + details

    @property
    def legs_before(self) -> int:
        """How many legs had rung when this one was begun."""
        return _legs_of(self.hops) if self.legs is None else self.legs

    @property
    def met(self) -> frozenset[int]:
        """Every device that has, or had, the call."""
        current = () if self.current is None else (self.current,)
        return frozenset((*(hop.device_id for hop in self.hops), *current, *self.left))


def parse(text: str) -> Path | None:
    """The path that `text` is the marker of, None if it is none."""
    found = _MARKER.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if found is None:
        return None
    *parts, last = found["way"].split(".")
    choices = [int(each) for each in (found["choices"] or "").split("-") if each]
    if choices and len(choices) != 2 * len(parts):
        return None
    hops = tuple(
        Hop(int(part[:-1]), _STATES[part[-1]], *(choices[2 * place : 2 * place + 2] if choices else ()))
        for place, part in enumerate(parts)
    )
    path = Path(
        flow_id=found["flow_id"],
        hops=hops,
        current=None if last == _ELSEWHERE else int(last),
        began=int(found["began"], 36) if found["began"] else None,
        legs=int(found["legs"]) if found["legs"] else None,
        called=(found["called"] or "").translate(_SIGNS_BACK),
        left=tuple(map(int, found["left"].split("-"))) if found["left"] else (),
    )
    if max(path.met, default=0) > MAX_ID or any(hop.rule > MAX_RULES or hop.step > MAX_STEPS for hop in hops):
        return None
    # One way has one marker.
    is_needless = path.legs is not None and legs_told(path.hops, path.legs) is None
    return None if is_needless or str(path) != text else path


def legs_told(hops: Sequence[Hop], legs: int) -> int | None:
    """How many legs had rung before one, None where the states of its way say so themselves."""
    return None if legs == _legs_of(hops) else legs


def _legs_of(hops: Sequence[Hop]) -> int:
    return sum(hop.state is not State.BEFORE_CALL for hop in hops)


def began_at(seconds: int) -> datetime:
    """The time of a call, from its marker."""
    return datetime.fromtimestamp(seconds, UTC)


def carried_number(called: str) -> str:
    """A called number as a marker carries it; empty where it cannot."""
    number = _CALLED.fullmatch(called)
    return number[1] if number else ""


def new_flow_id(call_id: str, random: Callable[[], str]) -> str:
    """The id of a whole call: the switch's own where a marker can carry it, else its hash, else what `random` gives.

    `random` gives a fresh hexadecimal text of at most 64 characters, for a call that the switch gave no id.
    """
    if _IS_FLOW_ID.fullmatch(call_id):
        return call_id
    if call_id:
        return hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return random()


# Calls of the same second have it in common.
@lru_cache(1_000)
def _in_base_36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
