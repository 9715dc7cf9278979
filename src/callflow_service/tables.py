"""The tables, and in their constraints what a stored call flow can never be."""

from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, CIDR, INET, JSONB
from sqlmodel import Field, SQLModel

metadata: MetaData = SQLModel.metadata
# Constraint names are how a violated constraint becomes a domain error, so they must be predictable.
metadata.naming_convention = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class AccountRow(SQLModel, table=True):
    """Who may call: an admin, a reseller, an accountant or a user."""

    __tablename__: ClassVar[str] = "account"
    __table_args__ = (
        UniqueConstraint("username"),
        ForeignKeyConstraint(["owner_id"], ["account.id"]),
        CheckConstraint("id >= 0", name="id"),
        CheckConstraint("role IN ('admin', 'reseller', 'accountant', 'user')", name="role"),
        CheckConstraint("hash_policy IN ('strict', 'compat', 'off')", name="hash_policy"),
        CheckConstraint("hash_policy <> 'off' OR password_hash IS NOT NULL", name="off_needs_password"),
        CheckConstraint("(role = 'admin') = (owner_id IS NULL)", name="owner"),
        CheckConstraint("country ~ '^[A-Z]{2}$'", name="country"),
        CheckConstraint("char_length(number_pattern) <= 255", name="number_pattern"),
        CheckConstraint("jsonb_typeof(targets) = 'object'", name="targets"),
        # Whether anybody has any, for the lookups of numbers.
        Index(
            "ix_account_with_target_rules",
            "id",
            postgresql_where=text("num_nonnulls(country, number_pattern, targets) > 0"),
        ),
        Index(None, "owner_id"),
    )

    id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    username: str = Field(sa_type=Text)
    name: str = Field(sa_type=Text)
    role: str = Field(sa_type=Text)
    owner_id: int | None = Field(sa_type=BigInteger)
    api_key: str | None = Field(sa_type=Text)
    password_hash: str | None = Field(sa_type=Text)
    hash_policy: str | None = Field(sa_type=Text)
    pbx_addon: bool
    api_enabled: bool
    blocked: bool
    allowed_addresses: list[IPv4Network | IPv6Network] | None = Field(sa_column=Column(ARRAY(CIDR)))
    time_zone: str | None = Field(default=None, sa_type=Text)
    country: str | None = Field(default=None, sa_type=Text)
    number_pattern: str | None = Field(default=None, sa_type=Text)
    targets: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))


class AccountLockRow(SQLModel, table=True):
    """An account whose devices, and those of the accounts below it, forward to no number."""

    __tablename__: ClassVar[str] = "account_lock"
    __table_args__ = (ForeignKeyConstraint(["account_id"], ["account.id"], ondelete="CASCADE"),)

    account_id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    locked_at: datetime = Field(
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())
    )


class DeviceRow(SQLModel, table=True):
    """What rings: a phone, a trunk line, a FAX device."""

    __tablename__: ClassVar[str] = "device"
    __table_args__ = (
        ForeignKeyConstraint(["owner_id"], ["account.id"]),
        CheckConstraint("id >= 0", name="id"),
        CheckConstraint("ring_seconds BETWEEN 1 AND 3600", name="ring_seconds"),
        Index(None, "owner_id", "id"),
        Index(None, "name"),
    )

    id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    technology: str = Field(sa_type=Text)
    name: str = Field(sa_type=Text)
    owner_id: int = Field(sa_type=BigInteger)
    caller_number: str = Field(sa_type=Text)
    caller_name: str = Field(sa_type=Text)
    ring_seconds: int


class DidRow(SQLModel, table=True):
    """A number of our own, and the device that it reaches."""

    __tablename__: ClassVar[str] = "did"
    __table_args__ = (
        # The target of the call flow's composite key: a DID caller ID must be the device's own.
        UniqueConstraint("id", "device_id"),
        ForeignKeyConstraint(["device_id"], ["device.id"]),
        CheckConstraint("id >= 0", name="id"),
        Index(None, "device_id"),
        # A leading + does not matter when a number is dialled, so it does not make two numbers either.
        Index("uq_did_number", text("ltrim(number, '+')"), unique=True),
    )

    id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    number: str = Field(sa_type=Text)
    device_id: int | None = Field(sa_type=BigInteger)


