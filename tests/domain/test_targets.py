"""Whether a number may be forwarded to, by the policies of an account and of those above it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callflow_service.almanac.numbers import read_number
from callflow_service.domain.targets import Refusal, TakenNumber, Targets, counts_numbers, refusal, take

LITHUANIA = Targets(allow=("+370",))


def refused(number: str, *policies: Targets | None, country: str | None = None) -> Refusal | None:
    return refusal(read_number(number, country), policies)


@pytest.mark.parametrize("number", ["+37061234567", "37061234567", "+18765551234", "101", "*98", "5", "061234567"])
def test_without_a_policy_what_costs_no_more_than_usual_is_a_target(number: str) -> None:
    assert refused(number, None, None) is None


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("112", Refusal.EMERGENCY),
        ("+37090012345", Refusal.PREMIUM_RATE),
        ("+37080812345", Refusal.SHARED_COST),
        ("+881612345678", Refusal.SATELLITE),
    ],
)
def test_without_a_policy_these_are_no_targets(number: str, reason: Refusal) -> None:
    assert refused(number) is reason
    assert refused(number, None) is reason
    assert refused(number, Targets(), Targets()) is reason


@pytest.mark.parametrize(
    ("policy", "number", "reason"),
    [
        (LITHUANIA, "+37061234567", None),
        (LITHUANIA, "37061234567", None),
        (LITHUANIA, "0037061234567", None),
        (LITHUANIA, "+37161234567", Refusal.NOT_ALLOWED),
        (LITHUANIA, "101", Refusal.NOT_ALLOWED),
        (LITHUANIA, "*31#37061234567", Refusal.NOT_ALLOWED),
        (Targets(allow=("+370", "1")), "101", None),
        (Targets(allow=("+370", "1")), "+12125551234", Refusal.NOT_ALLOWED),
        (Targets(allow=("+370", "1")), "12125551234", Refusal.NOT_ALLOWED),
        (Targets(allow=("+",)), "+12125551234", None),
        (Targets(allow=("+",)), "101", Refusal.NOT_ALLOWED),
        (Targets(deny=("+1",)), "+12125551234", Refusal.DENIED),
        (Targets(deny=("+1",)), "12125551234", Refusal.DENIED),
        (Targets(deny=("+1",)), "*31#12125551234", Refusal.DENIED),
        (Targets(deny=("+1",)), "101", None),
        (Targets(deny=("1",)), "101", Refusal.DENIED),
        (Targets(deny=("1",)), "+12125551234", Refusal.DENIED),
        (Targets(deny=("*",)), "*98", Refusal.DENIED),
        (Targets(allow=("+370",), deny=("+3705",)), "+37052000001", Refusal.DENIED),
        (Targets(allow=("+370", "+37052"), deny=("+3705",)), "+37052000001", None),
        (Targets(allow=("+3706",), deny=("+370",)), "+37061234567", None),
        (Targets(allow=("+370",), deny=("+370",)), "+37061234567", Refusal.DENIED),
        (Targets(max_length=11), "+37061234567", None),
        (Targets(max_length=10), "+37061234567", Refusal.TOO_LONG),
        (Targets(max_length=11), "0037061234567", None),
        (Targets(max_length=3), "1002", Refusal.TOO_LONG),
    ],
)
def test_the_longest_prefix_that_fits_wins(policy: Targets, number: str, reason: Refusal | None) -> None:
    assert refused(number, policy) is reason


def test_every_level_must_let_a_number_pass() -> None:
    latvia, open_to_all = Targets(allow=("+371",)), Targets(allow=("+",))
    assert refused("+37061234567", LITHUANIA, open_to_all) is None
    assert refused("+37061234567", open_to_all, latvia) is Refusal.NOT_ALLOWED
    assert refused("+37061234567", latvia, open_to_all) is Refusal.NOT_ALLOWED
    assert refused("+37061234567", None, Targets(deny=("+370",)), None) is Refusal.DENIED


def test_a_prefix_that_says_more_than_the_country_allows_a_premium_rate_number() -> None:
    premium = Targets(allow=("+370", "+370900"))
    assert refused("+37090012345", LITHUANIA) is Refusal.PREMIUM_RATE
    assert refused("+37090012345", Targets(allow=("+",))) is Refusal.PREMIUM_RATE
    assert refused("+37090012345", premium) is None
    assert refused("090012345", premium, country="LT") is None
    assert refused("+37090212345", premium) is Refusal.PREMIUM_RATE
    assert refused("+97912345678", Targets(allow=("+979",))) is None
    assert refused("24280", Targets(allow=("24280",)), country="US") is None


def test_what_is_refused_out_of_the_box_is_allowed_by_what_an_admin_sets_alone() -> None:
    premium = Targets(allow=("+370900",))
    user_of_a_reseller, reseller, admin = None, None, None
    assert refused("+37090012345", premium, reseller, admin) is Refusal.PREMIUM_RATE
    assert refused("+37090012345", user_of_a_reseller, premium, admin) is None
    assert refused("+37090012345", user_of_a_reseller, reseller, premium) is None
    assert refused("+37090012345", LITHUANIA, premium, admin) is None
    assert refused("+37090012345", Targets(deny=("+3709",)), premium, admin) is Refusal.DENIED
    assert refused("+37090012345", premium, admin) is None


def test_an_emergency_number_is_allowed_by_nothing() -> None:
    assert refused("112", Targets(allow=("112", "1"))) is Refusal.EMERGENCY
    assert refused("+370112", Targets(allow=("+370112",))) is Refusal.EMERGENCY


NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def number(text: str, country: str = "LT", minutes: float | None = None) -> TakenNumber:
    """A number since so many minutes ago."""
    return TakenNumber(text, country, None if minutes is None else NOW - timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("policies", "taken", "outcome"),
    [
        ([None, Targets()], [number(str(each), minutes=1) for each in range(100)], None),
        ([Targets(max_new_per_hour=2)], [number("1", minutes=59)], None),
        ([Targets(max_new_per_hour=2)], [number("1", minutes=59), number("2", minutes=1)], Refusal.TOO_MANY_NEW),
        ([Targets(max_new_per_hour=2)], [number("1", minutes=60), number("2", minutes=1)], None),
        ([Targets(max_new_per_hour=2)], [number("1"), number("2"), number("3", minutes=1)], None),
        ([Targets(max_new_per_day=1)], [number("1", minutes=1439)], Refusal.TOO_MANY_NEW),
        ([Targets(max_new_per_day=1)], [number("1", minutes=1440)], None),
        ([None, Targets(max_new_per_day=5), Targets(max_new_per_hour=0)], [], Refusal.TOO_MANY_NEW),
        ([Targets(max_new_per_hour=0)], [number("wanted", minutes=5)], None),
        ([Targets(hold_minutes=60)], [], NOW + timedelta(minutes=60)),
        ([Targets(hold_minutes=5), None, Targets(hold_minutes=60)], [], NOW + timedelta(minutes=60)),
        ([Targets(hold_minutes=60)], [number("1", "LV", minutes=90)], NOW + timedelta(minutes=60)),
        ([Targets(hold_minutes=60)], [number("1", minutes=20)], NOW + timedelta(minutes=40)),
        ([Targets(hold_minutes=60)], [number("wanted", minutes=20)], NOW + timedelta(minutes=40)),
        ([Targets(hold_minutes=60)], [number("1", minutes=60)], None),
        ([Targets(hold_minutes=60)], [number("1"), number("2", minutes=20)], None),
    ],
)
def test_new_numbers_are_counted_and_new_countries_wait(
    policies: list[Targets | None], taken: list[TakenNumber], outcome: Refusal | datetime | None
) -> None:
    assert take(policies, number("wanted", minutes=0), taken, NOW) == outcome


def test_an_extension_leads_to_no_country_that_could_be_new() -> None:
    assert take([Targets(hold_minutes=60)], number("101", "", minutes=0), [], NOW) is None


def test_only_some_policies_count_numbers() -> None:
    assert not counts_numbers([None, Targets(allow=("+370",))])
    assert counts_numbers([None, Targets(max_new_per_hour=0)])
    assert counts_numbers([Targets(hold_minutes=1)])


def test_every_reason_has_a_sentence() -> None:
    assert all(reason.sentence for reason in Refusal)


prefixes = st.lists(st.sampled_from(["+", "+1", "+370", "+3706", "+370900", "1", "9", "*"]), max_size=3).map(tuple)
policies = st.one_of(st.none(), st.builds(Targets, prefixes, prefixes, st.one_of(st.none(), st.integers(1, 15))))
numbers = st.one_of(
    st.from_regex(r"\+?(?=[*#]*[0-9])[0-9*#]{1,32}", fullmatch=True),
    st.sampled_from(["+37061234567", "37090012345", "0037090012345", "112", "+12125551234", "101", "+881612345678"]),
)


@given(numbers, st.lists(policies, min_size=2, max_size=3), policies)
def test_a_policy_further_below_only_narrows(
    number: str, policies_above: list[Targets | None], below: Targets | None
) -> None:
    if refused(number, *policies_above) is not None:
        assert refused(number, below, *policies_above) is not None
