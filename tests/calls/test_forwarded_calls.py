"""Real calls through the shipped Kamailio configuration: who rings after a change, and what they are shown."""

import logging
from collections.abc import Callable
from dataclasses import replace

import httpx
import pytest
from programs import SetFlow, StartTelephony, Telephony
from telephones import ALICE, Leg, Reaction, until

pytestmark = pytest.mark.calls

RECEPTION = '"Reception" <sip:37060000501@sip.example.org>'
SALES = '"Sales" <sip:37060000502@sip.example.org>'
REFUSALS = [
    (Reaction.BUSY, "busy"),
    (Reaction.BUSY_EVERYWHERE, "busy"),
    (Reaction.DECLINES, "busy"),
    (Reaction.FORBIDS, "busy"),
    (Reaction.RINGS, "no_answer"),
    (Reaction.UNAVAILABLE, "no_answer"),
    (Reaction.GIVES_UP, "no_answer"),
    (Reaction.UNKNOWN, "failed"),
    (Reaction.TIMES_OUT, "failed"),
    (Reaction.OUT_OF_SERVICE, "failed"),
]
REASONS = {
    "before_call": ("unconditional", 302),
    "no_answer": ("no-answer", 408),
    "busy": ("user-busy", 486),
    "failed": ("unavailable", 503),
}
CAUSES = {"no_answer": 480, "busy": 486, "failed": 503}

Questions = Callable[[], list[str]]


@pytest.fixture
def questions(caplog: pytest.LogCaptureFixture) -> Questions:
    """What the service has answered so far, from its own log."""
    caplog.set_level(logging.INFO, logger="callflow_service.request")
    return lambda: [
        record.fields["outcome"]
        for record in caplog.records
        if record.name == "callflow_service.request" and record.fields["path"] == "/switch/kamailio"
    ]


def from_reception(state: str, to: str, *, caller: str = RECEPTION, known_as: str = "reception") -> Leg:
    """The leg to somewhere after the reception diverted the call in `state`."""
    reason, cause = REASONS[state]
    return Leg(
        "trunk" if to.lstrip("+").isdigit() else "phone",
        to,
        caller,
        (f"<sip:{known_as}@sip.example.org>;reason={reason};counter=1;privacy=off",),
        (
            (
                f"<sip:{known_as}@sip.example.org?Privacy=none>;index=1, "
                f"<sip:{to}@sip.example.org;cause={cause}>;index=1.1;mp=1"
            ),
        ),
    )


async def test_a_call_to_a_device_without_a_flow_goes_as_if_nobody_had_been_asked(
    telephony: Telephony, questions: Questions
) -> None:
    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [Leg("phone", "reception", ALICE)]
    assert questions() == ["none"]


async def test_a_number_that_is_no_device_goes_out_by_the_trunk(telephony: Telephony) -> None:
    call = await telephony.caller.place("+37069999999")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [Leg("trunk", "+37069999999", ALICE)]


