"""What a number is, however it is written."""

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callflow_service.almanac.numbers import country_of, is_country, read_number
from callflow_service.domain.targets import NumberKind

ORDINARY, EMERGENCY = NumberKind.ORDINARY, NumberKind.EMERGENCY
PREMIUM, SHARED, SATELLITE = NumberKind.PREMIUM_RATE, NumberKind.SHARED_COST, NumberKind.SATELLITE


@pytest.mark.parametrize(
    ("number", "country", "international"),
    [
        ("+37061234567", None, "37061234567"),
        ("37061234567", None, "37061234567"),
        ("37061234567", "LT", "37061234567"),
        ("0037061234567", None, "37061234567"),
        ("01137061234567", "US", "37061234567"),
        ("061234567", "LT", "37061234567"),
        ("861234567", "LT", "37061234567"),
        ("61234567", "LT", "37061234567"),
        ("2125551234", "US", "12125551234"),
        ("12125551234", "US", "12125551234"),
        ("911234567890", "LT", "911234567890"),
        ("01134960000", "GB", "441134960000"),
        ("061234567", None, ""),
        ("101", None, ""),
        ("1002", "LT", ""),
        ("*98", "LT", ""),
        ("*31#37061234567", "LT", ""),
    ],
)
def test_a_number_is_read_as_what_it_most_likely_is(number: str, country: str | None, international: str) -> None:
    read = read_number(number, country)
    assert read.international == international
    assert read.kind is ORDINARY


@pytest.mark.parametrize("country", [None, "LT", "US"])
@pytest.mark.parametrize("number", ["1002", "201", "5", "42", "4711", "*98", "*97#", "100200"])
def test_extensions_and_feature_codes_are_ordinary(number: str, country: str | None) -> None:
    assert read_number(number, country).kind is ORDINARY


@pytest.mark.parametrize(
    ("number", "country"),
    [
        ("112", None),
        ("911", None),
        ("0112", None),
        ("00112", None),
        ("+112", None),
        ("*31#112", None),
        ("*112#", None),
        ("1*1*2", None),
        ("112#", None),
        ("370112", None),
        ("+370112", None),
        ("00370112", None),
        ("+3700112", None),
        ("+3708112", None),
        ("+44999", None),
        ("+1911", None),
        ("1911", "US"),
        ("9116666666", "US"),
        ("999", "GB"),
        ("101", "LT"),
        ("03", "LT"),
        ("110", "DE"),
    ],
)
def test_an_emergency_number_is_found_however_it_is_written(number: str, country: str | None) -> None:
    assert read_number(number, country).kind is EMERGENCY


@pytest.mark.parametrize("number", ["999", "110", "101", "03", "1911"])
def test_without_a_country_other_emergency_numbers_are_extensions(number: str) -> None:
    assert read_number(number, None).kind is ORDINARY


@pytest.mark.parametrize(
    ("number", "country", "kind"),
    [
        ("+37090012345", None, PREMIUM),
        ("37090012345", None, PREMIUM),
        ("0037090012345", None, PREMIUM),
        ("00037090012345", None, PREMIUM),
        ("01137090012345", None, PREMIUM),
        ("01137090012345", "US", PREMIUM),
        ("001137090012345", "AU", PREMIUM),
        ("01037090012345", "JP", PREMIUM),
        ("900370900123456", None, PREMIUM),
        ("+0037090012345", None, PREMIUM),
        ("+037090012345", None, PREMIUM),
        ("+370090012345", None, PREMIUM),
        ("+370890012345", None, PREMIUM),
        ("+3709001234567", None, PREMIUM),
        ("37090012345678901234", None, PREMIUM),
        ("090012345", "LT", PREMIUM),
        ("890012345", "LT", PREMIUM),
        ("90012345", "LT", PREMIUM),
        ("0900123459999999", "LT", PREMIUM),
        ("*31#+37090012345".replace("+", ""), None, PREMIUM),
        ("*31#090012345", "LT", PREMIUM),
        ("#31#0037090012345", None, PREMIUM),
        ("*21*37090012345#", None, PREMIUM),
        ("37090012345#", None, PREMIUM),
        ("370*900*12345", None, PREMIUM),
        ("+370900#12345", None, PREMIUM),
        ("+19005551234", None, PREMIUM),
        ("9005551234", "US", PREMIUM),
        ("+449012345678", None, PREMIUM),
        ("24280", "US", PREMIUM),
        ("+97912345678", None, PREMIUM),
        ("+979", None, PREMIUM),
        ("0097912345678", None, PREMIUM),
        ("97900000000000", None, PREMIUM),
        ("+37080812345", None, SHARED),
        ("080812345", "LT", SHARED),
        ("+80812345678", None, SHARED),
        ("+881612345678", None, SATELLITE),
        ("00881612345678", None, SATELLITE),
        ("+882161234567", None, SATELLITE),
        ("+883510012345678", None, SATELLITE),
        ("+870773123456", None, SATELLITE),
        ("88161234567899999", None, SATELLITE),
    ],
)
def test_a_number_that_earns_is_found_however_it_is_written(number: str, country: str | None, kind: NumberKind) -> None:
    assert read_number(number, country).kind is kind


