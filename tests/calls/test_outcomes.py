"""One call, one outcome: what becomes of a call for each thing that can happen to a leg, as docs/switches.md says."""

import pytest
from programs import SetFlow, StartTelephony, Telephony
from telephones import ALICE, DOMAIN, Leg, Reaction, until

pytestmark = pytest.mark.calls

NEXT = {"busy": "sales", "no_answer": "support", "failed": "workshop"}
"""Who rings after the reception, which has another flow for each state."""

ROWS = [
    (Reaction.BUSY, "busy"),
    (Reaction.BUSY_EVERYWHERE, "busy"),
    (Reaction.RINGS_THEN_BUSY, "busy"),
    (Reaction.EARLY_MEDIA_THEN_BUSY, "busy"),
    (Reaction.DECLINES, "busy"),
    (Reaction.FORBIDS, "busy"),
    (Reaction.UNWANTED, "busy"),
    (Reaction.RINGS, "no_answer"),
    (Reaction.EARLY_MEDIA, "no_answer"),
    (Reaction.EARLY_MEDIA_THEN_NOBODY, "no_answer"),
    (Reaction.UNAVAILABLE, "no_answer"),
    (Reaction.GIVES_UP, "no_answer"),
    (Reaction.TERMINATES, "no_answer"),
    (Reaction.SILENT, "failed"),
    (Reaction.UNKNOWN, "failed"),
    (Reaction.TIMES_OUT, "failed"),
    (Reaction.TERMINATES_AT_ONCE, "failed"),
    (Reaction.GONE, "failed"),
    (Reaction.INCOMPLETE, "failed"),
    (Reaction.ACCEPTS_NO_SUCH_CALL, "failed"),
    (Reaction.EXISTS_NOWHERE, "failed"),
    (Reaction.ACCEPTABLE_NOWHERE, "failed"),
    (Reaction.OUT_OF_SERVICE, "failed"),
    (Reaction.RINGS_THEN_FAILS, "failed"),
    (Reaction.MOVED, "failed"),
    (Reaction.CHALLENGES, "failed"),
    (Reaction.CHALLENGES_AS_PROXY, "failed"),
]


async def forward_in_each_state(set_flow: SetFlow) -> None:
    await set_flow("reception", "busy", forward_to_device="502")
    await set_flow("reception", "no_answer", forward_to_device="503")
    await set_flow("reception", "failed", forward_to_device="504")


@pytest.mark.parametrize(("reaction", "state"), ROWS)
async def test_what_happens_to_a_leg_says_which_flow_acts(
    telephony: Telephony, set_flow: SetFlow, reaction: Reaction, state: str
) -> None:
    await forward_in_each_state(set_flow)
    telephony.far_end.reactions["reception"] = reaction

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert [leg.called for leg in telephony.far_end.legs] == ["reception", NEXT[state]]


async def test_who_hung_up_after_an_answer_is_asked_about_no_more(telephony: Telephony, set_flow: SetFlow) -> None:
    await forward_in_each_state(set_flow)

    call = await telephony.caller.place("reception")
    assert await call.ends() == 200
    assert (await telephony.far_end.asks("phone", "BYE")).status == 200

    later = await telephony.caller.place("sales")
    assert await later.ends() == 200
    await later.hang_up()
    assert [leg.called for leg in telephony.far_end.legs] == ["reception", "sales"]


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (Reaction.BUSY, Reaction.RINGS, 480),
        (Reaction.RINGS, Reaction.BUSY, 486),
        (Reaction.BUSY, Reaction.UNKNOWN, 503),
        (Reaction.RINGS, Reaction.MOVED, 503),
        (Reaction.UNKNOWN, Reaction.DECLINES, 486),
    ],
)
async def test_the_caller_hears_of_the_last_leg(
    telephony: Telephony, set_flow: SetFlow, first: Reaction, second: Reaction, status: int
) -> None:
    for state in ("busy", "no_answer", "failed"):
        await set_flow("reception", state, forward_to_device="502")
    telephony.far_end.reactions |= {"reception": first, "sales": second}

    call = await telephony.caller.place("reception")

    assert await call.ends() == status
    assert [leg.called for leg in telephony.far_end.legs] == ["reception", "sales"]


