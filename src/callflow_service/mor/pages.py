"""Write MOR's XML pages."""

from typing import Final, Literal, assert_never

import xmltodict

from callflow_service.domain.callflow import (
    AsItComes,
    CallerId,
    CallFlow,
    Custom,
    Device,
    Empty,
    End,
    FaxDetect,
    Forward,
    FromDevice,
    FromDid,
    State,
    Voicemail,
    active,
)
from callflow_service.domain.changing import Change, DeviceCallFlow
from callflow_service.mor.xml_text import without_forbidden

MEDIA_TYPE: Final = "application/xml; charset=utf-8"

ErrorEnvelope = Literal["status", "page", "bare"]
"""How an error page is wrapped; MOR's own differ from call to call."""

_STATE_NAMES: Final = {
    State.BEFORE_CALL: "Before call",
    State.NO_ANSWER: "No answer",
    State.FAILED: "Failed",
    State.BUSY: "Busy",
}

Elements = dict[str, "str | Elements | list[Elements]"]


def update_page(change: Change) -> bytes:
    """The answer to a change that was made."""
    action, data, caller_id = _shown(change.flow)
    caller_id_type, caller_id_data = _caller_id(caller_id)
    return _page(
        {
            "page": {
                "status": "Callflow was successfully updated",
                "user": change.device.owner_name,
                "device": change.device.device.label,
                "callflow": {
                    "state": _STATE_NAMES[change.state],
                    "priority": "1",
                    "action": action,
                    "data": data,
                    "callerid_type": caller_id_type,
                    "callerid_data": caller_id_data,
                },
            }
        }
    )


def get_page(found: DeviceCallFlow) -> bytes:
    """The six rows that a device's call flow has in MOR."""
    label = found.device.device.label
    return _page(
        {
            "page": {
                "user": found.device.owner_name,
                "device": label,
                "callflow": [
                    _row("Before call", *_details(found, State.BEFORE_CALL)),
                    _row("Call", "Dial", f"{label}|{found.device.ring_seconds}"),
                    _row("Answered", "Hangup"),
                    _row("No answer", *_details(found, State.NO_ANSWER)),
                    _row("Busy", *_details(found, State.BUSY)),
                    _row("Failed", *_details(found, State.FAILED)),
                ],
            }
        }
    )


def error_page(text: str, envelope: ErrorEnvelope) -> bytes:
    """An error, wrapped as the operator's clients expect it."""
    error: Elements = {"error": text}
    match envelope:
        case "status":
            return _page({"page": {"status": error}})
        case "page":
            return _page({"page": error})
        case "bare":
            return _page(error)
        case _:
            assert_never(envelope)


def _row(  # noqa: PLR0913, PLR0917 - as many as MOR has columns
    state: str, action: str, data: str = "", data2: str = "", data3: str = "1", data4: str = ""
) -> Elements:
    return {
        "state": state,
        "priority": "1",
        "action": action,
        "data": data,
        "data2": data2,
        "data3": data3,
        "data4": data4,
        "data5": "",
    }


def _details(found: DeviceCallFlow, state: State) -> tuple[str, str, str, str, str]:
    flow = active(found.flows.get(state, Empty()))
    action, data, caller_id = _shown(flow)
    data2 = ""
    if isinstance(flow, Forward):
        data2 = "local" if isinstance(flow.steps[0].destination, Device) else "external"
    return action, data, data2, *_caller_id_columns(caller_id)


def _shown(flow: CallFlow) -> tuple[str, str, CallerId]:
    """The action's name, its data, and the caller ID, which is the device's for all but forwards."""
    match active(flow):
        case Empty() | End():
            return "", "", FromDevice()
        case Voicemail():
            return "Voicemail", "", FromDevice()
        case FaxDetect(fax):
            return "Fax detect", fax.label, FromDevice()
        case Forward(steps):
            first = steps[0].destination
            return "Forward", first.label if isinstance(first, Device) else first, steps[0].caller_id
        case _ as never:
            assert_never(never)


def _caller_id(caller_id: CallerId) -> tuple[str, str]:
    match caller_id:
        case FromDevice():
            return "From Device", ""
        case AsItComes():
            return "Same as comes", ""
        case FromDid(_, number):
            return "From DID", number
        case Custom(text):
            return "Custom", text
        case _:
            assert_never(caller_id)


def _caller_id_columns(caller_id: CallerId) -> tuple[str, str]:
    match caller_id:
        case FromDevice():
            return "1", ""
        case AsItComes():
            return "2", ""
        case FromDid(did_id, _):
            return "3", str(did_id)
        case Custom(text):
            return "4", text
        case _:
            assert_never(caller_id)


def _page(elements: Elements) -> bytes:
    text = xmltodict.unparse(elements, encoding="UTF-8", pretty=True, indent="  ", short_empty_elements=True)
    # The one place where text meets XML. A parser reads a bare carriage return as a newline, so it goes out escaped.
    return without_forbidden(text).replace("\r", "&#13;").encode() + b"\n"
