"""Follow the call flows of the devices on a call's way, without asking anybody."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
    AsItComes,
    Device,
    Empty,
    FaxDetect,
    Forward,
    State,
    Voicemail,
    is_external_number,
)
from callflow_service.domain.dialing import ChainHeader, Identity
from callflow_service.domain.diversion import REASONS, Came, Stop, clean_user, read, write
from callflow_service.domain.path import MAX_HOPS, Hop, Path
from callflow_service.domain.routing.words import (
    CAUSES,
    EMPTY,
    Decision,
    Facts,
    FactsMissing,
    Question,
    RouteAction,
    RoutedDevice,
    Rules,
)

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
    hops = question.path.hops if question.path else ()
    counted = max(len(hops), came.diversion_count, came.history_count)
    router = _Router(facts, rules, already_on_path=_devices_of(question.path), uncounted=counted - len(hops))
    end = router.answer(question)
    return _decision(question, end, router, came)


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A call as it reaches a device, None outside of what we know: who calls, and which diversions brought it there."""

    device: RoutedDevice | None
    caller: Caller
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class _End:
    """Where following the flows came to its end: what is to be done, and how the call arrived there."""

    action: RouteAction
    arrival: _Arrival
    target: RoutedDevice | str | None = None
    fax: RoutedDevice | None = None
    cause: int | None = None