async def test_before_the_call_it_goes_to_another_device(
    telephony: Telephony, set_flow: SetFlow, questions: Questions
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [from_reception("before_call", "sales")]
    assert questions() == ["forward"]


async def test_a_number_goes_out_even_where_a_phone_is_registered_by_that_name(
    telephony: Telephony, set_flow: SetFlow
) -> None:
    contact = f"sip:37069999999@{telephony.far_end.sockets['phone'].address}"
    assert await telephony.caller.register("37069999999", contact) == 200
    await set_flow("reception", "before_call", external_number="37069999999")

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert [(leg.place, leg.called) for leg in telephony.far_end.legs] == [("trunk", "37069999999")]
    assert await telephony.caller.register("37069999999", contact, expires=0) == 200


async def test_before_the_call_it_goes_to_a_number_which_is_told_of_the_did(
    telephony: Telephony, set_flow: SetFlow
) -> None:
    await set_flow("reception", "before_call", external_number="+37069999999")

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [from_reception("before_call", "+37069999999", known_as="37052000501")]


async def test_a_call_to_the_did_reaches_the_device_of_the_flow(telephony: Telephony, set_flow: SetFlow) -> None:
    await set_flow("reception", "busy", forward_to_device="502")

    call = await telephony.caller.place("37052000501")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [Leg("phone", "reception", ALICE)]


@pytest.mark.parametrize(("reaction", "state"), REFUSALS)
async def test_a_device_that_does_not_take_the_call_passes_it_on_to_another(
    telephony: Telephony, set_flow: SetFlow, questions: Questions, reaction: Reaction, state: str
) -> None:
    await set_flow("reception", state, forward_to_device="502")
    telephony.far_end.reactions["reception"] = reaction

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [Leg("phone", "reception", ALICE), from_reception(state, "sales")]
    assert questions() == ["ring", "forward"]


@pytest.mark.parametrize(
    ("reaction", "state"),
    [(Reaction.BUSY, "busy"), (Reaction.RINGS, "no_answer"), (Reaction.OUT_OF_SERVICE, "failed")],
)
async def test_a_device_that_does_not_take_the_call_passes_it_on_to_a_number(
    telephony: Telephony, set_flow: SetFlow, reaction: Reaction, state: str
) -> None:
    await set_flow("reception", state, external_number="37069999999")
    telephony.far_end.reactions["reception"] = reaction

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [
        Leg("phone", "reception", ALICE),
        from_reception(state, "37069999999", known_as="37052000501"),
    ]


async def test_a_device_that_is_not_registered_has_failed(
    telephony: Telephony, set_flow: SetFlow, questions: Questions
) -> None:
    await set_flow("unplugged", "failed", forward_to_device="502", src_callerid="true")

    call = await telephony.caller.place("unplugged")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [
        Leg(
            "phone",
            "sales",
            ALICE,
            ("<sip:unplugged@sip.example.org>;reason=unavailable;counter=1;privacy=off",),
            (
                (
                    "<sip:unplugged@sip.example.org?Privacy=none>;index=1, "
                    "<sip:sales@sip.example.org;cause=503>;index=1.1;mp=1"
                ),
            ),
        )
    ]
    assert questions() == ["ring", "forward"]


@pytest.mark.parametrize(
    ("reaction", "state"),
    [(Reaction.BUSY, "busy"), (Reaction.RINGS, "no_answer"), (Reaction.UNKNOWN, "failed")],
)
async def test_a_call_that_nothing_is_set_for_ends_with_the_cause_that_came(
    telephony: Telephony, set_flow: SetFlow, questions: Questions, reaction: Reaction, state: str
) -> None:
    await set_flow("reception", next(other for other in CAUSES if other != state), forward_to_device="502")
    telephony.far_end.reactions["reception"] = reaction

    call = await telephony.caller.place("reception")

    assert await call.ends() == CAUSES[state]
    assert telephony.far_end.legs == [Leg("phone", "reception", ALICE)]
    assert questions() == ["ring", "end"]


async def test_three_devices_pass_a_call_on_and_each_is_told_of(
    telephony: Telephony, set_flow: SetFlow, questions: Questions
) -> None:
    await set_flow("reception", "no_answer", forward_to_device="502")
    await set_flow("sales", "busy", forward_to_device="504", src_callerid="true")
    await set_flow("workshop", "failed", external_number="37069999999", custom='"Night desk" <37060000999>')
    telephony.far_end.reactions |= {
        "reception": Reaction.RINGS,
        "sales": Reaction.BUSY,
        "workshop": Reaction.OUT_OF_SERVICE,
    }

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [
        Leg("phone", "reception", ALICE),
        from_reception("no_answer", "sales"),
        Leg(
            "phone",
            "workshop",
            RECEPTION,
            (
                (
                    "<sip:sales@sip.example.org>;reason=user-busy;counter=1;privacy=off, "
                    "<sip:reception@sip.example.org>;reason=no-answer;counter=1;privacy=off"
                ),
            ),
            (
                (
                    "<sip:reception@sip.example.org?Privacy=none>;index=1, "
                    "<sip:sales@sip.example.org;cause=408?Privacy=none>;index=1.1;mp=1, "
                    "<sip:workshop@sip.example.org;cause=486>;index=1.1.1;mp=1.1"
                ),
            ),
        ),
        Leg(
            "trunk",
            "37069999999",
            '"Night desk" <sip:37060000999@sip.example.org>',
            (
                (
                    "<sip:37060000504@sip.example.org>;reason=unavailable;counter=1;privacy=off, "
                    "<sip:37060000502@sip.example.org>;reason=user-busy;counter=1;privacy=off, "
                    "<sip:37052000501@sip.example.org>;reason=no-answer;counter=1;privacy=off"
                ),
            ),
            (
                (
                    "<sip:37052000501@sip.example.org?Privacy=none>;index=1, "
                    "<sip:37060000502@sip.example.org;cause=408?Privacy=none>;index=1.1;mp=1, "
                    "<sip:37060000504@sip.example.org;cause=486?Privacy=none>;index=1.1.1;mp=1.1, "
                    "<sip:37069999999@sip.example.org;cause=503>;index=1.1.1.1;mp=1.1.1"
                ),
            ),
        ),
    ]
    assert questions() == ["ring", "forward", "forward", "forward"]


async def test_a_number_that_does_not_take_the_call_ends_it(
    telephony: Telephony, set_flow: SetFlow, questions: Questions
) -> None:
    await set_flow("reception", "before_call", external_number="37069999999")
    telephony.far_end.reactions["37069999999"] = Reaction.BUSY

    call = await telephony.caller.place("reception")

    assert await call.ends() == 486
    assert [leg.called for leg in telephony.far_end.legs] == ["37069999999"]
    assert questions() == ["forward", "end"]


async def test_a_ring_of_two_ends_at_once_where_both_are_busy(telephony: Telephony, set_flow: SetFlow) -> None:
    await set_flow("reception", "busy", forward_to_device="502")
    await set_flow("sales", "busy", forward_to_device="501")
    telephony.far_end.reactions |= {"reception": Reaction.BUSY, "sales": Reaction.BUSY}

    call = await telephony.caller.place("reception")

    assert await call.ends(within=1) == 486
    assert telephony.far_end.legs == [Leg("phone", "reception", ALICE), from_reception("busy", "sales")]


async def test_a_ring_of_two_before_the_call_rings_the_second(telephony: Telephony, set_flow: SetFlow) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")
    await set_flow("sales", "before_call", forward_to_device="501")
    telephony.far_end.reactions |= {"reception": Reaction.BUSY, "sales": Reaction.BUSY}

    call = await telephony.caller.place("reception")

    assert await call.ends(within=1) == 486
    assert telephony.far_end.legs == [from_reception("before_call", "sales")]


@pytest.mark.parametrize("state", ["before_call", "busy"])
async def test_a_device_that_forwards_to_itself_rings_once(telephony: Telephony, set_flow: SetFlow, state: str) -> None:
    await set_flow("reception", state, forward_to_device="501")
    telephony.far_end.reactions["reception"] = Reaction.BUSY

    call = await telephony.caller.place("reception")

    assert await call.ends(within=1) == 486
    assert telephony.far_end.legs == [Leg("phone", "reception", ALICE)]


async def test_a_call_that_went_past_here_too_often_is_refused(
    telephony: Telephony, set_flow: SetFlow, questions: Questions
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")

    call = await telephony.caller.place("reception", max_forwards=0)

    assert await call.ends() == 483
    assert telephony.far_end.legs == []
    assert questions() == []


@pytest.mark.parametrize(
    ("device", "choice", "shown"),
    [
        pytest.param("reception", {"device_callerid": "true"}, RECEPTION, id="of the device"),
        pytest.param("reception", {}, RECEPTION, id="of the device where nothing is said"),
        pytest.param("workshop", {}, '"37060000504" <sip:37060000504@sip.example.org>', id="a device with no name"),
        pytest.param("support", {}, ALICE, id="a device with neither"),
        pytest.param("reception", {"src_callerid": "true"}, ALICE, id="as it comes"),
        pytest.param(
            "reception", {"did_id": "501"}, '"37052000501" <sip:37052000501@sip.example.org>', id="of the DID"
        ),
        pytest.param(
            "reception",
            {"custom": '"Night desk" <37060000999>'},
            '"Night desk" <sip:37060000999@sip.example.org>',
            id="a name and a number",
        ),
        pytest.param("reception", {"custom": "*21#"}, '"*21#" <sip:*21%23@sip.example.org>', id="a number with signs"),
        pytest.param(
            "reception", {"custom": "Žalia Įstaiga"}, '"Žalia Įstaiga" <sip:37060000501@sip.example.org>', id="a name"
        ),
        pytest.param(
            "reception",
            {"custom": "${system(reboot)}"},
            '"37060000501" <sip:37060000501@sip.example.org>',
            id="a command",
        ),
        pytest.param(
            "reception",
            {"custom": "Boss\r\nX-Evil: 1"},
            '"37060000501" <sip:37060000501@sip.example.org>',
            id="a header of its own",
        ),
        pytest.param(
            "reception",
            {"custom": '"Boss" <sip:evil@example.net>, " <37060000999>'},
            '"Boss sip evil example.net" <sip:37060000999@sip.example.org>',
            id="quotes and brackets",
        ),
        pytest.param(
            "reception",
            {"custom": '"$ci $avp(callflow_path)" <37060000999>'},
            '"37060000999" <sip:37060000999@sip.example.org>',
            id="variables of Kamailio",
        ),
    ],
)
async def test_the_caller_id_that_was_chosen_is_shown(
    telephony: Telephony, set_flow: SetFlow, device: str, choice: dict[str, str], shown: str
) -> None:
    await set_flow(device, "before_call", forward_to_device="502", **choice)

    call = await telephony.caller.place(device)

    assert await call.ends() == 200
    await call.hang_up()
    assert [leg.caller for leg in telephony.far_end.legs] == [shown]
    (invite,) = telephony.far_end.received("INVITE")
    assert invite.all("X-Evil") == ()


@pytest.mark.parametrize(
    "caller",
    [
        pytest.param("<sip:37061111111@sip.example.org>", id="no name"),
        pytest.param('"A \\"B\\" \\\\ $ci $(ru) %s" <sip:37061111111@sip.example.org>', id="quotes and variables"),
        pytest.param('"{\\"called\\": \\"sales\\"}, " <sip:37061111111@sip.example.org>', id="JSON"),
        pytest.param('"Bj\udcf6rn" <sip:37061111111@sip.example.org>', id="no UTF-8"),
        pytest.param("anonymous <sip:anonymous@anonymous.invalid>", id="nobody"),
    ],
)
async def test_whatever_a_caller_is_called_the_call_goes_where_the_flow_says_and_shows_it_as_it_came(
    telephony: Telephony, set_flow: SetFlow, caller: str
) -> None:
    await set_flow("reception", "busy", forward_to_device="502", src_callerid="true")
    telephony.far_end.reactions["reception"] = Reaction.BUSY

    call = await telephony.caller.place("reception", caller=caller)

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [
        Leg("phone", "reception", caller),
        from_reception("busy", "sales", caller=caller),
    ]


async def test_a_name_that_came_in_quotes_is_passed_on_beside_another_number(
    telephony: Telephony, set_flow: SetFlow
) -> None:
    await set_flow("workshop", "before_call", forward_to_device="502", custom="37060000999")
    await set_flow("sales", "busy", forward_to_device="503")
    telephony.far_end.reactions["sales"] = Reaction.BUSY

    call = await telephony.caller.place("workshop")

    assert await call.ends() == 200
    await call.hang_up()
    assert [leg.caller for leg in telephony.far_end.legs] == ['"37060000999" <sip:37060000999@sip.example.org>', SALES]


async def test_voicemail_takes_the_call_for_the_device_it_was_for(
    telephony: Telephony, set_flow: SetFlow, questions: Questions
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")
    await set_flow("sales", "no_answer", "voicemail")
    # Voicemail takes longer than the phone was let ring.
    telephony.far_end.reactions |= {"sales": Reaction.RINGS, "voicemail": Reaction.ANSWERS_LATE}

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    ringing = from_reception("before_call", "sales")
    assert telephony.far_end.legs == [
        ringing,
        Leg("voicemail", "sales", RECEPTION, ringing.diversion, ringing.history_info),
    ]
    assert questions() == ["forward", "voicemail"]


async def test_voicemail_before_the_call_rings_nobody(telephony: Telephony, set_flow: SetFlow) -> None:
    await set_flow("reception", "before_call", "voicemail")

    call = await telephony.caller.place("37052000501")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [Leg("voicemail", "reception", ALICE)]


@pytest.mark.usefixtures("no_flows")
async def test_without_a_template_voicemail_is_called_like_the_device_whose_flow_said_so(
    start_telephony: StartTelephony, calls_service: httpx.AsyncClient, set_flow: SetFlow
) -> None:
    telephony = await start_telephony(str(calls_service.base_url), username="bare", phones=())
    for name in ("reception", "sales"):
        contact = f"sip:line-of-{name}@{telephony.far_end.sockets['phone'].address}"
        assert await telephony.caller.register(name, contact) == 200
    telephony.far_end.reactions |= {"line-of-reception": Reaction.BUSY, "line-of-sales": Reaction.RINGS}
    await set_flow("reception", "busy", forward_to_device="502")
    await set_flow("sales", "no_answer", "voicemail")
    assert await _placed(telephony, "37052000501") == 200
    await set_flow("reception", "before_call", "voicemail")
    assert await _placed(telephony, "37052000501") == 200

    mailboxes = [request.uri for request in telephony.far_end.received("INVITE") if "line-of" not in request.uri]
    assert mailboxes == ["sip:sales@sip.example.org", "sip:reception@sip.example.org"]
    assert [leg.place for leg in telephony.far_end.legs] == ["phone", "phone", "voicemail", "voicemail"]


async def _placed(telephony: Telephony, called: str) -> int:
    call = await telephony.caller.place(called)
    status = await call.ends()
    await call.hang_up()
    return status


async def test_voicemail_that_refuses_is_the_end(telephony: Telephony, set_flow: SetFlow, questions: Questions) -> None:
    await set_flow("reception", "before_call", "voicemail")
    telephony.far_end.reactions["voicemail"] = Reaction.OUT_OF_SERVICE

    call = await telephony.caller.place("reception")

    assert await call.ends() == 503
    assert questions() == ["voicemail"]


async def test_a_device_with_two_phones_rings_both_and_each_is_shown_the_same(
    telephony: Telephony, set_flow: SetFlow
) -> None:
    await set_flow("reception", "before_call", forward_to_device="507")
    await set_flow("store", "no_answer", forward_to_device="502")
    telephony.far_end.reactions |= {"store-1": Reaction.RINGS, "store-2": Reaction.RINGS}

    async with telephony.registered("store", "store-1", "store-2"):
        call = await telephony.caller.place("reception")

        assert await call.ends() == 200
        await call.hang_up()
    first, second, third = telephony.far_end.legs
    assert {first.called, second.called} == {"store-1", "store-2"}
    shown = from_reception("before_call", "store")
    assert replace(first, called="store") == replace(second, called="store") == shown
    assert (third.called, third.caller) == ("sales", '"37060000507" <sip:37060000507@sip.example.org>')


async def test_fax_detection_rings_the_device_since_a_proxy_hears_nothing(
    telephony: Telephony, set_flow: SetFlow
) -> None:
    await set_flow("reception", "before_call", "fax_detect", fax_device="506")

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [Leg("phone", "reception", ALICE)]


async def test_a_chain_that_came_in_is_continued_and_not_repeated(telephony: Telephony, set_flow: SetFlow) -> None:
    await set_flow("reception", "busy", forward_to_device="502")
    telephony.far_end.reactions["reception"] = Reaction.BUSY
    came = [
        ("Diversion", "<sip:2002@pbx.example.net>;reason=no-answer;counter=1;privacy=full"),
        ("Diversion", '"Two, one" <sip:2001@pbx.example.net>;reason=user-busy'),
        ("History-Info", "<sip:2001@pbx.example.net>;index=1"),
        ("History-Info", "<sip:2002@pbx.example.net;cause=486?Privacy=history>;index=1.1;mp=1"),
        ("History-Info", "<sip:reception@sip.example.org;cause=408>;index=1.1.1;mp=1.1"),
    ]

    call = await telephony.caller.place("reception", *came)

    assert await call.ends() == 200
    await call.hang_up()
    diversion = (
        "<sip:2002@pbx.example.net>;reason=no-answer;counter=1;privacy=full, "
        "<sip:2001@pbx.example.net>;reason=user-busy;counter=1;privacy=off"
    )
    history = (
        "<sip:2001@pbx.example.net>;index=1, "
        "<sip:2002@pbx.example.net;cause=486?Privacy=history>;index=1.1;mp=1, "
        "<sip:reception@sip.example.org;cause=408{}>;index=1.1.1;mp=1.1"
    )
    assert telephony.far_end.legs == [
        # A leg that was not diverted shows them as they came.
        Leg(
            "phone",
            "reception",
            ALICE,
            tuple(value for name, value in came if name == "Diversion"),
            tuple(value for name, value in came if name == "History-Info"),
        ),
        Leg(
            "phone",
            "sales",
            RECEPTION,
            (f"<sip:reception@sip.example.org>;reason=user-busy;counter=1;privacy=off, {diversion}",),
            (f"{history.format('?Privacy=none')}, <sip:sales@sip.example.org;cause=486>;index=1.1.1.1;mp=1.1.1",),
        ),
    ]


async def test_a_call_that_was_diverted_as_often_as_it_may_is_not_diverted_here(
    telephony: Telephony, set_flow: SetFlow
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")

    call = await telephony.caller.place("reception", ("Diversion", "<sip:2002@pbx.example.net>;counter=5"))

    assert await call.ends() == 200
    await call.hang_up()
    assert [leg.called for leg in telephony.far_end.legs] == ["reception"]


async def test_a_change_between_two_calls_is_in_force_on_the_second(telephony: Telephony, set_flow: SetFlow) -> None:
    for device, called in (("502", "sales"), ("503", "support")):
        await set_flow("reception", "before_call", forward_to_device=device)
        call = await telephony.caller.place("reception")
        assert await call.ends() == 200
        await call.hang_up()
        assert telephony.far_end.legs[-1] == from_reception("before_call", called)
    await set_flow("reception", "before_call", "empty")
    call = await telephony.caller.place("reception")
    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs[-1] == Leg("phone", "reception", ALICE)


@pytest.mark.parametrize("last_words", [487, 486, 408])
async def test_who_hangs_up_while_the_forward_rings_is_forwarded_no_further(
    telephony: Telephony, set_flow: SetFlow, questions: Questions, last_words: int
) -> None:
    await set_flow("reception", "busy", forward_to_device="502")
    await set_flow("sales", "no_answer", forward_to_device="503")
    await set_flow("sales", "failed", forward_to_device="503")
    await set_flow("sales", "busy", forward_to_device="503")
    telephony.far_end.reactions |= {"reception": Reaction.BUSY, "sales": Reaction.RINGS}
    telephony.far_end.cancelled_with = last_words

    call = await telephony.caller.place("reception")
    await telephony.far_end.rings("sales")
    await call.cancel()
    assert call.final.status in {487, last_words}

    await until(lambda: len(telephony.far_end.received("CANCEL")) == 1, "The phone that rang was to be told")
    # A second call is answered after whatever the first one may have left behind.
    later = await telephony.caller.place("workshop")
    assert await later.ends() == 200
    await later.hang_up()
    assert [leg.called for leg in telephony.far_end.legs] == ["reception", "sales", "workshop"]
    assert questions() == ["ring", "forward", "none"]


async def test_a_phone_stops_ringing_when_its_time_is_over(telephony: Telephony, set_flow: SetFlow) -> None:
    await set_flow("reception", "no_answer", forward_to_device="502")
    telephony.far_end.reactions["reception"] = Reaction.RINGS

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    (cancel,) = telephony.far_end.received("CANCEL")
    assert cancel.uri.startswith("sip:reception@")


@pytest.mark.usefixtures("no_flows")
async def test_strangers_register_nowhere_and_reach_devices_alone(
    start_telephony: StartTelephony, calls_service: httpx.AsyncClient, set_flow: SetFlow
) -> None:
    telephony = await start_telephony(str(calls_service.base_url), phones=(), PHONES='"192.0.2.0/24"')
    await set_flow("reception", "before_call", external_number="37069999999", src_callerid="true")

    registered = await telephony.caller.register("sales", "sip:sales@192.0.2.1")
    dialled_a_number = await telephony.caller.place("37069999999")
    dialled_a_device = await telephony.caller.place("reception")

    assert registered == 403
    assert await dialled_a_number.ends() == 404
    assert await dialled_a_device.ends() == 200
    await dialled_a_device.hang_up()
    assert [(leg.place, leg.called) for leg in telephony.far_end.legs] == [("trunk", "37069999999")]


@pytest.mark.usefixtures("no_flows")
async def test_an_operator_may_take_a_no_for_a_failure_and_have_answers_explained(
    start_telephony: StartTelephony, calls_service: httpx.AsyncClient, set_flow: SetFlow
) -> None:
    telephony = await start_telephony(str(calls_service.base_url), CALLFLOW_REJECTED='"failed"', CALLFLOW_EXPLAIN="1")
    await set_flow("reception", "failed", forward_to_device="502")
    telephony.far_end.reactions["reception"] = Reaction.DECLINES

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert [leg.called for leg in telephony.far_end.legs] == ["reception", "sales"]
    assert telephony.warnings() == [
        "before_call: ring: SIP/reception rings",
        "failed: forward: SIP/reception failed: forward to SIP/sales; SIP/sales rings",
    ]
