"""A state's call flow as a document of plain values: in JSON, in the world file, and where the tables keep it whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, assert_never

from callflow_service.domain.callflow import (
    Action,
    ActiveAction,
    AsItComes,
    CallerId,
    CallerIdKind,
    CallerIs,
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
    StateFlow,
    Step,
    SwitchedOff,
    Voicemail,
)

Document = dict[str, Any]

END = "end"
"""The action that MOR's calls have no word for."""


@dataclass(frozen=True, slots=True)
class Names:
    """What is named by its id in a document: the devices, and the numbers of DIDs."""

    devices: Mapping[int, Device]
    dids: Mapping[int, str]


class _Devices(dict[int, Device]):
    def __missing__(self, id_: int) -> Device:
        return Device(id_, "", "")


class _Numbers(dict[int, str]):
    def __missing__(self, id_: int) -> str:
        return ""


BY_ID: Final = Names(_Devices(), _Numbers())
"""Any device and any DID by its id alone: whether it is there, somebody else finds out."""


def state_document(flow: StateFlow) -> Document:
    """A state, with labels for people."""
    return {"rules": [rule_document(rule) for rule in flow.rules], "otherwise": action_document(flow.otherwise)}


def rule_document(rule: Rule) -> Document:
    """A rule, with labels for people."""
    return {
        "name": rule.name,
        "enabled": rule.is_enabled,
        "if": _conditions(rule.conditions),
        "do": action_document(rule.do),
    }


def action_document(flow: CallFlow) -> Document:
    """An action, with labels for people."""
    match flow:
        case SwitchedOff(action):
            return action_document(action) | {"enabled": False}
        case Empty():
            return {"action": Action.EMPTY.value}
        case Voicemail(of):
            return {"action": Action.VOICEMAIL.value} | ({"of": _device(of)} if of else {})
        case FaxDetect(fax):
            return {"action": Action.FAX_DETECT.value, "to": _device(fax)}
        case End(cause):
            return {"action": END, "cause": cause}
        case Forward(steps, then):
            return {
                "action": Action.FORWARD.value,
                "steps": [_step(step) for step in steps],
                "then": action_document(then),
            }
        case _ as never:
            assert_never(never)


def read_rules(documents: list[Document], names: Names) -> tuple[Rule, ...]:
    """The rules of a state as they are stored."""
    return tuple(_read_rule(document, names) for document in documents)


def read_action(document: Document, names: Names) -> CallFlow:
    """An action as it is stored."""
    action = _read_active(document, names)
    return action if document.get("enabled", True) else SwitchedOff(action)


def without_labels(document: Document) -> Document:
    """The same, as it is stored: labels can change, and are found by the ids."""
    return {name: _without_labels(value) for name, value in document.items()}


def _without_labels(value: Any) -> Any:  # noqa: ANN401 - whatever stands in a document
    match value:
        case {"device": device, "label": _}:
            return {"device": device}
        case dict():
            return without_labels(value)
        case list():
            return [_without_labels(each) for each in value]
        case _:
            return value


def _device(device: Device) -> Document:
    return {"device": device.id, "label": device.label}


def _step(step: Step) -> Document:
    to = _device(step.destination) if isinstance(step.destination, Device) else {"number": step.destination}
    document: Document = {"to": to, "ring_seconds": step.ring_seconds, "caller_id": caller_id_document(step.caller_id)}
    if step.held_until:
        document["held_until"] = step.held_until.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return document


def caller_id_document(choice: CallerId) -> Document:
    """Which caller ID is shown."""
    match choice:
        case FromDevice():
            return {"kind": CallerIdKind.DEVICE.value}
        case AsItComes():
            return {"kind": CallerIdKind.SOURCE.value}
        case FromDid(id=did):
            return {"kind": CallerIdKind.DID.value, "did": did}
        case Custom(text=text):
            return {"kind": CallerIdKind.CUSTOM.value, "text": text}
        case _ as never:
            assert_never(never)


