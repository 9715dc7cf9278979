"""The signature: which strings count, and that a signature is for one request alone."""

from hashlib import sha1

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callflow_service.domain.signature import UPDATE_ORDER, compat_strings, digests, matches, strict_strings

FULL = {name: f"<{name}>" for name in UPDATE_ORDER}

values_sent = st.lists(st.sampled_from(UPDATE_ORDER), unique=True, min_size=1).flatmap(
    lambda names: st.fixed_dictionaries({name: st.text("01ab", min_size=1, max_size=4) for name in names})
)


@pytest.mark.parametrize(
    ("string", "key", "digest"),
    [
        ("100", "456789", "71516eea4850f7e0300ac86adf9fb64bca845aa7"),
        ("5", "456789", "65fd575c441513bd114b84c7dbdb01e0f2716d27"),
        ("1231252454580answered", "Very Sercet Key", "b93c35d5c6183288322122561a3da7e09abb63b7"),
        ("6511", "secret", "f7de355c9b4421ce6c705b4b32c89dbcaca51e46"),
    ],
)
def test_the_worked_examples_of_the_documentation_come_out(string: str, key: str, digest: str) -> None:
    assert list(digests(string, key)) == [digest]
    assert matches(digest, key, iter([string]))


def test_a_strict_string_is_in_the_tables_order_or_with_the_state_first_or_as_sent() -> None:
    sent = {name: FULL[name] for name in ("device_id", *reversed(UPDATE_ORDER[1:]))}
    state_first = ("device_id", "state", "callflow_action", *UPDATE_ORDER[3:])
    assert list(strict_strings(sent)) == [
        "".join(FULL[name] for name in UPDATE_ORDER),
        "".join(FULL[name] for name in state_first),
        "".join(sent.values()),
    ]


def test_the_order_of_the_request_does_not_count_where_another_value_comes_before_the_device() -> None:
    sent = {name: FULL[name] for name in reversed(UPDATE_ORDER)}
    assert "".join(sent.values()) not in list(strict_strings(sent))


def test_nothing_sent_signs_the_empty_string_alone() -> None:
    assert set(strict_strings({})) == set(compat_strings({})) == {""}


def test_a_compat_string_leaves_the_target_out() -> None:
    assert list(compat_strings(FULL)) == ["<device_id><state><callflow_action>", "<device_id>"]


def sha1_hex(signed: bytes) -> str:
    return sha1(signed, usedforsecurity=False).hexdigest()


def test_a_text_beyond_ascii_is_hashed_as_utf8_and_as_latin1() -> None:
    assert list(digests("4é", "kéy")) == [
        sha1_hex("4ékéy".encode()),
        sha1_hex("4ékéy".encode("latin-1")),
    ]


def test_a_text_that_latin1_lacks_is_hashed_as_utf8_alone() -> None:
    assert list(digests("4ŝé", "key")) == [sha1_hex("4ŝékey".encode())]


def test_a_lone_surrogate_is_hashed_as_it_is_encoded() -> None:
    assert list(digests("4\ud800", "key")) == [sha1_hex(b"4\xed\xa0\x80key")]


def test_a_signature_may_be_in_upper_case() -> None:
    assert matches("71516EEA4850F7E0300AC86ADF9FB64BCA845AA7", "456789", iter(["100"]))


@pytest.mark.parametrize("signature", ["", "71516eea", "71516eea4850f7e0300ac86adf9fb64bca845aa7 ", "\udc80é" * 20])
def test_anything_else_is_no_signature(signature: str) -> None:
    assert not matches(signature, "456789", iter(["100"]))


@settings(deadline=None, max_examples=150)
@given(
    values=values_sent,
    name=st.sampled_from(UPDATE_ORDER),
    changed=st.text("01ab", max_size=4),
    key=st.text(min_size=1, max_size=8),
    data=st.data(),
)
def test_any_change_of_one_value_breaks_a_strict_signature_unless_the_same_text_comes_out(
    values: dict[str, str], name: str, changed: str, key: str, data: st.DataObject
) -> None:
    string = data.draw(st.sampled_from(list(strict_strings(values))))
    signature = next(digests(string, key))
    assert matches(signature, key, strict_strings(values))
    other = {**values, name: changed} if changed else {n: v for n, v in values.items() if n != name}
    still_the_same_text = any(sent == string for sent in strict_strings(other))
    assert matches(signature, key, strict_strings(other)) == still_the_same_text


def test_a_signature_does_not_fit_a_request_with_its_values_swapped() -> None:
    sent = {"device_id": "4", "callflow_action": "forward", "state": "busy", "forward_to_device": "5"}
    signature = next(digests("".join(sent.values()), "key"))
    swapped = {"forward_to_device": "4", "callflow_action": "forward", "state": "busy", "device_id": "5"}
    assert matches(signature, "key", strict_strings(sent))
    assert "".join(swapped.values()) == "".join(sent.values())
    assert not matches(signature, "key", strict_strings(swapped))
