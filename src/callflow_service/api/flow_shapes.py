"""The call flow as the API writes it, and as clients send it."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from callflow_service.resources.flows import Sent, SentState, States
from callflow_service.resources.types import SentMoment


class ShownState(SentState):
    """What a device does in one state, with its tag and what is worth knowing of it."""

    etag: str
    warnings: list[str] = Field([], description="What is worth knowing of what was set")


class FlowChange(Sent):
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


class Restore(Sent):
    """Back to how it was."""

    as_of: Annotated[SentMoment, Field(description="A time, RFC 3339", examples=["2026-11-26T12:00:00Z"])]
    force: bool = False


class Undo(Sent):
    """Take a change back."""

    force: bool = False
