"""Who diverted a call before: the `Diversion` and `History-Info` headers, read, counted, continued and written.

`Diversion` is RFC 5806, `History-Info` RFC 7044, the conversion between the two RFC 7544. What comes in is never sent
on as text: it is taken apart, and only parts on an allow-list are written again.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Final, NamedTuple
from urllib.parse import unquote

from callflow_service.domain.callflow import State

MAX_HEADER_LENGTH: Final = 16 * 1024
"""How much of a header is read, in characters."""

MAX_ENTRIES: Final = 64
"""How many entries of a header are kept, the newest ones."""

REASONS: Final = {
    State.BEFORE_CALL: "unconditional",
    State.NO_ANSWER: "no-answer",
    State.BUSY: "user-busy",
    State.FAILED: "unavailable",
}
"""The `Diversion` reason of a diversion in each state."""

_UNKNOWN: Final = "unknown"
# `unavailable` is 503 since erratum 3071 of RFC 6044; reasons with no cause of their own are 404.
_CAUSES: Final = {
    "unconditional": 302,
    "no-answer": 408,
    "user-busy": 486,
    "unavailable": 503,
    "deflection": 480,
    _UNKNOWN: 404,
    "time-of-day": 404,
    "do-not-disturb": 404,
    "follow-me": 404,
    "out-of-service": 404,
    "away": 404,
}
_REASON_OF_CAUSE: Final = {
    302: "unconditional",
    408: "no-answer",
    480: "deflection",
    486: "user-busy",
    487: "deflection",
    503: "unavailable",
}
_OPEN: Final = "off"
_PRIVATE: Final = "full"
_PRIVACIES: Final = frozenset({_OPEN, _PRIVATE, "name", "uri"})
_WITHHELD: Final = "history"
_SHOWN: Final = "none"
_PRIVATE_HISTORY: Final = frozenset({_WITHHELD, "header", "session"})

_NOBODY: Final = "anonymous"
_NOWHERE: Final = "anonymous.invalid"

# Quoted strings and <...> are stepped over whole, closed or not. No text can be read in two ways, so none takes long.
_STEPPED_OVER = r'"(?:[^"\\]|\\.)*"?|<[^>]*>?'
_ENTRY = re.compile(rf'(?:{_STEPPED_OVER}|[^",<])+', re.DOTALL)
_PART = re.compile(rf'(?:{_STEPPED_OVER}|[^";<])+', re.DOTALL)
_BRACKETED = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^"<])*<([^<>]*)>', re.DOTALL)
_TEL_SEPARATORS = re.compile(r"[-.()]")
# What RFC 3261 lets stand before the @, and the # that telephones send.
_URI_USER = re.compile(r"[A-Za-z0-9!#$%&'()*+,./:;=?_~-]+", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9.+*#_-]{1,64}", re.ASCII)
# A name or an address, IPv6 in brackets that both are there: some dialplans step over what a bracket opens.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)
_INDEX = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){0,63}", re.ASCII)
_CAUSE = re.compile(r"[1-6][0-9]{2}", re.ASCII)
_REASON_CAUSE = re.compile(r"(?:^|,)\s*SIP\s*;[^,]*?\bcause=([1-6][0-9]{2})\b", re.ASCII | re.IGNORECASE)


class Diversion(NamedTuple):
    """One entry of `Diversion`: the party that diverted, why, how often, and what of it is withheld."""

    user: str
    host: str
    reason: str
    counter: int = 1
    privacy: str = _OPEN


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One entry of `History-Info`: a party the call was sent to.

    `cause` is why it was sent here from the entry before, None where it was not diverted. `privacy` is `history` where
    the entry is to be withheld, else `none` or nothing. `left` is why the call went on from here, on the newest entry
    alone: for the others the next entry says so.
    """

    user: str
    host: str
    cause: int | None
    privacy: str
    index: str
    mapped_from: str = ""
    left: int | None = None