class CallFlowRow(SQLModel, table=True):
    """What a device does in one state; `priority` is always 1, as MOR shows it.

    The columns from `action` on hold what MOR's calls show of it. `otherwise` is the whole action where they cannot say
    it, `rules` are the rules before it; both are documents as `domain.flow_documents` has them, without labels.
    """

    __tablename__: ClassVar[str] = "callflow"
    __table_args__ = (
        ForeignKeyConstraint(["device_id"], ["device.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(["target_device_id"], ["device.id"]),
        # MATCH SIMPLE: checked only where a DID is set, and then it must be this device's.
        ForeignKeyConstraint(["caller_id_did_id", "device_id"], ["did.id", "did.device_id"]),
        CheckConstraint("state IN ('before_call', 'no_answer', 'failed', 'busy')", name="state"),
        CheckConstraint("priority >= 1", name="priority"),
        CheckConstraint("action IN ('empty', 'forward', 'fax_detect', 'voicemail')", name="action"),
        CheckConstraint("action <> 'fax_detect' OR state = 'before_call'", name="fax_detect_before_call"),
        CheckConstraint(
            "num_nonnulls(target_device_id, target_number) = (action IN ('forward', 'fax_detect'))::integer",
            name="one_target",
        ),
        CheckConstraint("target_number IS NULL OR action = 'forward'", name="number_is_forward"),
        CheckConstraint("(caller_id IS NOT NULL) = (action = 'forward')", name="caller_id_is_forward"),
        CheckConstraint("caller_id IN ('device', 'source', 'did', 'custom')", name="caller_id"),
        CheckConstraint(
            "(caller_id_did_id IS NOT NULL) = (caller_id IS NOT DISTINCT FROM 'did')", name="caller_id_did"
        ),
        CheckConstraint(
            "(caller_id_text IS NOT NULL) = (caller_id IS NOT DISTINCT FROM 'custom')", name="caller_id_text"
        ),
        CheckConstraint("char_length(caller_id_text) <= 255", name="caller_id_text_length"),
        CheckConstraint("callflow_are_rules(rules, state)", name="rules"),
        CheckConstraint("callflow_is_action(otherwise, state)", name="otherwise"),
        Index(None, "target_device_id", postgresql_where=text("target_device_id IS NOT NULL")),
        Index(None, "caller_id_did_id", postgresql_where=text("caller_id_did_id IS NOT NULL")),
        # Room on each page for the new version of a row, so that an update need not touch the indexes.
        {"postgresql_with": {"fillfactor": 80}},
    )

    device_id: int = Field(sa_type=BigInteger, primary_key=True)
    state: str = Field(sa_type=Text, primary_key=True)
    priority: int = Field(primary_key=True)
    action: str = Field(sa_type=Text)
    target_device_id: int | None = Field(sa_type=BigInteger)
    target_number: str | None = Field(sa_type=Text)
    caller_id: str | None = Field(sa_type=Text)
    caller_id_did_id: int | None = Field(sa_type=BigInteger)
    caller_id_text: str | None = Field(sa_type=Text)
    rules: list[dict[str, Any]] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))
    otherwise: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB(none_as_null=True)))


