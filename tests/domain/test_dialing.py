"""Dial strings: templates are filled with what no switch can take for anything else."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callflow_service.domain.dialing import DialPlan, is_safe_name

PLAN = DialPlan(
    {
        "SIP": "PJSIP/{name}",
        "FAX": "",
        "URI": "sip:{technology}.{name}@{domain}",
        "default": "{technology}/{name}@{domain}",
        "number": "PJSIP/{number}@{domain}",
        "voicemail": "vm/{technology}/{name}",
    },
    "pbx.example",
)
NOTHING = DialPlan({}, "pbx.example")


def test_a_technology_has_its_template() -> None:
    assert PLAN.device("SIP", "1002") == "PJSIP/1002"


def test_a_technology_without_one_has_the_template_of_the_others() -> None:
    assert PLAN.device("IAX2", "1002") == "IAX2/1002@pbx.example"


def test_a_technology_whose_template_is_empty_cannot_be_dialled() -> None:
    assert PLAN.device("FAX", "102") == ""


def test_in_a_uri_the_technology_is_in_lower_case_and_a_number_sign_escaped() -> None:
    assert PLAN.device("URI", "*5#") == "sip:uri.*5%23@pbx.example"


def test_numbers_and_voicemail_have_templates_of_their_own() -> None:
    assert PLAN.number("+370#") == "PJSIP/+370#@pbx.example"
    assert PLAN.voicemail("SIP", "1002") == "vm/SIP/1002"


def test_a_number_in_a_uri_has_its_number_sign_escaped() -> None:
    assert DialPlan({"number": "sip:{number}@{domain}"}, "h").number("*21#") == "sip:*21%23@h"


def test_without_templates_nothing_can_be_dialled() -> None:
    assert (NOTHING.device("SIP", "1002"), NOTHING.voicemail("SIP", "1002"), NOTHING.number("370")) == ("", "", "")


@pytest.mark.parametrize("name", ["1002", "a.b-c_d", "+370*#", "A" * 64])
def test_a_safe_name_is_dialled(name: str) -> None:
    assert is_safe_name(name)
    assert PLAN.device("SIP", name) == f"PJSIP/{name}"


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a,b", "a&b", "a/b", "a@b", "a;b", "${x}", "a\n", "\\", "`id`", "'", '"', "{domain}", "ą", "A" * 65],
)
def test_another_name_is_not(name: str) -> None:
    assert not is_safe_name(name)
    assert PLAN.device("SIP", name) == ""
    assert PLAN.voicemail("SIP", name) == ""


@pytest.mark.parametrize("technology", ["", "SIP/x", "S P", "${x}", "{name}", "Local/1@x&SIP", "S" * 17])
def test_a_technology_that_would_mean_more_is_not_dialled(technology: str) -> None:
    assert PLAN.device(technology, "1002") == ""


@settings(deadline=None)
@given(technology=st.text(max_size=20), name=st.text(max_size=80))
def test_whatever_a_device_is_called_nothing_but_a_safe_name_is_dialled(technology: str, name: str) -> None:
    dialled = PLAN.device(technology, name)
    assert re.fullmatch(
        r"|PJSIP/[\w.+*#-]{1,64}|([A-Za-z0-9]{1,16}/|sip:uri\.)[\w.+*#%-]+@pbx\.example", dialled, re.ASCII
    )
