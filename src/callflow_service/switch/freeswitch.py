"""FreeSWITCH: mod_xml_curl's dialplan, in its own variables and its own XML."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, assert_never

import xmltodict

from callflow_service.domain.asked import Asked
from callflow_service.domain.callerid import Caller, Privacy
from callflow_service.domain.callflow import State
from callflow_service.domain.dialing import DialPlan, Redirected, Rejected
from callflow_service.domain.path import parse as parse_path
from callflow_service.domain.routing import CAUSES, Decision, RouteAction
from callflow_service.switch.answers import dial_string, mailbox, shared_answer
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
    "variable_sip_Privacy",
    "variable_sip_i_priority",
    "variable_sip_h_Diversion",
    "variable_sip_i_diversion",
    "variable_sip_history_info",
    "variable_callflow_path",
    "variable_callflow_rang",
    "variable_callflow_rejected",
    "variable_originate_disposition",
    "variable_originate_causes",
    "variable_last_bridge_proto_specific_hangup_cause",
    "variable_sip_redirected_to",
)
"""What is read of a request; the shipped configuration lets FreeSWITCH send no more."""

_MEDIA_TYPE: Final = "text/xml; charset=utf-8"
_CONTEXT = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_CHANNEL = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
_CONTACT = re.compile(r"sips?:[A-Za-z0-9.+*_-]{1,64}@(?:[A-Za-z0-9.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ARRAY: Final = "ARRAY::"
_SEPARATOR: Final = "|:"

# What became of a leg, in FreeSWITCH's causes. With `ignore_q850_reason` they come from the SIP status alone.
_NO_ANSWER: Final = frozenset({"NO_USER_RESPONSE"})
_NO_ANSWER_IF_RUNG: Final = frozenset(
    {"NO_ANSWER", "ALLOTTED_TIMEOUT", "PROGRESS_TIMEOUT", "RECOVERY_ON_TIMER_EXPIRE", "ORIGINATOR_CANCEL"}
)
_BUSY: Final = frozenset({"USER_BUSY"})
_REJECTED: Final = frozenset({"CALL_REJECTED", "UNWANTED"})
# These share a cause with 603 and 408.
_FAILED_STATUSES: Final = frozenset({"sip:401", "sip:402", "sip:407", "sip:608", "sip:504"})
_OVER: Final = frozenset({"SUCCESS", "PICKED_OFF", "ATTENDED_TRANSFER", "BLIND_TRANSFER"})
# mod_sofia makes of each the SIP status that it stands beside.
_HANGUP_CAUSES: Final = {
    486: "USER_BUSY",
    480: "NO_ANSWER",
    603: "CALL_REJECTED",
    404: "UNALLOCATED_NUMBER",
    503: "NORMAL_TEMPORARY_FAILURE",
}

_TRACES: Final = "last_bridge_proto_specific_hangup_cause sip_reason"
"""What a leg leaves on the caller's channel that FreeSWITCH would send to the caller in place of our cause."""

_OUTCOME: Final = f"{_TRACES} originate_causes originate_disposition sip_redirected_to callflow_rang"
"""What a leg leaves there that the next question must not be told of the leg before."""

_RINGBACK: Final = "%(1000,4000,425)"
"""What a caller hears who was answered for a fax to be heard, while the device rings."""

_APOSTROPHE: Final = "'"
_TYPOGRAPHIC: Final = "\u2019"

_ANONYMOUS: Final = '"Anonymous" <sip:anonymous@anonymous.invalid>'

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
            "privacy_header": values.get("variable_sip_Privacy", ""),
            "priority": values.get("variable_sip_i_priority", ""),
            "call_id": _first(values, "variable_sip_call_id", "Unique-ID"),
            "diversion": _diversion(values),
            "history_info": values.get("variable_sip_history_info", ""),
            "explain": "1",
        }
        if destination == NEXT:
            path = values.get("variable_callflow_path", "")
            if parse_path(path) is None:
                raise Senseless("an extension of ours, dialled from outside")
            if values.get("variable_originate_disposition") in _OVER:
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
        if plan.legs.redirected is Redirected.CALLER and (contact := _redirected_to(values)):
            return _MEDIA_TYPE, _dialplan(
                [("log", f"INFO callflow {decision.flow_id}: redirected"), ("redirect", contact)], context
            )
        match decision.action:
            case RouteAction.NONE:
                return self.carry_on(values)
            case RouteAction.END:
                actions += _end(_HANGUP_CAUSES.get(decision.cause or 0, _HANGUP_CAUSES[503]))
            case RouteAction.VOICEMAIL:
                actions += _voicemail(decision, plan, asked)
            case RouteAction.FAX:
                actions += _fax(answer["fax_dial"], context)
                actions += _leg(decision, plan, asked, values)
            case RouteAction.RING | RouteAction.FORWARD:
                actions += _leg(decision, plan, asked, values)
            case _ as never:
                assert_never(never)
        return _MEDIA_TYPE, _dialplan(actions, context)

    def carry_on(self, values: Mapping[str, str]) -> tuple[str, bytes]:
        """FreeSWITCH looks further; a call that we had our hands on ends with the cause of its last leg."""
        context = _context(values)
        is_ours = _destination(values) == NEXT and parse_path(values.get("variable_callflow_path", ""))
        if context and is_ours and values.get("variable_originate_disposition") in _OVER:
            return _MEDIA_TYPE, _dialplan([("hangup", "NORMAL_CLEARING")], context)
        if context and is_ours:
            return _MEDIA_TYPE, _dialplan(_end(_HANGUP_CAUSES[CAUSES[_state(values)]]), context)
        return _MEDIA_TYPE, _document({"section": {"@name": "result", "result": {"@status": "not found"}}})


