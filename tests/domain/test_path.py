"""The marker: what is written can be read again, and what is not a marker is none."""

import hashlib
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callflow_service.domain.callflow import MAX_ID, MAX_RULES, MAX_STEPS, State
from callflow_service.domain.path import Hop, Path, legs_told, new_flow_id, parse

untimed = settings(deadline=None)

ids = st.integers(0, MAX_ID)
hops = st.builds(Hop, ids, st.sampled_from(State), st.integers(0, MAX_RULES), st.integers(1, MAX_STEPS))
flow_ids = st.from_regex(r"[A-Za-z0-9.-]{1,64}", fullmatch=True)
plain_hops = st.builds(Hop, ids, st.sampled_from(State))
ways = st.lists(hops, max_size=64).map(tuple), st.none() | ids
paths = st.builds(Path, flow_ids, st.lists(plain_hops, max_size=64).map(tuple), st.none() | ids) | st.builds(
    lambda path, legs: replace(path, legs=legs_told(path.hops, legs)),
    st.builds(
        Path,
        flow_ids,
        *ways,
        began=st.integers(0, 36**8 - 1),
        called=st.from_regex(r"[0-9*#]{0,32}", fullmatch=True),
        left=st.lists(ids, max_size=64).map(tuple),
    ),
    st.integers(0, 999),
)

WORKED = Path("c1-2.3", (Hop(4, State.BEFORE_CALL), Hop(5, State.NO_ANSWER)), 100)


def test_a_marker_names_the_diverters_their_states_and_where_the_call_is() -> None:
    assert str(WORKED) == "4u.5n.100_c1-2.3"
    assert parse("4u.5n.100_c1-2.3") == WORKED


def test_a_marker_tells_when_the_call_began_how_it_came_in_and_what_was_tried() -> None:
    hops = (Hop(4, State.BEFORE_CALL, rule=2, step=3), Hop(5, State.NO_ANSWER))
    path = Path("c1", hops, 100, began=1795694400, legs=4, called="37052*1#", left=(7, 8))
    marker = "4u.5n.100_c1_ttp3yo0.k4.n37052s1h.c2-3-0-1.r7-8"
    assert str(path) == marker
    assert parse(marker) == path
    assert path.met == {4, 5, 100, 7, 8}


@pytest.mark.parametrize(
    "details", ["_t", "_t0.k1", "_t01", "_t1.c0-1", "_t1.c21-1", "_t1.c1-11", "_t1.c1-1-1-1", "_t1.r", "_t1.n", "_k1"]
)
def test_one_way_has_one_marker(details: str) -> None:
    assert parse("4n.100_c1") is not None
    assert parse(f"4n.100_c1{details}") is None


def test_a_call_that_went_to_a_number_is_nowhere_we_know() -> None:
    path = Path("f", (Hop(7, State.BUSY), Hop(8, State.FAILED)), None)
    assert str(path) == "7b.8f.x_f"
    assert parse("7b.8f.x_f") == path


@untimed
@given(paths)
def test_what_is_written_is_read_as_it_was(path: Path) -> None:
    assert parse(str(path)) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100",
        "_f",
        "100_",
        "100_a_b",
        "100_a b",
        "100_f\n",
        "4u100_f",
        "4u..100_f",
        "4u.5n_f",
        "4q.100_f",
        "4U.100_f",
        "x.100_f",
        "xu.100_f",
        "-1_f",
        "01_f",
        "\uff11_f",
        f"{MAX_ID + 1}_f",
        f"{MAX_ID + 1}u.4_f",
        "9" * 20 + "_f",
        "1u." * 65 + "4_f",
        "4_" + "f" * 65,
        "1u." * 1000 + "4_f",
    ],
)
def test_what_is_not_a_marker_is_none(text: str) -> None:
    assert parse(text) is None


@untimed
@given(st.text() | st.text(alphabet="0123456789unbfx._-a"))
def test_whatever_is_read_is_written_the_same(text: str) -> None:
    path = parse(text)
    assert path is None or str(path) == text


def test_a_call_id_that_fits_is_the_flow_id() -> None:
    assert new_flow_id("e083208b-50b3.4473", lambda: "r4nd0m") == "e083208b-50b3.4473"


@pytest.mark.parametrize("call_id", ["abc@192.0.2.1", "a_b", "a" * 65, "\ud800"])
def test_a_call_id_that_does_not_fit_is_hashed(call_id: str) -> None:
    digest = hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()
    assert new_flow_id(call_id, lambda: "r4nd0m") == digest[:32]


def test_a_call_without_an_id_gets_the_random_one() -> None:
    assert new_flow_id("", lambda: "r4nd0m") == "r4nd0m"


@untimed
@given(st.text())
def test_a_flow_id_always_fits_a_marker(call_id: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9.-]{1,64}", new_flow_id(call_id, lambda: "0a"))
