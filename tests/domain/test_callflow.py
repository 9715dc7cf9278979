"""The parts of a call flow."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from callflow_service.domain.callflow import Device, is_external_number


@pytest.mark.parametrize("number", ["1", "+1", "*98", "#31#37052000001", "0" * 32, "+" + "9" * 32, "*1*"])
def test_a_call_can_be_forwarded_to_a_number(number: str) -> None:
    assert is_external_number(number)


@pytest.mark.parametrize(
    "number",
    ["", "+", "*", "#*#", "+*", "1" * 33, "+" + "1" * 33, "++1", "1+", "1 2", " 1", "1\n", "٣", "²", "a", "1a", "1;2"],
)
def test_a_call_cannot_be_forwarded_to_what_is_no_number(number: str) -> None:
    assert not is_external_number(number)


@settings(deadline=None, max_examples=150)
@given(st.text("+0123456789*#", max_size=40))
@example("+" + "*" * 31 + "1")
@example("*" * 32 + "1")
def test_a_number_is_an_optional_plus_then_up_to_32_signs_with_a_digit(text: str) -> None:
    signs = text.removeprefix("+")
    expected = 1 <= len(signs) <= 32 and "+" not in signs and re.search("[0-9]", signs) is not None
    assert is_external_number(text) is expected


def test_a_device_is_shown_with_its_technology() -> None:
    assert Device(4, "IAX2", "1002").label == "IAX2/1002"


def test_a_device_is_a_fax_by_its_technology_alone() -> None:
    assert Device(2, "FAX", "102").is_fax
    assert not Device(2, "SIP", "FAX").is_fax