@pytest.mark.parametrize("last_words", [486, 603, 480, 487])
async def test_what_a_phone_says_when_its_time_is_over_is_no_word_about_the_next(
    telephony: Telephony, set_flow: SetFlow, last_words: int
) -> None:
    await set_flow("reception", "no_answer", forward_to_device="502")
    telephony.far_end.cancelled_with = last_words
    telephony.far_end.reactions |= {"reception": Reaction.RINGS, "sales": Reaction.FAILS_LATE}

    call = await telephony.caller.place("reception")

    assert await call.ends() == 503
    assert [leg.called for leg in telephony.far_end.legs] == ["reception", "sales"]


async def test_a_phones_redirection_is_not_followed_and_the_caller_learns_nothing_of_it(
    telephony: Telephony, set_flow: SetFlow
) -> None:
    await set_flow("reception", "busy", forward_to_device="502")
    telephony.far_end.reactions["reception"] = Reaction.MOVED

    call = await telephony.caller.place("reception")

    assert await call.ends() == 503
    assert call.final.all("Contact") == ()
    assert telephony.far_end.legs == [Leg("phone", "reception", ALICE)]


@pytest.mark.parametrize(
    ("reactions", "state"),
    [
        ((Reaction.BUSY, Reaction.RINGS), "no_answer"),
        ((Reaction.RINGS, Reaction.DECLINES), "no_answer"),
        ((Reaction.UNKNOWN, Reaction.RINGS), "no_answer"),
        ((Reaction.BUSY, Reaction.UNKNOWN), "busy"),
        ((Reaction.RINGS_THEN_BUSY, Reaction.SILENT), "busy"),
        ((Reaction.MOVED, Reaction.OUT_OF_SERVICE), "failed"),
    ],
)
async def test_of_two_phones_one_that_could_have_been_answered_counts_most(
    telephony: Telephony, set_flow: SetFlow, reactions: tuple[Reaction, Reaction], state: str
) -> None:
    telephony.far_end.reactions |= dict(zip(("twin-1", "twin-2"), reactions, strict=True))
    await set_flow("store", "busy", forward_to_device="502")
    await set_flow("store", "no_answer", forward_to_device="503")
    await set_flow("store", "failed", forward_to_device="504")

    async with telephony.registered("store", "twin-1", "twin-2"):
        call = await telephony.caller.place("store")

        assert await call.ends(within=15) == 200
        await call.hang_up()
    assert sorted(leg.called for leg in telephony.far_end.legs) == sorted(["twin-1", "twin-2", NEXT[state]])


async def test_a_no_of_one_phone_leaves_the_other_ringing(telephony: Telephony, set_flow: SetFlow) -> None:
    await set_flow("store", "busy", forward_to_device="502")
    telephony.far_end.reactions |= {"twin-1": Reaction.DECLINES, "twin-2": Reaction.ANSWERS_SOON}

    async with telephony.registered("store", "twin-1", "twin-2"):
        call = await telephony.caller.place("store")

        assert await call.ends() == 200
        await call.hang_up()
    assert sorted(leg.called for leg in telephony.far_end.legs) == ["twin-1", "twin-2"]


async def test_the_trunk_asks_the_caller_for_a_password(telephony: Telephony, set_flow: SetFlow) -> None:
    await set_flow("reception", "before_call", external_number="37069999999")
    telephony.far_end.reactions["trunk"] = Reaction.CHALLENGES_AS_PROXY

    call = await telephony.caller.place("reception")

    assert await call.ends() == 407


async def test_an_address_that_leads_nowhere_has_failed(telephony: Telephony, set_flow: SetFlow) -> None:
    assert await telephony.caller.register("store", "sip:store@nowhere.invalid") == 200
    await set_flow("store", "failed", forward_to_device="502")

    call = await telephony.caller.place("store")

    assert await call.ends() == 200
    await call.hang_up()
    assert [leg.called for leg in telephony.far_end.legs] == ["sales"]
    assert await telephony.caller.register("store", "sip:store@nowhere.invalid", expires=0) == 200


