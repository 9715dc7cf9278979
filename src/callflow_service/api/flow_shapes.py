"""The call flow as the API writes it, and as clients send it."""

from typing import Annotated, Any, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field

from callflow_service.api.shapes import Id, SentMoment
from callflow_service.domain.callflow import (
    MAX_CUSTOM_LENGTH,
    AsItComes,
    CallerId,
    CallFlow,
    Custom,
    Device,
    Empty,
    FaxDetect,
    Forward,
    FromDevice,
    FromDid,
    Voicemail,
)


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class DeviceCallerId(_Sent):
    """The caller ID of the device that forwards."""

    kind: Literal["device"]


class SourceCallerId(_Sent):
    """The caller ID that reached the device."""

    kind: Literal["source"]


class DidCallerId(_Sent):
    """A DID that is assigned to the device."""

    kind: Literal["did"]
    did: Id


class CustomCallerId(_Sent):
    """A number, a name, or `"Name" <number>`."""

    kind: Literal["custom"]
    text: Annotated[str, Field(min_length=1, max_length=MAX_CUSTOM_LENGTH)]


AnyCallerId = Annotated[DeviceCallerId | SourceCallerId | DidCallerId | CustomCallerId, Field(discriminator="kind")]


class To(_Sent):
    """A device, or a number outside; exactly one of the two. `label` is for people, and not looked at."""

    device: Id | None = None
    number: Annotated[str | None, Field(max_length=64)] = None
    label: str | None = None


class ToDevice(_Sent):
    """A device. `label` is for people, and not looked at."""

    device: Id
    label: str | None = None


class EmptyAction(_Sent):
    """Nothing is set."""

    action: Literal["empty"] = "empty"


class Step(_Sent):
    """Where a forward goes."""

    to: To
    ring_seconds: Annotated[None, Field(description="How long it rings: the device's own ring time")] = None
    caller_id: AnyCallerId = Field(default_factory=lambda: DeviceCallerId(kind="device"))


class ForwardAction(_Sent):
    """The call goes on to a device or a number."""

    action: Literal["forward"]
    steps: Annotated[list[Step], Field(min_length=1, max_length=1)]
    then: EmptyAction = EmptyAction()


class VoicemailAction(_Sent):
    """The call goes to the device's voicemail."""

    action: Literal["voicemail"]


class FaxDetectAction(_Sent):
    """A fax that is heard goes to a FAX device; only before the call."""

    action: Literal["fax_detect"]
    to: ToDevice


AnyAction = Annotated[EmptyAction | ForwardAction | VoicemailAction | FaxDetectAction, Field(discriminator="action")]


class StateFlow(_Sent):
    """What a device does in one state."""

    rules: Annotated[list[Any], Field(max_length=0, description="No rules can be set yet")] = []
    otherwise: AnyAction


class ShownState(StateFlow):
    """What a device does in one state, with its tag and what is worth knowing of it."""

    etag: str
    warnings: list[str] = []


class States(_Sent):
    """The states that are set; those that are not named stay as they are."""

    before_call: StateFlow | None = None
    no_answer: StateFlow | None = None
    busy: StateFlow | None = None
    failed: StateFlow | None = None


class FlowChange(_Sent):
    """Several states at once. `device` and `etag` may be sent back as they were shown, and are not looked at."""

    states: States
    device: Any = None
    etag: Any = None


class FlowDevice(BaseModel):
    """Whose call flow it is."""

    id: int
    label: str
    owner: str


class ShownFlow(BaseModel):
    """The whole call flow of a device."""

    device: FlowDevice
    etag: str
    states: States


class Restore(_Sent):
    """Back to how it was."""

    as_of: Annotated[SentMoment, Field(description="A time, RFC 3339", examples=["2026-11-26T12:00:00Z"])]
    force: bool = False


class Undo(_Sent):
    """Take a change back."""

    force: bool = False


def state_shape(flow: CallFlow) -> dict[str, Any]:
    """What a device does in one state, as it is shown."""
    return {"rules": [], "otherwise": _action(flow)}


def stored_shape(stored: dict[str, Any] | None) -> dict[str, Any]:
    """The same of a row as the history keeps it; nothing is as good as empty."""
    if stored is None:
        return state_shape(Empty())
    match stored["action"]:
        case "forward":
            device, number = stored["target_device_id"], stored["target_number"]
            caller_id = {"kind": stored["caller_id"]}
            if caller_id["kind"] == "did":
                caller_id["did"] = stored["caller_id_did_id"]
            if caller_id["kind"] == "custom":
                caller_id["text"] = stored["caller_id_text"]
            to = {"number": number} if device is None else {"device": device}
            return {"rules": [], "otherwise": _forward(to, caller_id)}
        case "fax_detect":
            return {"rules": [], "otherwise": {"action": "fax_detect", "to": {"device": stored["target_device_id"]}}}
        case action:
            return {"rules": [], "otherwise": {"action": action}}


def _action(flow: CallFlow) -> dict[str, Any]:
    match flow:
        case Empty():
            return {"action": "empty"}
        case Voicemail():
            return {"action": "voicemail"}
        case FaxDetect(fax):
            return {"action": "fax_detect", "to": {"device": fax.id, "label": fax.label}}
        case Forward(destination, choice):
            to: dict[str, Any] = {"number": destination}
            if isinstance(destination, Device):
                to = {"device": destination.id, "label": destination.label}
            return _forward(to, _caller_id(choice))
        case _ as never:
            assert_never(never)


def _forward(to: dict[str, Any], caller_id: dict[str, Any]) -> dict[str, Any]:
    step = {"to": to, "ring_seconds": None, "caller_id": caller_id}
    return {"action": "forward", "steps": [step], "then": {"action": "empty"}}


def _caller_id(choice: CallerId) -> dict[str, Any]:
    match choice:
        case FromDevice():
            return {"kind": "device"}
        case AsItComes():
            return {"kind": "source"}
        case FromDid(id=did):
            return {"kind": "did", "did": did}
        case Custom(text=text):
            return {"kind": "custom", "text": text}
        case _ as never:
            assert_never(never)
