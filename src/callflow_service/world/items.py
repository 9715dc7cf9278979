"""What one item of a world file can say: a model for each section, from which the JSON Schema comes too."""

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from callflow_service.domain.access import USERNAME, Role
from callflow_service.domain.callflow import MAX_ID
from callflow_service.domain.dialing import NUMBER, OTHER, VOICEMAIL, ChainHeader, Identity, Redirected, Rejected
from callflow_service.domain.signature import HashPolicy
from callflow_service.world.errors import WorldError
from callflow_service.world.reading import RawItem, Section, shown_key

MAX_RING_SECONDS: Final = 3600
"""The longest ring time, in seconds."""

MAX_NETWORKS: Final = 100
"""The most networks that an account's requests may be allowed from."""

_MAPPED_BITS: Final = 96

# Control characters, line separators and what XML 1.0 cannot carry (https://www.w3.org/TR/xml/#charsets).
_FORBIDDEN: Final = r"\u0000-\u001f\u007f-\u009f\u2028\u2029\ud800-\udfff\ufffe\uffff"
_INNER: Final = f"[^{_FORBIDDEN}]"
_OUTER: Final = rf"[^\s{_FORBIDDEN}]"
_NETWORK: Final = r"[0-9A-Fa-f.:]{2,45}(/[0-9]{1,3})?"
_DOMAIN: Final = r"[A-Za-z0-9.:\[\]_-]{1,255}"
_TECHNOLOGY: Final = r"[A-Za-z][A-Za-z0-9]{0,15}"
_NUMBER: Final = r"\+?(?=[*#]*[0-9])[0-9*#]{1,32}"
_CALLER_NUMBER: Final = r"(\+?[0-9*#]{1,32}|[A-Za-z0-9._-]{1,64})?"
# Nothing that a dialplan could expand or that could end a header: no blanks, quotes, $ or backslashes.
_TEMPLATE: Final = r"([A-Za-z0-9@:/.;=_+&,%~*#\[\]()-]|\{(name|technology|domain|number)\}){0,255}"


def _matching(pattern: str, sentence: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(sentence)
        return text

    return check


def _text_schema(pattern: str, **more: object) -> WithJsonSchema:
    # Digits need no quotes, and then an editor takes them for a number.
    return WithJsonSchema({"type": ["string", "number"], "pattern": f"^{pattern}$", **more})


def _whole_number(least: int, most: int) -> BeforeValidator:
    def read(text: object) -> object:
        if not isinstance(text, str):
            return text
        # The length is checked first because reading very many digits is slow, and refused by Python.
        digits = text.lstrip("0") or text[-1:]
        if digits.isascii() and digits.isdecimal() and len(digits) <= len(str(most)) and least <= int(digits) <= most:
            return int(digits)
        raise ValueError(f"must be a whole number from {least} to {most}")

    return BeforeValidator(read)


def _read_network(text: object) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text if isinstance(text, str) and re.fullmatch(_NETWORK, text) else "")
    except ValueError:
        raise ValueError("must be addresses, or networks such as 192.0.2.0/24 and 2001:db8::/32") from None
    # Requests of IPv4 addresses that are written as IPv6 count as IPv4's, so the networks do.
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= _MAPPED_BITS:
        return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


