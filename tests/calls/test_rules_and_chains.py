"""Real calls by rules and chains: who rings in turn, for how long, what each leg shows, and how the call ends."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Self

import pytest
import pytest_asyncio
from programs import Api, StartTelephony, Telephony
from pydantic import SecretStr
from telephones import ALICE, Leg, Message, Reaction, until

from callflow_service.usecases import calls
from mor_requests import StartService

pytestmark = pytest.mark.calls

BOSS = '"Boss" <sip:37060009999@sip.example.org>'
VOICEMAIL = {"action": "voicemail"}
EMPTY = {"action": "empty"}
RECEPTION, SALES, SUPPORT, WORKSHOP, UNPLUGGED = 501, 502, 503, 504, 505


def end(cause: int) -> dict[str, Any]:
    return {"action": "end", "cause": cause}


def step(to: int | str, ring_seconds: int | None = None, kind: str = "source") -> dict[str, Any]:
    where = {"device": to} if isinstance(to, int) else {"number": to}
    return {"to": where, "ring_seconds": ring_seconds, "caller_id": {"kind": kind}}


def chain(*steps: dict[str, Any], then: dict[str, Any] = EMPTY) -> dict[str, Any]:
    return {"action": "forward", "steps": list(steps), "then": then}


def rule(name: str, conditions: dict[str, Any], do: dict[str, Any], *, enabled: bool = True) -> dict[str, Any]:
    return {"name": name, "enabled": enabled, "if": conditions, "do": do}


async def put(
    api: Api, device: int, state: str, otherwise: dict[str, Any] = EMPTY, rules: tuple[dict[str, Any], ...] = ()
) -> None:
    await api("PUT", f"devices/{device}/callflow/{state}", {"rules": list(rules), "otherwise": otherwise})


def rung(telephony: Telephony) -> list[tuple[str, str]]:
    return [(leg.place, leg.called) for leg in telephony.far_end.legs]


async def call_ends(telephony: Telephony, called: str = "reception", *, caller: str = ALICE) -> int:
    """Place a call, and hang up where somebody answers; the final status."""
    call = await telephony.caller.place(called, caller=caller)
    status = await call.ends()
    if status == 200:
        await call.hang_up()
    return status


@pytest_asyncio.fixture
async def schedule(api: Api) -> AsyncIterator[int]:
    """A schedule that is always open; no flow names it any more afterwards."""
    days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    weekly = [{"days": days, "from": "00:00", "to": "24:00"}]
    made = await api("POST", "schedules", {"name": "Office", "owner": "user1", "time_zone": "UTC", "weekly": weekly})
    yield made["id"]
    await put(api, RECEPTION, "before_call")
    await put(api, RECEPTION, "no_answer")
    await api("DELETE", f"schedules/{made['id']}")


async def test_a_chain_of_three_goes_on_after_busy_no_answer_and_a_phone_that_is_not_there(
    telephony: Telephony, api: Api
) -> None:
    await put(api, RECEPTION, "busy", chain(step(SALES, 2), step(UNPLUGGED), step(SUPPORT, 3)))
    telephony.far_end.reactions |= {"reception": Reaction.BUSY, "sales": Reaction.RINGS}

    assert await call_ends(telephony) == 200
    assert rung(telephony) == [("phone", "reception"), ("phone", "sales"), ("phone", "support")]
    assert len(telephony.far_end.received("CANCEL")) == 1


async def test_each_step_rings_for_as_long_as_it_says(telephony: Telephony, api: Api) -> None:
    # A device of these tests rings for one second by itself, and the trunk for sixty.
    await put(api, RECEPTION, "before_call", chain(step("+37069999999", 1), step(SALES, 3), step(SUPPORT)))
    telephony.far_end.reactions |= {"+37069999999": Reaction.RINGS, "sales": Reaction.ANSWERS_LATE}

    assert await call_ends(telephony) == 200
    assert rung(telephony) == [("trunk", "+37069999999"), ("phone", "sales")]


@pytest.mark.parametrize(
    ("reaction", "cause"), [(Reaction.BUSY, 486), (Reaction.RINGS, 480), (Reaction.OUT_OF_SERVICE, 503)]
)
async def test_after_the_last_step_the_call_ends_with_what_became_of_that(
    telephony: Telephony, api: Api, reaction: Reaction, cause: int
) -> None:
    await put(api, RECEPTION, "before_call", chain(step(SALES), step(SUPPORT)))
    telephony.far_end.reactions |= {"sales": Reaction.BUSY, "support": reaction}

    assert await call_ends(telephony) == cause
    assert rung(telephony) == [("phone", "sales"), ("phone", "support")]


async def test_after_the_last_step_the_voicemail_of_another_device_takes_the_call(
    telephony: Telephony, api: Api
) -> None:
    of_sales = VOICEMAIL | {"of": {"device": SALES}}
    await put(api, RECEPTION, "before_call", chain(step(SUPPORT), step(UNPLUGGED), then=of_sales))
    telephony.far_end.reactions["support"] = Reaction.RINGS

    assert await call_ends(telephony) == 200
    assert rung(telephony) == [("phone", "support"), ("voicemail", "sales")]


@pytest.mark.usefixtures("no_flows")
async def test_voicemail_of_another_device_takes_a_call_that_nobody_was_rung_for(
    start_telephony: StartTelephony, calls_url_of_service: str, api: Api
) -> None:
    telephony = await start_telephony(calls_url_of_service, username="bare")
    await put(api, RECEPTION, "before_call", VOICEMAIL | {"of": {"device": WORKSHOP}})

    assert await call_ends(telephony) == 200
    assert rung(telephony) == [("voicemail", "workshop")]


@pytest.mark.parametrize("cause", [486, 480, 603, 404])
async def test_after_the_last_step_the_call_ends_with_the_cause_that_is_set(
    telephony: Telephony, api: Api, cause: int
) -> None:
    await put(api, RECEPTION, "before_call", chain(step(SALES), then=end(cause)))
    telephony.far_end.reactions["sales"] = Reaction.RINGS_THEN_FAILS

    assert await call_ends(telephony) == cause
    assert rung(telephony) == [("phone", "sales")]


@pytest.mark.parametrize("cause", [486, 480, 603, 404])
async def test_a_call_ends_before_anybody_rings_with_the_cause_that_is_set(
    telephony: Telephony, api: Api, cause: int
) -> None:
    await put(api, RECEPTION, "before_call", end(cause))

    assert await call_ends(telephony) == cause
    assert rung(telephony) == []


async def test_the_flow_of_a_step_s_device_has_its_say_before_the_next_step(telephony: Telephony, api: Api) -> None:
    await put(api, RECEPTION, "before_call", chain(step(SALES), step(SUPPORT)))
    await put(api, SALES, "no_answer", chain(step(WORKSHOP)))
    telephony.far_end.reactions |= {"sales": Reaction.RINGS, "workshop": Reaction.BUSY}

    assert await call_ends(telephony) == 200
    assert rung(telephony) == [("phone", "sales"), ("phone", "workshop"), ("phone", "support")]


async def test_a_step_s_device_that_ends_the_call_is_a_step_that_failed(telephony: Telephony, api: Api) -> None:
    await put(api, RECEPTION, "before_call", chain(step(SALES), step(SUPPORT)))
    await put(api, SALES, "before_call", end(603))

    assert await call_ends(telephony) == 200
    assert rung(telephony) == [("phone", "support")]


async def test_nobody_rings_twice_where_devices_lead_to_each_other(telephony: Telephony, api: Api) -> None:
    await put(api, RECEPTION, "busy", chain(step(SALES), step(SUPPORT)))
    await put(api, SALES, "busy", chain(step(RECEPTION), step(SUPPORT)))
    await put(api, SUPPORT, "busy", chain(step(SALES), step(RECEPTION)))
    telephony.far_end.reactions |= dict.fromkeys(("reception", "sales", "support"), Reaction.BUSY)

    assert await call_ends(telephony) == 486
    assert rung(telephony) == [("phone", "reception"), ("phone", "sales"), ("phone", "support")]


async def test_each_step_shows_its_own_caller_id_and_one_diversion_by_the_device_that_pays(
    telephony: Telephony, api: Api
) -> None:
    did = step(SALES) | {"caller_id": {"kind": "did", "did": 501}}
    await put(api, RECEPTION, "busy", chain(did, step("+37069999999", None, "device"), step(SUPPORT)))
    busy = ("reception", "sales", "+37069999999")
    telephony.far_end.reactions |= dict.fromkeys(busy, Reaction.BUSY)

    assert await call_ends(telephony) == 200

    def diverted(place: str, to: str, caller: str, by: str) -> Leg:
        return Leg(
            place,
            to,
            caller,
            (f"<sip:{by}@sip.example.org>;reason=user-busy;counter=1;privacy=off",),
            (f"<sip:{by}@sip.example.org?Privacy=none>;index=1, <sip:{to}@sip.example.org;cause=486>;index=1.1;mp=1",),
        )

    assert telephony.far_end.legs == [
        Leg("phone", "reception", ALICE),
        diverted("phone", "sales", '"37052000501" <sip:37052000501@sip.example.org>', "reception"),
        diverted("trunk", "+37069999999", '"Reception" <sip:37060000501@sip.example.org>', "37052000501"),
        diverted("phone", "support", ALICE, "reception"),
    ]


async def test_a_forward_that_is_switched_off_is_as_if_nothing_were_set(telephony: Telephony, api: Api) -> None:
    forward = chain(step(SALES), step(SUPPORT), then=VOICEMAIL)
    await put(api, RECEPTION, "before_call", forward | {"enabled": False})

    assert await call_ends(telephony) == 200

    await put(api, RECEPTION, "before_call", forward | {"enabled": True})
    assert await call_ends(telephony) == 200
    assert telephony.far_end.legs[0] == Leg("phone", "reception", ALICE)
    assert rung(telephony) == [("phone", "reception"), ("phone", "sales")]


async def test_the_boss_gets_through_and_the_rest_goes_to_the_desk(telephony: Telephony, api: Api) -> None:
    boss = await api("POST", "caller_lists", {"name": "Boss", "owner": "user1", "entries": ["+3706000*"]})
    through = rule("boss", {"caller": {"list": boss["id"]}}, EMPTY)
    await put(api, RECEPTION, "before_call", chain(step(SALES)), (through,))

    assert await call_ends(telephony, caller=BOSS) == 200
    assert await call_ends(telephony) == 200
    assert rung(telephony) == [("phone", "reception"), ("phone", "sales")]
    # Once the list is another one, so is who gets through.
    await api("PATCH", f"caller_lists/{boss['id']}", {"entries": ["37061111111"]})
    telephony.far_end.forget()
    assert await call_ends(telephony, caller=BOSS) == 200
    assert await call_ends(telephony) == 200
    assert rung(telephony) == [("phone", "sales"), ("phone", "reception")]
    await put(api, RECEPTION, "before_call")
    await api("DELETE", f"caller_lists/{boss['id']}")


async def test_colleagues_are_internal_and_the_world_is_not(telephony: Telephony, api: Api) -> None:
    colleagues = rule("colleagues", {"caller": "internal"}, chain(step(WORKSHOP)))
    nameless = rule("nobody's", {"caller": "anonymous"}, end(603))
    await put(api, RECEPTION, "before_call", rules=(colleagues, nameless))

    assert await call_ends(telephony, caller="<sip:sales@sip.example.org>") == 200
    assert await call_ends(telephony, caller='"Anonymous" <sip:anonymous@anonymous.invalid>') == 603
    assert await call_ends(telephony) == 200
    assert rung(telephony) == [("phone", "workshop"), ("phone", "reception")]


async def test_the_number_that_was_dialled_decides(telephony: Telephony, api: Api) -> None:
    by_number = rule("the old number", {"called": ["+37052000501"]}, chain(step(SALES)))
    await put(api, RECEPTION, "before_call", rules=(by_number,))

    assert await call_ends(telephony, "37052000501") == 200
    assert await call_ends(telephony, "reception") == 200
    assert rung(telephony) == [("phone", "sales"), ("phone", "reception")]


async def test_a_schedule_that_is_changed_between_two_calls_sends_the_second_elsewhere(
    telephony: Telephony, api: Api, schedule: int
) -> None:
    await put(api, RECEPTION, "before_call", chain(step(SALES)), (rule("open", {"schedule": schedule}, EMPTY),))

    assert await call_ends(telephony) == 200
    await api("PATCH", f"schedules/{schedule}", {"weekly": []})
    assert await call_ends(telephony) == 200
    assert rung(telephony) == [("phone", "reception"), ("phone", "sales")]


class Clock(datetime):
    """What the service takes for the time."""

    is_now = datetime(2026, 11, 26, 16, 59, 59, tzinfo=UTC)

    @classmethod
    def now(cls, tz: Any = None) -> Self:  # noqa: ARG003 - always UTC
        return cls.fromtimestamp(cls.is_now.timestamp(), UTC)


async def test_a_call_keeps_the_time_at_which_it_began_and_the_next_call_has_its_own(
    telephony: Telephony, api: Api, schedule: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weekly = [{"days": ["thu"], "from": "09:00", "to": "17:00"}]
    await api("PATCH", f"schedules/{schedule}", {"weekly": weekly})
    closed = rule("closed", {"not_schedule": schedule}, chain(step(WORKSHOP)))
    await put(api, RECEPTION, "before_call", rules=(closed,))
    await put(api, RECEPTION, "no_answer", chain(step(SALES), step(SUPPORT)), (closed,))
    monkeypatch.setattr(calls, "datetime", Clock)
    telephony.far_end.reactions |= {"reception": Reaction.RINGS, "sales": Reaction.BUSY}

    monkeypatch.setattr(Clock, "is_now", datetime(2026, 11, 26, 16, 59, 59, tzinfo=UTC))
    call = await telephony.caller.place("reception")
    await telephony.far_end.rings("reception")
    monkeypatch.setattr(Clock, "is_now", datetime(2026, 11, 26, 17, 0, 1, tzinfo=UTC))
    assert await call.ends() == 200
    await call.hang_up()
    assert rung(telephony) == [("phone", "reception"), ("phone", "sales"), ("phone", "support")]

    telephony.far_end.legs.clear()
    assert await call_ends(telephony) == 200
    assert rung(telephony) == [("phone", "workshop")]


async def test_a_call_stays_in_the_rule_that_it_is_in_though_that_is_switched_off_meanwhile(
    telephony: Telephony, api: Api
) -> None:
    rules = [rule("all", {}, chain(step(SALES, 5), step(SUPPORT)), enabled=on) for on in (True, False)]
    await put(api, RECEPTION, "before_call", end(603), (rules[0],))
    telephony.far_end.reactions["sales"] = Reaction.FAILS_LATE

    call = await telephony.caller.place("reception")
    await telephony.far_end.rings("sales")
    await put(api, RECEPTION, "before_call", end(603), (rules[1],))
    assert await call.ends() == 200
    await call.hang_up()
    assert rung(telephony) == [("phone", "sales"), ("phone", "support")]
    assert await call_ends(telephony) == 603


@pytest.mark.usefixtures("no_flows")
async def test_a_call_rings_no_more_often_than_the_limit_lets_it(
    start_service: StartService,
    calls_url: SecretStr,
    start_telephony: StartTelephony,
    api: Api,
) -> None:
    service = await start_service(calls_url, switch_timeout_ms=900, max_legs=3)
    telephony = await start_telephony(str(service.base_url))
    steps = chain(step(SALES), step(SUPPORT), step(WORKSHOP), step("37069999999"), then=VOICEMAIL)
    await put(api, RECEPTION, "busy", steps)
    telephony.far_end.reactions |= dict.fromkeys(("reception", "sales", "support", "workshop"), Reaction.BUSY)
    telephony.far_end.reactions["voicemail"] = Reaction.ANSWERS

    assert await call_ends(telephony) == 200
    assert rung(telephony) == [
        ("phone", "reception"),
        ("phone", "sales"),
        ("phone", "support"),
        ("voicemail", "reception"),
    ]


async def test_the_caller_who_hangs_up_ends_the_chain(telephony: Telephony, api: Api) -> None:
    await put(api, RECEPTION, "before_call", chain(step(SALES, 30), step(SUPPORT), then=VOICEMAIL))
    telephony.far_end.reactions["sales"] = Reaction.RINGS

    call = await telephony.caller.place("reception")
    await telephony.far_end.rings("sales")
    await call.cancel()

    assert await call.ends() == 487
    await until(lambda: bool(telephony.far_end.received("CANCEL")), "The ringing phone was to be told")
    assert rung(telephony) == [("phone", "sales")]


@pytest.mark.parametrize("username", ["kamailio", "bare"])
@pytest.mark.usefixtures("no_flows")
async def test_voicemail_after_a_leg_that_showed_another_caller_sees_the_caller_all_through(
    start_telephony: StartTelephony, calls_url_of_service: str, api: Api, username: str
) -> None:
    telephony = await start_telephony(calls_url_of_service, username=username)
    await put(api, RECEPTION, "before_call", chain(step(SALES, None, "device"), then=VOICEMAIL))
    telephony.far_end.reactions["sales"] = Reaction.BUSY

    call = await telephony.caller.place("reception")
    assert await call.ends() == 200
    await call.ask_again()
    await call.hang_up()

    def taken() -> list[Message]:
        return [request for request in telephony.far_end.requests if request.uri.startswith("sip:voicemail@")]

    await until(
        lambda: sorted(request.method for request in taken()) == ["ACK", "ACK", "BYE", "INVITE"],
        "Voicemail was to take the call, its change and its end",
    )
    assert [(leg.called, leg.caller) for leg in telephony.far_end.legs] == [
        ("sales", '"Reception" <sip:37060000501@sip.example.org>'),
        ("reception", ALICE),
    ]
    assert {request.one("From").partition(";tag=")[0] for request in taken()} == {ALICE}
