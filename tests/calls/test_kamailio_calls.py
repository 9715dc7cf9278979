"""Calls through the shipped Kamailio configuration: who rings after a change, and what they are shown."""

import pytest
from telephones import DOMAIN, Leg, Reaction

from conftest import SetFlow, Telephony

pytestmark = pytest.mark.calls

ALICE = '"Alice" <sip:37061111111@sip.example.org>'


async def test_a_call_to_a_device_without_a_flow_goes_as_if_nobody_had_been_asked(telephony: Telephony) -> None:
    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [Leg("phone", "reception", ALICE)]


async def test_before_the_call_it_goes_to_the_other_device(telephony: Telephony, set_flow: SetFlow) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == [
        Leg(
            "phone",
            "sales",
            '"Reception" <sip:37060000501@sip.example.org>',
            (f"<sip:reception@{DOMAIN}>;reason=unconditional;counter=1;privacy=off",),
            (f"<sip:reception@{DOMAIN}?Privacy=none>;index=1, <sip:sales@{DOMAIN};cause=302>;index=1.1;mp=1",),
        )
    ]
