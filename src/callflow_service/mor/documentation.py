"""What the OpenAPI document says of MOR's two calls."""

from dataclasses import dataclass
from typing import Any, Final

from callflow_service.domain.access import OwnedDevice
from callflow_service.domain.callflow import Action, Device, Forward, FromDevice, State
from callflow_service.domain.changing import Change, DeviceCallFlow
from callflow_service.domain.signature import GET_ORDER, UPDATE_ORDER
from callflow_service.mor.pages import error_page, get_page, update_page
from callflow_service.mor.parameters import ALIASES

Schema = dict[str, Any]

_ID: Final = {"type": "string", "pattern": "^[0-9]+$"}
_FLAG: Final = {"type": "string", "enum": ["true", "1"]}
_USERNAME: Final = ("u", "Username of the caller", {"type": "string"}, "admin")
_PASSWORD: Final = (
    "p",
    "Password of the caller; checked where the account has one. Needed under the policy `off`, else optional",
    {"type": "string", "format": "password"},
    None,
)
_SIGNATURE: Final = (
    "hash",
    "Signature: SHA-1, in hexadecimal, of the signed values joined with nothing between them, then the API secret key",
    {"type": "string", "pattern": "^[0-9A-Fa-f]{40}$"},
)

_RETRY_AFTER: Final = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer"}}}


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter as the document shows it."""

    name: str
    description: str
    schema: Schema
    example: str | None
    required: bool = False

    def as_property(self) -> Schema:
        """Its schema within a body's."""
        # Where a parameter has none, the explorer would make something up, and the signature would not fit.
        return {**self.schema, "description": self.description, "examples": [self.example or ""]}


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the document shows it."""

    name: str
    summary: str
    description: str
    fields: tuple[Field, ...]
    signed: tuple[str, ...]
    success: bytes
    errors: tuple[str, ...]

    def describe(self, method: str) -> dict[str, Any]:
        """What FastAPI is told of the route: for POST a body as form or JSON, for GET the query."""
        aliases = {alias: name for alias, name in ALIASES.items() if name in self.signed}
        # By it the explorer signs, so that the order stands in the domain alone.
        extra: Schema = {"x-signature": {"order": self.signed, "aliases": aliases}}
        if method == "GET":
            extra["parameters"] = [
                {"name": field.name, "in": "query", "required": field.required}
                | {"description": field.description, "schema": field.schema}
                | ({} if field.example is None else {"example": field.example})
                for field in self.fields
            ]
        else:
            schema: Schema = {
                "type": "object",
                "required": [field.name for field in self.fields if field.required],
                "properties": {field.name: field.as_property() for field in self.fields},
            }
            example = {field.name: field.example for field in self.fields if field.example is not None}
            types = ("application/x-www-form-urlencoded", "application/json", "multipart/form-data")
            content = {name: {"schema": schema, "example": example} for name in types}
            extra["requestBody"] = {"required": True, "content": content}
        return {
            "operation_id": self.name if method == "POST" else f"{self.name}_by_get",
            "summary": self.summary if method == "POST" else f"{self.summary} (by GET)",
            "description": self.description
            if method == "POST"
            else f"{self.description}\n\nAnswered with an error unless `CALLFLOW_ALLOW_GET` is on.",
            "tags": ["MOR"],
            "responses": self._responses(),
            "openapi_extra": extra,
        }

    def _responses(self) -> dict[int | str, dict[str, Any]]:
        examples = {"success": {"summary": "Success", "value": self.success.decode()}}
        for text in self.errors:
            examples[text] = {"summary": text, "value": error_page(text, "status").decode()}
        failed = {"application/xml": {"schema": {"type": "string"}}}
        return {
            200: {
                "description": "The page, or one of MOR's errors",
                "content": {"application/xml": {"schema": {"type": "string"}, "examples": examples}},
            },
            400: {"description": "The request cannot be read as what it says it is", "content": failed},
            415: {"description": "The body has a Content-Encoding", "content": failed},
            413: {"description": "The body is larger than 64 KiB", "content": failed},
            429: {
                "description": "Wrong requests for this account came from this address too often; right ones are not "
                "looked at either until that time is over",
                "content": failed,
                "headers": _RETRY_AFTER,
            },
            503: {"description": "The database cannot be reached", "content": failed, "headers": _RETRY_AFTER},
        }


_DEVICE: Final = OwnedDevice(Device(4, "IAX2", "1002"), 20, "Test User #1", 1, 60)
_COMMON_ERRORS: Final = ("API Requests are disabled", "GET Requests are disabled")
_LATER_ERRORS: Final = (
    "Incorrect hash",
    "You are not authorised to use this functionality",
    "Device was not found",
)

UPDATE: Final = Call(
    name="device_callflow_update",
    summary="Change what a device does with a call in one state",
    description=(
        "Signed over every parameter below that is sent, from `device_id` on, in the order shown (or with `state` "
        "before `callflow_action`, or in the order of the request where `device_id` comes first), then the API secret "
        "key. "
        "`u`, `p` and `hash` are never signed. Also served below `/api/`. An error has HTTP status 200, as in MOR."
    ),
    fields=(
        Field(*_USERNAME, required=True),
        Field(*_PASSWORD),
        Field(*_SIGNATURE, "f4210bb4f899144c0bb44965f38543c85d1ca63a"),
        Field("device_id", "Device whose call flow changes", _ID, "4", required=True),
        Field(
            "callflow_action",
            "What happens; `fax_detect` only before the call. The old name `action` counts where this is absent",
            {"type": "string", "enum": [action.value for action in Action]},
            "forward",
            required=True,
        ),
        Field(
            "state",
            "When it happens",
            {"type": "string", "enum": [state.value for state in State]},
            "before_call",
            required=True,
        ),
        Field(
            "forward_to_device",
            "Device to forward to; wins over `external_number`. `foward_to_device` counts where this one is absent",
            _ID,
            "5",
        ),
        Field(
            "external_number",
            "Number to forward to: an optional `+`, then 1 to 32 of `0-9 * #`",
            {"type": "string", "pattern": r"^\+?[0-9*#]{1,32}$"},
            None,
        ),
        Field("fax_device", "FAX device that a detected fax goes to", _ID, None),
        Field("voicemail", "Listed by MOR; carries nothing, the action does the work", {"type": "string"}, None),
        Field("device_callerid", "Show the caller ID of the device that forwards", _FLAG, None),
        Field("src_callerid", "Leave the caller ID as it came", _FLAG, None),
        Field("did_id", "Show this DID, which must be assigned to the device", _ID, None),
        Field("custom", "Show this text", {"type": "string", "maxLength": 255}, None),
    ),
    signed=UPDATE_ORDER,
    success=update_page(Change(_DEVICE, State.BEFORE_CALL, Forward.to(Device(5, "IAX2", "101"), FromDevice()))),
    errors=(
        *_COMMON_ERRORS,
        "Bad login",
        *_LATER_ERRORS,
        "Callflow state was not found",
        "Callflow action was not found",
        "Missing forward parameters",
        "Local device was not found",
        "External number was not found",
        "FAX device was not found",
        "DID was not found",
    ),
)

GET: Final = Call(
    name="device_callflow_get",
    summary="Tell what a device does with a call in each state",
    description="Signed over `device_id` alone, then the API secret key. Also served below `/api/`.",
    fields=(
        Field(*_USERNAME, required=True),
        Field(*_PASSWORD),
        Field(*_SIGNATURE, "71516eea4850f7e0300ac86adf9fb64bca845aa7"),
        Field("device_id", "Device that is asked about", _ID, "100", required=True),
    ),
    signed=GET_ORDER,
    success=get_page(DeviceCallFlow(OwnedDevice(Device(100, "SIP", "101"), 20, "Test User #1", 1, 60), {})),
    errors=(*_COMMON_ERRORS, "User was not found", *_LATER_ERRORS),
)
