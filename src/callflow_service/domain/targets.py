"""Which numbers a call may be forwarded to: the policies of an account and of those above it.

What a number is (an emergency number, a premium-rate one) stands in the numbering plans of the world, which a library
knows; `Numbering` is how the domain asks for it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from callflow_service.domain.number_patterns import fits_all

MAX_LENGTH: Final = 32
"""The longest number that can be stored, and so the longest `max_length`."""

HELD: Final = "held"
"""What an alert calls a forward that waits."""

PREFIX: Final = r"(\+[0-9]{0,15}|[0-9*#]{1,15})"
"""What a prefix looks like, as a regular expression."""


class NumberKind(StrEnum):
    """What a number is that calls may cost more to, or that must not be called by a machine."""

    ORDINARY = "ordinary"
    SATELLITE = "satellite"
    SHARED_COST = "shared_cost"
    PREMIUM_RATE = "premium_rate"
    EMERGENCY = "emergency"


@dataclass(frozen=True, slots=True)
class NumberRead:
    """How a number can be read.

    Attributes:
        dialled: The number as it is dialled, without a leading `+`.
        international: What it is as an international number, without a `+`; empty where it is none, such as an
            extension.
        readings: The international numbers that some exchange could take it for, that one among them.
        kind: The worst that it is by any reading.
        kind_form: The international number, or the digits as they are dialled, that is of this kind.
        kind_prefix: How many digits of `kind_form` say no more than the country. A prefix names the kind where it is
            longer.
    """

    dialled: str
    international: str = ""
    readings: tuple[str, ...] = ()
    kind: NumberKind = NumberKind.ORDINARY
    kind_form: str = ""
    kind_prefix: int = 0


Numbering = Callable[[str, str | None], NumberRead]
"""How a number reads in a country, None where it is not known."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The policy of one account, for itself and all below it.

    Attributes:
        allow: Prefixes of numbers that may be forwarded to; empty for all. `+370` fits international numbers, however
            they are dialled; `1` fits numbers that are dialled so and are no international ones.
        deny: Prefixes of numbers that may not be; one without a `+` fits both. The longest of both that fits wins, and
            of equal ones `deny`.
        max_length: The most digits.
        max_new_per_hour: How many numbers that the account never forwarded to before it may take up in an hour.
        max_new_per_day: Likewise in a day.
        hold_minutes: How long the first forward to a new country waits.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    max_length: int | None = None
    max_new_per_hour: int | None = None
    max_new_per_day: int | None = None
    hold_minutes: int = 0


@dataclass(frozen=True, slots=True)
class TargetRules:
    """What holds for an account's forwards to numbers.

    Attributes:
        country: Where the account dials, None where that is not known.
        policies: Of the account, its owner, and so on up to an admin; None for each that has none.
        patterns: What numbers must fit, each of them.
        is_locked: Whether the account or one of those is locked.
    """

    country: str | None = None
    policies: tuple[Targets | None, ...] = ()
    patterns: tuple[str, ...] = ()
    is_locked: bool = False


NO_TARGET_RULES: Final = TargetRules()
"""Where none were read: what holds out of the box."""


@dataclass(frozen=True, slots=True)
class TakenNumber:
    """A number that an account forwards to or has forwarded to.

    Attributes:
        number: However it is written, one text for one number.
        country: Where it leads, as its ISO code; empty where that is not known.
        since: Since when; None for longer than anybody knows.
    """

    number: str
    country: str
    since: datetime | None


class Refusal(StrEnum):
    """Why a number is no target; the value is what the API calls it."""

    LOCKED = "locked"
    EMERGENCY = "emergency"
    PREMIUM_RATE = "premium-rate"
    SHARED_COST = "shared-cost"
    SATELLITE = "satellite"
    DENIED = "denied"
    NOT_ALLOWED = "not-among-allowed"
    TOO_LONG = "too-long"
    TOO_MANY_NEW = "too-many-new"
    NO_FIT = "no-fit"

    @property
    def sentence(self) -> str:
        """For people."""
        return _SENTENCES[self]


_SENTENCES: Final = {
    Refusal.LOCKED: "the account is locked: its devices forward to no number",
    Refusal.EMERGENCY: "an emergency number is never forwarded to",
    Refusal.PREMIUM_RATE: "a premium-rate number is not forwarded to unless the policy allows it",
    Refusal.SHARED_COST: "a shared-cost number is not forwarded to unless the policy allows it",
    Refusal.SATELLITE: "a satellite or worldwide network is not forwarded to unless the policy allows it",
    Refusal.DENIED: "the policy denies numbers that begin so",
    Refusal.NOT_ALLOWED: "the policy allows other numbers alone",
    Refusal.TOO_LONG: "the number is longer than the policy allows",
    Refusal.NO_FIT: "the number does not fit the number_pattern",
    Refusal.TOO_MANY_NEW: "the account has taken up as many new numbers as the policy allows for now",
}
_KINDS: Final = {
    NumberKind.SATELLITE: Refusal.SATELLITE,
    NumberKind.SHARED_COST: Refusal.SHARED_COST,
    NumberKind.PREMIUM_RATE: Refusal.PREMIUM_RATE,
}

