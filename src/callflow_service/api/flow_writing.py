"""Read call flows that clients send, and save them: what is named must be there, and no ring may close."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, assert_never

from asyncpg import Connection
from pydantic import BaseModel, ValidationError
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.dependencies import Caller, problem_of_fields
from callflow_service.api.problems import Problem, invalid
from callflow_service.domain.access import OwnedDevice, may_use
from callflow_service.domain.callerid import parse_custom, without_separators
from callflow_service.domain.callflow import (
    ActiveAction,
    AsItComes,
    CallerId,
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
    kept,
)
from callflow_service.domain.changing import AssignedDid, Change
from callflow_service.domain.errors import ChangeRefused
from callflow_service.domain.flow_documents import row_document
from callflow_service.domain.history import Origin
from callflow_service.domain.rings import ring_through
from callflow_service.domain.targets import HELD, Refusal
from callflow_service.repositories import callflows, flows, resources, taken_numbers
from callflow_service.repositories.taken_numbers import Alert
from callflow_service.resources import flows as sent
from callflow_service.storage.transactions import driver, run
from callflow_service.tables import DeviceRow
from callflow_service.usecases.policing import Past, Policing


def owned_device(row: resources.Row) -> OwnedDevice:
    """A device and its owner, of a row."""
    device, owner, _ = row
    named = Device(device.id, device.technology, device.name)
    return OwnedDevice(named, owner.id, owner.username, owner.owner_id, device.ring_seconds)


@dataclass(frozen=True, slots=True)
class Writing:
    """Who changes call flows, in which transaction, and the operator's word on numbers.

    `pasts` are of the accounts that are meant, where these are not the one of a device. Where it is only tried out, or
    for later, `takes_up` is false: no number is taken up.
    """

    session: AsyncSession
    caller: Caller
    policing: Policing
    pasts: Sequence[Past] = ()
    takes_up: bool = True


async def read_states(
    writing: Writing, device: OwnedDevice, states: Mapping[State, sent.SentState], place: str = ""
) -> dict[State, StateFlow]:
    """What was sent for some states of a device, as the domain has it; `place` is where each stands in the request.

    Raises:
        Problem: `invalid`, with all that is wrong, or `target-refused`.
    """
    named = await _named(writing, device, states.values())
    wrong = _Wrong()
    read = {
        state: _Reading(device, state, named, wrong).state(flow, place.format(state=state))
        for state, flow in states.items()
    }
    wrong.tell(writing.caller.origin)
    await _kept(writing, named, wrong)
    return read


async def read_stored(writing: Writing, device: OwnedDevice, state: State, stored: dict[str, Any] | None) -> StateFlow:
    """What the history holds, checked as if it were sent anew: a target can be gone by now.

    Any text of a caller ID was good enough for MOR's call, and what it set can be put back.

    Raises:
        Problem: `invalid` or `target-refused`.
    """
    try:
        flow = sent.SentState.model_validate(row_document(stored))
    except ValidationError as error:
        raise problem_of_fields(error.errors(include_url=False, include_input=False)) from None
    named = await _named(writing, device, [flow])
    wrong = _Wrong()
    read = _Reading(device, state, named, wrong, is_stored=True).state(flow, "before.")
    wrong.tell(writing.caller.origin)
    await _kept(writing, named, wrong)
    return read


async def _kept(writing: Writing, named: "_Named", wrong: "_Wrong") -> None:
    """Keep what numbers are taken up, and tell of those that are held."""
    if writing.takes_up and (wrong.alerts or any(past.new for past in named.pasts)):
        connection = await driver(writing.session)
        for past in named.pasts:
            await past.keep(connection)
        await taken_numbers.tell(connection, wrong.alerts, writing.caller.origin)


async def save(connection: Connection, device: OwnedDevice, state: State, flow: StateFlow, origin: Origin) -> list[str]:
    """Save one state, and tell of rings that are harmless.

    Raises:
        Problem: `loop`, or `invalid` where something that it names vanished.
    """
    warnings = await check_rings(connection, device, state, flow)
    await saved(connection, Change(device, state, flow.otherwise, flow.rules), origin)
    return warnings


async def saved(connection: Connection, change: Change, origin: Origin) -> int:
    """Save one state without a look at rings; the id of its history entry.

    Raises:
        Problem: `invalid`.
    """
    try:
        return await callflows.save(connection, change, origin)
    except ChangeRefused as error:
        raise invalid("otherwise", "what it names is gone since a moment ago") from error


async def check_rings(connection: Connection, device: OwnedDevice, state: State, flow: StateFlow) -> list[str]:
    """Refuse a forward that closes a ring before the call, or leads to the device itself; tell of other rings.

    Raises:
        Problem: `loop`, with the devices of the ring.
    """
    destinations = {step.destination for step in steps_of(flow)}
    if not destinations:
        return []
    await flows.one_ring_check_at_a_time(connection)
    own = device.device.id
    targets = {each.id if isinstance(each, Device) else await flows.own(connection, each) for each in destinations}
    if own in targets:
        raise Problem("loop", "The device would forward to itself.", {"path": [own]})
    reached = sorted(target for target in targets if target is not None)
    leads = [lead for target in reached for lead in await flows.leads(connection, target)]
    before = by_device([lead for lead in leads if lead.state is State.BEFORE_CALL])
    if state is State.BEFORE_CALL and (path := ring_through(own, before | {own: reached})):
        raise Problem("loop", "The forward closes a ring of forwards before the call.", {"path": path})
    if path := ring_through(own, by_device(leads) | {own: reached}):
        way = " to ".join(str(each) for each in [*path, own])
        return [f"The forward is part of a ring, device {way}; a call that comes round is not forwarded again."]
    return []


def steps_of(flow: StateFlow) -> Iterator[Step]:
    """Every step of every forward of a state, those that are switched off too."""
    for action in map(kept, flow.actions()):
        if isinstance(action, Forward):
            yield from action.steps


def by_device(leads: Sequence[flows.Lead]) -> dict[int, list[int]]:
    """Where each device's forwards lead."""
    found: dict[int, list[int]] = {}
    for lead in leads:
        found.setdefault(lead.device, []).append(lead.target)
    return found


