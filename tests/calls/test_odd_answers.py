"""Real calls while the service answers nonsense, or nothing for a while: nobody's call is lost by that."""

import asyncio

import pytest
import pytest_asyncio
from listener import REFUSAL, Listener, answer, ring
from programs import Telephony
from telephones import ALICE, Leg, Reaction, until

pytestmark = pytest.mark.calls

ODD = {
    "HTML": answer(b"<html><body>It works!</body></html>", kind="text/html"),
    "nothing": answer(b""),
    "half": answer(b'{"action": "forward", "routes": [{"uri": "sip:sal'),
    "an empty object": answer(b"{}"),
    "a list": answer(b"[]"),
    "null": answer(b"null"),
    "a null action": answer(b'{"action": null}'),
    "a number for an action": answer(b'{"action": 1, "path": 2, "routes": 3}'),
    "an unknown action": answer(b'{"action": "dance", "path": "501_x"}'),
    "no route": answer(b'{"action": "forward", "path": "501_x", "routes": []}'),
    "no path": answer(b'{"action": "ring", "routes": [{"uri": "sip:sales@sip.example.org"}]}'),
    "400": answer(b'{"action": "forward"}', status="400 Bad Request"),
    "401": answer(b"", status="401 Unauthorized"),
    "429": answer(b"", status="429 Too Many Requests"),
    "500": answer(b"<h1>Oops</h1>", status="500 Internal Server Error", kind="text/html"),
    "503": REFUSAL,
    "no HTTP": b"SIP/2.0 200 OK\r\n\r\n",
    "a closed connection": b"",
}


@pytest_asyncio.fixture
async def telephony(odd_telephony: Telephony, listener: Listener) -> Telephony:
    odd_telephony.far_end.forget()
    listener.forget()
    return odd_telephony


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_before_the_call_an_odd_answer_is_as_if_nobody_had_been_asked(
    telephony: Telephony, listener: Listener, odd: bytes
) -> None:
    listener.answers.append(odd)

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [Leg("phone", "reception", ALICE)]
    assert len(listener.questions) == 1


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_in_the_middle_of_a_call_an_odd_answer_is_the_end_with_the_cause_that_came(
    telephony: Telephony, listener: Listener, odd: bytes
) -> None:
    listener.answers += [ring("reception"), odd]
    telephony.far_end.reactions["reception"] = Reaction.BUSY

    call = await telephony.caller.place("reception")

    assert await call.ends() == 486
    assert telephony.far_end.legs == [Leg("phone", "reception", ALICE)]
    assert [question["state"] for question in listener.questions] == ["before_call", "busy"]


async def test_a_call_that_is_repeated_before_there_is_an_answer_is_asked_about_once(
    telephony: Telephony, listener: Listener
) -> None:
    listener.is_open.clear()
    call = await telephony.caller.place("reception")
    await until(lambda: len(listener.questions) == 1, "The call was to be asked about")
    for _ in range(3):
        telephony.caller.repeat(call)
    # Whoever answers this has been through with the repeated calls.
    assert await telephony.caller.is_answered(within=0.8)
    listener.is_open.set()

    assert await call.ends() == 200
    await call.hang_up()
    assert [question["called"] for question in listener.questions] == ["reception"]
    assert [leg.called for leg in telephony.far_end.legs] == ["reception"]


async def test_who_hangs_up_while_the_first_question_is_open_lets_nobody_ring(
    telephony: Telephony, listener: Listener
) -> None:
    known = len(telephony.warnings())
    listener.is_open.clear()
    call = await telephony.caller.place("reception")
    await until(lambda: len(listener.questions) == 1, "The call was to be asked about")
    await call.cancel()
    listener.is_open.set()
    await until(lambda: len(telephony.warnings()) > known, "The question was to end")

    assert call.final.status == 487
    later = await telephony.caller.place("sales")
    assert await later.ends() == 200
    await later.hang_up()
    assert [leg.called for leg in telephony.far_end.legs] == ["sales"]


async def test_who_hangs_up_while_a_later_question_is_open_lets_nobody_else_ring(
    telephony: Telephony, listener: Listener
) -> None:
    listener.answers += [ring("reception"), ring("support")]
    telephony.far_end.reactions["reception"] = Reaction.RINGS_THEN_BUSY
    call = await telephony.caller.place("reception")
    await telephony.far_end.rings("reception")
    listener.is_open.clear()
    await until(lambda: len(listener.questions) == 2, "The busy phone was to be asked about")
    cancelling = asyncio.create_task(call.cancel())
    # Whoever answers this has read the CANCEL before.
    assert await telephony.caller.is_answered(within=0.8)
    listener.is_open.set()
    await cancelling

    assert call.final.status in {486, 487}
    later = await telephony.caller.place("sales")
    assert await later.ends() == 200
    await later.hang_up()
    assert [leg.called for leg in telephony.far_end.legs] == ["reception", "sales"]


async def test_a_service_that_hangs_under_twelve_calls_a_second_costs_no_call_and_is_asked_again_when_it_is_back(
    telephony: Telephony, listener: Listener
) -> None:
    known = len(telephony.warnings())
    listener.is_open.clear()
    calls = []
    for _ in range(36):
        calls.append(await telephony.caller.place("reception"))
        await asyncio.sleep(1 / 12)
    statuses = [await call.ends() for call in calls]

    assert statuses == [200] * 36
    assert len(telephony.far_end.legs) == 36
    for call in calls:
        await call.hang_up()
    said = telephony.warnings()[known:]
    opened = "three questions in a row ran out of time, asking one call in three seconds"
    assert said.count(opened) == 1
    assert set(said) == {opened, "no answer (28), carrying on"}
    # What was not asked about did not wait: the pause is longer than a question.
    assert len(listener.questions) < 36

    listener.is_open.set()

    async def ask_until_it_is_back() -> None:
        while "the service is back, asking every call" not in telephony.warnings()[known:]:
            call = await telephony.caller.place("reception")
            assert await call.ends() == 200
            await call.hang_up()
            await asyncio.sleep(0.2)

    await asyncio.wait_for(ask_until_it_is_back(), 20)
    asked = len(listener.questions)
    call = await telephony.caller.place("reception")
    assert await call.ends() == 200
    await call.hang_up()
    assert len(listener.questions) == asked + 1