class CallFlowReferenceRow(SQLModel, table=True):
    """One thing that the documents of a state name or ask; what they name stays as long. A trigger keeps these rows."""

    __tablename__: ClassVar[str] = "callflow_reference"
    __table_args__ = (
        ForeignKeyConstraint(["device_id"], ["device.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(["target_device_id"], ["device.id"]),
        ForeignKeyConstraint(["did_id", "device_id"], ["did.id", "did.device_id"]),
        ForeignKeyConstraint(["schedule_id"], ["schedule.id"]),
        ForeignKeyConstraint(["caller_list_id"], ["caller_list.id"]),
        Index(None, "device_id", "state"),
        Index(None, "target_device_id", postgresql_where=text("target_device_id IS NOT NULL")),
        Index(None, "did_id", postgresql_where=text("did_id IS NOT NULL")),
        Index(None, "schedule_id", postgresql_where=text("schedule_id IS NOT NULL")),
        Index(None, "caller_list_id", postgresql_where=text("caller_list_id IS NOT NULL")),
    )

    id: int = Field(sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    device_id: int = Field(sa_type=BigInteger)
    state: str = Field(sa_type=Text)
    target_device_id: int | None = Field(sa_type=BigInteger)
    target_number: str | None = Field(sa_type=Text)
    did_id: int | None = Field(sa_type=BigInteger)
    schedule_id: int | None = Field(sa_type=BigInteger)
    caller_list_id: int | None = Field(sa_type=BigInteger)
    asks_internal: bool | None = Field()
    """Set where a rule asks whether the caller is internal, which is looked for nowhere else."""


class CallFlowHistoryRow(SQLModel, table=True):
    """One change of one thing: by which account, through which face, from where, when, before and after.

    `kind` is `callflow` for a state of a device, else the table's name; `resource` is the key of the row in it. It has
    no foreign keys: history outlives the device and the account it speaks of. No secret ever stands in it.
    """

    __tablename__: ClassVar[str] = "callflow_history"
    __table_args__ = (
        CheckConstraint(
            "kind <> 'callflow' OR num_nonnulls(device_id, state, priority, after) = 4", name="callflow_is_whole"
        ),
        CheckConstraint("kind = 'callflow' OR resource IS NOT NULL", name="resource"),
        CheckConstraint("num_nonnulls(before, after) > 0", name="something_changed"),
        Index(None, "device_id", "id"),
        Index(None, "account_id", "id"),
        # Each row stands in one of these two, so that a change pays for one of them.
        Index(
            "ix_callflow_history_waiting", text("coalesce(turn, id)"), "id", postgresql_where=text("position IS NULL")
        ),
        Index("uq_callflow_history_position", "position", unique=True, postgresql_where=text("position IS NOT NULL")),
    )

    id: int = Field(sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    changed_at: datetime = Field(
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())
    )
    kind: str = Field(sa_type=Text, sa_column_kwargs={"server_default": "callflow"})
    resource: str | None = Field(sa_type=Text)
    undoes: int | None = Field(sa_type=BigInteger)
    account_id: int | None = Field(sa_type=BigInteger)
    face: str = Field(sa_type=Text)
    address: IPv4Address | IPv6Address | None = Field(sa_column=Column(INET))
    request_id: str = Field(sa_type=Text)
    device_id: int | None = Field(sa_type=BigInteger)
    state: str | None = Field(sa_type=Text)
    priority: int | None
    before: dict[str, Any] | None = Field(sa_column=Column(JSONB))
    after: dict[str, Any] | None = Field(sa_column=Column(JSONB))
    # Drawn from the sequence of ids when a transaction of several statements ends; one statement alone has its id.
    turn: int | None = Field(default=None, sa_type=BigInteger)
    # Its place in the feed, given after it was committed.
    position: int | None = Field(default=None, sa_type=BigInteger)


class ChangeFeedRow(SQLModel, table=True):
    """The one row that says how many changes have a position. Who gives positions holds its lock."""

    __tablename__: ClassVar[str] = "change_feed"
    __table_args__ = (CheckConstraint("is_only", name="one_row"),)

    is_only: bool = Field(primary_key=True, sa_column_kwargs={"server_default": text("true")})
    head: int = Field(sa_type=BigInteger)


class TokenRow(SQLModel, table=True):
    """A token of the JSON API. It is random, so a fast hash of it is stored, and it is shown once."""

    __tablename__: ClassVar[str] = "token"
    __table_args__ = (
        ForeignKeyConstraint(["account_id"], ["account.id"], ondelete="CASCADE"),
        UniqueConstraint("token_hash"),
        CheckConstraint("scope IN ('read', 'write')", name="scope"),
        Index(None, "account_id"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    account_id: int = Field(sa_type=BigInteger)
    name: str = Field(sa_type=Text)
    scope: str = Field(sa_type=Text)
    token_hash: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = Field(
        default=None, sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())
    )
    expires_at: datetime | None = Field(sa_column=Column(DateTime(timezone=True)))
    last_used_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))


class KeptAnswerRow(SQLModel, table=True):
    """The answer to a request that may come again under its `Idempotency-Key`; encrypted, for it can show a secret."""

    __tablename__: ClassVar[str] = "kept_answer"
    __table_args__ = (
        ForeignKeyConstraint(["account_id"], ["account.id"], ondelete="CASCADE"),
        Index(None, "kept_at"),
    )

    account_id: int = Field(sa_type=BigInteger, primary_key=True)
    key: str = Field(sa_type=Text, primary_key=True)
    fingerprint: bytes = Field(sa_type=LargeBinary)
    answer: str = Field(sa_type=Text)
    kept_at: datetime = Field(
        sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())
    )


class SwitchUserRow(SQLModel, table=True):
    """A switch that may ask where a call goes, and how it dials."""

    __tablename__: ClassVar[str] = "switch_user"
    __table_args__ = (
        CheckConstraint("username <> ''", name="username"),
        CheckConstraint("rejected IN ('busy', 'failed')", name="rejected"),
        CheckConstraint("redirected IN ('failed', 'caller')", name="redirected"),
    )

    username: str = Field(sa_type=Text, primary_key=True)
    password_hash: str = Field(sa_type=Text)
    domain: str = Field(sa_type=Text)
    trust_headers: bool
    dial: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    # With defaults in the database, so that the release before can still load switch users.
    rejected: str = Field(sa_type=Text, sa_column_kwargs={"server_default": "busy"})
    redirected: str = Field(sa_type=Text, sa_column_kwargs={"server_default": "failed"})
    early_media: bool = Field(sa_column_kwargs={"server_default": text("false")})
    trunk: dict[str, Any] | None = Field(sa_column=Column(JSONB(none_as_null=True)))


class ScheduleRow(SQLModel, table=True):
    """When something is open: by the week, but for holidays, but for exceptions."""

    __tablename__: ClassVar[str] = "schedule"
    __table_args__ = (
        ForeignKeyConstraint(["owner_id"], ["account.id"]),
        CheckConstraint("id >= 0", name="id"),
        CheckConstraint("jsonb_typeof(weekly) = 'array'", name="weekly"),
        CheckConstraint("jsonb_typeof(holidays) = 'object'", name="holidays"),
        CheckConstraint("jsonb_typeof(exceptions) = 'array'", name="exceptions"),
        Index(None, "owner_id", "id"),
    )

    id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    name: str = Field(sa_type=Text)
    owner_id: int = Field(sa_type=BigInteger)
    time_zone: str | None = Field(sa_type=Text)
    weekly: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))
    holidays: dict[str, Any] | None = Field(sa_column=Column(JSONB(none_as_null=True)))
    exceptions: list[dict[str, Any]] = Field(sa_column=Column(JSONB, nullable=False))