Network = Annotated[
    IPv4Network | IPv6Network,
    PlainValidator(_read_network),
    WithJsonSchema({"type": "string", "pattern": f"^{_NETWORK}$"}),
]
Id = Annotated[int, _whole_number(0, MAX_ID), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MAX_ID})]
RingSeconds = Annotated[
    int,
    _whole_number(1, MAX_RING_SECONDS),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_RING_SECONDS}),
]
Username = Annotated[
    str,
    AfterValidator(
        _matching(USERNAME, "must be 1 to 64 of a-z A-Z 0-9 . _ @ + - and blanks, with no blank at the ends")
    ),
    _text_schema(USERNAME),
]
Line = Annotated[
    str,
    AfterValidator(_matching(f"{_INNER}{{1,255}}", "must be 1 to 255 characters, none of them a control character")),
    _text_schema(f"{_INNER}{{1,255}}"),
]
CallerName = Annotated[
    str,
    AfterValidator(_matching(f"{_INNER}{{0,255}}", "must be at most 255 characters, none of them a control character")),
    _text_schema(f"{_INNER}{{0,255}}"),
]
CallerNumber = Annotated[
    str,
    AfterValidator(
        _matching(
            _CALLER_NUMBER,
            "must be 1 to 32 of 0-9 * # with or without a + before them, or 1 to 64 letters, digits, dots, dashes or "
            "underscores",
        )
    ),
    _text_schema(_CALLER_NUMBER),
]
Secret = Annotated[
    str,
    AfterValidator(_matching(r"[\s\S]{1,1024}", "must be 1 to 1024 characters")),
    _text_schema(r"[\s\S]{1,1024}"),
]
Key = Annotated[
    str,
    AfterValidator(_matching(f"{_INNER}{{1,255}}", "must be 1 to 255 characters, none of them a control character")),
    _text_schema(f"{_INNER}{{1,255}}"),
]
Technology = Annotated[
    str,
    AfterValidator(_matching(_TECHNOLOGY, "must be a letter of A-Z and then at most 15 letters or digits")),
    AfterValidator(str.upper),
    _text_schema(_TECHNOLOGY),
]
DeviceName = Annotated[
    str,
    AfterValidator(
        _matching(
            f"{_OUTER}({_INNER}{{0,62}}{_OUTER})?",
            "must be 1 to 64 characters, none of them a control character, with no blank at the ends",
        )
    ),
    _text_schema(f"{_OUTER}({_INNER}{{0,62}}{_OUTER})?"),
]
Number = Annotated[
    str,
    AfterValidator(
        _matching(_NUMBER, "must be 1 to 32 of 0-9 * # with a digit among them, with or without a + before them")
    ),
    _text_schema(_NUMBER),
]
Domain = Annotated[
    str,
    AfterValidator(_matching(_DOMAIN, "must be a host, or a host and a port as host:port")),
    _text_schema(_DOMAIN),
]


