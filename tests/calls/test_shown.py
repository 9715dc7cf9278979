"""Who the called side is shown, and what they can learn besides: privacy, identity, and what follows in a call."""

from collections.abc import Iterable

import pytest
from programs import SetFlow, StartTelephony, Telephony
from telephones import ALICE, Leg, Message, Reaction, until

pytestmark = pytest.mark.calls

RECEPTION = '"Reception" <sip:37060000501@sip.example.org>'
NOBODY = '"Anonymous" <sip:anonymous@anonymous.invalid>'
SIGNED = "abc.def.ghi;info=<https://example.org/x>;alg=ES256;ppt=shaken"
NAMED = [
    ("P-Asserted-Identity", ALICE),
    ("P-Preferred-Identity", ALICE),
    ("Remote-Party-ID", ALICE),
    ("Identity", SIGNED),
]
WISHES = ["id", "id,user", "header;critical", "session", "id; history"]


async def legs(
    telephony: Telephony, *headers: tuple[str, str], caller: str = ALICE, called: str = "reception"
) -> list[Leg]:
    call = await telephony.caller.place(called, *headers, caller=caller)
    assert await call.ends() == 200
    await call.hang_up()
    return telephony.far_end.legs


@pytest.mark.parametrize("wish", [*WISHES, "none", "history", "odd thing"])
async def test_a_leg_that_was_not_diverted_shows_all_as_it_came(
    telephony: Telephony, set_flow: SetFlow, wish: str
) -> None:
    await set_flow("reception", "failed", forward_to_device="502")
    chain = [("Diversion", "<sip:1@example.net>;reason=unknown"), ("History-Info", "<sip:1@example.net>;index=1")]

    assert await legs(telephony, ("Privacy", wish), *NAMED, *chain) == [
        Leg(
            "phone",
            "reception",
            ALICE,
            ("<sip:1@example.net>;reason=unknown",),
            ("<sip:1@example.net>;index=1",),
            (wish,),
            (ALICE, ALICE, ALICE, SIGNED),
        )
    ]


