"""What an account, a device, a DID or a switch can say, for files, requests and imports alike."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, Literal, NotRequired, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from callflow_service.almanac.public_holidays import holidays_problem
from callflow_service.domain.access import Role
from callflow_service.domain.caller_lists import MAX_ENTRIES
from callflow_service.domain.dialing import NUMBER, OTHER, VOICEMAIL, ChainHeader, Identity, Redirected, Rejected
from callflow_service.domain.schedules import Window
from callflow_service.domain.signature import HashPolicy
from callflow_service.domain.targets import MAX_LENGTH
from callflow_service.resources.types import (
    MAX_NETWORKS,
    TECHNOLOGY,
    TEMPLATE,
    CallerName,
    CallerNumber,
    Country,
    Date,
    DeviceName,
    Domain,
    Entry,
    Id,
    Key,
    Line,
    Network,
    Number,
    NumberPattern,
    Prefix,
    Region,
    RingSeconds,
    Secret,
    Technology,
    TimeOfDay,
    TimeZone,
    Username,
)


class Section(StrEnum):
    """The kinds of resources, as a world file calls its sections; each may refer to those before it."""

    ACCOUNTS = "accounts"
    DEVICES = "devices"
    DIDS = "dids"
    SWITCHES = "switches"
    SCHEDULES = "schedules"
    CALLER_LISTS = "caller_lists"
    FLOWS = "flows"


class Resource(BaseModel):
    """What is the same for all of them: no unknown key, and nothing quoted that may be a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TargetsItem(Resource):
    """Which numbers an account and those below it may forward to; the policies of all above it hold too."""

    allow: list[Prefix] = Field(
        [],
        max_length=1_000,
        description="Prefixes that may be forwarded to, +370 for international numbers and 1 for others that begin so; "
        "an empty list for all",
    )
    deny: list[Prefix] = Field(
        [], max_length=1_000, description="Prefixes that may not be; the longest of both that fits wins"
    )
    max_length: int | None = Field(None, ge=1, le=MAX_LENGTH, description="The most digits")
    max_new_per_hour: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="How many numbers that it never forwarded to before it may take up in an hour",
    )
    max_new_per_day: int | None = Field(None, ge=0, le=1_000_000, description="Likewise in a day")
    hold_minutes: int = Field(
        0, ge=0, le=43_200, description="How long the first forward to a country that is new to it waits"
    )


class TargetsChanges(Resource):
    """What changes of which numbers an account may forward to; null empties."""

    allow: list[Prefix] | None = Field(None, max_length=1_000)
    deny: list[Prefix] | None = Field(None, max_length=1_000)
    max_length: int | None = Field(None, ge=1, le=MAX_LENGTH)
    max_new_per_hour: int | None = Field(None, ge=0, le=1_000_000)
    max_new_per_day: int | None = Field(None, ge=0, le=1_000_000)
    hold_minutes: int | None = Field(None, ge=0, le=43_200)


class AccountItem(Resource):
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

    time_zone: TimeZone | None = Field(
        None, description="For its schedules; where it is not said its owner's, and at last CALLFLOW_TIME_ZONE"
    )
    country: Country | None = Field(
        None,
        description="ISO code of the country in which its numbers are dialled; where it is not said its owner's, and "
        "at last CALLFLOW_COUNTRY",
    )
    number_pattern: NumberPattern | None = Field(
        None, description="A regular expression that the numbers it forwards to must fit, beside those of all above it"
    )
    targets: TargetsItem | None = Field(None, description="Which numbers it may forward to")

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
        has_none = "password" in info.data and info.data["password"] is None
        if policy is HashPolicy.OFF and has_none and info.data.get("password_hash") is None:
            raise ValueError("an account without a password cannot be set to off")
        return policy


class DeviceItem(Resource):
    """What rings: a phone, a trunk line, a FAX device."""

    id: Id
    technology: Technology = Field(description="`SIP`, `IAX2`, `FAX` and so on; stored in capitals")
    name: DeviceName
    owner: Username = Field(description="Username of the account that the device belongs to")
    caller_number: CallerNumber = Field("", description="The number that its calls show")
    caller_name: CallerName = Field("", description="The name that its calls show")
    ring_seconds: RingSeconds = Field(60, description="How long it rings before nobody answers; seconds")


class DidItem(Resource):
    """A number of our own, and the device that it reaches."""

    id: Id
    number: Number = Field(description="A leading + does not make it another number")
    device: Id | None = Field(None, description="Id of the device that it reaches")


_DIAL_WORDS: Final = (OTHER, NUMBER, VOICEMAIL)
_LISTED_WORDS: Final = f"{OTHER}, {NUMBER} or {VOICEMAIL}"


class TemplateError(ValueError):
    """A template, or its name, is wrong; `key` is that name as it was written."""

    def __init__(self, key: str, sentence: str) -> None:
        super().__init__(sentence)
        self.key = key


class TrunkItem(Resource):
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


