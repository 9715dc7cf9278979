"""Caller IDs: nothing but what is on the allow-lists gets through, and each choice folds as the contract says."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callflow_service.domain.callerid import (
    Caller,
    Privacy,
    clean_caller_number,
    clean_line,
    clean_name,
    clean_number,
    clean_username,
    fold,
    parse_custom,
)
from callflow_service.domain.callflow import AsItComes, CallerId, Custom, FromDevice, FromDid

untimed = settings(deadline=None)

ALICE = Caller("37061111111", "Alice", Privacy.FULL)
DESK = Caller("37060001002", "Front desk", Privacy.OFF)
NUMBERLESS = Caller("", "Front desk", Privacy.OFF)
NOBODY = Caller("", "", Privacy.OFF)

texts = st.text() | st.text(alphabet=st.sampled_from(" \"<>+#*.-_'aé\u0301९\u202e\u1100\u1161$`\\{0123456789"))


@pytest.mark.parametrize("text", ["1", "+37061111111", "*21*5#", "*", "1" * 32, "+" + "1" * 32])
def test_a_number_is_an_optional_plus_and_up_to_32_digits_stars_and_hashes(text: str) -> None:
    assert clean_number(text) == text


@pytest.mark.parametrize("text", ["", "+", "1" * 33, "12 3", "1+2", "alice", "12\n", "१२", "$1", "1,2", "1;2"])
def test_anything_else_is_no_number(text: str) -> None:
    assert clean_number(text) == ""


@pytest.mark.parametrize("text", ["alice", "a.b-c_9", "+370", "a" * 64, "*21#"])
def test_a_caller_that_comes_by_name_stays(text: str) -> None:
    assert clean_caller_number(text) == text


@pytest.mark.parametrize("text", ["", "a" * 65, "a b", "a@b", "álice", "${x}", "alice\n", "+alice"])
def test_a_caller_that_is_neither_number_nor_name_is_not_known(text: str) -> None:
    assert clean_caller_number(text) == ""


@pytest.mark.parametrize("sign", ["$", "{", "}", "\\", "`", "\n", "\r", "\t", "\0", "\x7f", "\x85", "\u2028", "\ud800"])
def test_a_name_that_holds_a_dangerous_sign_is_refused_whole(sign: str) -> None:
    assert clean_name(f"Al{sign}ice") == ""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("  Alice O'Neil-Smith Jr. _2 ", "Alice O'Neil-Smith Jr. _2"),
        ('A"<b>@;,=%&|!', "A b"),
        ("Žydrūnas Ōkami 山田", "Žydrūnas Ōkami 山田"),
        ("Z\u030cydru\u0304nas", "Žydrūnas"),
        ("a\u202eb\u200fc", "a b c"),
        ("THOMPSON,ALICIA", "THOMPSON ALICIA"),
        ("Smith , Bob", "Smith Bob"),
        ("हिन्दी", "हिन्दी"),
        ("ชื่อผู้โทร", "ชื่อผู้โทร"),
        ("\u0301a", "a"),
        ("x\u0324\u0301\u0301", "x\u0324\u0301\u0301"),
        ("१२3", "3"),
        ("\u1100\u0301\u1161", "\u1100\u0301\u1161"),
        ("a" * 70, "a" * 64),
        ("a" * 63 + " b", "a" * 63),
        ("", ""),
    ],
)
def test_a_name_keeps_letters_digits_and_few_signs(text: str, name: str) -> None:
    assert clean_name(text) == name


@untimed
@given(texts)
def test_no_text_makes_a_name_that_is_not_on_the_allow_list(text: str) -> None:
    name = clean_name(text)
    assert len(name) <= 64
    assert _is_made_of(name, "0123456789 .-_'")
    assert clean_name(name) == name


@untimed
@given(texts)
def test_an_explanation_is_one_line_of_harmless_signs(text: str) -> None:
    line = clean_line(text * 20)
    assert len(line) <= 1000
    assert _is_made_of(line, "0123456789 .-_'/;:,()+*#")


def _is_made_of(text: str, signs: str) -> bool:
    """Whether `text` has letters, combining marks that follow one, and `signs` alone."""
    marked = "".join("M" if unicodedata.category(sign)[0] == "M" else "L" if sign.isalpha() else sign for sign in text)
    return re.fullmatch(rf"(?:LM*|[{re.escape(signs)}])*", marked) is not None


@pytest.mark.parametrize("text", ["user1", "jane.doe@example.org", "Žydrūnas 2", ""])
def test_a_harmless_username_stays(text: str) -> None:
    assert clean_username(text) == text


@pytest.mark.parametrize("text", ["${x}", "a\nb", "a;b", "a" * 256, " user1"])
def test_a_username_that_would_have_to_be_cut_is_left_out_whole(text: str) -> None:
    assert clean_username(text) == ""


@pytest.mark.parametrize(
    ("text", "privacy"),
    [("off", "off"), ("name", "name"), (" Number ", "number"), ("FULL", "full"), ("", "off"), ("none", "off")],
)
def test_an_unknown_privacy_is_off(text: str, privacy: str) -> None:
    assert Privacy.from_wire(text) == Privacy(privacy)


def test_the_original_caller_is_cleaned_where_it_comes_in() -> None:
    assert Caller.from_wire("alice", "Al<ice>", privacy=Privacy.FULL) == Caller("alice", "Al ice", Privacy.FULL)
    assert Caller.from_wire("a b", "${x}", privacy=Privacy.OFF) == Caller("", "", Privacy.OFF)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("37060001002", ("37060001002", "")),
        (" +370 ", ("+370", "")),
        ('"Acme" 37060001002', ("37060001002", "Acme")),
        ('"Acme"37060001002', ("37060001002", "Acme")),
        ('"Acme" <37060001002>', ("37060001002", "Acme")),
        ('"Acme" < 370 >', ("370", "Acme")),
        ("Acme <370>", ("370", "Acme")),
        ("<370>", ("370", "")),
        ("Acme", ("", "Acme")),
        ('"Acme"', ("", "Acme")),
        ('"Acme', ("", "Acme")),
        ('"Acme" alice', ("", "Acme")),
        ("370 60001002", ("37060001002", "")),
        ("+370 600 00001", ("+37060000001", "")),
        ("+370 (600) 00-001", ("+37060000001", "")),
        ("tel:+370-600-00001;phone-context=x", ("+37060000001", "")),
        ("sip:+37060000001;npdi@h;user=phone", ("+37060000001", "")),
        ('"A" <sip:37060000001@h>', ("37060000001", "A")),
        ('"A" <tel:+37060000001>', ("+37060000001", "A")),
        ('"A" +370 600 00001', ("+37060000001", "A")),
        ("*#", ("", "")),
        ("sip:alice@h", ("", "sip alice h")),
        ('"${system(id)}" 370', ("370", "")),
        ('"A \\" B" 370', ("370", "")),
        ("${system(id)}", ("", "")),
        ('"A" "B" 370', ("370", "A B")),
        ('"', ("", "")),
        ("", ("", "")),
    ],
)
def test_a_custom_caller_id_is_a_number_a_name_or_both(text: str, parsed: tuple[str, str]) -> None:
    assert parse_custom(text) == parsed


@untimed
@given(texts)
def test_a_custom_caller_id_is_always_clean(text: str) -> None:
    number, name = parse_custom(text)
    assert number == clean_number(number)
    assert name == clean_name(name)


@pytest.mark.parametrize(
    ("own", "choice", "folded"),
    [
        (DESK, FromDevice(), DESK),
        (Caller("102", "", Privacy.OFF), FromDevice(), Caller("102", "", Privacy.OFF)),
        (NUMBERLESS, FromDevice(), Caller("37061111111", "Front desk", Privacy.FULL)),
        (NOBODY, FromDevice(), ALICE),
        (DESK, AsItComes(), ALICE),
        (DESK, FromDid(1, "37052000001"), Caller("37052000001", "", Privacy.OFF)),
        (DESK, FromDid(1, "${x}"), Caller("", "", Privacy.OFF)),
        (DESK, Custom('"Acme" 370'), Caller("370", "Acme", Privacy.OFF)),
        (DESK, Custom("370"), Caller("370", "", Privacy.OFF)),
        (DESK, Custom("Acme"), Caller("37060001002", "Acme", Privacy.OFF)),
        (NUMBERLESS, Custom("Acme"), Caller("37061111111", "Acme", Privacy.FULL)),
        (DESK, Custom("${x}"), Caller("37060001002", "", Privacy.OFF)),
        (DESK, Custom("37061111111"), Caller("37061111111", "", Privacy.FULL)),
    ],
)
def test_each_choice_folds_the_caller_id(own: Caller, choice: CallerId, folded: Caller) -> None:
    assert fold(ALICE, own=own, choice=choice) == folded