@pytest.mark.parametrize(
    ("number", "country"),
    [
        ("+37061234567", None),
        ("+37052000001", None),
        ("902123456789", "LT"),
        ("+390899123456", None),
        ("911234567890", "LT"),
        ("+442079460000", None),
        ("02079460000", "GB"),
        ("+4930123456", None),
        ("+80012345678", None),
    ],
)
def test_a_number_that_only_looks_like_one_is_ordinary(number: str, country: str | None) -> None:
    assert read_number(number, country).kind is ORDINARY


@pytest.mark.parametrize(
    ("international", "country"),
    [
        ("37061234567", "LT"),
        ("12125551234", "US"),
        ("18765551234", "JM"),
        ("77012345678", "KZ"),
        ("881612345678", "881"),
        ("999123", ""),
        ("", ""),
    ],
)
def test_a_number_leads_to_a_country(international: str, country: str) -> None:
    assert country_of(international) == country


def test_a_country_is_an_iso_code() -> None:
    assert is_country("LT")
    assert not is_country("lt")
    assert not is_country("XX")
    assert not is_country("001")


regions = st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS))
earning = {
    phonenumbers.PhoneNumberType.PREMIUM_RATE: PREMIUM,
    phonenumbers.PhoneNumberType.SHARED_COST: SHARED,
}


@pytest.mark.parametrize("number_type", earning)
@pytest.mark.parametrize("written", ["{e164}", "{digits}", "00{digits}", "{e164}00", "*31#{digits}"])
def test_every_country_s_example_of_a_number_that_earns_is_found(number_type: int, written: str) -> None:
    missed = []
    for region in phonenumbers.SUPPORTED_REGIONS:
        example = phonenumbers.example_number_for_type(region, number_type)
        if example is None:
            continue
        e164 = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
        number = written.format(e164=e164, digits=e164[1:])
        if read_number(number, None).kind is ORDINARY:
            missed.append((region, number))
    assert missed == []


def test_every_country_s_number_that_earns_is_found_as_it_is_dialled_there() -> None:
    missed = []
    for region in phonenumbers.SUPPORTED_REGIONS:
        for number_type in earning:
            example = phonenumbers.example_number_for_type(region, number_type)
            if example is None:
                continue
            dialled = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.NATIONAL)
            digits = "".join(sign for sign in dialled if sign.isdigit())
            if read_number(digits, region).kind is ORDINARY:
                missed.append((region, digits))
    assert missed == []


def test_every_country_s_mobile_and_fixed_numbers_are_ordinary() -> None:
    wrong = []
    for region in phonenumbers.SUPPORTED_REGIONS:
        for number_type in (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE):
            example = phonenumbers.example_number_for_type(region, number_type)
            if example is None:
                continue
            e164 = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
            national = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.NATIONAL)
            digits = "".join(sign for sign in national if sign.isdigit())
            wrong += [
                (region, number, country)
                for number, country in ((e164, None), (e164[1:], None), (e164, region), (digits, region))
                if read_number(number, country).kind is not ORDINARY
            ]
    assert wrong == []


@given(st.from_regex(r"\+?(?=[*#]*[0-9])[0-9*#]{1,32}", fullmatch=True), st.one_of(st.none(), regions))
@settings(deadline=None)
def test_every_number_that_can_be_stored_can_be_read(number: str, country: str | None) -> None:
    read = read_number(number, country)
    assert read.dialled == number.removeprefix("+")
    assert (read.kind is ORDINARY) == (not read.kind_form)
    assert not read.international or read.international in read.readings