class SwitchItem(Resource):
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
            "propertyNames": {"pattern": f"^{TECHNOLOGY}$"},
            "additionalProperties": {"type": ["string", "null"], "pattern": f"^{TEMPLATE}$"},
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
            if not re.fullmatch(TECHNOLOGY, key):
                raise TemplateError(key, f"a template's name must be a technology, such as SIP, or {_LISTED_WORDS}")
            if name in read:
                raise TemplateError(key, f"there is another template for {name}")
            if template and (problem := _template_problem(name, template)):
                raise TemplateError(key, f"the template for {name} {problem}")
            read[name] = template or None
        return read


def _template_problem(name: str, template: str) -> str | None:
    placeholders = set(re.findall(r"\{([^{}]*)\}", template))
    allowed = {"number", "domain"} if name == NUMBER else {"name", "technology", "domain"}
    listed = ", ".join(f"{{{placeholder}}}" for placeholder in sorted(allowed))
    if placeholders - allowed:
        return f"has a placeholder that cannot stand there; it may have {listed}"
    if not re.fullmatch(TEMPLATE, template):
        return f"must be at most 255 of a-z A-Z 0-9 @ : / . ; = _ + & , % ~ * # [ ] ( ) - and the placeholders {listed}"
    return None


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

_STRICT: Final = ConfigDict(extra="forbid", hide_input_in_errors=True)
_AnyHours = TypeVar("_AnyHours", bound=Mapping[str, object])


# `from` is no name that Python lets a class have.
Hours = TypedDict("Hours", {"from": TimeOfDay, "to": TimeOfDay})
WeeklyHours = TypedDict(
    "WeeklyHours", {"days": Annotated[list[Day], Field(min_length=1, max_length=7)], "from": TimeOfDay, "to": TimeOfDay}
)


def _window(window: _AnyHours) -> _AnyHours:
    Window.between(str(window["from"]), str(window["to"]))
    return window


ExceptionDays = TypedDict(
    "ExceptionDays",
    {
        "from": Date,
        "to": NotRequired[Date],
        "open": bool,
        "hours": NotRequired[Annotated[list[Annotated[Hours, AfterValidator(_window)]], Field(max_length=10)]],
    },
)


class HolidaysOf(TypedDict):
    """Whose public holidays, and whether they are open."""

    country: Country
    region: NotRequired[Region | None]
    open: NotRequired[bool]


for _shape in (Hours, WeeklyHours, ExceptionDays, HolidaysOf):
    _shape.__pydantic_config__ = _STRICT  # type: ignore[union-attr]  # as pydantic has it for a TypedDict


def _days(days: ExceptionDays) -> ExceptionDays:
    last = days.get("to", days["from"])
    if last < days["from"]:
        raise ValueError("must not end before it begins")
    return {"from": days["from"], "to": last, "open": days["open"], "hours": days.get("hours", [])}


def _known(holidays: HolidaysOf) -> HolidaysOf:
    region = holidays.get("region")
    if problem := holidays_problem(holidays["country"], region):
        raise ValueError(problem)
    return {"country": holidays["country"], "region": region, "open": holidays.get("open", False)}


class HolidaysChanges(Resource):
    """What changes of whose public holidays count; null empties."""

    country: Country | None = None
    region: Region | None = None
    open: bool | None = None


class ScheduleItem(Resource):
    """When something is open: by the week, but for holidays, but for exceptions."""

    id: Id
    name: Line
    owner: Username = Field(description="Username of the account that it belongs to; those below may use it")
    time_zone: TimeZone | None = Field(None, description="Where it is not said, the owner's")
    weekly: list[Annotated[WeeklyHours, AfterValidator(_window)]] = Field(
        [],
        max_length=100,
        description="Windows on days of each week: `days`, `from` (in) and `to` (out); one over midnight belongs to "
        "the day it starts on",
    )
    holidays: Annotated[HolidaysOf, AfterValidator(_known)] | None = Field(
        None, description="Whose public holidays are closed, or `open`: `country`, `region`"
    )
    exceptions: list[Annotated[ExceptionDays, AfterValidator(_days)]] = Field(
        [],
        max_length=500,
        description="Days `from` and `to`, both in, that are `open` or closed, in their `hours` or all day; the first "
        "that fits decides, over holidays and the week",
    )


class CallerListItem(Resource):
    """Callers that belong together."""

    id: Id
    name: Line
    owner: Username = Field(description="Username of the account that it belongs to; those below may use it")
    entries: list[Entry] = Field(
        [],
        max_length=MAX_ENTRIES,
        description="Numbers, prefixes such as +3706*, and `anonymous`; a leading + does not matter",
    )

    @field_validator("entries")
    @classmethod
    def _once(cls, entries: list[str]) -> list[str]:
        return list({entry.removeprefix("+"): entry for entry in entries}.values())


Item = AccountItem | DeviceItem | DidItem | SwitchItem | ScheduleItem | CallerListItem

ITEMS: Final[dict[Section, type[Item]]] = {
    Section.ACCOUNTS: AccountItem,
    Section.DEVICES: DeviceItem,
    Section.DIDS: DidItem,
    Section.SWITCHES: SwitchItem,
    Section.SCHEDULES: ScheduleItem,
    Section.CALLER_LISTS: CallerListItem,
}
"""The model of each section, as callers send it."""
