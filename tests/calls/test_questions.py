"""What the shipped Kamailio configuration asks, read off the wire."""

import base64

import pytest
import pytest_asyncio
from listener import Listener
from programs import StartTelephony, Telephony
from telephones import ALICE, Leg

pytestmark = pytest.mark.calls


@pytest_asyncio.fixture
async def telephony(odd_telephony: Telephony, listener: Listener) -> Telephony:
    """Asks a listener that has no answer to any question."""
    odd_telephony.far_end.forget()
    listener.forget()
    return odd_telephony


async def asked(
    telephony: Telephony, listener: Listener, *headers: tuple[str, str], caller: str = ALICE
) -> dict[str, str]:
    """The question of a call to the reception, without the call's id, which is another one each time."""
    call = await telephony.caller.place("reception", *headers, caller=caller)
    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs[-1].called == "reception"
    (question,) = listener.questions
    assert question.pop("call_id") == dict(call.headers)["Call-ID"]
    return question


async def test_a_question_comes_once_and_with_the_password(telephony: Telephony, listener: Listener) -> None:
    assert await asked(telephony, listener) == {
        "state": "before_call",
        "called": "reception",
        "caller_number": "37061111111",
        "caller_name": "Alice",
    }
    (head,) = listener.heads
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /switch/kamailio HTTP/1.1"
    assert f"Authorization: Basic {base64.b64encode(b'kamailio:kamailio-secret').decode()}" in lines
    assert "Content-Type: application/json" in lines


async def test_a_password_with_a_hash_stands_in_quotes(start_telephony: StartTelephony, listener: Listener) -> None:
    listener.forget()
    telephony = await start_telephony(listener.url, password='"sharp#secret"')

    call = await telephony.caller.place("reception")
    assert await call.ends() == 200
    await call.hang_up()

    (head,) = listener.heads
    assert f"Authorization: Basic {base64.b64encode(b'kamailio:sharp#secret').decode()}" in head.decode().split("\r\n")


async def test_the_log_shows_no_password(telephony: Telephony, listener: Listener) -> None:
    await asked(telephony, listener)

    assert "kamailio-secret" not in telephony.log.read_text(errors="replace")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("", None, id="no name"),
        pytest.param("Alice ", "Alice", id="without quotes"),
        pytest.param('"Žalia Įstaiga" ', "Žalia Įstaiga", id="letters of another script"),
        pytest.param('"$ci $(ru) $avp(callflow_state) %s" ', "$ci $(ru) $avp(callflow_state) %s", id="variables"),
        pytest.param('"\\", \\"called\\": \\"sales" ', '\\", \\"called\\": \\"sales', id="JSON"),
        pytest.param('"Bj\udcf6rn" ', None, id="no UTF-8"),
    ],
)
async def test_a_callers_name_arrives_as_it_is_whatever_stands_in_it(
    telephony: Telephony, listener: Listener, name: str, told: str | None
) -> None:
    expected = {"state": "before_call", "called": "reception", "caller_number": "37061111111"}

    question = await asked(telephony, listener, caller=f"{name}<sip:37061111111@sip.example.org>")

    assert question == expected | ({} if told is None else {"caller_name": told})


async def test_all_lines_of_the_headers_arrive_in_their_order(telephony: Telephony, listener: Listener) -> None:
    diversion = ("<sip:2@example.net>;reason=no-answer", '"A, B" <sip:1@example.net>, <sip:0@example.net>')
    history = ("<sip:1@example.net>;index=1", "<sip:2@example.net;cause=486>;index=1.1")

    question = await asked(
        telephony,
        listener,
        *(("Diversion", line) for line in diversion),
        *(("History-Info", line) for line in history),
    )

    assert [part.strip() for part in question["diversion"].split(",")] == [
        part.strip() for part in ",".join(diversion).split(",")
    ]
    assert [part.strip() for part in question["history_info"].split(",")] == list(history)


@pytest.mark.parametrize("lines", [["id"], ["id,user"], ["header;critical", "history"], ["none"], ["odd thing"]])
async def test_a_wish_for_privacy_is_told_in_the_callers_own_words(
    telephony: Telephony, listener: Listener, lines: list[str]
) -> None:
    question = await asked(telephony, listener, *(("Privacy", line) for line in lines))

    assert question["privacy_header"].replace(", ", ",") == ",".join(lines)
    assert "privacy" not in question


async def test_a_call_back_from_an_emergency_centre_is_told(telephony: Telephony, listener: Listener) -> None:
    assert (await asked(telephony, listener, ("Priority", "psap-callback")))["priority"] == "psap-callback"


async def test_a_chain_that_is_no_utf8_is_told_all_the_same(telephony: Telephony, listener: Listener) -> None:
    question = await asked(telephony, listener, ("Diversion", '"Bj\udcf6rn" <sip:1@example.net>'))

    assert question["diversion"] == '"Bj?rn" <sip:1@example.net>'


async def test_a_long_chain_is_told_whole(telephony: Telephony, listener: Listener) -> None:
    lines = [f"<sip:{number}@{'long.' * 20}example.net;cause=302>;index=1.{number}" for number in range(100)]

    question = await asked(telephony, listener, *(("History-Info", line) for line in lines))

    assert question["history_info"].replace(", ", ",") == ",".join(lines)


@pytest.mark.parametrize("called", ["+37052000501;npdi;rn=+37052000000", "*21%23", "%2B37052000501"])
async def test_a_dialled_number_is_told_as_it_came(telephony: Telephony, listener: Listener, called: str) -> None:
    call = await telephony.caller.place(
        called, caller="<sip:+12155551212;verstat=TN-Validation-Passed@sip.example.org>"
    )
    assert await call.ends() == 200
    await call.hang_up()

    (question,) = listener.questions
    assert question["called"] == called
    assert question["caller_number"] == "+12155551212;verstat=TN-Validation-Passed"


async def test_without_an_answer_the_headers_stay_as_they_came(telephony: Telephony, listener: Listener) -> None:
    headers = [("Diversion", "<sip:2@example.net>"), ("History-Info", "<sip:2@example.net>;index=1"), ("Privacy", "id")]

    await asked(telephony, listener, *headers)

    assert telephony.far_end.legs == [
        Leg("phone", "reception", ALICE, ("<sip:2@example.net>",), ("<sip:2@example.net>;index=1",), ("id",))
    ]