class CallerListRow(SQLModel, table=True):
    """Numbers that call: `entries` as people read them. A trigger keeps `caller_list_entry` to them."""

    __tablename__: ClassVar[str] = "caller_list"
    __table_args__ = (
        ForeignKeyConstraint(["owner_id"], ["account.id"]),
        CheckConstraint("id >= 0", name="id"),
        CheckConstraint("cardinality(entries) <= 10000", name="entries"),
        Index(None, "owner_id", "id"),
    )

    id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    name: str = Field(sa_type=Text)
    owner_id: int = Field(sa_type=BigInteger)
    entries: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))


class CallerListEntryRow(SQLModel, table=True):
    """One entry of a caller list, without its `+`, where an index finds it."""

    __tablename__: ClassVar[str] = "caller_list_entry"
    __table_args__ = (ForeignKeyConstraint(["list_id"], ["caller_list.id"], ondelete="CASCADE"),)

    list_id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    entry: str = Field(sa_type=Text, primary_key=True)


class TakenNumberRow(SQLModel, table=True):
    """A number that an account has taken up for its forwards while its policies counted them, and since when."""

    __tablename__: ClassVar[str] = "taken_number"
    __table_args__ = (ForeignKeyConstraint(["account_id"], ["account.id"], ondelete="CASCADE"),)

    account_id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    number: str = Field(sa_type=Text, primary_key=True)
    country: str = Field(sa_type=Text)
    since: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))


class TargetAlertRow(SQLModel, table=True):
    """A forward that was refused or held for its number. The same within an hour is counted, not told again.

    It has no foreign keys: like the history it outlives what it speaks of.
    """

    __tablename__: ClassVar[str] = "target_alert"
    __table_args__ = (
        CheckConstraint("times >= 1", name="times"),
        Index(None, "device_id", "id"),
        Index(None, "account_id", "id"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    first_at: datetime = Field(
        default=None, sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())
    )
    last_at: datetime = Field(
        default=None, sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())
    )
    times: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    device_id: int = Field(sa_type=BigInteger)
    number: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    held_until: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))
    account_id: int = Field(sa_type=BigInteger)
    face: str = Field(sa_type=Text)
    address: IPv4Address | IPv6Address | None = Field(default=None, sa_column=Column(INET))


class ProfileRow(SQLModel, table=True):
    """A change of many devices' call flows under a name, which can be applied and withdrawn."""

    __tablename__: ClassVar[str] = "profile"
    __table_args__ = (
        ForeignKeyConstraint(["owner_id"], ["account.id"]),
        CheckConstraint("id >= 0", name="id"),
        CheckConstraint("applied_states >= 0", name="applied_states"),
        Index(None, "owner_id", "id"),
    )

    id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    name: str = Field(sa_type=Text)
    owner_id: int = Field(sa_type=BigInteger)
    where: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    set: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    applied_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))
    applied_states: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})