@dataclass(frozen=True, slots=True)
class Came:
    """What came in: `diversions` newest first, `history` oldest first."""

    diversions: tuple[Diversion, ...] = ()
    history: tuple[HistoryEntry, ...] = ()

    @property
    def diversion_count(self) -> int:
        """How often the call was diverted, after `Diversion`."""
        return sum(diversion.counter for diversion in self.diversions)

    @property
    def history_count(self) -> int:
        """How often the call was diverted, after `History-Info`."""
        return sum((entry.cause is not None) + (entry.left is not None) for entry in self.history)


class Stop(NamedTuple):
    """A party on the way of a call: a device that diverted it in the state `left`, or the leg's target (None).

    `address` is what the headers of this leg call it; `known_as` is every user part that means the same party.
    """

    address: str
    known_as: frozenset[str]
    left: State | None

    def is_called(self, user: str) -> bool:
        """Whether `user` means this party; a leading `+` makes no difference."""
        number = user.removeprefix("+")
        return any(number == known.removeprefix("+") for known in self.known_as)


def clean_user(text: str) -> str:
    """`text` if it can be the user part of a header's address, else nothing."""
    return text if _USER.fullmatch(text) else ""


def read(diversion: str, history_info: str, *, domain: str, withheld: bool = False) -> Came:
    """What the two headers say, each comma-joined; an entry that makes no sense is as if it were not there.

    Never fails, and takes time in proportion to the text. A `tel:` number is taken to be at `domain`. Where the caller
    wants them `withheld`, every entry is private.
    """
    diversions, history = _read_diversion(diversion, domain), _read_history(history_info, domain)
    if withheld:
        diversions = tuple(entry._replace(privacy=_PRIVATE) for entry in diversions)
        history = tuple(replace(entry, privacy=_WITHHELD) for entry in history)
    return Came(diversions, history)


def write(came: Came, stops: Sequence[Stop], *, explained: int, domain: str) -> tuple[str, str]:
    """`Diversion` and `History-Info` of a leg: what came in, continued by our own diverters and the target.

    The first `explained` stops diverted the call in earlier answers: an entry that came in for one of them is not
    repeated, but its privacy stays.
    """
    if not (came.diversions or came.history or any(stop.left for stop in stops)):
        return "", ""
    diversions, told = _without_told(came.diversions or _diversions_of(came.history), stops[:explained])
    history, met = _without_met(came.history, stops, explained=explained)
    host = domain if _HOST.fullmatch(domain) else _NOWHERE
    ours = [
        Diversion(
            clean_user(stop.address) or _NOBODY,
            host,
            REASONS[stop.left] if stop.left else "",
            told[place].counter if place in told else 1,
            _privacy(told.get(place), met.get(place)),
        )
        for place, stop in enumerate(stops)
    ]
    if came.history:
        reached = history[-1].left if history else None
    else:
        history, reached = _history_of(diversions), _CAUSES[diversions[0].reason] if diversions else None
    entries = _continued(history, ours, reached=reached, met=met.get(0))
    return (
        ", ".join(_diversion_text(entry) for entry in [*reversed(ours), *diversions] if entry.reason),
        ", ".join(_history_text(entry) for entry in entries),
    )


class _Address(NamedTuple):
    user: str
    host: str
    parameters: dict[str, str]
    headers: dict[str, str]


def _read_diversion(header: str, domain: str) -> tuple[Diversion, ...]:
    return tuple(
        Diversion(
            address.user,
            address.host,
            reason if (reason := parameters.get("reason", _UNKNOWN).lower()) in _CAUSES else _UNKNOWN,
            _counter(parameters.get("counter", "")),
            # A privacy that is not known here withholds all: it asked for something.
            privacy if (privacy := parameters.get("privacy", _OPEN).lower()) in _PRIVACIES else _PRIVATE,
        )
        for address, parameters in islice(_entries(_split(header), domain), MAX_ENTRIES)
    )