def _leg(decision: Decision, plan: DialPlan, asked: Asked, values: Mapping[str, str]) -> list[Action]:
    seconds = str(decision.ring_seconds)
    # The first ends each target's ringing, the second lifts FreeSWITCH's own sixty seconds.
    timeouts = [("leg_timeout", seconds), ("originate_timeout", seconds)]
    variables = [*timeouts, *_outcome(plan, values), *_shown(decision, plan, asked.caller)]
    return [
        ("set", "continue_on_fail=true"),
        ("set", "hangup_after_bridge=true"),
        ("set", f"callflow_path={decision.path}"),
        ("set", f"callflow_rejected={plan.legs.rejected}"),
        ("multiunset", _OUTCOME),
        *_taken_away(decision, asked.caller),
        ("bridge", _with(variables, dial_string(decision, plan))),
        ("transfer", f"{NEXT} XML {_context(values)}"),
    ]


def _with(variables: list[Action], dial: str) -> str:
    """A dial string with variables for all its targets: in braces, which hold for these legs and for nothing else.

    The separator, which no value has, takes the place of a comma: names, numbers and headers are full of those. One
    apostrophe is taken as it is; what stands between two would be one value.
    """
    if not variables:
        return dial
    text = "!".join(f"{name}={value}" for name, value in variables)
    if text.find(_APOSTROPHE) != text.rfind(_APOSTROPHE):
        text = text.replace(_APOSTROPHE, _TYPOGRAPHIC)
    return f"{{^^!{text}}}{dial}"


def _outcome(plan: DialPlan, values: Mapping[str, str]) -> list[Action]:
    """What makes FreeSWITCH tell of a leg by its SIP status, and follow no redirection."""
    early = [] if plan.legs.early_media else [("ignore_early_media", "ring_ready")]
    # With the profile's `manual-redirect` the second makes FreeSWITCH only say where the phone would have the call.
    followed = "outbound_redirect_fatal" if plan.legs.redirected is Redirected.FAILED else "outbound_redirect_info"
    # Told by the id that was sent, and not by `${uuid}`: no answer has a sign that FreeSWITCH expands.
    channel = values.get("Unique-ID", "")
    rang = f"uuid_setvar {channel} callflow_rang true" if _CHANNEL.fullmatch(channel) else ""
    rings = [("api_on_ring", rang), ("api_on_pre_answer", rang)] if rang else []
    return [*early, ("ignore_q850_reason", "true"), (followed, "true"), *rings]


def _shown(decision: Decision, plan: DialPlan, came: Caller) -> list[Action]:
    """What a diverted leg shows of the caller and of its way. A leg that is not diverted shows what came."""
    if not decision.is_diverted:
        return []
    chain = [("sip_h_Diversion", decision.diversion), ("sip_h_History-Info", decision.history_info)]
    return [*_identity(decision, plan, came), *(header for header in chain if header[1])]


def _identity(decision: Decision, plan: DialPlan, came: Caller) -> list[Action]:
    shown, trunk = decision.caller, plan.legs.trunk
    host = trunk.from_host if trunk and decision.is_to_number else ""
    # A trunk is still told, in confidence, of a caller that stays the caller's own.
    confided = decision.is_to_number and shown.is_number_withheld and shown.number == came.number
    asserted = _asserted(decision.asserted or (shown if confided else None), host or plan.domain)
    if not shown.number or shown.is_number_withheld:
        return [*_caller_id("anonymous", "Anonymous"), ("sip_force_full_from", _ANONYMOUS), *asserted]
    if shown == came and not (host or asserted):
        return []
    name = shown.number if shown.privacy is Privacy.NAME else shown.name or shown.number
    # `sip_invite_domain` takes a host with a port for an IPv6 address.
    whole = [("sip_force_full_from", f'"{name}" <sip:{_escaped(shown.number)}@{host}>')] if host else []
    return [*_caller_id(shown.number, name), *whole, *asserted]


