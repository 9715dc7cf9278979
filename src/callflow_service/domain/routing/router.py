"""Follow the call flows of the devices on a call's way, without asking anybody."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

from callflow_service.domain.callerid import (
    Caller,
    Privacy,
    clean_caller_number,
    clean_line,
    clean_username,
    fold,
)
from callflow_service.domain.callflow import (
    ActiveAction,
    AsItComes,
    Device,
    Empty,
    End,
    FaxDetect,
    Forward,
    State,
    Step,
    Voicemail,
    active,
    is_external_number,
)
from callflow_service.domain.dialing import ChainHeader, Identity
from callflow_service.domain.diversion import REASONS, Came, Stop, clean_user, read, write
from callflow_service.domain.path import MAX_HOPS, MAX_LEFT, Hop, Path, carried_number, legs_told
from callflow_service.domain.routing.rules import Call, choose, chosen_before
from callflow_service.domain.routing.words import (
    CAUSES,
    Decision,
    Facts,
    FactsMissing,
    Question,
    RouteAction,
    RoutedDevice,
    Rules,
)
from callflow_service.domain.targets import Refusal

_WHEN: Final = {state: state.replace("_", " ") for state in State}


def route(question: Question, facts: Facts, rules: Rules) -> Decision:
    """The answer to `question`.

    Raises:
        FactsMissing: a device on the way is not in `facts`.
    """
    came = Came()
    if rules.trust_headers:
        came = read(
            question.diversion, question.history_info, domain=rules.domain, withheld=question.diversions_withheld
        )
    counted = max(len(question.hops), came.diversion_count, came.history_count)
    router = _Router(question, facts, rules, uncounted=counted - len(question.hops))
    end = router.answer()
    return _decision(question, end, router, came)


# These two are made for every step of every lookup. Frozen ones would take three times as long to make.
@dataclass(slots=True)
class _Arrival:
    """A call as it reaches a device, None outside of what we know: who calls, and which diversions brought it there.

    `ring_seconds` is how long the step that sent it there lets it ring, None where the device says so itself.
    """

    device: RoutedDevice | None
    caller: Caller
    hops: tuple[Hop, ...]
    ring_seconds: int | None = None


@dataclass(slots=True)
class _End:
    """Where following the flows came to its end: what is to be done, and how the call arrived there.

    `is_outcome` is set where a flow ends the call: for the forward that led there it is a step that failed.
    """

    action: RouteAction
    arrival: _Arrival
    target: RoutedDevice | str | None = None
    fax: RoutedDevice | None = None
    mailbox: RoutedDevice | None = None
    cause: int | None = None
    is_outcome: bool = False


@dataclass(slots=True)
class _Router:
    """One answer in the making, with the steps that explain it.

    `uncounted` is how many diversions the headers tell of beyond those of the path; `left` are the devices that had the
    call and did not take it.
    """

    question: Question
    facts: Facts
    rules: Rules
    uncounted: int
    steps: list[str] = field(default_factory=list)
    loops_cut: int = 0
    targets_refused: list[Refusal] = field(default_factory=list)
    left: list[int] = field(default_factory=list)

    def device(self, device_id: int) -> RoutedDevice | None:
        if device_id < 0:
            return None
        if device_id not in self.facts.devices:
            raise FactsMissing(device_id)
        return self.facts.devices[device_id]

    def _label(self, device: Device) -> str:
        # The flow may name it by its id alone.
        known = self.facts.devices.get(device.id)
        return known.label if known else device.label

    @property
    def called(self) -> str:
        path = self.question.path
        return path.called if path else carried_number(self.question.called)

    @property
    def legs_before(self) -> int:
        """How many legs rang before the one that this answer begins."""
        if self.question.path and self.question.device is None:
            return self.question.path.legs_before + 1
        return int(self.question.state is not State.BEFORE_CALL)

    def answer(self) -> _End:
        question = self.question
        hops = question.hops
        device = self._asked_about(question)
        arrival = _Arrival(device, self._refolded(question.caller, hops), hops)
        if device is None:
            self.steps.append("the call is at no device of ours")
        elif question.is_emergency_callback:
            self.steps.append("a callback from an emergency centre, diverted by nothing")
            return self._nothing(arrival, question)
        end: _End | None = None
        if device is not None:
            if question.state is State.BEFORE_CALL:
                end = self._arrived(device, arrival)
            else:
                end = self._after_ringing(device, arrival, question.state)
        if question.path and question.device is None and (end is None or end.is_outcome):
            end = self._next_steps(question.path) or end
        if end is None:
            return self._nothing(arrival, question)
        if end.action is RouteAction.RING and end.arrival.hops != hops:
            end.action = RouteAction.FORWARD
        if end.action is RouteAction.RING and question.path is None and device and device.is_untouched:
            return self._nothing(arrival, question)
        return end

    def _asked_about(self, question: Question) -> RoutedDevice | None:
        if question.device is not None:
            return self.device(question.device)
        if question.path is None or question.path.current is None:
            return None
        return self.device(question.path.current)

    def _refolded(self, caller: Caller, hops: tuple[Hop, ...]) -> Caller:
        # The marker carries no caller ID: whoever can send a marker could choose one. The flows of now say it again.
        caller = Caller.from_wire(caller.number, caller.name, privacy=caller.privacy)
        for hop in hops:
            device = self.device(hop.device_id)
            if device:
                steps = _steps_before(device, hop)
                choice = steps[hop.step - 1].caller_id if hop.step <= len(steps) else AsItComes()
                caller = fold(caller, own=device.caller_id, choice=choice)
        return caller

    def _nothing(self, arrival: _Arrival, question: Question) -> _End:
        """Nothing is set: a call that we have not touched goes on as if we were not there, any other ends."""
        untouched = arrival.device is None or arrival.device.is_untouched or question.state is State.BEFORE_CALL
        if question.path is None and (untouched or question.is_emergency_callback):
            self.steps.append("carry on, nothing is ours to decide")
            return _End(RouteAction.NONE, arrival)
        return self._ended(arrival, CAUSES[question.state])

    def _next_steps(self, path: Path) -> _End | None:
        """Where the call goes from a leg that nobody took: on in the innermost forward that has a step left.

        None where no forward on the way goes on.
        """
        outcome: _End | None = None
        for place in range(len(path.hops) - 1, -1, -1):
            hop, before = path.hops[place], path.hops[:place]
            device = self.device(hop.device_id)
            self.left = [*path.left, *(other.device_id for other in path.hops[place + 1 :])]
            if path.current is not None:
                self.left.append(path.current)
            if device is None:
                continue
            forward = chosen_before(device.flow(hop.state), hop.rule)
            if not isinstance(forward, Forward):
                continue
            arrival = _Arrival(device, self._refolded(self.question.caller, before), before)
            end = self._along(device, arrival, hop, forward, after=hop.step)
            if end and not end.is_outcome:
                return end
            outcome = end or outcome
        self.left = list(path.left)
        return outcome

    def _arrived(self, device: RoutedDevice, arrival: _Arrival) -> _End | None:
        """What `device` does with a call that reaches it; None if it can neither ring nor pass the call on."""
        action, rule = self._chosen(device, State.BEFORE_CALL)
        end: _End | None
        match action:
            case Forward():
                end = self._along(device, arrival, Hop(device.id, State.BEFORE_CALL, rule), action)
            case Voicemail():
                end = self._to_voicemail(device, arrival, State.BEFORE_CALL, action)
            case FaxDetect():
                end = self._to_fax(device, arrival, action)
            case End(cause):
                end = self._ended(arrival, cause)
            case Empty():
                end = None
            case _ as never:
                assert_never(never)
        return end or self._rings(device, arrival)

    def _after_ringing(self, device: RoutedDevice, arrival: _Arrival, state: State) -> _End | None:
        """What `device` does with a call that it did not take; None if nothing is set for that, or it was refused."""
        action, rule = self._chosen(device, state)
        match action:
            case Forward():
                return self._along(device, arrival, Hop(device.id, state, rule), action)
            case Voicemail():
                return self._to_voicemail(device, arrival, state, action)
            case End(cause):
                return self._ended(arrival, cause)
            case Empty() | FaxDetect():
                self.steps.append(f"{_said(device.label)} {_WHEN[state]}: nothing set")
                return None
            case _ as never:
                assert_never(never)

    def _chosen(self, device: RoutedDevice, state: State) -> tuple[ActiveAction, int]:
        """What the device does, and by which rule."""
        flow = device.flow(state)
        if not flow.rules:
            return active(flow.otherwise), 0
        chosen = choose(flow, Call(self.question.caller, self.called, self.facts.circumstances), device.id)
        who = f"{_said(device.label)} {_WHEN[state]}"
        self.steps += [f"{who}: {_said(why)}" for why in chosen.why]
        return chosen.action, chosen.rule

    def _along(
        self, device: RoutedDevice, arrival: _Arrival, hop: Hop, forward: Forward, *, after: int = 0
    ) -> _End | None:
        """Where the call ends up by the steps of `forward` beyond `after`, then by what comes after the last one.

        None where no step could be tried and nothing comes after the last one.
        """
        outcome: _End | None = None
        for number, step in enumerate(forward.steps[after:], after + 1):
            here = hop if number == hop.step else Hop(hop.device_id, hop.state, hop.rule, number)
            end = self._stepped(device, arrival, here, step, of=len(forward.steps))
            if end and not end.is_outcome:
                return end
            outcome = end or outcome
        match forward.then:
            case Empty():
                return outcome
            case Voicemail():
                return self._to_voicemail(device, arrival, hop.state, forward.then) or outcome
            case End(cause):
                return self._ended(arrival, cause)
            case _ as never:
                assert_never(never)

    def _stepped(self, device: RoutedDevice, arrival: _Arrival, hop: Hop, step: Step, *, of: int) -> _End | None:
        """Where the call ends up by one step; None if the step is refused."""
        name = step.destination if isinstance(step.destination, str) else self._label(step.destination)
        place = f", step {hop.step} of {of}" if of > 1 else ""
        self.steps.append(f"{_said(device.label)} {_WHEN[hop.state]}: forward to {_said(name)}{place}")
        if step.held_until and self.question.at < step.held_until:
            self._refused(f"it is held until {step.held_until:%Y-%m-%d %H:%M} UTC")
            return None
        target = self._target(step.destination)
        on_path = self.question.path.met if self.question.path else frozenset()
        if target in {*on_path, *(other.device_id for other in arrival.hops), device.id}:
            self._cut("the call has been there, a loop")
            return None
        if self.uncounted + len(arrival.hops) >= self.rules.limit or len(arrival.hops) >= MAX_HOPS:
            self._cut("the call has been diverted as often as the limit lets it")
            return None
        if self.legs_before >= self.rules.max_legs or len(self.left) > MAX_LEFT:
            self._cut("the call has rung as often as the limit lets it")
            return None
        passed_on = _Arrival(
            device,
            fold(arrival.caller, own=device.caller_id, choice=step.caller_id),
            (*arrival.hops, hop),
            step.ring_seconds,
        )
        return self._to_number(target, passed_on) if isinstance(target, str) else self._to_device(target, passed_on)

    def _target(self, destination: Device | str) -> int | str:
        """The id of the device, or the number: one of our own DIDs is its device."""
        if isinstance(destination, Device):
            return destination.id
        own = self.facts.own_numbers.get(destination.removeprefix("+"))
        return destination if own is None else own

    def _to_device(self, device_id: int, passed_on: _Arrival) -> _End | None:
        device = self.device(device_id)
        if device is None:
            self._refused(f"device {device_id} is not there")
            return None
        end = self._arrived(device, _Arrival(device, passed_on.caller, passed_on.hops, passed_on.ring_seconds))
        if end is None:
            self._refused(f"{_said(device.label)} can neither be rung nor pass the call on")
        return end

    def _to_number(self, number: str, passed_on: _Arrival) -> _End | None:
        if not (self.rules.can_dial_numbers and is_external_number(number)):
            self._refused("the number cannot be dialled here")
            return None
        if passed_on.device and (why := self.rules.refusal(passed_on.device, number)):
            self.targets_refused.append(why)
            self._refused(why.sentence)
            return None
        return _End(RouteAction.FORWARD, passed_on, target=number)

    def _to_voicemail(self, device: RoutedDevice, arrival: _Arrival, state: State, voicemail: Voicemail) -> _End | None:
        of = f" of {_said(self._label(voicemail.of))}" if voicemail.of else ""
        self.steps.append(f"{_said(device.label)} {_WHEN[state]}: voicemail{of}")
        mailbox = self.device(voicemail.of.id) if voicemail.of else device
        if mailbox is None:
            self._refused("that device is not there")
            return None
        return _End(RouteAction.VOICEMAIL, arrival, mailbox=mailbox)

    def _to_fax(self, device: RoutedDevice, arrival: _Arrival, detection: FaxDetect) -> _End | None:
        self.steps.append(f"{_said(device.label)} before call: fax detection, to {_said(self._label(detection.fax))}")
        fax = self.device(detection.fax.id)
        if fax is None:
            self._refused(f"device {detection.fax.id} is not there")
            return None
        for rung in (device, fax):
            if not self.rules.can_ring(rung):
                self._refused(f"{_said(rung.label)} cannot be rung here")
                return None
        return _End(RouteAction.FAX, arrival, target=device, fax=fax)

    def _rings(self, device: RoutedDevice, arrival: _Arrival) -> _End | None:
        if not self.rules.can_ring(device):
            self._refused(f"{_said(device.label)} cannot be rung here")
            return None
        self.steps.append(f"{_said(device.label)} rings")
        return _End(RouteAction.RING, arrival, target=device)

    def _ended(self, arrival: _Arrival, cause: int) -> _End:
        self.steps.append(f"ends with {cause}")
        return _End(RouteAction.END, arrival, cause=cause, is_outcome=True)

    def _cut(self, why: str) -> None:
        self.loops_cut += 1
        self._refused(why)

    def _refused(self, why: str) -> None:
        self.steps.append(f"refused: {why}")


def _steps_before(device: RoutedDevice, hop: Hop) -> tuple[Step, ...]:
    """The steps of the forward by which a device passed a call on."""
    forward = chosen_before(device.flow(hop.state), hop.rule)
    return forward.steps if isinstance(forward, Forward) else ()


def _decision(question: Question, end: _End, router: _Router, came: Came) -> Decision:
    arrival = end.arrival
    diverters = [router.device(hop.device_id) for hop in arrival.hops]
    payer = diverters[-1] if diverters else None
    at_number = isinstance(end.target, str)
    diversion, history_info = write(
        came,
        _stops(diverters, arrival.hops, last=end.target or arrival.device),
        explained=min(len(question.hops), len(arrival.hops)),
        domain=router.rules.domain,
    )
    caller, asserted = arrival.caller, None
    if at_number:
        headers = router.rules.trunk.headers
        diversion = diversion if ChainHeader.DIVERSION in headers else ""
        history_info = history_info if ChainHeader.HISTORY_INFO in headers else ""
        forwarder = _forwarder(payer) if router.rules.trunk.identity is Identity.FORWARDER else None
        if forwarder:
            caller, asserted = forwarder, arrival.caller
    path = Path(
        flow_id=question.path.flow_id if question.path else question.call_flow_id,
        hops=arrival.hops,
        current=arrival.device.id if arrival.device and not at_number else None,
        began=int(question.at.timestamp()),
        legs=legs_told(arrival.hops, router.legs_before) if end.target else None,
        called=router.called,
        left=tuple(router.left),
    )
    return Decision(
        action=end.action,
        target=end.target,
        ring_seconds=_ring_seconds(end, router.rules),
        fax=end.fax,
        mailbox=end.mailbox,
        cause=end.cause,
        caller=caller,
        asserted=asserted,
        diversion=diversion,
        history_info=history_info,
        reason=REASONS[arrival.hops[-1].state] if arrival.hops else "",
        device=arrival.device or payer,
        payer=clean_username(payer.owner) if payer else "",
        payer_device=arrival.hops[-1].device_id if arrival.hops else None,
        leg=len(arrival.hops) + 1,
        flow_id=path.flow_id,
        path=path,
        explain=clean_line("; ".join(router.steps)),
        steps=tuple(router.steps),
        loops_cut=router.loops_cut,
        targets_refused=tuple(router.targets_refused),
    )


def _forwarder(device: RoutedDevice | None) -> Caller | None:
    """The device as the party that forwards to a trunk: its DID, else its caller ID; None where it has no number."""
    if device is None or not (numbers := _numbers_of(device)):
        return None
    return Caller(numbers[0], device.caller_id.name, Privacy.OFF)


def _ring_seconds(end: _End, rules: Rules) -> int | None:
    match end.target:
        case RoutedDevice(ring_seconds=ring_seconds):
            return end.arrival.ring_seconds or ring_seconds
        case str():
            return end.arrival.ring_seconds or rules.number_ring_seconds
        case None:
            return None


def _stops(
    diverters: Sequence[RoutedDevice | None], hops: Sequence[Hop], *, last: RoutedDevice | str | None
) -> list[Stop]:
    """The call's way for the headers. Which address a device is told by depends on where the leg goes."""
    at_number = isinstance(last, str)
    stops = [
        _stop(device, left=hop.state, at_number=at_number) if device else Stop("", frozenset(), hop.state)
        for device, hop in zip(diverters, hops, strict=True)
    ]
    if isinstance(last, RoutedDevice):
        return [*stops, _stop(last, left=None, at_number=False)]
    return stops if last is None else [*stops, Stop(last, frozenset({last}), None)]


def _stop(device: RoutedDevice, *, left: State | None, at_number: bool) -> Stop:
    name, numbers = clean_user(device.name), _numbers_of(device)
    addresses = [address for address in ([*numbers, name] if at_number else [name, *numbers]) if address]
    return Stop(addresses[0] if addresses else "", frozenset(addresses), left)


def _numbers_of(device: RoutedDevice) -> list[str]:
    return [number for text in (*device.dids, device.caller_number) if (number := clean_caller_number(text))]


def _said(text: str) -> str:
    # A semicolon ends a step; whatever else must not stand there is dropped from the whole line.
    return text.replace(";", ",")