@dataclass(slots=True)
class _Router:
    """One answer in the making, with the steps that explain it.

    `uncounted` is how many diversions the headers tell of beyond those of the path.
    """

    facts: Facts
    rules: Rules
    already_on_path: frozenset[int]
    uncounted: int
    steps: list[str] = field(default_factory=list)
    loops_cut: int = 0

    def device(self, device_id: int) -> RoutedDevice | None:
        if device_id < 0:
            return None
        if device_id not in self.facts.devices:
            raise FactsMissing(device_id)
        return self.facts.devices[device_id]

    def answer(self, question: Question) -> _End:
        hops = question.path.hops if question.path else ()
        device = self._asked_about(question)
        arrival = _Arrival(device, self._refolded(question.caller, hops), hops)
        if device is None:
            self.steps.append("the call is at no device of ours")
            return self._nothing(arrival, question)
        if question.is_emergency_callback:
            self.steps.append("a callback from an emergency centre, diverted by nothing")
            return self._nothing(arrival, question)
        if question.state is State.BEFORE_CALL:
            end = self._arrived(device, arrival)
        else:
            end = self._after_ringing(device, arrival, question.state)
        if end is None:
            return self._nothing(arrival, question)
        if end.action is RouteAction.RING and len(end.arrival.hops) > len(hops):
            return replace(end, action=RouteAction.FORWARD)
        if end.action is RouteAction.RING and question.path is None and device.is_untouched:
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
            flow = device.flow(hop.state) if device else EMPTY
            choice = flow.caller_id if isinstance(flow, Forward) else AsItComes()
            caller = fold(caller, own=device.caller_id, choice=choice) if device else caller
        return caller

    def _nothing(self, arrival: _Arrival, question: Question) -> _End:
        """Nothing is set: a call that we have not touched goes on as if we were not there, any other ends."""
        untouched = arrival.device is None or arrival.device.is_untouched or question.state is State.BEFORE_CALL
        if question.path is None and (untouched or question.is_emergency_callback):
            self.steps.append("carry on, nothing is ours to decide")
            return _End(RouteAction.NONE, arrival)
        cause = CAUSES[question.state]
        self.steps.append(f"ends with {cause}")
        return _End(RouteAction.END, arrival, cause=cause)

    def _arrived(self, device: RoutedDevice, arrival: _Arrival) -> _End | None:
        """What `device` does with a call that reaches it; None if it can neither ring nor pass the call on."""
        flow = device.flow(State.BEFORE_CALL)
        end: _End | None
        match flow:
            case Forward():
                end = self._forwarded(device, arrival, State.BEFORE_CALL, flow)
            case Voicemail():
                end = self._to_voicemail(device, arrival, State.BEFORE_CALL)
            case FaxDetect():
                end = self._to_fax(device, arrival, flow)
            case Empty():
                end = None
            case _ as never:
                assert_never(never)
        return end or self._rings(device, arrival)

    def _after_ringing(self, device: RoutedDevice, arrival: _Arrival, state: State) -> _End | None:
        """What `device` does with a call that it did not take; None if nothing is set for that, or it was refused."""
        flow = device.flow(state)
        match flow:
            case Forward():
                return self._forwarded(device, arrival, state, flow)
            case Voicemail():
                return self._to_voicemail(device, arrival, state)
            case Empty() | FaxDetect():
                self.steps.append(f"{_said(device.label)} {_WHEN[state]}: nothing set")
                return None
            case _ as never:
                assert_never(never)

    def _forwarded(self, device: RoutedDevice, arrival: _Arrival, state: State, forward: Forward) -> _End | None:
        """Where the call ends up by `forward`; None if the forward is refused."""
        name = forward.destination if isinstance(forward.destination, str) else forward.destination.label
        self.steps.append(f"{_said(device.label)} {_WHEN[state]}: forward to {_said(name)}")
        target = self._target(forward.destination)
        if target in {*self.already_on_path, *(hop.device_id for hop in arrival.hops), device.id}:
            self._cut("the call has been there, a loop")
            return None
        if self.uncounted + len(arrival.hops) >= self.rules.limit or len(arrival.hops) >= MAX_HOPS:
            self._cut("the call has been diverted as often as the limit lets it")
            return None
        passed_on = _Arrival(
            device,
            fold(arrival.caller, own=device.caller_id, choice=forward.caller_id),
            (*arrival.hops, Hop(device.id, state)),
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
        end = self._arrived(device, replace(passed_on, device=device))
        if end is None:
            self._refused(f"{_said(device.label)} can neither be rung nor pass the call on")
        return end

    def _to_number(self, number: str, passed_on: _Arrival) -> _End | None:
        if not (self.rules.can_dial_numbers and is_external_number(number)):
            self._refused("the number cannot be dialled here")
            return None
        return _End(RouteAction.FORWARD, passed_on, target=number)

    def _to_voicemail(self, device: RoutedDevice, arrival: _Arrival, state: State) -> _End:
        self.steps.append(f"{_said(device.label)} {_WHEN[state]}: voicemail")
        return _End(RouteAction.VOICEMAIL, arrival)

    def _to_fax(self, device: RoutedDevice, arrival: _Arrival, detection: FaxDetect) -> _End | None:
        self.steps.append(f"{_said(device.label)} before call: fax detection, to {_said(detection.fax.label)}")
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

    def _cut(self, why: str) -> None:
        self.loops_cut += 1
        self._refused(why)

    def _refused(self, why: str) -> None:
        self.steps.append(f"refused: {why}")


def _decision(question: Question, end: _End, router: _Router, came: Came) -> Decision:
    arrival = end.arrival
    diverters = [router.device(hop.device_id) for hop in arrival.hops]
    payer = diverters[-1] if diverters else None
    at_number = isinstance(end.target, str)
    diversion, history_info = write(
        came,
        _stops(diverters, arrival.hops, last=end.target or arrival.device),
        explained=len(question.path.hops) if question.path else 0,
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
    flow_id = question.path.flow_id if question.path else question.call_flow_id
    return Decision(
        action=end.action,
        target=end.target,
        ring_seconds=_ring_seconds(end.target, router.rules),
        fax=end.fax,
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
        flow_id=flow_id,
        path=Path(flow_id, arrival.hops, arrival.device.id if arrival.device and not at_number else None),
        explain=clean_line("; ".join(router.steps)),
        steps=tuple(router.steps),
        loops_cut=router.loops_cut,
    )


def _forwarder(device: RoutedDevice | None) -> Caller | None:
    """The device as the party that forwards to a trunk: its DID, else its caller ID; None where it has no number."""
    if device is None or not (numbers := _numbers_of(device)):
        return None
    return Caller(numbers[0], device.caller_id.name, Privacy.OFF)


def _ring_seconds(target: RoutedDevice | str | None, rules: Rules) -> int | None:
    if isinstance(target, RoutedDevice):
        return target.ring_seconds
    return None if target is None else rules.number_ring_seconds


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


def _devices_of(path: Path | None) -> frozenset[int]:
    if path is None:
        return frozenset()
    return frozenset(hop.device_id for hop in path.hops) | ({path.current} if path.current is not None else set())


def _said(text: str) -> str:
    # A semicolon ends a step; whatever else must not stand there is dropped from the whole line.
    return text.replace(";", ",")