class _Item(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class AccountItem(_Item):
    """Who may change call flows."""

    id: Id
    username: Username
    name: Line | None = Field(None, description="Display name; the username where it is not said")
    role: Role
    owner: Username | None = Field(
        None,
        validate_default=True,
        description="Username of the owner: for a user a reseller or an admin, else an admin; an admin has none",
    )
    api_key: Key | None = Field(None, repr=False, description="Signs requests; without one, the owner's signs")
    password: Secret | None = Field(None, repr=False, description="Stored as a slow hash (Argon2id)")
    hash_policy: HashPolicy | None = Field(
        None, description="Which signatures are taken; where it is not said, the setting CALLFLOW_HASH_POLICY decides"
    )
    pbx_addon: bool = Field(False, description="Without it a reseller has no call flows")  # noqa: FBT003 - a field's default
    api_enabled: bool = Field(True, description="A reseller's covers his users too")  # noqa: FBT003 - a field's default
    blocked: bool = Field(False, description="Cannot log in")  # noqa: FBT003 - a field's default
    allowed_addresses: list[Network] | None = Field(
        None,
        max_length=MAX_NETWORKS,
        description="Where its requests may come from, addresses and networks; where it is not said, from anywhere",
    )

    @field_validator("owner")
    @classmethod
    def _owner_of_all_but_admins(cls, owner: str | None, info: ValidationInfo) -> str | None:
        role = info.data.get("role")
        if role is Role.ADMIN and owner is not None:
            raise ValueError("an admin has no owner")
        if role not in {None, Role.ADMIN} and owner is None:
            raise ValueError("is missing; every account but an admin has an owner")
        return owner

    @field_validator("allowed_addresses")
    @classmethod
    def _empty_is_anywhere(cls, networks: list[Network] | None) -> list[Network] | None:
        return networks or None

    @field_validator("hash_policy")
    @classmethod
    def _off_needs_a_password(cls, policy: HashPolicy | None, info: ValidationInfo) -> HashPolicy | None:
        if policy is HashPolicy.OFF and "password" in info.data and info.data["password"] is None:
            raise ValueError("an account without a password cannot be set to off")
        return policy


class DeviceItem(_Item):
    """What rings: a phone, a trunk line, a FAX device."""

    id: Id
    technology: Technology = Field(description="`SIP`, `IAX2`, `FAX` and so on; stored in capitals")
    name: DeviceName
    owner: Username = Field(description="Username of the account that the device belongs to")
    caller_number: CallerNumber = Field("", description="The number that its calls show")
    caller_name: CallerName = Field("", description="The name that its calls show")
    ring_seconds: RingSeconds = Field(60, description="How long it rings before nobody answers; seconds")


class DidItem(_Item):
    """A number of our own, and the device that it reaches."""

    id: Id
    number: Number = Field(description="A leading + does not make it another number")
    device: Id | None = Field(None, description="Id of the device that it reaches")


_DIAL_WORDS: Final = (OTHER, NUMBER, VOICEMAIL)
_LISTED_WORDS: Final = f"{OTHER}, {NUMBER} or {VOICEMAIL}"


class _TemplateError(ValueError):
    def __init__(self, key: str, sentence: str) -> None:
        super().__init__(sentence)
        self.key = key


class TrunkItem(_Item):
    """What the trunk behind a switch wants of the legs to numbers."""

    from_host: Domain | None = Field(None, description="Host in their From; where it is not said, the switch's domain")
    identity: Identity = Field(
        Identity.CALLER,
        description="Whose number is in their From: the caller's, or the forwarding device's with the caller in "
        "P-Asserted-Identity",
    )
    headers: list[ChainHeader] = Field(
        list(ChainHeader), description="Which headers tell it of the diversions; an empty list for neither"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_empty_keys(cls, fields: object) -> object:
        if not isinstance(fields, dict):
            return fields
        return {key: value for key, value in fields.items() if value is not None or key not in cls.model_fields}


class SwitchItem(_Item):
    """A switch that may ask where a call goes, and how it dials."""

    username: Username
    password: Secret = Field(repr=False, description="Stored as a fast hash, so it should be long and random")
    domain: Domain = Field("localhost", description="Where its devices are registered: host or host:port")
    trust_headers: bool = Field(True, description="Whether its Diversion and History-Info headers are believed")  # noqa: FBT003 - a field's default
    dial: dict[str, str | None] = Field(
        {},
        description="How it dials: a template for each technology, `default` for the others, `number` for external "
        "numbers, `voicemail`; nothing where that cannot be dialled",
        json_schema_extra={
            "propertyNames": {"pattern": f"^{_TECHNOLOGY}$"},
            "additionalProperties": {"type": ["string", "null"], "pattern": f"^{_TEMPLATE}$"},
        },
    )
    rejected: Rejected = Field(
        Rejected.BUSY, description='What a phone\'s "no" (603, 403, 607) means; read by FreeSWITCH alone'
    )
    redirected: Redirected = Field(
        Redirected.FAILED, description="What becomes of a phone's own redirection (3xx); read by FreeSWITCH alone"
    )
    early_media: bool = Field(
        False,  # noqa: FBT003 - a field's default
        description="Whether announcements before the answer are let through, which ends the flow of that leg; read by "
        "FreeSWITCH alone",
    )
    trunk: TrunkItem | None = Field(None, description="What the trunk wants of legs to numbers")

    @field_validator("dial")
    @classmethod
    def _templates(cls, dial: dict[str, str | None]) -> dict[str, str | None]:
        read: dict[str, str | None] = {}
        for key, template in dial.items():
            name = key.lower() if key.lower() in _DIAL_WORDS else key.upper()
            if not re.fullmatch(_TECHNOLOGY, key):
                raise _TemplateError(key, f"a template's name must be a technology, such as SIP, or {_LISTED_WORDS}")
            if name in read:
                raise _TemplateError(key, f"there is another template for {name}")
            if template and (problem := _template_problem(name, template)):
                raise _TemplateError(key, f"the template for {name} {problem}")
            read[name] = template or None
        return read


def _template_problem(name: str, template: str) -> str | None:
    placeholders = set(re.findall(r"\{([^{}]*)\}", template))
    allowed = {"number", "domain"} if name == NUMBER else {"name", "technology", "domain"}
    listed = ", ".join(f"{{{placeholder}}}" for placeholder in sorted(allowed))
    if placeholders - allowed:
        return f"has a placeholder that cannot stand there; it may have {listed}"
    if not re.fullmatch(_TEMPLATE, template):
        return f"must be at most 255 of a-z A-Z 0-9 @ : / . ; = _ + & , % ~ * # [ ] ( ) - and the placeholders {listed}"
    return None


class WorldFile(_Item):
    """A world file: who may call, what rings, which numbers reach it, which switches ask."""

    accounts: list[AccountItem] | None = None
    devices: list[DeviceItem] | None = None
    dids: list[DidItem] | None = None
    switches: list[SwitchItem] | None = None


Item = AccountItem | DeviceItem | DidItem | SwitchItem

_MODELS: Final[dict[Section, type[Item]]] = {
    Section.ACCOUNTS: AccountItem,
    Section.DEVICES: DeviceItem,
    Section.DIDS: DidItem,
    Section.SWITCHES: SwitchItem,
}


_TRUNK: Final = "trunk"


def parse_item(raw: RawItem, file: Path) -> Item:
    """The item as its section's model has it.

    Raises:
        WorldError: It says something that it cannot say; of several things the first in the file.
    """
    model = _MODELS[raw.section]
    # A key without a value is as good as none, but it must be a known one.
    fields = {key: value for key, value in raw.fields.items() if value is not None or key not in model.model_fields}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        problems = [_problem(raw, model, details) for details in error.errors(include_url=False, include_input=False)]
    line, sentence = min(problems, key=lambda problem: problem[0])
    raise WorldError(file, line, sentence)


_SENTENCES: Final = {
    "missing": "is missing",
    "bool_parsing": "must be true or false",
    "model_type": f"must be a mapping with the keys {', '.join(TrunkItem.model_fields)}",
    "dict_type": "must be a mapping of template names to templates",
    "list_type": "must be a list",
}
"""What is said of an error that needs no more words, by pydantic's name for it."""


def _problem(raw: RawItem, model: type[BaseModel], details: ErrorDetails) -> tuple[int, str]:
    key = str(details["loc"][0])
    if key == _TRUNK and len(details["loc"]) > 1:
        key, model = f"{_TRUNK}.{details['loc'][1]}", TrunkItem
    cause = details.get("ctx", {}).get("error")
    inner = ".".join(map(str, details["loc"]))
    if isinstance(cause, _TemplateError):
        inner = f"{key}.{cause.key}"
    line = raw.lines.get(inner, raw.lines.get(key, raw.lines.get(_TRUNK, raw.line)))
    match details["type"]:
        case "extra_forbidden":
            sentence = f"is not known here; the keys are {', '.join(model.model_fields)}"
        case "value_error":
            sentence = str(cause)
        case "enum":
            sentence = "must be " + details["ctx"]["expected"].replace("'", "")
        case "too_long":
            sentence = f"must be at most {details['ctx']['max_length']} addresses and networks"
        case other:
            sentence = _SENTENCES.get(other, "must be a single value, not a list or a mapping")
    is_shown = all(shown_key(part) for part in key.split("."))
    return line, f"{raw.place}.{key}: {sentence}." if is_shown else f"{raw.place}: a key {sentence}."