def _read_history(header: str, domain: str) -> tuple[HistoryEntry, ...]:
    entries = [
        HistoryEntry(
            address.user,
            address.host,
            int(cause) if _CAUSE.fullmatch(cause := address.parameters.get("cause", "")) else None,
            _read_history_privacy(address.headers.get("privacy", "")),
            parameters.get("index", ""),
            mapped if _INDEX.fullmatch(mapped := parameters.get("mp", "")) else "",
            int(reason[1]) if (reason := _REASON_CAUSE.search(address.headers.get("reason", ""))) else None,
        )
        for address, parameters in islice(_entries(reversed(_split(header)), domain), MAX_ENTRIES)
    ][::-1]
    # An escaped Reason says why the call left an entry; a cause on the next entry tells of the same diversion.
    for place, (entry, following) in enumerate(pairwise(entries)):
        entries[place + 1] = replace(following, cause=following.cause or entry.left)
    entries = [*(replace(entry, left=None) for entry in entries[:-1]), *entries[-1:]]
    return tuple(entries if _are_in_order([entry.index for entry in entries]) else _renumbered(entries))


def _split(header: str) -> list[str]:
    texts: list[str] = _ENTRY.findall(header[:MAX_HEADER_LENGTH])
    # A cut may have gone through the last one.
    return texts[:-1] if len(header) > MAX_HEADER_LENGTH else texts


def _entries(texts: Iterable[str], domain: str) -> Iterator[tuple[_Address, dict[str, str]]]:
    for text in texts:
        head, *parts = _PART.findall(text) or [""]
        bracketed = _BRACKETED.match(head)
        if address := _read_address(bracketed[1] if bracketed else head, domain):
            yield address, _pairs(parts)


def _read_address(uri: str, domain: str) -> _Address | None:
    scheme, _, rest = uri.strip().partition(":")
    match scheme.lower():
        case "sip" | "sips":
            named, at, place = rest.partition("@")
            if not at:
                named, place = "", rest
            elif not _URI_USER.fullmatch(named):
                return None
            user = unquote(re.split("[:;]", named, maxsplit=1)[0])
        case "tel":
            number = re.split("[;?]", rest, maxsplit=1)[0]
            if not _URI_USER.fullmatch(number):
                return None
            user = _TEL_SEPARATORS.sub("", number)
            place = domain + rest.removeprefix(number)
        case _:
            return None
    place, _, headers = place.partition("?")
    host, *parameters = place.split(";")
    if not _HOST.fullmatch(host):
        return None
    if not _USER.fullmatch(user):
        # It was a diversion all the same, and counts.
        user, host = _NOBODY, _NOWHERE
    escaped = _pairs(headers.split("&"))
    return _Address(user, host, _pairs(parameters), {name: unquote(value) for name, value in escaped.items()})


def _pairs(parts: Sequence[str]) -> dict[str, str]:
    pairs = (part.partition("=") for part in parts)
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _read_history_privacy(text: str) -> str:
    wishes = re.split(r"[;,\s]+", text.lower())
    if not _PRIVATE_HISTORY.isdisjoint(wishes):
        return _WITHHELD
    return _SHOWN if _SHOWN in wishes else ""


def _counter(text: str) -> int:
    # An entry is one diversion at least; two digits are all that the header has room for.
    if not (text.isascii() and text.isdigit()):
        return 1
    return min(99, int(text.lstrip("0")[:3] or "1"))


def _are_in_order(indexes: Sequence[str]) -> bool:
    if not all(_INDEX.fullmatch(index) for index in indexes):
        return False
    numbers = [[int(part) for part in index.split(".")] for index in indexes]
    return all(older < newer for older, newer in pairwise(numbers))


def _renumbered(entries: Sequence[HistoryEntry]) -> list[HistoryEntry]:
    return [
        replace(entry, index=_nested(place), mapped_from=_nested(place - 1)) for place, entry in enumerate(entries, 1)
    ]


def _nested(depth: int) -> str:
    return ".".join(["1"] * depth)


def _diversions_of(history: Sequence[HistoryEntry]) -> list[Diversion]:
    by_index = {entry.index: entry for entry in history}
    diversions = []
    for previous, entry in pairwise(history):
        if entry.cause is not None:
            diversions.append(_diversion_by(by_index.get(entry.mapped_from, previous), entry.cause))
    if history and (left := history[-1].left) is not None:
        diversions.append(_diversion_by(history[-1], left))
    return diversions[::-1]