@dataclass(frozen=True, slots=True)
class _Named:
    """What requests name, as far as the caller may use it for the device."""

    devices: Mapping[int, Device]
    dids: Mapping[int, AssignedDid]
    schedules: frozenset[int]
    caller_lists: frozenset[int]
    pasts: Sequence[Past]

    def take(self, number: str) -> Refusal | datetime | None:
        """What becomes of a number for all who would take it up: a refusal, else the longest hold."""
        outcomes = [past.take(number) for past in self.pasts]
        refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
        return refused[0] if refused else max((each for each in outcomes if isinstance(each, datetime)), default=None)


_MOST_TOLD: Final = 10
"""How many of a request's refused numbers operators are told of."""


@dataclass(slots=True)
class _Wrong:
    """What is wrong with call flows that were sent: fields that cannot be, and numbers that may not."""

    fields: list[dict[str, str]] = field(default_factory=list)
    targets: list[tuple[str, Refusal]] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)

    def tell(self, origin: Origin) -> None:
        if self.fields:
            raise Problem("invalid", self.fields[0]["message"], {"errors": self.fields})
        if self.targets:
            errors = [{"field": place, "message": refusal.sentence} for place, refusal in self.targets]
            reason = self.targets[0][1]
            members = {"reason": reason.value, "errors": errors}
            alerts = tuple(self.alerts[:_MOST_TOLD])
            raise Problem("target-refused", reason.sentence, members, alerts=alerts, origin=origin)


