"""The call flow as the API writes it, and as clients send it."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from callflow_service.api.shapes import Id, SentMoment
from callflow_service.domain.callflow import (
    MAX_CUSTOM_LENGTH,
    MAX_RING_SECONDS,
    MAX_RULES,
    MAX_STEPS,
    CallerIs,
)

MAX_CALLED: Final = 100
"""The most DIDs that a rule can ask for."""


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


Enabled = Annotated[bool, Field(description="Switched off, it acts as empty and keeps what it holds")]


class EmptyAction(_Sent):
    """Nothing is set."""

    action: Literal["empty"] = "empty"
    enabled: Enabled = True


class VoicemailAction(_Sent):
    """The call goes to the device's voicemail, or to that of another device."""

    action: Literal["voicemail"]
    of: ToDevice | None = None
    enabled: Enabled = True


class EndAction(_Sent):
    """The call ends with a SIP status."""

    action: Literal["end"]
    cause: Literal[486, 480, 603, 404]
    enabled: Enabled = True


class FaxDetectAction(_Sent):
    """A fax that is heard goes to a FAX device; only before the call."""

    action: Literal["fax_detect"]
    to: ToDevice
    enabled: Enabled = True


class Step(_Sent):
    """One place that a forward tries."""

    to: To
    ring_seconds: Annotated[
        int | None, Field(ge=1, le=MAX_RING_SECONDS, description="How long it rings; null: as the device, the setting")
    ] = None
    caller_id: AnyCallerId = Field(default_factory=lambda: DeviceCallerId(kind="device"))
    held_until: Annotated[
        SentMoment | None, Field(description="Calls that begin before skip the step; set by the service alone")
    ] = None


AnyThen = Annotated[EmptyAction | VoicemailAction | EndAction, Field(discriminator="action")]


class ForwardAction(_Sent):
    """The call goes to the first step that takes it, and after the last one to `then`."""

    action: Literal["forward"]
    steps: Annotated[list[Step], Field(min_length=1, max_length=MAX_STEPS)]
    then: AnyThen = EmptyAction()
    enabled: Enabled = True


AnyAction = Annotated[
    EmptyAction | ForwardAction | VoicemailAction | FaxDetectAction | EndAction, Field(discriminator="action")
]


class CallerInList(_Sent):
    """The caller is in a caller list."""

    list: Id


class CallerNotInList(_Sent):
    """The caller is not in a caller list."""

    not_list: Id


class Conditions(_Sent):
    """What must hold for a rule to decide: all that is given."""

    schedule: Annotated[Id | None, Field(description="Id of a schedule that is open")] = None
    not_schedule: Annotated[Id | None, Field(description="Id of a schedule that is closed")] = None
    caller: CallerIs | CallerInList | CallerNotInList | None = None
    called: Annotated[
        list[Annotated[str, Field(max_length=64)]],
        Field(max_length=MAX_CALLED, description="DIDs, by one of which the call came in"),
    ] = []


class FlowRule(_Sent):
    """What is done with a call for which the conditions hold."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")]
    enabled: bool = True
    if_: Annotated[Conditions, Field(alias="if")] = Conditions()
    do: AnyAction


class SentState(_Sent):
    """What a device does in one state: the first enabled rule whose conditions hold decides, else `otherwise`."""

    rules: Annotated[list[FlowRule], Field(max_length=MAX_RULES)] = []
    otherwise: AnyAction


class ShownState(SentState):
    """What a device does in one state, with its tag and what is worth knowing of it."""

    etag: str
    warnings: list[str] = []


class States(_Sent):
    """The states that are set; those that are not named stay as they are."""

    before_call: SentState | None = None
    no_answer: SentState | None = None
    busy: SentState | None = None
    failed: SentState | None = None


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


def stored_shape(stored: dict[str, Any] | None) -> dict[str, Any]:
    """A row as the history keeps it, as a state is sent; nothing is as good as empty."""
    if stored is None:
        return {"rules": [], "otherwise": {"action": "empty"}}
    return {"rules": stored.get("rules") or [], "otherwise": stored.get("otherwise") or _stored_action(stored)}


def _stored_action(stored: dict[str, Any]) -> dict[str, Any]:
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