def _caller_id(number: str, name: str) -> list[Action]:
    return [
        ("origination_caller_id_number", number),
        ("origination_caller_id_name", name),
        # Else the leg says "privacy=full" of a number that is not the caller's.
        ("origination_privacy", "screen"),
        # And no header of FreeSWITCH's own that names somebody once more.
        ("sip_cid_type", "none"),
    ]


def _taken_away(decision: Decision, came: Caller) -> list[Action]:
    """What came in and would go on, in conflict with what the leg shows.

    It is taken off the caller's channel, since FreeSWITCH reads an empty variable of a leg as none.
    """
    if not decision.is_diverted:
        return []
    # It vouches for the number that came; FreeSWITCH keeps it twice.
    identity = decision.caller != came or decision.caller.is_number_withheld
    headers = ["sip_h_identity", "sip_identity"] if identity else []
    headers += [] if decision.diversion else ["sip_h_Diversion"]
    return [("multiunset", " ".join(headers))] if headers else []


def _asserted(caller: Caller | None, host: str) -> list[Action]:
    if caller is None or not caller.number:
        return []
    name = f'"{caller.name}" ' if caller.name and caller.privacy is not Privacy.NAME else ""
    privacy = [("sip_h_Privacy", "id")] if caller.is_number_withheld else []
    return [("sip_h_P-Asserted-Identity", f"{name}<sip:{_escaped(caller.number)}@{host}>"), *privacy]


def _escaped(number: str) -> str:
    return number.replace("#", "%23")


def _voicemail(decision: Decision, plan: DialPlan, asked: Asked) -> list[Action]:
    if dial := dial_string(decision, plan):
        return [
            *_taken_away(decision, asked.caller),
            ("bridge", _with(_shown(decision, plan, asked.caller), dial)),
        ]
    return [("answer", ""), ("sleep", "1000"), ("voicemail", f"default {plan.domain} {mailbox(decision)}")]


def _fax(fax_dial: str, context: str) -> list[Action]:
    return [
        ("set", f"callflow_fax={fax_dial}"),
        ("set", f"transfer_ringback={_RINGBACK}"),
        ("answer", ""),
        ("spandsp_start_fax_detect", f"transfer '{FAX} XML {context}' 30"),
    ]


def _end(cause: str) -> list[Action]:
    return [("multiunset", _TRACES), ("hangup", cause)]


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
    hidden = (values.get("Caller-Privacy-Hide-Number") == "true", values.get("Caller-Privacy-Hide-Name") == "true")
    return {(True, True): Privacy.FULL, (True, False): Privacy.NUMBER, (False, True): Privacy.NAME}.get(
        hidden, Privacy.OFF
    )


def _diversion(values: Mapping[str, str]) -> str:
    """All Diversion headers where the profile keeps them (`parse-all-invite-headers`), else the last one."""
    return ", ".join(_array(values.get("variable_sip_i_diversion", ""))) or values.get("variable_sip_h_Diversion", "")


def _array(text: str) -> list[str]:
    return text.removeprefix(_ARRAY).split(_SEPARATOR) if text.startswith(_ARRAY) else [text]


def _state(values: Mapping[str, str]) -> State:
    """What became of the last leg; of several targets at once the one counts that came nearest to an answer."""
    causes = {each.rpartition(";")[2] for each in _array(values.get("variable_originate_causes", ""))}
    causes |= {values.get("variable_originate_disposition", "")}
    status = values.get("variable_last_bridge_proto_specific_hangup_cause", "")
    if causes & _NO_ANSWER:
        return State.NO_ANSWER
    if (
        causes & _NO_ANSWER_IF_RUNG
        and values.get("variable_callflow_rang") == "true"
        and status not in _FAILED_STATUSES
    ):
        return State.NO_ANSWER
    if causes & _BUSY:
        return State.BUSY
    if causes & _REJECTED and status not in _FAILED_STATUSES:
        return State.FAILED if values.get("variable_callflow_rejected") == Rejected.FAILED else State.BUSY
    return State.FAILED


def _redirected_to(values: Mapping[str, str]) -> str:
    """Where a phone would have the call, if that can be nothing but an address: it comes from outside."""
    contact = _CONTACT.search(values.get("variable_sip_redirected_to", ""))
    return contact[0] if contact and _destination(values) == NEXT else ""


def _first(values: Mapping[str, str], *names: str) -> str:
    return next((values[name] for name in names if values.get(name)), "")
