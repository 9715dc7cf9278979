"""Real calls while the service is away, hangs, or does not know the switch: they go on as if it were not there."""

import httpx
import pytest
import pytest_asyncio
from programs import ServiceProcess, SetFlow, StartTelephony, Telephony
from telephones import ALICE, Leg, Reaction

pytestmark = [pytest.mark.calls, pytest.mark.usefixtures("no_flows")]

UNFORWARDED = [Leg("phone", "reception", ALICE)]


@pytest_asyncio.fixture
async def lone_telephony(start_telephony: StartTelephony, service_process: ServiceProcess) -> Telephony:
    """A telephony of the test's own, that asks a service of the test's own."""
    return await start_telephony(service_process.url)


async def test_while_the_service_is_stopped_calls_go_through_unforwarded(
    lone_telephony: Telephony, service_process: ServiceProcess, set_flow: SetFlow
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")
    call = await lone_telephony.caller.place("reception")
    assert await call.ends() == 200
    await call.hang_up()
    assert [leg.called for leg in lone_telephony.far_end.legs] == ["sales"]

    await service_process.stop()
    lone_telephony.far_end.forget()
    call = await lone_telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert lone_telephony.far_end.legs == UNFORWARDED
    assert lone_telephony.warnings() == ["no answer (7), carrying on"]


async def test_while_the_service_hangs_calls_go_through_when_their_time_is_over(
    lone_telephony: Telephony, service_process: ServiceProcess, set_flow: SetFlow
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")
    service_process.freeze()

    call = await lone_telephony.caller.place("reception")

    assert await call.ends(within=3) == 200
    await call.hang_up()
    assert lone_telephony.far_end.legs == UNFORWARDED
    assert lone_telephony.warnings() == ["no answer (28), carrying on"]


async def test_a_service_that_stops_while_a_phone_rings_leaves_the_caller_with_the_cause(
    lone_telephony: Telephony, service_process: ServiceProcess, set_flow: SetFlow
) -> None:
    await set_flow("reception", "before_call", forward_to_device="502")
    await set_flow("sales", "busy", forward_to_device="504")
    lone_telephony.far_end.reactions["sales"] = Reaction.RINGS
    call = await lone_telephony.caller.place("reception")
    await lone_telephony.far_end.rings("sales")
    await service_process.stop()

    assert await call.ends() == 480
    assert [leg.called for leg in lone_telephony.far_end.legs] == ["sales"]
    assert lone_telephony.warnings() == ["no answer (7), carrying on"]


async def test_a_switch_with_a_wrong_password_forwards_nothing_and_loses_nothing(
    start_telephony: StartTelephony, calls_service: httpx.AsyncClient, set_flow: SetFlow
) -> None:
    telephony = await start_telephony(str(calls_service.base_url), password="guessed")
    await set_flow("reception", "before_call", forward_to_device="502")

    call = await telephony.caller.place("reception")

    assert await call.ends() == 200
    await call.hang_up()
    assert telephony.far_end.legs == UNFORWARDED
    assert telephony.warnings() == ["no answer (401), carrying on"]