async def _named(writing: Writing, device: OwnedDevice, sent_flows: Collection[sent.SentState]) -> _Named:
    session, caller = writing.session, writing.caller
    ids: dict[str, set[int]] = {name: set() for name in ("device", "did", "schedule", "list")}
    for flow in sent_flows:
        _gather(flow, ids)
    targets = []
    if ids["device"]:
        statement = resources.devices(caller.account).where(col(DeviceRow.id).in_(ids["device"]))
        targets = [owned_device(row) for row in (await run(session, statement)).all()]
    connection = await driver(session)
    pasts = writing.pasts
    if not pasts:
        rules = await flows.target_rules(connection, device.owner_id)
        pasts = [await writing.policing.past(connection, device.owner_id, rules, numbers_of(sent_flows))]
    return _Named(
        {target.device.id: target.device for target in targets if may_use(caller.account, target)},
        await flows.dids(connection, ids["did"]),
        await flows.usable_schedules(connection, ids["schedule"], device.owner_id),
        await flows.usable_caller_lists(connection, ids["list"], device.owner_id),
        pasts,
    )


def numbers_of(sent_flows: Iterable[sent.SentState]) -> set[str]:
    """The numbers that states forward to, as far as they are numbers."""
    actions = [action for flow in sent_flows for action in (flow.otherwise, *(rule.do for rule in flow.rules))]
    steps = [step for action in actions if isinstance(action, sent.ForwardAction) for step in action.steps]
    return set(filter(is_external_number, (without_separators(step.to.number or "") for step in steps)))


_GATHERED = {"device": "device", "did": "did", "schedule": "schedule", "not_schedule": "schedule"} | {
    "list": "list",
    "not_list": "list",
}


