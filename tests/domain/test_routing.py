"""Routing: every rule of the switch answers in a sentence, and what holds in any world whatever."""

import re
import unicodedata
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callflow_service.domain import path as paths
from callflow_service.domain.callerid import Caller, Privacy
from callflow_service.domain.callflow import (
    END_CAUSES,
    NAMES_NOTHING,
    AsItComes,
    CallerId,
    CallerIs,
    CallFlow,
    Conditions,
    Custom,
    Device,
    Empty,
    End,
    FaxDetect,
    Forward,
    FromDevice,
    FromDid,
    InList,
    Rule,
    State,
    StateFlow,
    Step,
    SwitchedOff,
    Voicemail,
    is_external_number,
)
from callflow_service.domain.path import Hop, Path
from callflow_service.domain.routing import (
    Circumstances,
    Decision,
    Facts,
    FactsMissing,
    Question,
    RouteAction,
    RoutedDevice,
    Rules,
    route,
)

untimed = settings(deadline=None)

BEFORE, NO_ANSWER, BUSY, FAILED = State.BEFORE_CALL, State.NO_ANSWER, State.BUSY, State.FAILED
RING, FORWARD, VOICEMAIL = RouteAction.RING, RouteAction.FORWARD, RouteAction.VOICEMAIL
FAX, END, NONE = RouteAction.FAX, RouteAction.END, RouteAction.NONE

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
BEGAN = int(NOON.timestamp())
ALICE = Caller("37061111111", "Alice", Privacy.NUMBER)
RULES = Rules(
    limit=5,
    number_ring_seconds=60,
    trust_headers=True,
    domain="h",
    can_ring=lambda device: device.technology != "NONE",
    can_dial_numbers=True,
)


def device(
    device_id: int,
    flows: Mapping[State, CallFlow | StateFlow] | None = None,
    *,
    technology: str = "SIP",
    dids: tuple[str, ...] = (),
) -> RoutedDevice:
    """A device that is all named after its id: 4 is `SIP/d4` of `owner4`, with the caller ID "Desk 4" 3704."""
    return RoutedDevice(
        id=device_id,
        technology=technology,
        name=f"d{device_id}",
        owner=f"owner{device_id}",
        caller_number=f"370{device_id}",
        caller_name=f"Desk {device_id}",
        ring_seconds=10 + device_id,
        dids=dids,
        flows={
            state: flow if isinstance(flow, StateFlow) else StateFlow(flow) for state, flow in (flows or {}).items()
        },
    )


def to(destination: int | str, caller_id: CallerId = FromDevice()) -> Forward:  # noqa: B008 - frozen
    if isinstance(destination, str):
        return Forward.to(destination, caller_id)
    return Forward.to(Device(destination, "SIP", f"d{destination}"), caller_id)


def world(*devices: RoutedDevice, own: Mapping[str, int | None] | None = None, gone: tuple[int, ...] = ()) -> Facts:
    return Facts({**{one.id: one for one in devices}, **dict.fromkeys(gone)}, own or {})


def ask(
    facts: Facts,
    device_id: int | None = None,
    state: State = BEFORE,
    *,
    path: str = "",
    rules: Rules = RULES,
    diversion: str = "",
    history_info: str = "",
    caller: Caller = ALICE,
) -> Decision:
    question = Question(device_id, state, caller, paths.parse(path), "call", diversion, history_info, NOON)
    return route(question, facts, rules)


def way(answer: Decision) -> str:
    """The marker of an answer, without the time of the call."""
    return str(answer.path).removesuffix(f"_t{int_in_base_36(BEGAN)}")