@pytest.mark.parametrize(
    ("wish", "left"),
    [
        ("id", ()),
        ("id,user", ()),
        ("none", ()),
        ("odd thing", ()),
        ("id; history", ("history",)),
        ("History", ("history",)),
        ("header;critical", ("history",)),
        ("user session", ("history",)),
    ],
)
async def test_another_caller_id_is_shown_openly_and_the_wish_about_the_way_stays(
    telephony: Telephony, set_flow: SetFlow, wish: str, left: tuple[str, ...]
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")

    (leg,) = await legs(telephony, ("Privacy", wish), *NAMED, caller=NOBODY)

    assert (leg.called, leg.caller, leg.privacy, leg.identity) == ("sales", RECEPTION, left, ())


async def test_what_came_in_under_a_wish_for_a_private_way_is_private_on_all_legs(
    telephony: Telephony, set_flow: SetFlow
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")

    (leg,) = await legs(telephony, ("Privacy", "history"), ("Diversion", "<sip:1@example.net>;reason=no-answer"))

    assert leg.privacy == ("history",)
    assert leg.diversion == (
        (
            "<sip:reception@sip.example.org>;reason=unconditional;counter=1;privacy=off, "
            "<sip:1@example.net>;reason=no-answer;counter=1;privacy=full"
        ),
    )


@pytest.mark.parametrize("wish", WISHES)
async def test_a_phone_is_not_told_who_withholds_their_number(
    telephony: Telephony, set_flow: SetFlow, wish: str
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502", src_callerid="true")

    (leg,) = await legs(telephony, ("Privacy", wish), *NAMED)

    assert (leg.called, leg.caller, leg.privacy, leg.identity) == ("sales", NOBODY, (wish,), ())


async def test_the_trunk_is_told_who_withholds_their_number_and_that_they_do(
    telephony: Telephony, set_flow: SetFlow
) -> None:
    await set_flow("reception", "before_call", external_number="37069999999", src_callerid="true")

    (leg,) = await legs(telephony, ("Privacy", "id"), *NAMED)

    assert (leg.place, leg.caller, leg.privacy, leg.identity) == ("trunk", NOBODY, ("id",), (ALICE, ALICE, ALICE))


@pytest.mark.usefixtures("no_flows")
async def test_a_trunk_that_wants_the_forwarder_in_from_gets_the_caller_asserted(
    start_telephony: StartTelephony, calls_url_of_service: str, set_flow: SetFlow
) -> None:
    telephony = await start_telephony(calls_url_of_service, username="carrier")
    await set_flow("reception", "busy", external_number="37069999999", src_callerid="true")
    telephony.far_end.reactions["reception"] = Reaction.BUSY

    assert await legs(telephony, *NAMED) == [
        Leg("phone", "reception", ALICE, identity=(ALICE, ALICE, ALICE, SIGNED)),
        Leg(
            "trunk",
            "37069999999",
            '"Reception" <sip:37052000501@carrier.example.net>',
            (),
            (
                (
                    "<sip:37052000501@sip.example.org?Privacy=none>;index=1, "
                    "<sip:37069999999@sip.example.org;cause=486>;index=1.1;mp=1"
                ),
            ),
            (),
            ('"Alice" <sip:37061111111@carrier.example.net>',),
        ),
    ]

    telephony.far_end.forget()
    telephony.far_end.reactions["reception"] = Reaction.BUSY
    withheld = (await legs(telephony, ("Privacy", "id"), *NAMED))[1]
    assert withheld.privacy == ("id",)
    assert withheld.identity == ('"Alice" <sip:37061111111@carrier.example.net>',)


def shown(messages: Iterable[Message], name: str) -> set[str]:
    """What stands in From or To of messages, without the tag."""
    return {message.one(name).partition(";tag=")[0] for message in messages}


def tells(message: Message, text: str) -> bool:
    return any(text in value for _, value in message.headers)


@pytest.mark.parametrize(
    ("flow", "seen"),
    [
        ({}, RECEPTION),
        ({"src_callerid": "true"}, NOBODY),
        ({"custom": "37060000999"}, '"37060000999" <sip:37060000999@sip.example.org>'),
    ],
)
async def test_all_through_a_call_each_side_sees_whom_it_knows(
    telephony: Telephony, set_flow: SetFlow, flow: dict[str, str], seen: str
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502", **flow)
    wish = [("Privacy", "id")] if seen == NOBODY else []

    call = await telephony.caller.place("reception", *wish)
    assert await call.ends() == 200
    changed = await call.ask_again()
    changed_by_sales = await telephony.far_end.asks("phone", "INVITE")
    ended = await telephony.far_end.asks("phone", "BYE")

    await until(
        lambda: [request.method for request in telephony.far_end.requests] == ["INVITE", "ACK", "INVITE", "ACK"],
        "The call was to be taken, and changed",
    )
    assert [request.method for request in telephony.caller.requests[-2:]] == ["INVITE", "BYE"]
    downstream = telephony.far_end.requests
    upstream = telephony.caller.requests[-2:]
    assert (changed.status, changed_by_sales.status, ended.status) == (200, 200, 200)
    # The called side sees the one that is shown, and nothing that leads to the caller's own number.
    assert shown(downstream, "From") == {seen}
    assert shown([changed_by_sales, ended], "To") == {seen}
    assert not [request.start for request in downstream if tells(request, "37061111111") or tells(request, "Alice")]
    assert not [request.start for request in downstream if tells(request, "vsf=")]
    # The caller sees their own name and number.
    assert shown([call.final, changed], "From") == {ALICE}
    assert shown(upstream, "To") == {ALICE}
    assert call.final.one("From") == f"{ALICE};tag=caller"


async def test_a_call_that_showed_another_caller_on_a_leg_before_shows_its_own_all_through(
    telephony: Telephony, set_flow: SetFlow
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")
    await set_flow("sales", "busy", forward_to_device="503", src_callerid="true")
    await set_flow("support", "busy", forward_to_device="504", custom='"Night desk" <37060000999>')
    telephony.far_end.reactions |= {"sales": Reaction.BUSY, "support": Reaction.BUSY}

    call = await telephony.caller.place("reception")
    assert await call.ends() == 200
    await call.ask_again()
    await call.hang_up()

    seen = '"Night desk" <sip:37060000999@sip.example.org>'
    assert [leg.caller for leg in telephony.far_end.legs] == [RECEPTION, RECEPTION, seen]

    def taken() -> list[Message]:
        return [request for request in telephony.far_end.requests if request.uri.startswith("sip:phone@")]

    # An ACK and what follows it may overtake each other.
    await until(
        lambda: sorted(request.method for request in taken()) == ["ACK", "ACK", "BYE", "INVITE"],
        "The call was to be taken, changed and ended",
    )
    assert shown(taken(), "From") == {seen}


async def test_a_call_that_ends_at_its_own_number_again_shows_it_all_through(
    telephony: Telephony, set_flow: SetFlow
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")
    await set_flow("sales", "busy", forward_to_device="503", custom='"Alice" <37061111111>')
    telephony.far_end.reactions["sales"] = Reaction.BUSY

    call = await telephony.caller.place("reception")
    assert await call.ends() == 200
    await call.hang_up()

    assert [leg.caller for leg in telephony.far_end.legs] == [RECEPTION, ALICE]
    assert shown(telephony.far_end.received("BYE"), "From") == {ALICE}
