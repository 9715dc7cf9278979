"""Read what a switch asks, in the names that Asterisk, Kamailio and OpenSIPS share."""

import re
from collections.abc import Mapping
from typing import Final

from callflow_service.domain.asked import Asked
from callflow_service.domain.callerid import Caller, read_wish
from callflow_service.domain.callflow import MAX_ID, NAMES_NOTHING, State
from callflow_service.domain.decoding import user_part
from callflow_service.domain.path import parse as parse_path

_ID = re.compile(r"0*([0-9]{1,19})", re.ASCII)
# RFC 7090: an emergency centre calls back the person who called it.
_EMERGENCY_CALLBACK: Final = "psap-callback"
_STATES: Final = {state.value: state for state in State} | {"": State.BEFORE_CALL}
# What a number or a device's name can be; the rest could not even be looked for.
_CALLED = re.compile("[^\\x00\\ud800-\\udfff]{1,64}")


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
    device, called = values.get("device", ""), _dialled(values, "called")
    if not device and not called and path is None:
        raise Senseless("no device, number or path")
    device_id = _device_id(device) if device else None
    if called and not device and not _CALLED.fullmatch(called):
        device_id, called = NAMES_NOTHING, ""
    wish = read_wish(values.get("privacy_header", ""), values.get("privacy", ""))
    return Asked(
        device_id=device_id,
        called=called if called and not device else None,
        path=path,
        state=state_of(values),
        caller=Caller.from_wire(_dialled(values, "caller_number"), values.get("caller_name", ""), privacy=wish.caller),
        call_id=values.get("call_id", ""),
        diversion=values.get("diversion", ""),
        history_info=values.get("history_info", ""),
        diversions_withheld=wish.diversions,
        is_emergency_callback=values.get("priority", "").strip().lower() == _EMERGENCY_CALLBACK,
        explain=values.get("explain", "") == "1",
    )


def state_of(values: Mapping[str, str]) -> State:
    """The state asked about. An unknown one means that something went wrong with a call that is on its way."""
    return _STATES.get(values.get("state", ""), State.FAILED)


def _dialled(values: Mapping[str, str], name: str) -> str:
    text = values.get(name, "")
    # A leading space is a + that was not escaped.
    return user_part(f"+{text[1:]}" if text.startswith(" ") else text)


def _device_id(text: str) -> int:
    digits = _ID.fullmatch(text)
    return int(digits[1]) if digits and int(digits[1]) <= MAX_ID else NAMES_NOTHING