def _diversion_by(entry: HistoryEntry, cause: int) -> Diversion:
    reason = _REASON_OF_CAUSE.get(cause, _UNKNOWN)
    return Diversion(entry.user, entry.host, reason, privacy=_PRIVATE if entry.privacy == _WITHHELD else _OPEN)


def _continued(
    history: Sequence[HistoryEntry], ours: Sequence[Diversion], *, reached: int | None, met: HistoryEntry | None
) -> list[HistoryEntry]:
    """`history` and an entry for each of `ours`, the first of which was reached for the cause `reached`.

    Where the first of ours was `met`, it keeps the place in the tree that it came with.
    """
    entries = list(history)
    for party in ours:
        last = entries[-1].index if entries else ""
        index, mapped_from = (f"{last}.1" if last else "1"), last
        if met:
            reached, index, mapped_from, met = met.cause, met.index, met.mapped_from, None
        privacy = _history_privacy(party) if party.reason or party.privacy != _OPEN else ""
        entries.append(HistoryEntry(party.user, party.host, reached, privacy, index, mapped_from))
        reached = _CAUSES.get(party.reason)
    return entries


def _history_of(diversions: Sequence[Diversion]) -> list[HistoryEntry]:
    history: list[HistoryEntry] = []
    cause = None
    for diversion in reversed(diversions):
        history.append(HistoryEntry(diversion.user, diversion.host, cause, _history_privacy(diversion), index=""))
        cause = _CAUSES[diversion.reason]
    return _renumbered(history)


def _without_told(
    diversions: Sequence[Diversion], hops: Sequence[Stop]
) -> tuple[list[Diversion], dict[int, Diversion]]:
    """The entries that are not about our own hops, and by hop those that are; each hop is told of once."""
    rest, told = list(diversions), {}
    for place, hop in reversed(list(enumerate(hops))):
        for entry in rest:
            if hop.left and entry.reason == REASONS[hop.left] and hop.is_called(entry.user):
                told[place] = entry
                rest.remove(entry)
                break
    return rest, told


def _without_met(
    history: Sequence[HistoryEntry], stops: Sequence[Stop], *, explained: int
) -> tuple[list[HistoryEntry], dict[int, HistoryEntry]]:
    """The entries that are not about our own stops, and by stop those that are.

    The first stop was reached in a way of its own, so it is met in the newest of the entries only, for any cause.
    """
    rest, met = list(history), {}
    for place in range(min(explained, len(stops) - 1), 0, -1):
        left = stops[place - 1].left
        for entry in reversed(rest):
            if left and entry.cause == _CAUSES[REASONS[left]] and stops[place].is_called(entry.user):
                met[place] = entry
                rest.remove(entry)
                break
    if rest and stops and stops[0].is_called(rest[-1].user) and (explained or rest[-1].left is None):
        met[0] = rest.pop()
    return rest, met


def _privacy(told: Diversion | None, met: HistoryEntry | None) -> str:
    if told and told.privacy != _OPEN:
        return told.privacy
    return _PRIVATE if met and met.privacy == _WITHHELD else _OPEN


def _history_privacy(diversion: Diversion) -> str:
    # RFC 7544 knows one privacy for an entry of the history: whatever is withheld, all is.
    return _SHOWN if diversion.privacy == _OPEN else _WITHHELD


def _diversion_text(diversion: Diversion) -> str:
    return (
        f"<sip:{_escaped(diversion.user)}@{diversion.host}>"
        f";reason={diversion.reason};counter={diversion.counter};privacy={diversion.privacy}"
    )


def _history_text(entry: HistoryEntry) -> str:
    cause = f";cause={entry.cause}" if entry.cause is not None else ""
    privacy = f"?Privacy={entry.privacy}" if entry.privacy else ""
    mapped_from = f";mp={entry.mapped_from}" if entry.mapped_from else ""
    return f"<sip:{_escaped(entry.user)}@{entry.host}{cause}{privacy}>;index={entry.index}{mapped_from}"


def _escaped(user: str) -> str:
    # RFC 3261 has no bare number sign in a user part.
    return user.replace("#", "%23")