def _gather(model: BaseModel, ids: dict[str, set[int]]) -> None:
    """Every id that stands somewhere in a model."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, int) and name in _GATHERED:
            ids[_GATHERED[name]].add(value)
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, BaseModel):
                _gather(part, ids)


@dataclass(slots=True)
class _Reading:
    """One state in the reading; what is wrong is gathered in `wrong`, and something possible stands for it."""

    device: OwnedDevice
    at: State
    named: _Named
    wrong: _Wrong
    is_stored: bool = False

    def state(self, flow: sent.SentState, place: str) -> StateFlow:
        return StateFlow(
            self.action(flow.otherwise, f"{place}otherwise"),
            tuple(self.rule(rule, f"{place}rules.{number}") for number, rule in enumerate(flow.rules)),
        )

    def rule(self, rule: sent.FlowRule, place: str) -> Rule:
        return Rule(
            rule.name, self.conditions(rule.if_, f"{place}.if"), self.action(rule.do, f"{place}.do"), rule.enabled
        )

    def conditions(self, conditions: sent.Conditions, place: str) -> Conditions:
        for name in ("schedule", "not_schedule"):
            wanted = getattr(conditions, name)
            if wanted is not None and wanted not in self.named.schedules:
                self.refuse(f"{place}.{name}", f"there is no schedule {wanted} for this device")
        caller: Any = conditions.caller
        match conditions.caller:
            case sent.CallerInList(list=list_id):
                caller = InList(self.caller_list(list_id, f"{place}.caller.list"))
            case sent.CallerNotInList(not_list=list_id):
                caller = InList(self.caller_list(list_id, f"{place}.caller.not_list"), is_in=False)
            case _:
                pass
        called = tuple(self.number(number, f"{place}.called.{which}") for which, number in enumerate(conditions.called))
        return Conditions(conditions.schedule, conditions.not_schedule, caller, called)

    def caller_list(self, list_id: int, place: str) -> int:
        if list_id not in self.named.caller_lists:
            self.refuse(place, f"there is no caller list {list_id} for this device")
        return list_id

    def action(self, action: sent.AnyAction, place: str) -> CallFlow:
        read = self.active(action, place)
        return read if action.enabled else SwitchedOff(read)

    def active(self, action: sent.AnyAction, place: str) -> ActiveAction:
        match action:
            case sent.FaxDetectAction():
                if self.at is not State.BEFORE_CALL:
                    self.refuse(f"{place}.action", "fax_detect goes with before_call alone")
                fax = self.target(action.to.device, f"{place}.to.device")
                if fax and not fax.is_fax:
                    self.refuse(f"{place}.to.device", f"{fax.label} is not a FAX device")
                return FaxDetect(fax) if fax else Empty()
            case sent.ForwardAction():
                steps = [self.step(step, f"{place}.steps.{number}") for number, step in enumerate(action.steps)]
                return Forward(tuple(steps), self.then(action.then, f"{place}.then"))
            case sent.EmptyAction() | sent.VoicemailAction() | sent.EndAction():
                return self.then(action, place)
            case _ as never:
                assert_never(never)

    def then(self, action: sent.AnyThen, place: str) -> Empty | Voicemail | End:
        match action:
            case sent.EmptyAction():
                return Empty()
            case sent.VoicemailAction():
                return Voicemail(self.target(action.of.device, f"{place}.of.device") if action.of else None)
            case sent.EndAction():
                return End(action.cause)
            case _ as never:
                assert_never(never)

    def step(self, step: sent.Step, place: str) -> Step:
        destination: Device | str | None
        held_until = None
        if step.to.device is not None and step.to.number is None:
            destination = self.target(step.to.device, f"{place}.to.device")
        elif step.to.number is not None and step.to.device is None:
            destination = self.number(step.to.number, f"{place}.to.number")
            if is_external_number(destination):
                held_until = self.taken(destination, f"{place}.to.number")
        else:
            destination = None
            self.refuse(f"{place}.to", "must name a device or a number, and not both")
        return Step(
            destination or "", self.caller_id(step.caller_id, f"{place}.caller_id"), step.ring_seconds, held_until
        )

    def taken(self, number: str, place: str) -> datetime | None:
        """Until when a number is held; whoever sends that it is or is not has no say."""
        outcome = self.named.take(number)
        device = self.device.device.id
        if outcome is Refusal.NO_FIT:
            self.refuse(place, outcome.sentence)
            return None
        if isinstance(outcome, Refusal):
            self.wrong.targets.append((place, outcome))
            self.wrong.alerts.append(Alert(device, number, outcome.value))
            return None
        if outcome:
            self.wrong.alerts.append(Alert(device, number, HELD, outcome))
        return outcome

    def target(self, device_id: int, place: str) -> Device | None:
        found = self.named.devices.get(device_id)
        if found is None:
            self.refuse(place, f"there is no device {device_id}")
        return found

    def number(self, text: str, place: str) -> str:
        number = without_separators(text)
        if not is_external_number(number):
            self.refuse(place, "must be an optional + and 1 to 32 of 0-9 * #, at least one a digit")
        return number

    def caller_id(self, choice: sent.AnyCallerId, place: str) -> CallerId:
        match choice:
            case sent.DeviceCallerId():
                return FromDevice()
            case sent.SourceCallerId():
                return AsItComes()
            case sent.DidCallerId():
                did = self.named.dids.get(choice.did)
                if did is None or did.device_id != self.device.device.id:
                    self.refuse(f"{place}.did", f"DID {choice.did} is not assigned to this device")
                    return FromDevice()
                return FromDid(did.id, did.number)
            case sent.CustomCallerId():
                number, name = parse_custom(choice.text)
                left = f'"{name}" <{number}>' if name and number else name or number
                if choice.text not in {left, f'"{name}" {number}', f"{name} <{number}>"} and not self.is_stored:
                    self.refuse(f"{place}.text", f"has signs that no switch is sent; what would be left is: {left}")
                return Custom(choice.text)
            case _ as never:
                assert_never(never)

    def refuse(self, place: str, message: str) -> None:
        self.wrong.fields.append({"field": place, "message": message})
