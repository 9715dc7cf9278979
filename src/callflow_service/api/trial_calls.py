"""Where a call to a device would go, leg by leg, and why; no call is placed."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.dependencies import ApiRoute, Caller, Reader, TheHouse
from callflow_service.api.flow_shapes import FlowDevice
from callflow_service.api.flow_writing import owned_device
from callflow_service.api.problems import Problem
from callflow_service.api.shapes import Id, Moment, as_json, written_moment
from callflow_service.domain import callerid
from callflow_service.domain.access import Role
from callflow_service.domain.asked import SwitchUser
from callflow_service.domain.callerid import Privacy
from callflow_service.domain.callflow import State
from callflow_service.domain.path import MAX_HOPS
from callflow_service.domain.routing import Decision, RouteAction, RoutedDevice
from callflow_service.repositories import lookups, resources
from callflow_service.repositories.visibility import may_see
from callflow_service.resources.types import SentMoment, Username
from callflow_service.storage.transactions import driver
from callflow_service.tables import AccountRow, DeviceRow
from callflow_service.usecases import trial_calls
from callflow_service.usecases.trial_calls import ANY_SWITCH, Leg

router = APIRouter(prefix="/v1", tags=["Call flows"], route_class=ApiRoute)

Outcome = Literal["no_answer", "busy", "failed"]

_ELSEWHERE: Final = "the call goes on to a device that your account may not see"


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class CallingParty(_Sent):
    """Who calls, as a switch would tell it."""

    number: Annotated[str, Field(max_length=64, examples=["+37061234567"])] = ""
    name: Annotated[str, Field(max_length=255)] = ""
    privacy: Annotated[Privacy, Field(description="What the caller withholds")] = Privacy.OFF


class TrialCall(_Sent):
    """A call to try out."""

    caller: CallingParty = CallingParty()
    at: Annotated[SentMoment | None, Field(description="When the call comes; now where it is not said")] = None
    outcomes: Annotated[
        list[Outcome], Field(max_length=MAX_HOPS, description="How the legs end, one after the other")
    ] = []
    switch: Annotated[
        Username | None,
        Field(description="The switch user whose dial strings count; else every device and number can be dialled"),
    ] = None


class NamedDevice(BaseModel):
    """A device by its id and label."""

    device: int
    label: str


class Rung(BaseModel):
    """Who rings: a device or a number."""

    device: int | None = None
    label: str | None = None
    number: str | None = None


class ShownCaller(BaseModel):
    """A caller ID."""

    number: str
    name: str
    privacy: Privacy


class LegHeaders(BaseModel):
    """What a leg tells of the diversions, as header values."""

    diversion: str
    history_info: str


class Payer(BaseModel):
    """Who pays for a leg: the account, and its device that passed the call on."""

    account: str
    device: int


class ShownLeg(BaseModel):
    """One leg of the call. What is null does not apply, or is of a device that you may not see."""

    leg: int
    state: State = Field(description="What the switch asks about: the call itself, or how the leg before ended")
    action: RouteAction | None
    rings: Rung | None
    ring_seconds: int | None
    fax: NamedDevice | None = Field(description="Where the call goes once a fax is heard")
    mailbox: NamedDevice | None = Field(description="Whose voicemail takes the call")
    cause: int | None = Field(description="The SIP status that the call ends with")
    shows: ShownCaller | None
    asserted: ShownCaller | None = Field(description="The caller behind it, where the trunk is shown who forwards")
    headers: LegHeaders | None
    pays: Payer | None
    why: list[str]


class ShownTrial(BaseModel):
    """Where the call would go."""

    device: FlowDevice
    at: Moment
    switch: str | None
    legs: list[ShownLeg]


@router.post("/devices/{device_id}/route", response_model=ShownTrial)
async def route_call(device_id: Id, caller: Reader, house: TheHouse, body: TrialCall | None = None) -> Response:
    """Try out where a call to a device would go. No call is placed, and nothing is changed."""
    wanted = body or TrialCall()
    at = wanted.at or datetime.now(UTC)
    async with house.transactions.begin() as session:
        condition = col(DeviceRow.id) == device_id
        row = await resources.one(session, resources.devices(caller.account), condition)
        if row is None:
            raise Problem("not-found")
        called = owned_device(row)
        connection = await driver(session)
        switch = await _switch(session, caller, wanted.switch)
        party = wanted.caller
        found = await trial_calls.legs(
            house.calls,
            connection,
            device_id=device_id,
            caller=callerid.Caller.from_wire(party.number, party.name, privacy=party.privacy),
            outcomes=[State(outcome) for outcome in wanted.outcomes],
            at=at,
            switch=switch,
        )
        visible = await _visible(session, caller, found)
    document = {
        "device": {"id": called.device.id, "label": called.device.label, "owner": called.owner_name},
        "at": written_moment(at),
        "switch": wanted.switch,
        "legs": _shown(found, visible),
    }
    return as_json(document)


async def _switch(session: AsyncSession, caller: Caller, username: str | None) -> SwitchUser:
    """The switch that is named.

    Raises:
        Problem: `not-found`; switch users are an admin's to see.
    """
    if username is None:
        return ANY_SWITCH
    if caller.account.role is Role.ADMIN:
        found = (await lookups.switch_users(await driver(session))).get(username)
        if found is not None:
            return found
    raise Problem("not-found", f"There is no switch {username}.")


async def _visible(session: AsyncSession, caller: Caller, legs: Sequence[Leg]) -> set[int]:
    """Those of the devices on the way that the caller may see."""
    named = {device for leg in legs for device in _devices(leg.decision)}
    statement = (
        select(DeviceRow.id)
        .join(AccountRow, col(AccountRow.id) == DeviceRow.owner_id)
        .where(col(DeviceRow.id).in_(named), may_see(caller.account, AccountRow))
    )
    return set((await session.exec(statement)).all())


def _devices(decision: Decision) -> set[int]:
    met = (decision.target, decision.fax, decision.mailbox, decision.device)
    return {device.id for device in met if isinstance(device, RoutedDevice)} | decision.path.met


def _shown(legs: Sequence[Leg], visible: set[int]) -> list[dict[str, Any]]:
    """The legs up to the first that has to do with a device that may not be seen: what that does is not told."""
    shown: list[dict[str, Any]] = []
    for leg in legs:
        if not _devices(leg.decision) <= visible:
            nothing = dict.fromkeys(ShownLeg.model_fields)
            return [*shown, nothing | {"leg": len(shown) + 1, "state": leg.state, "why": [_ELSEWHERE]}]
        shown.append({"leg": len(shown) + 1, "state": leg.state, **_leg(leg.decision)})
    return shown


def _leg(decision: Decision) -> dict[str, Any]:
    target = decision.target
    rings: dict[str, Any] | None = _named(target) if isinstance(target, RoutedDevice) else None
    return {
        "action": decision.action,
        "rings": {"number": target} if isinstance(target, str) else rings,
        "ring_seconds": decision.ring_seconds,
        "fax": _named(decision.fax),
        "mailbox": _named(decision.mailbox),
        "cause": decision.cause,
        "shows": _caller(decision.caller),
        "asserted": _caller(decision.asserted) if decision.asserted else None,
        "headers": {"diversion": decision.diversion, "history_info": decision.history_info},
        "pays": {"account": decision.payer, "device": decision.payer_device} if decision.payer else None,
        "why": list(decision.steps),
    }


def _named(device: RoutedDevice | None) -> dict[str, Any] | None:
    return {"device": device.id, "label": device.label} if device else None


def _caller(caller: callerid.Caller) -> dict[str, Any]:
    return {"number": caller.number, "name": caller.name, "privacy": caller.privacy}
