"""What the OpenAPI document says of every call of the API, beside what FastAPI finds in its routes."""

from typing import Any, Final

from fastapi.routing import APIRoute

from callflow_service.api.problems import KINDS, MEDIA_TYPE

Document = dict[str, Any]

EXAMPLES: Final[dict[str, Document]] = {
    "create_token": {"name": "portal", "scope": "read", "expires_in_days": 90},
    "change_callflow": {
        "states": {
            "no_answer": {"otherwise": {"action": "voicemail"}},
            "busy": {"otherwise": {"action": "forward", "steps": [{"to": {"device": 5}}]}},
        }
    },
    "change_callflow_state": {
        "otherwise": {
            "action": "forward",
            "steps": [{"to": {"number": "+37061234567"}, "caller_id": {"kind": "device"}}],
        }
    },
    "restore_callflow": {"as_of": "2026-11-26T12:00:00Z", "force": False},
    "undo_change": {"force": False},
    "route_call": {"caller": {"number": "+37061234567"}, "outcomes": ["no_answer"]},
    "add_account": {"username": "user4", "name": "Test User #4", "role": "user", "owner": "admin"},
    "change_account": {"name": "Reception", "allowed_addresses": ["192.0.2.0/24"]},
    "add_device": {"technology": "SIP", "name": "103", "owner": "user1", "ring_seconds": 20},
    "change_device": {"caller_name": "Reception", "ring_seconds": 30},
    "add_did": {"number": "+37052000005", "device": 100},
    "change_did": {"device": 5},
    "add_switch": {"username": "pbx2", "password": "a-long-and-random-text", "domain": "pbx2.example.com"},
    "change_switch": {"dial": {"SIP": "PJSIP/{name}"}},
    "change_many": {
        "where": {"owner": "user1"},
        "set": {"busy": {"otherwise": {"action": "voicemail"}}},
        "dry_run": True,
    },
    "add_profile": {
        "name": "Company holidays",
        "where": {"owner": "user1"},
        "set": {"before_call": {"otherwise": {"action": "voicemail"}}},
    },
    "change_profile": {"name": "Easter", "where": {"owner": None, "devices": [4, 5]}},
    "add_schedule": {
        "name": "Office",
        "owner": "user1",
        "time_zone": "Europe/Vilnius",
        "weekly": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "17:00"}],
        "holidays": {"country": "LT", "region": None, "open": False},
        "exceptions": [{"from": "2026-12-24", "to": "2026-12-26", "open": False, "hours": []}],
    },
    "change_schedule": {"weekly": [{"days": ["sat", "sun"], "from": "22:00", "to": "06:00"}]},
    "add_caller_list": {"name": "Family", "owner": "user1", "entries": ["+37061234567", "+3706*", "anonymous"]},
    "change_caller_list": {"entries": ["+37061234567"]},
    "add_webhook": {"url": "https://crm.example.com/callflow", "events": ["callflow.changed"]},
    "change_webhook": {"events": None, "description": "The CRM"},
}
"""A request body for each call that takes one, as it can be sent to the demo."""

PROBLEMS: Final[Document] = {
    f"Problem{status}": {
        "description": "; ".join(f"`{slug}`: {kind.title}" for slug, kind in KINDS.items() if kind.status == status),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/ProblemDocument"},
                "examples": {
                    slug: {
                        "summary": kind.title,
                        "value": {
                            "type": f"/problems/{slug}",
                            "title": kind.title,
                            "status": status,
                            "detail": kind.advice,
                            "instance": "5f0c6f0e2a0c4f0f",
                        },
                    }
                    for slug, kind in KINDS.items()
                    if kind.status == status
                },
            }
        },
    }
    for status in sorted({kind.status for kind in KINDS.values()})
}
"""The problem documents of each status."""

FAILURES: Final[dict[int | str, Document]] = {
    kind.status: {
        "$ref": f"#/components/responses/Problem{kind.status}",
        "description": ", ".join(f"`{each}`" for each, other in KINDS.items() if other.status == kind.status),
    }
    for slug, kind in KINDS.items()
    if slug not in {"method-not-allowed", "internal"}
}
"""What calls can answer instead."""

# What comes of a body, a version or what is stored already.
_OF_CHANGES: Final = {409, 412, 413, 415, 428}

_CHANGED_ONLY: Final = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The ETag that the change was made for, in quotes. Where it is another one by now, nothing changes: "
    "412 `changed-meanwhile`.",
}
_NEW_ONLY: Final = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The ETag that the client has, in quotes. Where it is the same still, the answer is 304.",
}


def describe(route: APIRoute) -> None:
    """Give a call its summary, what it can answer instead, its headers for versions, and an example of its body."""
    route.summary = route.name.replace("_", " ").capitalize()
    extra: Document = route.openapi_extra or {}
    methods = route.methods or set()
    failures = {status: each for status, each in FAILURES.items() if methods != {"GET"} or status not in _OF_CHANGES}
    route.responses = failures | route.responses
    has_version = "etag" in getattr(route.response_model, "model_fields", ())
    parameters = []
    if has_version and "GET" in methods:
        parameters.append(_NEW_ONLY)
        route.responses[304] = {"description": "It is as the client has it."}
    elif (has_version and methods & {"PUT", "PATCH", "DELETE"}) or route.name.startswith("delete_"):
        parameters.append(_CHANGED_ONLY)
    # Some routes are made once for all applications of a process, and described with each of them.
    parameters = [each for each in parameters if each not in extra.get("parameters", [])]
    if parameters:
        extra = extra | {"parameters": [*extra.get("parameters", []), *parameters]}
    if route.name in EXAMPLES:
        body = extra.get("requestBody", {})
        contents = {"application/json": {}, **body.get("content", {})}
        shown = {media_type: {**content, "example": EXAMPLES[route.name]} for media_type, content in contents.items()}
        extra = extra | {"requestBody": body | {"content": shown}}
    route.openapi_extra = extra or None
