"""What a device does with a call in each state, as it may be sent and as a world file has it."""

import re
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator

from callflow_service.domain.callflow import (
    MAX_CUSTOM_LENGTH,
    MAX_RING_SECONDS,
    MAX_RULES,
    MAX_STEPS,
    CallerIs,
    State,
    is_external_number,
)
from callflow_service.resources.models import Resource
from callflow_service.resources.types import Id, SentMoment

MAX_CALLED: Final = 100
"""The most DIDs that a rule can ask for."""


def _number(text: object) -> object:
    """A file has digits where JSON has a number."""
    return int(text) if isinstance(text, str) and re.fullmatch("[0-9]{3}", text) else text


class Sent(BaseModel):
    """What may be sent: no unknown key, and nothing quoted."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class DeviceCallerId(Sent):
    """The caller ID of the device that forwards."""

    kind: Literal["device"]


class SourceCallerId(Sent):
    """The caller ID that reached the device."""

    kind: Literal["source"]


class DidCallerId(Sent):
    """A DID that is assigned to the device."""

    kind: Literal["did"]
    did: Id


class CustomCallerId(Sent):
    """A number, a name, or `"Name" <number>`."""

    kind: Literal["custom"]
    text: Annotated[str, Field(min_length=1, max_length=MAX_CUSTOM_LENGTH)]


AnyCallerId = Annotated[DeviceCallerId | SourceCallerId | DidCallerId | CustomCallerId, Field(discriminator="kind")]


class To(Sent):
    """A device, or a number outside; exactly one of the two. `label` is for people, and not looked at."""

    device: Id | None = None
    number: Annotated[str | None, Field(max_length=64)] = None
    label: str | None = None


class ToDevice(Sent):
    """A device. `label` is for people, and not looked at."""

    device: Id
    label: str | None = None


Enabled = Annotated[bool, Field(description="Switched off, it acts as empty and keeps what it holds")]


class EmptyAction(Sent):
    """Nothing is set."""

    action: Literal["empty"] = "empty"
    enabled: Enabled = True


class VoicemailAction(Sent):
    """The call goes to the device's voicemail, or to that of another device."""

    action: Literal["voicemail"]
    of: ToDevice | None = None
    enabled: Enabled = True


class EndAction(Sent):
    """The call ends with a SIP status."""

    action: Literal["end"]
    cause: Annotated[Literal[486, 480, 603, 404], BeforeValidator(_number)]
    enabled: Enabled = True


class FaxDetectAction(Sent):
    """A fax that is heard goes to a FAX device; only before the call."""

    action: Literal["fax_detect"]
    to: ToDevice
    enabled: Enabled = True


class Step(Sent):
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


class ForwardAction(Sent):
    """The call goes to the first step that takes it, and after the last one to `then`."""

    action: Literal["forward"]
    steps: Annotated[list[Step], Field(min_length=1, max_length=MAX_STEPS)]
    then: AnyThen = EmptyAction()
    enabled: Enabled = True


AnyAction = Annotated[
    EmptyAction | ForwardAction | VoicemailAction | FaxDetectAction | EndAction, Field(discriminator="action")
]


class CallerInList(Sent):
    """The caller is in a caller list."""

    list: Id


class CallerNotInList(Sent):
    """The caller is not in a caller list."""

    not_list: Id


def _kind_of_caller(sent: object) -> str:
    """Which of the ways to say who calls is meant, so that what is wrong with it is told once."""
    match sent:
        case dict():
            return "not_in_list" if "not_list" in sent else "in_list"
        case CallerInList():
            return "in_list"
        case CallerNotInList():
            return "not_in_list"
        case _:
            return "word"


AnyCaller = Annotated[
    Annotated[CallerIs, Tag("word")]
    | Annotated[CallerInList, Tag("in_list")]
    | Annotated[CallerNotInList, Tag("not_in_list")],
    Discriminator(_kind_of_caller),
]

CHOICES: Final = {
    "otherwise": frozenset(("empty", "forward", "voicemail", "fax_detect", "end")),
    "do": frozenset(("empty", "forward", "voicemail", "fax_detect", "end")),
    "then": frozenset(("empty", "voicemail", "end")),
    "caller_id": frozenset(("device", "source", "did", "custom")),
    "caller": frozenset(("word", "in_list", "not_in_list")),
}
"""What stands behind a field in the place of an error, and is in no document: which of several shapes was meant."""


class Conditions(Sent):
    """What must hold for a rule to decide: all that is given."""

    schedule: Annotated[Id | None, Field(description="Id of a schedule that is open")] = None
    not_schedule: Annotated[Id | None, Field(description="Id of a schedule that is closed")] = None
    caller: AnyCaller | None = None
    called: Annotated[
        list[Annotated[str, Field(max_length=64)]],
        Field(max_length=MAX_CALLED, description="DIDs, by one of which the call came in"),
    ] = []


class FlowRule(Sent):
    """What is done with a call for which the conditions hold."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")]
    enabled: bool = True
    if_: Annotated[Conditions, Field(alias="if")] = Conditions()
    do: AnyAction


class SentState(Sent):
    """What a device does in one state: the first enabled rule whose conditions hold decides, else `otherwise`."""

    rules: Annotated[list[FlowRule], Field(max_length=MAX_RULES)] = []
    otherwise: AnyAction


class States(Sent):
    """The states that are set; those that are not named stay as they are."""

    before_call: SentState | None = None
    no_answer: SentState | None = None
    busy: SentState | None = None
    failed: SentState | None = None


class FlowItem(Resource):
    """What a device does with a call in each state; in a state that is not named, nothing is set."""

    device: Annotated[Id, Field(description="Id of the device")]
    states: States

    @field_validator("states")
    @classmethod
    def _possible(cls, states: States) -> States:
        for state in State:
            sent: SentState | None = getattr(states, state)
            for action in [sent.otherwise, *(rule.do for rule in sent.rules)] if sent else []:
                if isinstance(action, FaxDetectAction) and state is not State.BEFORE_CALL:
                    raise ValueError(f"cannot have fax_detect in {state}; it goes with before_call alone")
                for step in action.steps if isinstance(action, ForwardAction) else []:
                    if (step.to.device is None) == (step.to.number is None):
                        raise ValueError(f"must name a device or a number in each step of {state}, and not both")
                    if step.to.number is not None and not is_external_number(step.to.number):
                        raise ValueError(f"must have numbers of an optional + and 1 to 32 of 0-9 * # in {state}")
        return states