# An admin sets the policy of its own account and of those right below it. Whoever else may set one, a reseller for its
# users, could widen it, so what is refused out of the box is not allowed by theirs.
_SET_BY_AN_ADMIN: Final = 2


def refusal(number: NumberRead, policies: Sequence[Targets | None]) -> Refusal | None:
    """Why a number is no target, None where it is one.

    Args:
        number: The number as it reads in the account's country.
        policies: Of the account, its owner, and so on up to an admin; None for each that has none. Every one must let
            the number pass.
    """
    if number.kind is NumberKind.EMERGENCY:
        return Refusal.EMERGENCY
    if number.kind is not NumberKind.ORDINARY:
        trusted = [policy for policy in policies[-_SET_BY_AN_ADMIN:] if policy]
        if not any(_names_kind(policy.allow, number) for policy in trusted):
            return _KINDS[number.kind]
    reasons = (_refused_by(policy, number) for policy in policies if policy)
    return next((reason for reason in reasons if reason), None)


def refusal_of(numbering: Numbering, country: str | None, rules: TargetRules, number: str) -> Refusal | None:
    """The same for a number as it was typed, under an account's rules; `country` where the account has none."""
    if rules.is_locked:
        return Refusal.LOCKED
    if not fits_all(number, rules.patterns):
        return Refusal.NO_FIT
    return refusal(numbering(number, rules.country or country), rules.policies)


def counts_numbers(policies: Iterable[Targets | None]) -> bool:
    """Whether it matters what an account forwarded to before."""
    return any(
        policy and (policy.hold_minutes or policy.max_new_per_hour is not None or policy.max_new_per_day is not None)
        for policy in policies
    )


def take(
    policies: Sequence[Targets | None], wanted: TakenNumber, taken: Sequence[TakenNumber], now: datetime
) -> Refusal | datetime | None:
    """What becomes of a number that is no refused target: too many new ones, held until a time, or nothing of these.

    Args:
        policies: As for `refusal`; of each limit the narrowest counts.
        wanted: The number.
        taken: What the account forwards to and has forwarded to.
        now: The time.
    """
    if all(each.number != wanted.number for each in taken):
        ages = [now - each.since for each in taken if each.since]
        in_hour, in_day = (sum(age < period for age in ages) for period in (timedelta(hours=1), timedelta(days=1)))
        if any(policy and _is_too_many(policy, in_hour, in_day) for policy in policies):
            return Refusal.TOO_MANY_NEW
    hold = timedelta(minutes=max((policy.hold_minutes for policy in policies if policy), default=0))
    since = [each.since for each in taken if each.country == wanted.country]
    if not hold or not wanted.country or None in since:
        return None
    until = min((moment for moment in since if moment), default=now) + hold
    return until if until > now else None


def _is_too_many(policy: Targets, in_hour: int, in_day: int) -> bool:
    return (policy.max_new_per_hour is not None and in_hour >= policy.max_new_per_hour) or (
        policy.max_new_per_day is not None and in_day >= policy.max_new_per_day
    )


def _refused_by(policy: Targets, number: NumberRead) -> Refusal | None:
    if policy.max_length is not None and len(number.international or number.dialled) > policy.max_length:
        return Refusal.TOO_LONG
    denied = max((_denies(prefix, number) for prefix in policy.deny), default=-1)
    allowed = max((_allows(prefix, number) for prefix in policy.allow), default=-1)
    if denied >= 0 and denied >= allowed:
        return Refusal.DENIED
    if policy.allow and allowed < 0:
        return Refusal.NOT_ALLOWED
    return None


def _allows(prefix: str, number: NumberRead) -> int:
    """How many digits of the prefix fit what the number is; -1 where it does not."""
    digits = prefix.removeprefix("+")
    if prefix.startswith("+"):
        return len(digits) if number.international and number.international.startswith(digits) else -1
    return len(digits) if not number.international and number.dialled.startswith(digits) else -1


def _denies(prefix: str, number: NumberRead) -> int:
    """How many digits of the prefix fit anything that the number may be; -1 where it does not."""
    digits = prefix.removeprefix("+")
    readings = number.readings if prefix.startswith("+") else (*number.readings, number.dialled)
    return len(digits) if any(reading.startswith(digits) for reading in readings) else -1


def _names_kind(allow: Iterable[str], number: NumberRead) -> bool:
    digits = (prefix.removeprefix("+") for prefix in allow)
    return any(len(prefix) > number.kind_prefix and number.kind_form.startswith(prefix) for prefix in digits)
