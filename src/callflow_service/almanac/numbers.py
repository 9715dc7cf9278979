"""How numbers read by the numbering plans of the world, which Google's libphonenumber collects.

The library's own `parse` takes far longer than a lookup has. So its patterns are compiled here, once for each calling
code, and asked directly. Whoever wants to hide a number writes it as exchanges take it and programs do not:
with the trunk prefix kept, with another country's prefix for abroad, behind a feature code, with digits too many. What
is no regular number is therefore looked at in all these ways, and what it is by the worst of them counts.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

from phonenumbers import (
    COUNTRY_CODE_TO_REGION_CODE,
    SUPPORTED_REGIONS,
    PhoneMetadata,
    PhoneNumber,
    PhoneNumberDesc,
    region_code_for_number,
)

from callflow_service.domain.targets import NumberKind, NumberRead

_REMEMBERED: Final = 16_384
_NO_REGION: Final = "001"
_LONGEST_CODE: Final = 3
# The shortest numbers of the world are of so many digits, with their calling code. What is shorter is an extension.
_SHORTEST: Final = 8
# The calling code and as much behind it as may be a short number there, where nothing says that it goes abroad.
_SHORTEST_WITH_CODE: Final = 5
_EMERGENCY: Final = frozenset({"112", "911"})
_ABROAD: Final = ("00", "011", "0011", "010", "009", "810")
_NETWORKS: Final = {
    "808": NumberKind.SHARED_COST,
    "870": NumberKind.SATELLITE,
    "881": NumberKind.SATELLITE,
    "882": NumberKind.SATELLITE,
    "883": NumberKind.SATELLITE,
    "979": NumberKind.PREMIUM_RATE,
}
"""Networks of no country whose every number is of a kind."""

_TYPES: Final = ("fixed_line", "mobile", "toll_free", "personal_number", "voip", "pager", "uan", "voicemail")
"""The numbers of a plan that do not earn, as the library calls them."""

_WORST_FIRST: Final = tuple(reversed(NumberKind))

_Pattern = re.Pattern[str]
_NEVER: Final = re.compile("(?!)")


@dataclass(frozen=True, slots=True)
class _Region:
    """How numbers are dialled in a country."""

    code: str
    shortest_abroad: int
    trunk: _Pattern
    trunk_rule: str
    abroad: _Pattern


@dataclass(frozen=True, slots=True)
class _Plan:
    """The numbers of one calling code, of all its countries together."""

    code: str
    regions: tuple[str, ...]
    network: NumberKind | None
    regular: _Pattern
    typed: _Pattern
    lengths: frozenset[int]
    premium_rate: _Pattern
    shared_cost: _Pattern
    short_premium_rate: _Pattern
    emergency: _Pattern


@dataclass(frozen=True, slots=True)
class _Found:
    """A reading that is of a kind; `prefix` is how much of it says no more than the country."""

    kind: NumberKind
    form: str
    prefix: int


@dataclass(frozen=True, slots=True)
class _Look:
    """What digits can be: the likeliest international number, empty for none; all that they may be; what is found."""

    likeliest: str
    readings: tuple[str, ...]
    found: tuple[_Found, ...]


def is_country(code: str) -> bool:
    """Whether a country of this ISO code has a numbering plan."""
    return code in SUPPORTED_REGIONS


def country_of(international: str) -> str:
    """Where an international number leads: a country's ISO code, of other networks the calling code; empty for unknown.

    Args:
        international: Digits alone, as `NumberRead.international` has them.
    """
    plan = _plan_of(international)
    if plan is None:
        return ""
    if len(plan.regions) < 2:  # noqa: PLR2004 - several countries share a code
        return plan.regions[0] if plan.regions else plan.code
    rest = international[len(plan.code) :]
    return region_code_for_number(PhoneNumber(int(plan.code), int(rest or "0"))) or plan.regions[0]


@lru_cache(_REMEMBERED)
def read_number(number: str, country: str | None) -> NumberRead:
    """How `number` reads in a country, None where it is not known; an optional `+`, then `0-9 * #`."""
    is_abroad = number.startswith("+")
    dialled = number[1:] if is_abroad else number
    if is_abroad and _is_typed(dialled):
        # Most numbers, and the quickest to read.
        return NumberRead(dialled, dialled, (dialled,))
    region = _region(country) if country else None
    if dialled.isdigit():
        looks = [_look(dialled, region, is_abroad=is_abroad)]
        likeliest = looks[0].likeliest
    else:
        # What stands behind a feature code, such as *31#, is the number; and some exchanges leave the signs out.
        runs = re.findall("[0-9]+", dialled)
        looks = [_look(run, region, is_abroad=is_abroad) for run in dict.fromkeys([*runs, "".join(runs)])]
        likeliest = ""
    found = [each for look in looks for each in look.found]
    worst = min(found, key=lambda each: _WORST_FIRST.index(each.kind), default=_NOTHING)
    readings = tuple(reading for look in looks for reading in look.readings)
    return NumberRead(dialled, likeliest, readings, worst.kind, worst.form, worst.prefix)


_NOTHING: Final = _Found(NumberKind.ORDINARY, "", 0)


def _look(digits: str, region: _Region | None, *, is_abroad: bool) -> _Look:
    likely = list(dict.fromkeys(_likely(digits, region, is_abroad=is_abroad)))
    likeliest = likely[0] if likely else ""
    others = [] if is_abroad else list(_possibly(digits, region))
    is_regular = _is_regular(likeliest)
    if is_regular:
        others = list(filter(_is_possible, others))
    else:
        others += [*likely[1:], *_behind_prefixes(digits)]
    readings = tuple(dict.fromkeys(filter(None, [likeliest, *others])))
    found = list(_of_short(digits, None if is_abroad else region, likeliest))
    for reading in readings:
        found += _of_whole(reading)
        if reading == likeliest or (not is_regular and len(digits) >= _SHORTEST):
            found += _of_beginning(reading)
    return _Look(likeliest, readings, tuple(found))


def _likely(digits: str, region: _Region | None, *, is_abroad: bool) -> Iterator[str]:
    """The international numbers that digits are meant as, the likeliest first."""
    if is_abroad:
        yield digits
        return
    if region and (prefix := region.abroad.match(digits)):
        yield digits[prefix.end() :]
    if digits.startswith("00"):
        yield digits[2:]
        return
    if len(digits) < _SHORTEST:
        return
    readings = [digits]
    if region:
        # A number that is shorter than the country's own are abroad is one of its own as they are dialled at home.
        national = list(_national(digits, region))
        readings = [*national, digits] if len(digits) < region.shortest_abroad else [digits, *national]
    yield from filter(_is_regular, readings)
    yield from filter(_is_possible, readings)


def _possibly(digits: str, region: _Region | None) -> Iterator[str]:
    """The international numbers that some exchange could take digits for."""
    if len(digits) >= _SHORTEST:
        yield digits
    if region:
        yield from _national(digits, region)


def _behind_prefixes(digits: str) -> Iterator[str]:
    yield digits.lstrip("0") if len(digits) >= _SHORTEST else ""
    # One digit more is for a line outside.
    for each in (digits, digits[1:]):
        yield from (each[len(prefix) :] for prefix in _ABROAD if each.startswith(prefix))


def _national(digits: str, region: _Region) -> Iterator[str]:
    yield region.code + digits
    yield from (region.code + rest for rest in _without_trunk(digits, region))


def _without_trunk(digits: str, region: _Region) -> Iterator[str]:
    prefix = region.trunk.match(digits)
    if prefix and prefix.end():
        yield digits[prefix.end() :]
        if region.trunk_rule and prefix[1]:
            yield prefix.expand(region.trunk_rule) + digits[prefix.end() :]


def _of_whole(form: str) -> Iterator[_Found]:
    """What an international number is, taken as it stands."""
    plan = _plan_of(form)
    if plan is None:
        return
    behind = len(plan.code)
    if plan.network:
        # The code itself says what it is.
        yield _Found(plan.network, form, 0)
    elif plan.premium_rate.fullmatch(form, behind):
        yield _Found(NumberKind.PREMIUM_RATE, form, behind)
    elif plan.shared_cost.fullmatch(form, behind):
        yield _Found(NumberKind.SHARED_COST, form, behind)


def _of_beginning(form: str) -> Iterator[_Found]:
    """What an international number is without what is too much: a trunk prefix behind its code, digits at its end."""
    plan = _plan_of(form)
    if plan is None or plan.typed.fullmatch(form, len(plan.code)):
        return
    rest = form[len(plan.code) :]
    rests = [rest, rest.lstrip("0")]
    for region in plan.regions:
        rests += _without_trunk(rest, _region(region))
    for each in dict.fromkeys(rests):
        read = plan.code + each
        if plan.emergency.fullmatch(each):
            yield _Found(NumberKind.EMERGENCY, read, 0)
        if plan.premium_rate.match(each) or plan.short_premium_rate.fullmatch(each):
            yield _Found(NumberKind.PREMIUM_RATE, read, len(plan.code))
        if plan.shared_cost.match(each):
            yield _Found(NumberKind.SHARED_COST, read, len(plan.code))


def _of_short(digits: str, region: _Region | None, likeliest: str) -> Iterator[_Found]:
    """What digits are that go no further than the country."""
    emergency = _Found(NumberKind.EMERGENCY, digits, 0)
    if digits in _EMERGENCY or digits.lstrip("0") in _EMERGENCY:
        yield emergency
    if len(digits) >= _SHORTEST:
        if region and _begins_with_emergency(digits, region, likeliest):
            yield emergency
        return
    if len(digits) >= _SHORTEST_WITH_CODE and (plan := _plan_of(digits)) and digits[len(plan.code) :] in _EMERGENCY:
        yield emergency
    if region is None:
        return
    own = _plan(region.code)
    if own.emergency.fullmatch(digits):
        yield emergency
    if own.short_premium_rate.fullmatch(digits):
        yield _Found(NumberKind.PREMIUM_RATE, digits, 0)
    for rest in (*_without_trunk(digits, region), digits.removeprefix(region.code)):
        if rest in _EMERGENCY or (len(digits) >= _SHORTEST_WITH_CODE and own.emergency.fullmatch(rest)):
            yield emergency


def _begins_with_emergency(digits: str, region: _Region, likeliest: str) -> bool:
    """Whether exchanges stop reading after three digits, and connect to an emergency centre."""
    if digits[:3] not in _EMERGENCY or _is_typed(likeliest):
        return False
    return likeliest == region.code + digits or not _is_regular(likeliest)


def _is_regular(form: str) -> bool:
    plan = _plan_of(form)
    return plan is not None and plan.regular.fullmatch(form, len(plan.code)) is not None


def _is_typed(form: str) -> bool:
    plan = _plan_of(form)
    return plan is not None and not plan.network and plan.typed.fullmatch(form, len(plan.code)) is not None


def _is_possible(form: str) -> bool:
    plan = _plan_of(form)
    return plan is not None and len(form) - len(plan.code) in plan.lengths


def _plan_of(form: str) -> _Plan | None:
    for length in range(1, _LONGEST_CODE + 1):
        code = form[:length]
        if code in _CODES:
            return _plan(code)
    return None


_CODES: Final = frozenset(map(str, COUNTRY_CODE_TO_REGION_CODE))


@cache
def _plan(code: str) -> _Plan:
    regions = tuple(region for region in COUNTRY_CODE_TO_REGION_CODE[int(code)] if region != _NO_REGION)
    known = [PhoneMetadata.metadata_for_region(region) for region in regions]
    if not regions:
        known = [PhoneMetadata.metadata_for_nongeo_region(int(code))]
    plans = [found for found in known if found]
    short = [found for region in regions if (found := PhoneMetadata.short_metadata_for_region(region))]
    return _Plan(
        code=code,
        regions=regions,
        network=_NETWORKS.get(code),
        regular=_any_of(plan.general_desc for plan in plans),
        typed=_any_of(getattr(plan, name) for plan in plans for name in _TYPES),
        lengths=_lengths(plans),
        premium_rate=_any_of(plan.premium_rate for plan in plans),
        shared_cost=_any_of(plan.shared_cost for plan in plans),
        short_premium_rate=_any_of(plan.premium_rate for plan in short),
        emergency=_any_of((plan.emergency for plan in short), *_EMERGENCY),
    )


@cache
def _region(country: str) -> _Region:
    known = PhoneMetadata.metadata_for_region(country)
    if known is None:
        raise ValueError(f"there is no numbering plan for {country}")
    code = str(known.country_code)
    return _Region(
        code=code,
        shortest_abroad=len(code) + min(_lengths([known]), default=0),
        trunk=re.compile(known.national_prefix_for_parsing or "(?!)"),
        trunk_rule=known.national_prefix_transform_rule or "",
        abroad=re.compile(known.international_prefix or "(?!)"),
    )


def _lengths(plans: Iterable[PhoneMetadata]) -> frozenset[int]:
    return frozenset(
        length for plan in plans if plan.general_desc for length in plan.general_desc.possible_length or ()
    )


def _any_of(descriptions: Iterable[PhoneNumberDesc | None], *others: str) -> _Pattern:
    patterns = [found.national_number_pattern for found in descriptions if found and found.national_number_pattern]
    known = dict.fromkeys([*patterns, *others])
    return re.compile("|".join(f"(?:{pattern})" for pattern in known)) if known else _NEVER