@pytest.mark.usefixtures("no_flows")
async def test_five_forwards_of_three_phones_each_end_busy_when_all_are(
    start_telephony: StartTelephony, calls_url_of_service: str, set_flow: SetFlow
) -> None:
    telephony = await start_telephony(calls_url_of_service, phones=())
    chain = {"reception": "502", "sales": "503", "support": "504", "workshop": "505", "unplugged": "507", "store": ""}
    for name, forward in chain.items():
        for number in (1, 2, 3):
            contact = f"sip:{name}-{number}@{telephony.far_end.sockets['phone'].address}"
            assert await telephony.caller.register(name, contact) == 200
        if forward:
            await set_flow(name, "busy", forward_to_device=forward)
    telephony.far_end.reactions["phone"] = Reaction.BUSY

    call = await telephony.caller.place("reception")

    assert await call.ends() == 486
    rang = sorted(leg.called for leg in telephony.far_end.legs)
    assert rang == sorted(f"{name}-{number}" for name in chain for number in (1, 2, 3))


@pytest.mark.usefixtures("no_flows")
async def test_an_operator_may_hand_redirections_to_the_caller(
    start_telephony: StartTelephony, calls_url_of_service: str, set_flow: SetFlow
) -> None:
    telephony = await start_telephony(calls_url_of_service, CALLFLOW_REDIRECTED='"caller"')
    await set_flow("reception", "failed", forward_to_device="502")
    telephony.far_end.reactions["reception"] = Reaction.MOVED

    call = await telephony.caller.place("reception")

    assert await call.ends() == 302
    assert call.final.one("Contact") == f"<sip:phone@{telephony.far_end.sockets['phone'].address}>"
    assert [leg.called for leg in telephony.far_end.legs] == ["reception"]


@pytest.mark.parametrize("uri", [f"sip:{DOMAIN}", f"sip:@{DOMAIN}", f"sip:;x=1@{DOMAIN}"])
async def test_a_call_to_nobody_is_incomplete(telephony: Telephony, uri: str) -> None:
    call = await telephony.caller.place("", uri=uri)

    assert await call.ends() == 484
    assert telephony.far_end.legs == []


@pytest.mark.parametrize("called", ["37069999999", "reception"])
async def test_routes_that_the_caller_made_up_are_not_followed(
    telephony: Telephony, set_flow: SetFlow, called: str
) -> None:
    await set_flow("reception", "busy", external_number="37069999999")
    telephony.far_end.reactions["reception"] = Reaction.BUSY
    made_up = f"<sip:{DOMAIN};lr>, <sip:{telephony.far_end.sockets['voicemail'].address};lr>"

    call = await telephony.caller.place(called, ("Route", made_up), ("Route", made_up))

    assert await call.ends() == 200
    await call.hang_up()
    assert (telephony.far_end.legs[-1].place, telephony.far_end.legs[-1].called) == ("trunk", "37069999999")
    assert {leg.place for leg in telephony.far_end.legs} <= {"phone", "trunk"}
    assert [invite.all("Route") for invite in telephony.far_end.received("INVITE") if invite.all("Route")] == []


@pytest.mark.parametrize("called", ["+37052000501;npdi;rn=+37052000000", "%2B37052000501", "%72eception"])
async def test_numbers_are_known_as_carriers_send_them(telephony: Telephony, set_flow: SetFlow, called: str) -> None:
    await set_flow("reception", "before_call", forward_to_device="502", src_callerid="true")
    caller = '"CNAM" <sip:+12155551212;verstat=TN-Validation-Passed@sip.example.org>'

    call = await telephony.caller.place(called, caller=caller)

    assert await call.ends() == 200
    await call.hang_up()
    assert [(leg.called, leg.caller) for leg in telephony.far_end.legs] == [("sales", caller)]


async def test_who_hangs_up_while_phones_ring_stops_them_all(telephony: Telephony, set_flow: SetFlow) -> None:
    await forward_in_each_state(set_flow)
    telephony.far_end.reactions["reception"] = Reaction.RINGS

    call = await telephony.caller.place("reception")
    await telephony.far_end.rings("reception")
    await call.cancel()

    assert call.final.status == 487
    await until(lambda: len(telephony.far_end.received("CANCEL")) == 1, "The phone was to be told")
    assert [leg.called for leg in telephony.far_end.legs] == ["reception"]
