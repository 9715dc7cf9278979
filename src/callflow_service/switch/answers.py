"""Write a decision in the names that Asterisk, OpenSIPS and Kamailio share."""

from collections.abc import Mapping
from typing import Final

from callflow_service.domain.dialing import DialPlan, is_safe_name
from callflow_service.domain.path import parse as parse_path
from callflow_service.domain.routing import CAUSES, Decision, RouteAction, RoutedDevice
from callflow_service.switch.questions import state_of

NAMES: Final = (
    "action",
    "dial",
    "ring_seconds",
    "fax_dial",
    "mailbox",
    "cause",
    "caller_number",
    "caller_name",
    "privacy",
    "reason",
    "device",
    "payer",
    "payer_device",
    "leg",
    "flow_id",
    "path",
    "diversion",
    "history_info",
    "explain",
)
"""What every answer holds; some switches keep the old value of a name that is missing.

What can be long stands last: Asterisk cuts an answer at 4,096 characters, and the rest must be there all the same.
"""

TRUNK_NAMES: Final = ("from_host", "asserted_number", "asserted_name", "asserted_privacy")
"""What answers hold besides for a switch user with a `trunk`."""

Answer = dict[str, str]


def shared_answer(decision: Decision, plan: DialPlan, *, explain: bool) -> Answer:
    """The decision, every value a text."""
    return {
        "action": decision.action,
        "dial": dial_string(decision, plan),
        "ring_seconds": _number(decision.ring_seconds),
        "fax_dial": _device(decision.fax, plan),
        "mailbox": mailbox(decision),
        "cause": _number(decision.cause),
        "caller_number": decision.caller.number,
        "caller_name": decision.caller.name,
        "privacy": decision.caller.privacy,
        "reason": decision.reason,
        "device": _number(decision.device.id) if decision.device else "",
        "payer": decision.payer,
        "payer_device": _number(decision.payer_device),
        "leg": str(decision.leg),
        "flow_id": decision.flow_id,
        # A switch that carries on as if we were not there has nothing to continue.
        "path": "" if decision.action is RouteAction.NONE else str(decision.path),
        **_trunk(decision, plan),
        "diversion": decision.diversion,
        "history_info": decision.history_info,
        "explain": decision.explain if explain else "",
    }


def carry_on_answer(values: Mapping[str, str]) -> Answer:
    """As if we were not there; a call that we had our hands on ends with the cause that came."""
    answer = dict.fromkeys(NAMES, "")
    path = parse_path(values.get("path", ""))
    if path is None:
        return answer | {"action": RouteAction.NONE}
    cause = str(CAUSES[state_of(values)])
    return answer | {"action": RouteAction.END, "cause": cause, "flow_id": path.flow_id, "path": str(path)}


def mailbox(decision: Decision) -> str:
    """The name of the device whose flow said voicemail; empty for any other action."""
    if decision.mailbox is None:
        return ""
    return decision.mailbox.name if is_safe_name(decision.mailbox.name) else ""


def _trunk(decision: Decision, plan: DialPlan) -> Answer:
    if plan.legs.trunk is None:
        return {}
    values = dict.fromkeys(TRUNK_NAMES, "")
    if decision.is_to_number:
        values["from_host"] = plan.legs.trunk.from_host
    if asserted := decision.asserted:
        values |= {
            "asserted_number": asserted.number,
            "asserted_name": asserted.name,
            "asserted_privacy": asserted.privacy,
        }
    return values


def dial_string(decision: Decision, plan: DialPlan) -> str:
    """Whom to dial now, in the switch's words; empty where nobody is."""
    if decision.mailbox:
        return plan.voicemail(decision.mailbox.technology, decision.mailbox.name)
    if isinstance(decision.target, str):
        return plan.number(decision.target)
    return _device(decision.target, plan)


def _device(device: RoutedDevice | None, plan: DialPlan) -> str:
    return plan.device(device.technology, device.name) if device else ""


def _number(number: int | None) -> str:
    return "" if number is None else str(number)
