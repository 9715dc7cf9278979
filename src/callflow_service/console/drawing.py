"""Draw call flows for a plain terminal, from the API's documents: a small tree, and a few words for a change."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.tree import Tree

Document = Mapping[str, Any]

_TITLES: Final = {
    "before_call": "before the call",
    "no_answer": "no answer",
    "busy": "busy",
    "failed": "failed",
}
_SHOWS: Final = {"device": "", "source": "shows the caller"}


def draw_flow(flow: Document, arrow: str) -> Tree:
    """The states of a device, and where each leads."""
    device = flow["device"]
    tree = Tree(f"{device['label']}, device {device['id']} of {device['owner']}")
    for name, state in flow["states"].items():
        _draw_state(tree, name, state, arrow)
    return tree


def _draw_state(tree: Tree, name: str, state: Document, arrow: str) -> None:
    title = f"{_TITLES.get(name, name):15}"
    otherwise = _leads(state["otherwise"], arrow)
    if not state.get("rules"):
        tree.add(f"{title} {otherwise}")
        return
    branch = tree.add(title.rstrip())
    for rule in state["rules"]:
        switched_off = "" if rule.get("enabled", True) else " (switched off)"
        condition = _condition(rule.get("if") or {})
        branch.add(f"{rule.get('name') or 'a rule'}{switched_off}: if {condition}").add(_leads(rule["do"], arrow))
    branch.add(f"otherwise: {otherwise}")


def in_words(state: Document | None, arrow: str) -> str:
    """Where a state leads, in one line."""
    if state is None:
        return ""
    rules = [f"{rule.get('name') or 'a rule'} {_leads(rule['do'], arrow)}" for rule in state.get("rules") or []]
    return "; ".join([*rules, _leads(state["otherwise"], arrow)])


def _leads(action: Document, arrow: str) -> str:
    kind = action["action"]
    switched_off = "" if action.get("enabled", True) else " (switched off)"
    match kind:
        case "empty":
            said = "nothing is set"
        case "forward":
            steps = [f"{arrow} {_step(step)}" for step in action["steps"]]
            then = action.get("then") or {"action": "empty"}
            said = " ".join(steps if then["action"] == "empty" else [*steps, _leads(then, arrow)])
        case "voicemail":
            of = action.get("of")
            said = f"{arrow} voicemail{f' of {_target(of)}' if of else ''}"
        case "fax_detect":
            said = f"{arrow} {_target(action['to'])} where a fax is heard"
        case "end":
            said = f"{arrow} the call ends with {action.get('cause')}"
        case _:
            # What a later release knows.
            rest = {name: value for name, value in action.items() if name not in {"action", "enabled"}}
            said = f"{arrow} {kind}{f' {json.dumps(rest, ensure_ascii=False)}' if rest else ''}"
    return said + switched_off


def _step(step: Document) -> str:
    details = [f"{step['ring_seconds']} s"] if step.get("ring_seconds") else []
    details += [shown for shown in [_caller_id(step.get("caller_id") or {"kind": "device"})] if shown]
    return f"{_target(step['to'])} ({', '.join(details)})" if details else _target(step["to"])


def _target(to: Document) -> str:
    if to.get("device") is None:
        return str(to.get("number"))
    return f"{to['label']}, device {to['device']}" if to.get("label") else f"device {to['device']}"


def _caller_id(caller_id: Document) -> str:
    match caller_id:
        case {"kind": "did", "did": did}:
            return f"shows DID {did}"
        case {"kind": "custom", "text": text}:
            return f"shows {text}"
        case {"kind": kind}:
            return _SHOWS.get(kind, f"shows {kind}")
        case _:
            return ""


def _condition(wanted: Document) -> str:
    return " and ".join(_conditions(wanted)) or "anything"


def _conditions(wanted: Document) -> Iterator[str]:
    for name, value in wanted.items():
        match name, value:
            case "schedule", _:
                yield f"in schedule {value}"
            case "not_schedule", _:
                yield f"not in schedule {value}"
            case "caller", {"list": found}:
                yield f"the caller is in list {found}"
            case "caller", {"not_list": found}:
                yield f"the caller is not in list {found}"
            case "caller", _:
                yield f"the caller is {value}"
            case "called", list():
                yield f"{' or '.join(map(str, value))} is called"
            case _ if value is not None:
                yield f"{name} is {json.dumps(value, ensure_ascii=False)}"
