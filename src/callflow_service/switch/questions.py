"""Read what a switch asks, in the names that Asterisk, Kamailio and OpenSIPS share."""

import re
from collections.abc import Mapping
from typing import Final

from callflow_service.domain.callerid import Caller
from callflow_service.domain.callflow import MAX_ID, State
from callflow_service.domain.path import parse as parse_path
from callflow_service.service import Asked

_ID = re.compile(r"0*([0-9]{1,19})", re.ASCII)
_STATES: Final = {state.value: state for state in State} | {"": State.BEFORE_CALL}
_LONGEST_CALLED: Final = 64


class Senseless(Exception):
    """A question that nobody can answer: the switch is told to carry on."""


def read_question(values: Mapping[str, str]) -> Asked:
    """The question in the shared names.

    Raises:
        Senseless: It names no device, no number and no path, or an unknown state.
    """
    path = parse_path(values.get("path", ""))
    if path is None and values.get("state", "") not in _STATES:
        raise Senseless("unknown state")
    device, called = values.get("device", ""), values.get("called", "")
    if not device and not called and path is None:
        raise Senseless("no device, number or path")
    return Asked(
        device_id=_device_id(device) if device else None,
        called=called[:_LONGEST_CALLED] if called and not device else None,
        path=path,
        state=state_of(values),
        caller=Caller.from_wire(
            values.get("caller_number", ""), values.get("caller_name", ""), privacy=values.get("privacy", "")
        ),
        call_id=values.get("call_id", ""),
        diversion=values.get("diversion", ""),
        history_info=values.get("history_info", ""),
        explain=values.get("explain", "") == "1",
    )


def state_of(values: Mapping[str, str]) -> State:
    """The state asked about. An unknown one means that something went wrong with a call that is on its way."""
    return _STATES.get(values.get("state", ""), State.FAILED)


def _device_id(text: str) -> int:
    digits = _ID.fullmatch(text)
    # -1 is nobody's id, and so an unknown device.
    return int(digits[1]) if digits and int(digits[1]) <= MAX_ID else -1