def _conditions(conditions: Conditions) -> Document:
    document: Document = {}
    if conditions.schedule is not None:
        document["schedule"] = conditions.schedule
    if conditions.not_schedule is not None:
        document["not_schedule"] = conditions.not_schedule
    match conditions.caller:
        case InList(list_id, is_in):
            document["caller"] = {"list" if is_in else "not_list": list_id}
        case CallerIs() as word:
            document["caller"] = word.value
        case None:
            pass
        case _ as never:
            assert_never(never)
    if conditions.called:
        document["called"] = list(conditions.called)
    return document


def _read_rule(document: Document, names: Names) -> Rule:
    sent = document["if"]
    caller: InList | CallerIs | None
    match sent.get("caller"):
        case {"list": list_id}:
            caller = InList(list_id)
        case {"not_list": list_id}:
            caller = InList(list_id, is_in=False)
        case None:
            caller = None
        case word:
            caller = CallerIs(word)
    conditions = Conditions(sent.get("schedule"), sent.get("not_schedule"), caller, tuple(sent.get("called", ())))
    return Rule(document["name"], conditions, read_action(document["do"], names), document["enabled"])


def _read_active(document: Document, names: Names) -> ActiveAction:
    match document["action"]:
        case Action.EMPTY:
            return Empty()
        case Action.VOICEMAIL:
            return _read_voicemail(document, names)
        case Action.FAX_DETECT:
            return FaxDetect(names.devices[document["to"]["device"]])
        case Action.FORWARD:
            steps = tuple(_read_step(step, names) for step in document["steps"])
            return Forward(steps, _read_then(document["then"], names))
        case _:
            return End(document["cause"])


def _read_then(document: Document, names: Names) -> Empty | Voicemail | End:
    match document["action"]:
        case Action.EMPTY:
            return Empty()
        case Action.VOICEMAIL:
            return _read_voicemail(document, names)
        case _:
            return End(document["cause"])


def _read_voicemail(document: Document, names: Names) -> Voicemail:
    of = document.get("of")
    return Voicemail(names.devices[of["device"]] if of else None)


def _read_step(document: Document, names: Names) -> Step:
    to, held = document["to"], document.get("held_until")
    return Step(
        to["number"] if to.get("device") is None else names.devices[to["device"]],
        _read_caller_id(document["caller_id"], names),
        document["ring_seconds"],
        datetime.fromisoformat(held) if held else None,
    )


def _read_caller_id(document: Document, names: Names) -> CallerId:
    match document["kind"]:
        case CallerIdKind.DEVICE:
            return FromDevice()
        case CallerIdKind.SOURCE:
            return AsItComes()
        case CallerIdKind.DID:
            return FromDid(document["did"], names.dids[document["did"]])
        case _:
            return Custom(document["text"])


def row_document(stored: Document | None) -> Document:
    """A row as the history keeps it, as a state is sent; nothing is as good as empty."""
    if stored is None:
        return {"rules": [], "otherwise": {"action": "empty"}}
    return {"rules": stored.get("rules") or [], "otherwise": stored.get("otherwise") or _row_action(stored)}


def _row_action(stored: Document) -> Document:
    match stored["action"]:
        case "forward":
            device, number = stored["target_device_id"], stored["target_number"]
            caller_id = {"kind": stored["caller_id"]}
            if caller_id["kind"] == "did":
                caller_id["did"] = stored["caller_id_did_id"]
            if caller_id["kind"] == "custom":
                caller_id["text"] = stored["caller_id_text"]
            to = {"number": number} if device is None else {"device": device}
            step = {"to": to, "ring_seconds": None, "caller_id": caller_id}
            return {"action": "forward", "steps": [step], "then": {"action": "empty"}}
        case "fax_detect":
            return {"action": "fax_detect", "to": {"device": stored["target_device_id"]}}
        case action:
            return {"action": action}
