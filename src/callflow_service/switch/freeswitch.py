"""FreeSWITCH: mod_xml_curl's dialplan, in its own variables and its own XML."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, assert_never

import xmltodict

from callflow_service.domain.asked import Asked
from callflow_service.domain.callerid import Caller, Privacy
from callflow_service.domain.callflow import State
from callflow_service.domain.dialing import DialPlan, is_safe_name
from callflow_service.domain.path import parse as parse_path
from callflow_service.domain.routing import Decision, RouteAction
from callflow_service.switch.answers import dial_string, shared_answer
from callflow_service.switch.questions import Senseless, read_question

NEXT: Final = "callflow-next"
"""The extension that our dialplan transfers to for the next question."""

FAX: Final = "callflow-fax"
"""The extension, of the shipped static dialplan, that a call goes to once a fax is heard."""

POST_VARIABLES: Final = (
    "Hunt-Destination-Number",
    "Hunt-Context",
    "Caller-Destination-Number",
    "Caller-Context",
    "Caller-Caller-ID-Number",
    "Caller-Caller-ID-Name",
    "Caller-Privacy-Hide-Number",
    "Caller-Privacy-Hide-Name",
    "Unique-ID",
    "variable_sip_call_id",
    "variable_sip_h_Diversion",
    "variable_sip_i_diversion",
    "variable_sip_history_info",
    "variable_callflow_path",
    "variable_callflow_state",
    "variable_callflow_privacy",
)
"""What is read of a request; the shipped configuration lets FreeSWITCH send no more."""

_MEDIA_TYPE: Final = "text/xml; charset=utf-8"
_CONTEXT = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_CAUSE = re.compile(r"[A-Z_]{1,40}", re.ASCII)
_ARRAY: Final = "ARRAY::"

# What originate_disposition says, where it is not that something failed.
_STATES: Final = {
    "USER_BUSY": State.BUSY,
    "CALL_REJECTED": State.BUSY,
    "NO_ANSWER": State.NO_ANSWER,
    "ALLOTTED_TIMEOUT": State.NO_ANSWER,
    "NO_USER_RESPONSE": State.NO_ANSWER,
    "PROGRESS_TIMEOUT": State.NO_ANSWER,
}
_OVER: Final = frozenset({"SUCCESS", "NORMAL_CLEARING", "ORIGINATOR_CANCEL"})
_HANGUP_CAUSES: Final = {486: "USER_BUSY", 480: "NO_ANSWER", 503: "NORMAL_TEMPORARY_FAILURE"}
_DEFAULT_CAUSE: Final = "NORMAL_TEMPORARY_FAILURE"

Action = tuple[str, str]


@dataclass(frozen=True, slots=True)
class FreeSwitch:
    """Answers with a dialplan that bridges, keeps path and state in channel variables, and comes back to ask on."""

    name: str = "freeswitch"

    @property
    def templates(self) -> Mapping[str, str]:
        """How FreeSWITCH dials where the switch user says nothing else."""
        return {"default": "user/{name}@{domain}", "number": "sofia/gateway/trunk/{number}"}

    def read(self, values: Mapping[str, str]) -> Asked:
        """The question.

        Raises:
            Senseless: It is of another section, out of a context that cannot be named, or for an extension of ours from
                outside.
        """
        if values.get("section") != "dialplan" or not _context(values):
            raise Senseless("no dialplan request")
        destination = _destination(values)
        question = {
            "caller_number": values.get("Caller-Caller-ID-Number", ""),
            "caller_name": values.get("Caller-Caller-ID-Name", ""),
            "privacy": _privacy(values),
            "call_id": _first(values, "variable_sip_call_id", "Unique-ID"),
            "diversion": _diversion(values),
            "history_info": values.get("variable_sip_history_info", ""),
            "explain": "1",
        }
        if destination == NEXT:
            path = values.get("variable_callflow_path", "")
            if parse_path(path) is None:
                raise Senseless("an extension of ours, dialled from outside")
            if values.get("variable_callflow_state", "") in _OVER:
                raise Senseless("the call is over")
            question |= {"path": path, "state": _state(values)}
        elif not destination or destination == FAX:
            raise Senseless("no number was dialled")
        else:
            question["called"] = destination
        return read_question(question)

    def write(self, decision: Decision, plan: DialPlan, asked: Asked, values: Mapping[str, str]) -> tuple[str, bytes]:
        """The dialplan for the decision, with its media type."""
        context = _context(values)
        answer = shared_answer(decision, plan, explain=True)
        actions: list[Action] = [("log", f"INFO callflow {decision.flow_id}: {answer['explain']}")]
        match decision.action:
            case RouteAction.NONE:
                return self.carry_on(values)
            case RouteAction.END:
                actions.append(("hangup", _hangup_cause(values, _HANGUP_CAUSES.get(decision.cause or 0))))
            case RouteAction.VOICEMAIL:
                actions += _shown(decision.caller, asked.caller)
                actions += _voicemail(decision, plan)
            case RouteAction.FAX:
                actions += _fax(answer["fax_dial"], context)
                actions += _leg(decision, plan, asked, context)
            case RouteAction.RING | RouteAction.FORWARD:
                actions += _leg(decision, plan, asked, context)
            case _ as never:
                assert_never(never)
        return _MEDIA_TYPE, _dialplan(actions, context)

    def carry_on(self, values: Mapping[str, str]) -> tuple[str, bytes]:
        """FreeSWITCH looks further; a call that we had our hands on ends with the cause that came."""
        context = _context(values)
        is_ours = _destination(values) == NEXT and parse_path(values.get("variable_callflow_path", ""))
        if context and is_ours:
            return _MEDIA_TYPE, _dialplan([("hangup", _hangup_cause(values, None))], context)
        return _MEDIA_TYPE, _document({"section": {"@name": "result", "result": {"@status": "not found"}}})


def _leg(decision: Decision, plan: DialPlan, asked: Asked, context: str) -> list[Action]:
    return [
        ("set", "continue_on_fail=true"),
        ("set", "hangup_after_bridge=true"),
        ("set", f"callflow_path={decision.path}"),
        ("set", f"callflow_privacy={asked.caller.privacy}"),
        *_shown(decision.caller, asked.caller),
        *_chain(decision),
        ("bridge", f"[leg_timeout={decision.ring_seconds}]{dial_string(decision, plan)}"),
        ("set", "callflow_state=${originate_disposition}"),
        ("transfer", f"{NEXT} XML {context}"),
    ]


def _chain(decision: Decision) -> list[Action]:
    """The headers of a leg: exported and not set in braces, where a comma would end them; never what came in unread."""
    chains = (("Diversion", decision.diversion), ("History-Info", decision.history_info))
    return [
        ("export", f"nolocal:sip_h_{header}={chain}") if chain else ("unset", f"sip_h_{header}")
        for header, chain in chains
    ]


def _shown(shown: Caller, came: Caller) -> list[Action]:
    """Each leg sets or resets what it shows: the variables outlive the leg before it."""
    if shown == came:
        changed = [("unset", "effective_caller_id_number"), ("unset", "effective_caller_id_name")]
    else:
        changed = [
            ("set", f"effective_caller_id_number={shown.number}"),
            # An empty name would let the original caller's through.
            ("set", f"effective_caller_id_name={shown.name or shown.number}"),
            # It vouches for the number that came, not for the one that is shown now; FreeSWITCH keeps it twice.
            ("unset", "sip_h_identity"),
            ("unset", "sip_identity"),
        ]
    return [*changed, ("privacy", "no" if shown.privacy is Privacy.OFF else shown.privacy.value)]


def _voicemail(decision: Decision, plan: DialPlan) -> list[Action]:
    if dial := dial_string(decision, plan):
        return [*_chain(decision), ("bridge", dial)]
    name = decision.device.name if decision.device and is_safe_name(decision.device.name) else ""
    return [("answer", ""), ("sleep", "1000"), ("voicemail", f"default {plan.domain} {name}")]


def _fax(fax_dial: str, context: str) -> list[Action]:
    return [
        ("set", f"callflow_fax={fax_dial}"),
        ("answer", ""),
        ("spandsp_start_fax_detect", f"transfer '{FAX} XML {context}' 30"),
    ]


def _dialplan(actions: list[Action], context: str) -> bytes:
    elements = [{"@application": name, "@data": data} for name, data in actions]
    extension = {"@name": "callflow", "condition": {"action": elements}}
    return _document({"section": {"@name": "dialplan", "context": {"@name": context, "extension": extension}}})


def _document(content: dict[str, object]) -> bytes:
    document = {"document": {"@type": "freeswitch/xml", **content}}
    # Pretty, since FreeSWITCH reads no document that begins on the line of its declaration.
    text: str = xmltodict.unparse(document, encoding="UTF-8", pretty=True, short_empty_elements=True)
    return text.encode()


def _context(values: Mapping[str, str]) -> str:
    context = _first(values, "Hunt-Context", "Caller-Context")
    return context if _CONTEXT.fullmatch(context) else ""


def _destination(values: Mapping[str, str]) -> str:
    return _first(values, "Hunt-Destination-Number", "Caller-Destination-Number")


def _privacy(values: Mapping[str, str]) -> str:
    if original := values.get("variable_callflow_privacy"):
        # By now the channel's own flags are those of the last leg.
        return original
    hidden = (values.get("Caller-Privacy-Hide-Number") == "true", values.get("Caller-Privacy-Hide-Name") == "true")
    return {(True, True): Privacy.FULL, (True, False): Privacy.NUMBER, (False, True): Privacy.NAME}.get(
        hidden, Privacy.OFF
    )


def _diversion(values: Mapping[str, str]) -> str:
    """All Diversion headers where the profile keeps them (`parse-all-invite-headers`), else the last one."""
    every = values.get("variable_sip_i_diversion", "")
    if every.startswith(_ARRAY):
        return ", ".join(every.removeprefix(_ARRAY).split("|:"))
    return every or values.get("variable_sip_h_Diversion", "")


def _state(values: Mapping[str, str]) -> str:
    return _STATES.get(values.get("variable_callflow_state", ""), State.FAILED)


def _hangup_cause(values: Mapping[str, str], otherwise: str | None) -> str:
    """The cause that came, as FreeSWITCH itself named it."""
    came = values.get("variable_callflow_state", "")
    if came in _OVER:
        return "NORMAL_CLEARING"
    return came if _CAUSE.fullmatch(came) else otherwise or _DEFAULT_CAUSE


def _first(values: Mapping[str, str], *names: str) -> str:
    return next((values[name] for name in names if values.get(name)), "")