class RememberedFlowRow(SQLModel, table=True):
    """What a state of a device was before a profile was applied to it: `history_id` is the entry of that change.

    `kind` says what `holder_id` is the id of. It has no foreign keys: one to the device would have a device's deletion
    and a bulk change wait for each other.
    """

    __tablename__: ClassVar[str] = "remembered_flow"
    __table_args__ = (
        CheckConstraint("kind IN ('profile', 'lock')", name="kind"),
        CheckConstraint("state IN ('before_call', 'no_answer', 'failed', 'busy')", name="state"),
    )

    kind: str = Field(sa_type=Text, primary_key=True)
    holder_id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    device_id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    state: str = Field(sa_type=Text, primary_key=True)
    history_id: int = Field(sa_type=BigInteger)
    before: dict[str, Any] | None = Field(sa_column=Column(JSONB(none_as_null=True)))


class WebhookRow(SQLModel, table=True):
    """An address that is told of changes which its account may see. Its secret is encrypted as API keys are."""

    __tablename__: ClassVar[str] = "webhook"
    __table_args__ = (
        ForeignKeyConstraint(["account_id"], ["account.id"], ondelete="CASCADE"),
        Index(None, "account_id", "id"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    account_id: int = Field(sa_type=BigInteger)
    url: str = Field(sa_type=Text)
    secret: str = Field(sa_type=Text)
    events: list[str] | None = Field(sa_column=Column(ARRAY(Text)))
    enabled: bool
    description: str = Field(sa_type=Text)
    disabled_because: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(
        default=None, sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())
    )


class WebhookProgressRow(SQLModel, table=True):
    """How far a webhook has come in the feed, and which worker delivers to it.

    It is apart from the webhook, so that what changes all the time locks nobody out of the webhook and leaves no
    history.
    """

    __tablename__: ClassVar[str] = "webhook_progress"
    __table_args__ = (ForeignKeyConstraint(["webhook_id"], ["webhook.id"], ondelete="CASCADE"),)

    webhook_id: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    position: int = Field(sa_type=BigInteger)
    failures: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    rests_until: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))
    holder: str | None = Field(default=None, sa_type=Text)
    held_until: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))


class WebhookDeliveryRow(SQLModel, table=True):
    """One message for one webhook: waiting, delivered or given up.

    Of the waiting ones about one `subject`, the first alone is due; the next becomes due when that one is finished. It
    has no reference to the webhook: to delete a webhook must not take as long as to delete all that it was told.
    """

    __tablename__: ClassVar[str] = "webhook_delivery"
    __table_args__ = (
        UniqueConstraint("webhook_id", "history_id"),
        CheckConstraint("(finished_at IS NULL) = (outcome IS NULL)", name="outcome_when_finished"),
        CheckConstraint("outcome IN ('delivered', 'given_up')", name="outcome"),
        CheckConstraint("due_at IS NULL OR finished_at IS NULL", name="due_or_finished"),
        Index(None, "webhook_id", "id"),
        Index("ix_webhook_delivery_due", "webhook_id", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index(
            "ix_webhook_delivery_waiting", "webhook_id", "subject", "id", postgresql_where=text("finished_at IS NULL")
        ),
        Index("ix_webhook_delivery_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    webhook_id: int = Field(sa_type=BigInteger)
    event: str = Field(sa_type=Text)
    subject: str | None = Field(sa_type=Text)
    history_id: int | None = Field(sa_type=BigInteger)
    body: str = Field(sa_type=Text)
    created_at: datetime = Field(
        default=None, sa_column=Column(DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())
    )
    expires_at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    attempts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    due_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))
    finished_at: datetime | None = Field(default=None, sa_column=Column(DateTime(timezone=True)))
    outcome: str | None = Field(default=None, sa_type=Text)
    problem: str | None = Field(default=None, sa_type=Text)


class WebhookAttemptRow(SQLModel, table=True):
    """One try to deliver a message, and what came of it."""

    __tablename__: ClassVar[str] = "webhook_attempt"
    __table_args__ = (
        ForeignKeyConstraint(["delivery_id"], ["webhook_delivery.id"], ondelete="CASCADE"),
        Index(None, "delivery_id", "id"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    delivery_id: int = Field(sa_type=BigInteger)
    at: datetime = Field(sa_column=Column(DateTime(timezone=True), nullable=False))
    milliseconds: int
    status: int | None
    problem: str | None = Field(sa_type=Text)
