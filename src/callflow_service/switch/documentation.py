"""What the OpenAPI document says of the switch faces."""

from typing import Any, Final

from callflow_service.domain.callerid import Privacy
from callflow_service.domain.callflow import State
from callflow_service.domain.routing import RouteAction

Schema = dict[str, Any]

SCHEME: Final = "switch"
"""The name of the switch users' HTTP Basic."""

_ASKED: Final[dict[str, Schema]] = {
    "device": {"description": "Id of the device", "type": "string", "pattern": "^[0-9]+$", "example": "4"},
    "called": {"description": "Number that was dialled: a DID, else a device's name", "type": "string"},
    "path": {
        "description": "`path` of the earlier answer in this call; alone, it asks about the device it ends in",
        "type": "string",
    },
    "state": {
        "description": "What happened",
        "type": "string",
        "enum": [state.value for state in State],
        "default": "before_call",
    },
    "caller_number": {"description": "Original caller's number", "type": "string", "example": "37061111111"},
    "caller_name": {"description": "Original caller's name", "type": "string", "example": "Alice"},
    "privacy": {"description": "Original caller's privacy", "type": "string", "enum": [each.value for each in Privacy]},
    "call_id": {"description": "The switch's id of the call", "type": "string"},
    "diversion": {"description": "Every Diversion header of the original INVITE, comma-joined", "type": "string"},
    "history_info": {"description": "Every History-Info header of it, comma-joined", "type": "string"},
    "privacy_header": {
        "description": "Every Privacy header of it, comma-joined; it decides instead of `privacy`",
        "type": "string",
    },
    "priority": {"description": "Its Priority header; `psap-callback` is diverted by nothing", "type": "string"},
    "explain": {"description": "`1`: the answer says why", "type": "string", "enum": ["1"], "example": "1"},
}

_FORMAT: Final[Schema] = {
    "description": "`json`: the answer is flat JSON instead of a form",
    "type": "string",
    "enum": ["json"],
}

_ROUTES: Final[dict[str, Schema]] = {
    "version": {"description": "Of rtjson's document", "type": "string", "enum": ["1.0"]},
    "routing": {"description": "How rtjson tries the routes", "type": "string", "enum": ["serial"]},
    "routes": {
        "description": "For `rtjson_push_routes`: one route where somebody is to be dialled, else none",
        "type": "array",
        "items": {"type": "object"},
    },
}

_ANSWERED: Final[dict[str, str]] = {
    "action": f"What to do: {', '.join(action.value for action in RouteAction)}",
    "dial": "Whom to dial now",
    "ring_seconds": "For how long, in seconds",
    "fax_dial": "Where the call goes once a fax is heard",
    "mailbox": "For `voicemail`: the name of the device whose flow said so",
    "cause": "SIP status to end with",
    "caller_number": "Number that the leg shows",
    "caller_name": "Name that the leg shows",
    "privacy": "Privacy of what the leg shows",
    "reason": "Reason of the last diversion",
    "device": "Id of the device that rings, or of the last one whose flow decided",
    "payer": "Username of the account that the leg is for",
    "payer_device": "Id of the device that the leg is for",
    "leg": "Diversions so far, plus 1",
    "flow_id": "One id for the whole call",
    "path": "To be sent back with the next question",
    "diversion": "Diversion header of the leg, the whole chain",
    "history_info": "History-Info header of the leg, the whole chain",
    "explain": "Why, in steps",
}

_SUMMARIES: Final = {
    "freeswitch": "Where does this call go? For FreeSWITCH (mod_xml_curl)",
    "asterisk": "Where does this call go? For Asterisk (CURL)",
    "kamailio": "Where does this call go? For Kamailio (rtjson)",
    "opensips": "Where does this call go? For OpenSIPS (rest_client)",
}


def describe(switch: str, method: str) -> dict[str, Any]:
    """What FastAPI is told of a switch's route."""
    own_words = switch == "freeswitch"
    properties = {"section": {"type": "string", "enum": ["dialplan"]}} if own_words else _asked(switch)
    answered = _answered(switch)
    flat: Schema = {"schema": {"type": "object", "properties": answered, "required": list(answered)}}
    content = {
        "freeswitch": {"text/xml": {"schema": {"type": "string"}}},
        "asterisk": {"application/x-www-form-urlencoded": flat, "application/json": flat},
    }.get(switch, {"application/json": flat})
    extra: Schema = {"security": [{SCHEME: []}]}
    if method == "GET":
        extra["parameters"] = [
            {"name": name, "in": "query", "description": schema.get("description", ""), "schema": schema}
            for name, schema in properties.items()
        ]
    else:
        types = (
            ("application/x-www-form-urlencoded",)
            if own_words
            else ("application/json", "application/x-www-form-urlencoded")
        )
        body: Schema = {"schema": {"type": "object", "properties": properties}}
        if not own_words:
            body["example"] = {name: schema["example"] for name, schema in properties.items() if "example" in schema}
        extra["requestBody"] = {"content": dict.fromkeys(types, body)}
    return {
        "operation_id": f"switch_{switch}" if method == "POST" else f"switch_{switch}_by_get",
        "summary": _SUMMARIES[switch],
        "tags": ["Switches"],
        "responses": {
            200: {
                "description": 'What to do with the call; `none` or "not found" where there is nothing to do',
                "content": content,
            },
            401: {
                "description": "Not a switch user, or another password; the body lets the call carry on",
                "content": content,
            },
            429: {
                "description": "Wrong passwords for this user came from this address too often; the body lets the call "
                "carry on",
                "content": content,
                "headers": {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}},
            },
        },
        "openapi_extra": extra,
    }


def _asked(switch: str) -> dict[str, Schema]:
    return _ASKED | {"format": _FORMAT} if switch == "asterisk" else _ASKED


def _answered(switch: str) -> dict[str, Schema]:
    shared: dict[str, Schema] = {name: {"type": "string", "description": text} for name, text in _ANSWERED.items()}
    return _ROUTES | shared if switch == "kamailio" else shared