def int_in_base_36(number: int) -> str:
    return (int_in_base_36(number // 36) if number >= 36 else "") + "0123456789abcdefghijklmnopqrstuvwxyz"[number % 36]


def test_a_forward_to_a_device_is_answered_whole() -> None:
    b = device(2)
    a = device(1, {BEFORE: to(2)}, dids=("37052",))
    assert ask(world(a, b), 1) == Decision(
        action=FORWARD,
        target=b,
        ring_seconds=12,
        fax=None,
        mailbox=None,
        cause=None,
        caller=Caller("3701", "Desk 1", Privacy.OFF),
        asserted=None,
        diversion="<sip:d1@h>;reason=unconditional;counter=1;privacy=off",
        history_info="<sip:d1@h?Privacy=none>;index=1, <sip:d2@h;cause=302>;index=1.1;mp=1",
        reason="unconditional",
        device=b,
        payer="owner1",
        payer_device=1,
        leg=2,
        flow_id="call",
        path=Path("call", (Hop(1, BEFORE),), 2, BEGAN),
        explain="SIP/d1 before call: forward to SIP/d2; SIP/d2 rings",
        steps=("SIP/d1 before call: forward to SIP/d2", "SIP/d2 rings"),
        loops_cut=0,
    )


def test_a_forward_to_a_number_is_answered_whole() -> None:
    a = device(1, {NO_ANSWER: to("+37069", AsItComes())}, dids=("37052",))
    assert ask(world(a), state=NO_ANSWER, path="1_f") == Decision(
        action=FORWARD,
        target="+37069",
        ring_seconds=60,
        fax=None,
        mailbox=None,
        cause=None,
        caller=ALICE,
        asserted=None,
        diversion="<sip:37052@h>;reason=no-answer;counter=1;privacy=off",
        history_info="<sip:37052@h?Privacy=none>;index=1, <sip:+37069@h;cause=408>;index=1.1;mp=1",
        reason="no-answer",
        device=a,
        payer="owner1",
        payer_device=1,
        leg=2,
        flow_id="f",
        path=Path("f", (Hop(1, NO_ANSWER),), None, BEGAN),
        explain="SIP/d1 no answer: forward to +37069",
        steps=("SIP/d1 no answer: forward to +37069",),
        loops_cut=0,
    )


def test_an_untouched_device_is_left_to_the_switch() -> None:
    a = device(1, {BUSY: Empty()})
    assert ask(world(a), 1) == Decision(
        action=NONE,
        target=None,
        ring_seconds=None,
        fax=None,
        mailbox=None,
        cause=None,
        caller=ALICE,
        asserted=None,
        diversion="",
        history_info="",
        reason="",
        device=a,
        payer="",
        payer_device=None,
        leg=1,
        flow_id="call",
        path=Path("call", (), 1, BEGAN),
        explain="SIP/d1 rings; carry on, nothing is ours to decide",
        steps=("SIP/d1 rings", "carry on, nothing is ours to decide"),
        loops_cut=0,
    )


@pytest.mark.parametrize("device_id", [7, NAMES_NOTHING, None])
def test_an_unknown_device_is_left_to_the_switch(device_id: int | None) -> None:
    answer = ask(world(gone=(7,)), device_id)
    assert (answer.action, answer.device, way(answer)) == (NONE, None, "x_call")


@pytest.mark.parametrize(("state", "cause"), [(BEFORE, 503), (NO_ANSWER, 480), (BUSY, 486), (FAILED, 503)])
def test_an_unknown_device_ends_a_call_that_is_ours(state: State, cause: int) -> None:
    answer = ask(world(device(1), gone=(7,)), state=state, path="1b.7_f")
    assert (answer.action, answer.cause, answer.device, way(answer)) == (END, cause, device(1), "1b.x_f")


@pytest.mark.parametrize(("state", "cause"), [(BEFORE, 503), (NO_ANSWER, 480), (BUSY, 486), (FAILED, 503)])
def test_a_number_outside_has_nothing_set(state: State, cause: int) -> None:
    answer = ask(world(device(1)), state=state, path="1b.x_f")
    assert (answer.action, answer.cause, answer.target, answer.leg) == (END, cause, None, 2)
    assert (answer.device, answer.payer, answer.payer_device) == (device(1), "owner1", 1)


def test_a_device_with_another_state_set_rings() -> None:
    a = device(1, {BUSY: Voicemail()})
    answer = ask(world(a), 1)
    assert (answer.action, answer.target, answer.ring_seconds, answer.leg) == (RING, a, 11, 1)
    assert (answer.caller, answer.payer, answer.payer_device, answer.reason) == (ALICE, "", None, "")


@pytest.mark.parametrize(("state", "cause"), [(NO_ANSWER, 480), (BUSY, 486), (FAILED, 503)])
def test_where_nothing_is_set_a_continued_call_ends_with_the_cause_that_came(state: State, cause: int) -> None:
    answer = ask(world(device(1)), state=state, path="1_f")
    assert (answer.action, answer.cause, answer.device, way(answer)) == (END, cause, device(1), "1_f")
    assert answer.explain == f"SIP/d1 {state.replace('_', ' ')}: nothing set; ends with {cause}"


def test_a_first_question_about_a_state_where_nothing_is_set_ends_unless_the_device_is_untouched() -> None:
    touched = ask(world(device(1, {NO_ANSWER: Voicemail()})), 1, BUSY)
    assert (touched.action, touched.cause) == (END, 486)
    assert ask(world(device(1)), 1, BUSY).action == NONE


def test_a_continued_call_rings_a_device_that_is_untouched() -> None:
    assert ask(world(device(1)), path="1_f").action == RING


@pytest.mark.parametrize("state", [BEFORE, NO_ANSWER, BUSY, FAILED])
def test_voicemail_is_the_devices_own_in_every_state(state: State) -> None:
    a = device(1, {state: Voicemail()})
    answer = ask(world(a), 1, state)
    assert (answer.action, answer.target, answer.ring_seconds, answer.device) == (VOICEMAIL, None, None, a)
    assert way(answer) == "1_call"


def test_a_call_that_was_forwarded_to_a_voicemail_goes_to_the_voicemail() -> None:
    b = device(2, {BEFORE: Voicemail()})
    answer = ask(world(device(1, {BEFORE: to(2)}), b), 1)
    assert (answer.action, answer.device, answer.leg, way(answer)) == (VOICEMAIL, b, 2, "1u.2_call")
    assert answer.explain == "SIP/d1 before call: forward to SIP/d2; SIP/d2 before call: voicemail"


def fax_world(*, technology: str = "SIP", fax_technology: str = "FAX") -> Facts:
    a = device(1, {BEFORE: FaxDetect(Device(2, "FAX", "d2"))}, technology=technology)
    return world(a, device(2, technology=fax_technology))


def test_fax_detection_dials_the_device_and_knows_the_fax() -> None:
    facts = fax_world()
    answer = ask(facts, 1)
    assert (answer.action, answer.target, answer.fax) == (FAX, facts.devices[1], facts.devices[2])
    assert (answer.ring_seconds, answer.device, way(answer)) == (11, facts.devices[1], "1_call")
    assert answer.explain == "SIP/d1 before call: fax detection, to FAX/d2"


def test_without_a_fax_that_can_be_rung_the_device_rings_itself() -> None:
    facts = fax_world(fax_technology="NONE")
    answer = ask(facts, 1)
    assert (answer.action, answer.target, answer.fax, answer.loops_cut) == (RING, facts.devices[1], None, 0)
    assert answer.explain == (
        "SIP/d1 before call: fax detection, to NONE/d2; refused: NONE/d2 cannot be rung here; SIP/d1 rings"
    )


def test_without_a_fax_that_is_there_the_device_rings_itself() -> None:
    answer = ask(replace(fax_world(), devices={**fax_world().devices, 2: None}), 1)
    assert (answer.action, answer.fax) == (RING, None)
    assert "refused: device 2 is not there" in answer.explain


def test_a_fax_detection_of_a_device_that_cannot_be_rung_is_refused() -> None:
    assert ask(fax_world(technology="NONE"), 1).action == NONE


def test_a_fax_detection_after_ringing_is_nothing() -> None:
    facts = world(device(1, {BUSY: FaxDetect(Device(2, "FAX", "d2"))}))
    assert ask(facts, 1, BUSY).cause == 486


def test_forwards_before_the_call_are_followed_in_one_answer() -> None:
    facts = world(device(1, {BEFORE: to(2)}), device(2, {BEFORE: to(3)}), device(3, {BUSY: to("370")}))
    answer = ask(facts, 1)
    assert (answer.action, answer.target, way(answer), answer.leg) == (
        FORWARD,
        facts.devices[3],
        "1u.2u.3_call",
        3,
    )
    assert (answer.payer, answer.payer_device, answer.caller.number) == ("owner2", 2, "3702")


@pytest.mark.parametrize(("state", "reason"), [(NO_ANSWER, "no-answer"), (BUSY, "user-busy"), (FAILED, "unavailable")])
def test_a_forward_after_ringing_goes_on_with_the_targets_forward_before_the_call(state: State, reason: str) -> None:
    facts = world(device(1, {state: to(2)}), device(2, {BEFORE: to(3)}), device(3))
    answer = ask(facts, 1, state)
    assert (answer.action, answer.target, answer.reason) == (FORWARD, facts.devices[3], "unconditional")
    assert answer.diversion.endswith(f"<sip:d1@h>;reason={reason};counter=1;privacy=off")


def test_a_continued_call_goes_on_from_the_device_it_is_at() -> None:
    facts = world(device(1, {BEFORE: to(2)}), device(2, {NO_ANSWER: to(3)}), device(3))
    answer = ask(facts, state=NO_ANSWER, path="1u.2_f")
    assert (answer.action, way(answer), answer.leg, answer.payer) == (FORWARD, "1u.2n.3_f", 3, "owner2")


def test_a_device_that_is_asked_about_makes_the_path_history() -> None:
    facts = world(device(1, {BEFORE: to(2)}), device(2), device(3, {BEFORE: to(4)}), device(4))
    answer = ask(facts, 3, path="1u.2_f")
    assert (answer.action, way(answer), answer.flow_id) == (FORWARD, "1u.3u.4_f", "f")


@pytest.mark.parametrize("number", ["37052", "+37052"])
def test_a_number_that_is_one_of_our_dids_is_its_device(number: str) -> None:
    facts = world(device(1, {BEFORE: to(number)}), device(2), own={"37052": 2})
    assert ask(facts, 1).target == facts.devices[2]


def test_a_did_without_a_device_is_a_number() -> None:
    facts = world(device(1, {BEFORE: to("37052")}), own={"37052": None})
    assert ask(facts, 1).target == "37052"


@pytest.mark.parametrize("start", ["1_f", "3b.1_f"])
def test_before_the_call_a_loop_leaves_the_last_device_ringing(start: str) -> None:
    facts = world(device(1, {BEFORE: to(2)}), device(2, {BEFORE: to(1)}), device(3))
    answer = ask(facts, path=start)
    assert (answer.action, answer.target, answer.loops_cut) == (FORWARD, facts.devices[2], 1)
    assert answer.explain == (
        "SIP/d1 before call: forward to SIP/d2; SIP/d2 before call: forward to SIP/d1; "
        "refused: the call has been there, a loop; SIP/d2 rings"
    )


def test_a_device_that_is_forwarded_to_itself_rings() -> None:
    answer = ask(world(device(1, {BEFORE: to(1)})), 1)
    assert (answer.action, answer.leg, answer.loops_cut) == (RING, 1, 1)


def test_after_ringing_a_loop_ends_the_call_as_if_nothing_were_set() -> None:
    facts = world(device(1, {BUSY: to(2)}), device(2, {NO_ANSWER: to("37052")}), own={"37052": 1})
    answer = ask(facts, state=NO_ANSWER, path="1b.2_f")
    assert (answer.action, answer.cause, answer.loops_cut, way(answer)) == (END, 480, 1, "1b.2_f")


def test_the_device_that_a_path_ended_in_is_on_the_path_too() -> None:
    facts = world(device(1), device(2), device(3, {BEFORE: to(2)}))
    assert ask(facts, 3, path="1u.2_f").loops_cut == 1


@pytest.mark.parametrize(("limit", "leg"), [(0, 1), (1, 2), (2, 3), (3, 4), (9, 4)])
def test_no_more_diversions_are_taken_than_the_limit(limit: int, leg: int) -> None:
    facts = world(*(device(n, {BEFORE: to(n + 1)}) for n in (1, 2, 3)), device(4))
    answer = ask(facts, 1, rules=RULES._replace(limit=limit))
    assert (answer.leg, answer.target, answer.loops_cut) == (leg, facts.devices[leg], int(limit < 3))


def test_no_more_diversions_are_taken_than_a_marker_can_hold() -> None:
    facts = world(*(device(n, {BEFORE: to(n + 1)}) for n in range(1, 80)), device(80))
    answer = ask(facts, 1, rules=RULES._replace(limit=100))
    assert (answer.leg, answer.loops_cut, paths.parse(str(answer.path))) == (65, 1, answer.path)


@pytest.mark.parametrize(
    ("diversion", "history_info", "action"),
    [
        ("<sip:x@y>;counter=3", "", FORWARD),
        ("<sip:x@y>;counter=4", "", RING),
        ("<sip:x@y>;counter=2, <sip:x@y>;counter=2", "", RING),
        ("<sip:x@y>, <sip:x@y>, <sip:x@y>, <sip:x@y>", "", RING),
        ("", ", ".join(f"<sip:x@y;cause=302>;index=1.{n}" for n in range(3)), FORWARD),
        ("", ", ".join(f"<sip:x@y;cause=302>;index=1.{n}" for n in range(4)), RING),
        ("<sip:x@y>;counter=2", "<sip:x@y;cause=302>;index=1", FORWARD),
    ],
)
def test_diversions_that_the_headers_tell_of_count(diversion: str, history_info: str, action: RouteAction) -> None:
    facts = world(device(1, {BEFORE: to(2)}), device(2))
    rules = RULES._replace(limit=4)
    assert ask(facts, 1, rules=rules, diversion=diversion, history_info=history_info).action == action


def test_the_largest_of_the_counts_holds() -> None:
    facts = world(*(device(n) for n in (1, 2)), device(3, {BUSY: to(4)}), device(4))
    rules = RULES._replace(limit=3)
    assert ask(facts, state=BUSY, path="1u.2u.3_f", rules=rules, diversion="<sip:x@y>;counter=2").action == FORWARD
    assert ask(facts, state=BUSY, path="1u.2u.3_f", rules=rules, diversion="<sip:x@y>;counter=3").action == END


def test_headers_of_a_switch_that_is_not_trusted_are_not_there() -> None:
    facts = world(device(1, {BEFORE: to(2)}), device(2))
    answer = ask(
        facts,
        1,
        rules=RULES._replace(trust_headers=False, limit=1),
        diversion="<sip:x@y>;counter=9",
        history_info="<sip:x@y;cause=302>;index=1",
    )
    assert answer == ask(facts, 1, rules=RULES._replace(limit=1))


def test_the_chain_that_came_in_goes_on() -> None:
    facts = world(device(1, {BEFORE: to(2)}), device(2))
    answer = ask(facts, 1, diversion="<sip:x@y>;reason=user-busy;privacy=full")
    assert answer.diversion == (
        "<sip:d1@h>;reason=unconditional;counter=1;privacy=off, <sip:x@y>;reason=user-busy;counter=1;privacy=full"
    )
    assert answer.history_info == (
        "<sip:x@y?Privacy=history>;index=1, <sip:d1@h;cause=486?Privacy=none>;index=1.1;mp=1, "
        "<sip:d2@h;cause=302>;index=1.1.1;mp=1.1"
    )


def test_what_the_path_explains_is_not_repeated() -> None:
    facts = world(device(1, {BUSY: to(2)}, dids=("37052",)), device(2, {BUSY: to("3709")}))
    header = "<sip:+37052@y>;reason=user-busy;counter=1;privacy=off"
    answer = ask(facts, state=BUSY, path="1b.2_f", diversion=header, history_info="<sip:3701@y>;index=1")
    assert answer.diversion == (
        "<sip:3702@h>;reason=user-busy;counter=1;privacy=off, <sip:37052@h>;reason=user-busy;counter=1;privacy=off"
    )
    assert answer.history_info == (
        "<sip:37052@h?Privacy=none>;index=1, <sip:3702@h;cause=486?Privacy=none>;index=1.1;mp=1, "
        "<sip:3709@h;cause=486>;index=1.1.1;mp=1.1"
    )


@pytest.mark.parametrize(
    ("dids", "number", "address"),
    [(("37052", "37053"), "3701", "37052"), (("x y", "37053"), "3701", "37053"), ((), "3701", "3701"), ((), "", "d1")],
)
def test_towards_a_number_a_device_is_its_did_else_its_caller_number_else_its_name(
    dids: tuple[str, ...], number: str, address: str
) -> None:
    a = replace(device(1, {BEFORE: to("3709")}, dids=dids), caller_number=number)
    assert ask(world(a), 1).diversion.startswith(f"<sip:{address}@h>;")


def test_a_device_that_no_header_can_name_is_anonymous() -> None:
    a = replace(device(1, {BEFORE: to(2)}), name="d 1", caller_number="")
    assert ask(world(a, device(2)), 1).diversion.startswith("<sip:anonymous@h>;")


@pytest.mark.parametrize("number", ["3709", "+3709"])
def test_a_number_that_cannot_be_dialled_is_refused(number: str) -> None:
    answer = ask(world(device(1, {BEFORE: to(number)})), 1, rules=RULES._replace(can_dial_numbers=False))
    assert (answer.action, answer.loops_cut) == (RING, 0)
    assert "refused: the number cannot be dialled here" in answer.explain


@pytest.mark.parametrize("number", ["***", "${x}", "", "1\r\n2", "++1"])
def test_a_text_that_is_no_number_is_refused(number: str) -> None:
    assert ask(world(device(1, {BUSY: to(number)})), 1, BUSY).cause == 486


def test_a_device_that_cannot_be_rung_is_refused_like_a_loop() -> None:
    answer = ask(world(device(1, {BEFORE: to(2)}), device(2, technology="NONE")), 1)
    assert (answer.action, answer.device, answer.loops_cut) == (RING, device(1, {BEFORE: to(2)}), 0)
    assert answer.explain == (
        "SIP/d1 before call: forward to NONE/d2; refused: NONE/d2 cannot be rung here; "
        "refused: NONE/d2 can neither be rung nor pass the call on; SIP/d1 rings"
    )


def test_a_device_that_cannot_be_rung_may_pass_the_call_on() -> None:
    facts = world(device(1, {BEFORE: to(2)}), device(2, {BEFORE: to(3)}, technology="NONE"), device(3))
    assert ask(facts, 1).target == facts.devices[3]
    facts = world(device(1, {BEFORE: to(2)}), device(2, {BEFORE: Voicemail()}, technology="NONE"))
    assert ask(facts, 1).action == VOICEMAIL


def test_a_chain_that_leads_nowhere_is_taken_back_to_the_last_device_that_can_ring() -> None:
    facts = world(
        device(1, {BEFORE: to(2)}),
        device(2, {BEFORE: to(3)}),
        device(3, {BEFORE: to(4)}, technology="NONE"),
        device(4, technology="NONE"),
    )
    answer = ask(facts, 1)
    assert (answer.action, answer.target, way(answer)) == (FORWARD, facts.devices[2], "1u.2_call")
    assert (answer.caller.number, answer.payer) == ("3701", "owner1")


def test_a_forward_to_a_device_that_is_gone_is_refused() -> None:
    answer = ask(world(device(1, {BUSY: to(7)}), gone=(7,)), 1, BUSY)
    assert (answer.action, answer.cause) == (END, 486)
    assert "refused: device 7 is not there" in answer.explain


def test_a_device_that_cannot_be_rung_itself_is_left_to_the_switch_at_first_and_ends_later() -> None:
    facts = world(device(1, {BUSY: Voicemail()}, technology="NONE"))
    assert ask(facts, 1).action == NONE
    later = ask(facts, path="1_f")
    assert (later.action, later.cause) == (END, 503)


def test_the_caller_id_folds_from_the_first_diversion_on() -> None:
    facts = world(
        device(1, {BEFORE: to(2, Custom("Acme"))}),
        device(2, {BUSY: to(3, AsItComes())}),
        device(3, {NO_ANSWER: to("3709", FromDid(1, "37052"))}),
    )
    assert ask(facts, 1).caller == Caller("3701", "Acme", Privacy.OFF)
    assert ask(facts, state=BUSY, path="1u.2_f").caller == Caller("3701", "Acme", Privacy.OFF)
    assert ask(facts, state=NO_ANSWER, path="1u.2b.3_f").caller == Caller("37052", "", Privacy.OFF)


def test_a_flow_that_is_a_forward_no_more_folds_as_it_comes() -> None:
    facts = world(device(1, {BEFORE: Voicemail()}), device(2, {BUSY: to("3709", AsItComes())}))
    assert ask(facts, state=BUSY, path="1u.2_f").caller == ALICE


def test_a_diverter_that_is_gone_folds_as_it_comes_and_stays_in_the_chain() -> None:
    facts = world(device(2, {NO_ANSWER: Voicemail()}), gone=(1,))
    answer = ask(facts, state=BUSY, path="1u.2_f")
    assert (answer.caller, answer.payer, answer.payer_device) == (ALICE, "", 1)
    assert answer.diversion == "<sip:anonymous@h>;reason=unconditional;counter=1;privacy=off"


def test_a_caller_and_texts_of_the_database_are_cleaned() -> None:
    a = replace(device(1, {BEFORE: to(2)}), caller_number="${x}", caller_name="`x`", owner="${x}", name="d;${1}")
    answer = ask(world(a, device(2)), 1, caller=Caller("${y}", "y\n", Privacy.OFF))
    assert (answer.caller, answer.payer) == (Caller("", "", Privacy.OFF), "")
    assert answer.explain == "SIP/d, 1 before call: forward to SIP/d2; SIP/d2 rings"


def test_a_device_that_the_facts_say_nothing_about_is_asked_for() -> None:
    with pytest.raises(FactsMissing) as missing:
        ask(world(device(1, {BEFORE: to(2)})), 1)
    assert missing.value.device_id == 2
    with pytest.raises(FactsMissing):
        ask(world(), 1)
    with pytest.raises(FactsMissing):
        ask(world(device(2)), state=BUSY, path="1u.2_f")


IDS = range(1, 6)
TEXTS = st.sampled_from(
    ["", "101", "+37052", "Žydrė O'Neil", '"Acme" <370>', "${system(id)}", "a\r\nb", "x;y", "\ud800"]
)
HEADERS = st.sampled_from(
    [
        *("", "<sip:101@h>;reason=user-busy", "<sip:x@y>;counter=2;privacy=full, <sip:+37052@h>;reason=unconditional"),
        *("<sip:101@h>;index=1, <sip:x@y;cause=302?Privacy=history>;index=1.1;mp=1", '"<,;\r\n${x}', "tel:1;cause=408"),
    ]
)
caller_ids = st.sampled_from([FromDevice(), AsItComes(), FromDid(1, "37052"), FromDid(2, "${x}")]) | st.builds(
    Custom, TEXTS
)
local = st.sampled_from([Device(n, "SIP", f"d{n}") for n in IDS])
numbers = st.sampled_from(["3709", "+37052", "37053", "***", "${x}"])
ring_times = st.none() | st.just(15)
held = st.none() | st.sampled_from([NOON - timedelta(hours=1), NOON + timedelta(hours=1)])
steps = st.builds(Step, local | numbers | local, caller_ids, ring_times, held)
voicemails = st.builds(Voicemail, st.none() | local)
ends = st.builds(End, st.sampled_from(END_CAUSES))
actions = st.one_of(
    st.builds(Forward.to, local | numbers, caller_ids),
    st.builds(Forward, st.lists(steps, min_size=1, max_size=4).map(tuple), st.just(Empty()) | voicemails | ends),
    st.just(Empty()) | voicemails | ends | st.builds(FaxDetect, local),
)
callers = st.none() | st.sampled_from(CallerIs) | st.builds(InList, st.sampled_from([1, 2]), st.booleans())
schedules = st.none() | st.sampled_from([1, 2])
conditions = st.builds(Conditions, schedules, schedules, callers, st.sampled_from([(), ("+37052",)]))
choices = actions | st.builds(SwitchedOff, actions)
rules_of_states = st.lists(st.builds(Rule, st.just("r"), conditions, choices, st.booleans()), max_size=3).map(tuple)
flows = st.builds(StateFlow, choices, st.just(()) | rules_of_states)
circumstances = st.builds(
    Circumstances,
    st.frozensets(st.sampled_from([1, 2])),
    st.frozensets(st.sampled_from([1, 2])),
    st.frozensets(st.sampled_from(IDS)),
)


devices = st.builds(
    RoutedDevice,
    id=st.just(0),
    technology=st.sampled_from(["SIP", "IAX2", "NONE"]),
    name=TEXTS,
    owner=TEXTS,
    caller_number=TEXTS,
    caller_name=TEXTS,
    ring_seconds=st.just(30),
    dids=st.sampled_from([(), ("+37052", "x y"), ("${x}", "37053")]),
    flows=st.dictionaries(st.sampled_from(State), flows, max_size=3),
)
worlds = st.builds(
    lambda some, gone, own, circumstances: Facts(
        {n: None if n == gone else replace(one, id=n) for n, one in zip(IDS, some, strict=True)},
        {"37052": own},
        circumstances,
    ),
    st.lists(devices, min_size=len(IDS), max_size=len(IDS)),
    st.none() | st.sampled_from(IDS),
    st.none() | st.sampled_from(IDS),
    circumstances,
)

hops = st.lists(
    st.builds(Hop, st.sampled_from(IDS), st.sampled_from(State), st.integers(0, 3), st.integers(1, 4)), max_size=3
).map(tuple)
questions = st.builds(
    Question,
    device=st.none() | st.sampled_from(IDS),
    state=st.sampled_from(State),
    caller=st.builds(Caller, TEXTS, TEXTS, st.sampled_from(Privacy)),
    path=st.none()
    | st.builds(
        Path,
        st.just("f"),
        hops,
        st.none() | st.sampled_from(IDS),
        began=st.none() | st.just(BEGAN),
        left=st.just(()) | st.lists(st.sampled_from(IDS), max_size=2).map(tuple),
    ),
    call_flow_id=st.just("call"),
    diversion=HEADERS,
    history_info=HEADERS,
    at=st.just(NOON),
    called=st.sampled_from(["", "+37052", "101", "alice"]),
)
rules_of_a_switch = st.builds(
    RULES._replace,
    limit=st.integers(0, 6),
    max_legs=st.integers(1, 6),
    trust_headers=st.booleans(),
    can_dial_numbers=st.booleans(),
)

NUMBER = re.compile(r"(?:\+?[0-9*#]{1,32}|[A-Za-z0-9._-]{1,64})?", re.ASCII)
HEADER = re.compile(r"[A-Za-z0-9.+*_%:@<>;=?, -]*", re.ASCII)


def is_kept(text: str, signs: str) -> bool:
    return all(sign in signs or unicodedata.category(sign).startswith("L") for sign in text)


@untimed
@given(questions, worlds, rules_of_a_switch)
def test_the_same_question_has_the_same_answer_and_changes_nothing(q: Question, facts: Facts, rules: Rules) -> None:
    before = deepcopy((q, facts))
    assert route(q, facts, rules) == route(q, facts, rules)
    assert (q, facts) == before


@untimed
@given(questions, worlds, rules_of_a_switch)
def test_a_call_never_goes_where_it_has_been_nor_beyond_the_limit(q: Question, facts: Facts, rules: Rules) -> None:
    answer = route(q, facts, rules)
    came = q.path.hops if q.path else ()
    pairs = enumerate(zip(came, answer.path.hops, strict=False))
    kept = next((place for place, (old, new) in pairs if old != new), len(came))
    taken = answer.path.hops[kept:]
    assert answer.leg == len(answer.path.hops) + 1
    assert not taken or answer.leg - 1 <= rules.limit
    assert not taken or not answer.target or answer.path.legs_before < rules.max_legs
    been = q.path.met if q.path else frozenset()
    asked = q.device if q.device is not None else q.path.current if q.path else None
    visited = [hop.device_id for hop in taken] + ([answer.path.current] if taken and answer.path.current else [])
    assert len(set(visited)) == len(visited)
    assert not been.intersection(visited[1:])
    # The first that passes the call on now is the one asked about, or one that goes on with its next step.
    assert not taken or visited[0] == asked or (visited[0] in {hop.device_id for hop in came} and taken[0].step > 1)


@untimed
@given(questions, worlds, rules_of_a_switch)
def test_every_answer_is_one_that_a_switch_can_act_on(q: Question, facts: Facts, rules: Rules) -> None:
    answer = route(q, facts, rules)
    came = q.path.hops if q.path else ()
    assert (answer.action == NONE) <= (q.path is None and answer.path.hops == ())
    assert (answer.cause is not None) == (answer.action == END)
    assert (answer.fax is not None) == (answer.action == FAX)
    assert (answer.target is not None) == (answer.ring_seconds is not None) == (answer.action in {RING, FORWARD, FAX})
    assert (answer.action == FORWARD) <= (answer.path.hops != came)
    assert (answer.action in {RING, NONE}) <= (answer.path.hops == came)
    assert (answer.mailbox is not None) == (answer.action == VOICEMAIL)
    for rung in (answer.target, answer.fax):
        assert not isinstance(rung, RoutedDevice) or rules.can_ring(rung)
    assert not isinstance(answer.target, str) or (rules.can_dial_numbers and is_external_number(answer.target))


@untimed
@given(questions, worlds, rules_of_a_switch)
def test_every_text_of_an_answer_is_on_its_allow_list(q: Question, facts: Facts, rules: Rules) -> None:
    answer = route(q, facts, rules)
    assert NUMBER.fullmatch(answer.caller.number)
    assert is_kept(answer.caller.name, "0123456789 .-_'")
    assert is_kept(answer.payer, "0123456789 .-_'@+")
    assert is_kept(answer.explain, "0123456789 .-_'/;:,()+*#")
    assert len(answer.explain) <= 1000
    assert HEADER.fullmatch(answer.diversion)
    assert HEADER.fullmatch(answer.history_info)
    assert answer.reason in {"", "unconditional", "no-answer", "user-busy", "unavailable"}
    assert paths.parse(str(answer.path)) == answer.path


@untimed
@given(questions, worlds, rules_of_a_switch, st.lists(st.sampled_from([NO_ANSWER, BUSY, FAILED]), min_size=12))
def test_a_call_that_nobody_takes_ends(q: Question, facts: Facts, rules: Rules, outcomes: list[State]) -> None:
    q, rung = q._replace(path=None), []
    for state in outcomes:
        answer = route(q, facts, rules)
        if answer.action not in {RING, FORWARD, FAX}:
            break
        rung += [answer.target.id] if isinstance(answer.target, RoutedDevice) else ["number"]
        q = q._replace(device=None, state=state, path=answer.path)
    assert len(rung) <= rules.max_legs + 1
    devices_rung = [each for each in rung if each != "number"]
    assert len(set(devices_rung)) == len(devices_rung)
