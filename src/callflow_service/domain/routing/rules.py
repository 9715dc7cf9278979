"""Which rule of a state decides about a call, and why the ones before it do not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from callflow_service.domain.callerid import Caller
from callflow_service.domain.callflow import ActiveAction, CallerIs, Conditions, Empty, InList, StateFlow, active
from callflow_service.domain.routing.words import Circumstances


@dataclass(frozen=True, slots=True)
class Call:
    """What rules are asked about: the original caller, the number that came in without its `+`, the circumstances."""

    caller: Caller
    called: str
    circumstances: Circumstances


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is done, by which rule (counted from 1; 0 where none decides), and the sentences that say why."""

    action: ActiveAction
    rule: int
    why: Sequence[str]


def choose(flow: StateFlow, call: Call, device_id: int) -> Chosen:
    """What a state of a device makes of a call."""
    why: list[str] = []
    for place, rule in enumerate(flow.rules, 1):
        if not rule.is_enabled:
            why.append(f"rule {rule.name} is switched off")
        elif missing := _missing(rule.conditions, call, device_id):
            why.append(f"rule {rule.name} does not hold: {missing}")
        else:
            why.append(f"rule {rule.name} holds")
            return Chosen(active(rule.do), place, why)
    return Chosen(active(flow.otherwise), 0, why)


def chosen_before(flow: StateFlow, rule: int) -> ActiveAction:
    """What a rule, or none (0), has a state do; nothing where there are fewer rules by now."""
    if rule == 0:
        return active(flow.otherwise)
    return active(flow.rules[rule - 1].do) if rule <= len(flow.rules) else Empty()


def _missing(conditions: Conditions, call: Call, device_id: int) -> str | None:
    """The first condition that does not hold, in words; None where all do."""
    is_open = call.circumstances.open_schedules
    if conditions.schedule is not None and conditions.schedule not in is_open:
        return f"schedule {conditions.schedule} is closed"
    if conditions.not_schedule is not None and conditions.not_schedule in is_open:
        return f"schedule {conditions.not_schedule} is open"
    if conditions.caller is not None and (wrong := _wrong_caller(conditions.caller, call, device_id)):
        return wrong
    if conditions.called and call.called not in {number.removeprefix("+") for number in conditions.called}:
        return "the call came in by another number"
    return None


def _wrong_caller(wanted: InList | CallerIs, call: Call, device_id: int) -> str | None:
    match wanted:
        case InList(list_id, is_in):
            if (list_id in call.circumstances.caller_lists) == is_in:
                return None
            return f"the caller is {'not ' if is_in else ''}in list {list_id}"
        case CallerIs.ANONYMOUS:
            return None if call.caller.is_anonymous else "the caller shows a number"
        case CallerIs.INTERNAL:
            return None if device_id in call.circumstances.internal_for else "the caller is external"
        case CallerIs.EXTERNAL:
            return None if device_id not in call.circumstances.internal_for else "the caller is internal"
        case _ as never:
            assert_never(never)
