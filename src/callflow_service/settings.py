"""Every setting, read once from the environment and passed down."""

import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from limits import parse_many
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from callflow_service.almanac.numbers import is_country
from callflow_service.domain import schedules
from callflow_service.domain.signature import HashPolicy

PREFIX: Final = "CALLFLOW_"
_TESTS_OWN: Final = "CALLFLOW_TEST_"
_PORT: Final = 5432
_SEVERAL_HOSTS: Final = re.compile(r"(?P<before>[^:/]+://(?:[^@/]*@)?)(?P<hosts>[^@/?]+,[^@/?]+)(?P<rest>[/?].*)?")


class SettingsError(Exception):
    """A setting is unknown or wrong; the text is a sentence for the operator."""


class Settings(BaseSettings):
    """The service's settings. The README's table is checked against the descriptions here."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    database_url: SecretStr = Field(
        SecretStr(""),
        description="`postgresql://user:password@host/database`; of several hosts, `h1:5432,h2:5432`, the one that "
        "takes writes is used; empty: an embedded PostgreSQL in `CALLFLOW_DATA_DIR`",
    )
    read_database_url: SecretStr = Field(
        SecretStr(""),
        description="A replica that answers the switches; empty, or while it is away: `CALLFLOW_DATABASE_URL` does",
    )
    redis_url: SecretStr = Field(
        SecretStr(""),
        description="`redis://host/0`, where all workers and instances count wrong guesses; empty: each worker its own",
    )
    encryption_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys that API keys are encrypted with, comma-separated: the first encrypts, all decrypt; "
        "empty: the file `encryption.key` in `CALLFLOW_DATA_DIR`, made when it is first needed",
    )
    data_dir: Path = Field(
        Path(".callflow-data"), description="Where the embedded PostgreSQL keeps its data, and `encryption.key` is"
    )
    host: str = Field("127.0.0.1", description="Address to serve on")
    port: int = Field(8000, ge=0, le=65535, description="Port to serve on; 0 takes a free one")
    workers: int = Field(1, ge=1, le=256, description="Number of worker processes")
    pool_size: int = Field(10, ge=1, le=1000, description="Database connections of each worker")
    database_timeout_ms: int = Field(
        1500,
        ge=50,
        le=60_000,
        description="Longest wait for the database, after which a call is answered with 503; milliseconds",
    )
    max_in_flight: int = Field(
        128, ge=1, le=100_000, description="Most calls that a worker has in work; one more is answered with 503 at once"
    )
    max_streams: int = Field(
        100,
        ge=0,
        le=10_000,
        description="Most streams of changes that a worker has open; one more is answered with 503",
    )
    drain_seconds: int = Field(
        2, ge=0, le=60, description="How long a service that is told to end takes new requests still; seconds"
    )
    guess_limit: str = Field(
        "100/minute;1000/hour",
        description="How often one address may be wrong about one account's signature or password, or a switch user's",
    )
    address_guess_limit: str = Field(
        "500/minute;5000/hour",
        description="How often one address may be wrong about all accounts together, and about all switch users",
    )
    api_enabled: bool = Field(True, description="Whether the MOR calls are served at all")  # noqa: FBT003 - a field's default
    require_if_match: bool = Field(False, description="Whether changes by the JSON API must send `If-Match`")  # noqa: FBT003 - a field's default
    allow_get: bool = Field(False, description="Whether the MOR calls may come by GET")  # noqa: FBT003 - a field's default
    hash_policy: HashPolicy = Field(
        HashPolicy.STRICT,
        description="Signature policy of accounts that have none of their own: `strict`, `compat` or `off`",
    )
    error_envelope: Literal["status", "page", "bare"] = Field(
        "status", description="How the MOR error pages are wrapped: `status`, `page` or `bare`"
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Addresses or networks, comma-separated, whose `X-Forwarded-For` is believed"
    )
    webhook_networks: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Networks, comma-separated, where webhooks may be besides public addresses"
    )
    webhook_timeout_ms: int = Field(
        5000, ge=50, le=30_000, description="How long the receiver of a webhook may take to answer; milliseconds"
    )
    technologies: Annotated[tuple[str, ...], NoDecode] = Field(
        ("SIP", "IAX2"), description="Which technology wins where devices share a name, comma-separated, first wins"
    )
    ring_seconds: int = Field(60, ge=1, le=3600, description="How long an external number rings; seconds")
    max_diversions: int = Field(5, ge=0, le=50, description="How often one call may be diverted")
    max_legs: int = Field(20, ge=1, le=60, description="How often one call may ring somebody, over all steps of chains")
    time_zone: str = Field(
        "UTC", description="Time zone of schedules whose accounts have none, such as `Europe/Vilnius`"
    )
    country: str = Field(
        "", description="ISO code of the country in which numbers without a `+` are dialled, such as `LT`; empty: none"
    )
    switch_timeout_ms: int = Field(
        300, ge=10, le=60_000, description="After this a switch is told to carry on without an answer; milliseconds"
    )
    docs_enabled: bool = Field(True, description="Whether the explorer and the OpenAPI document are served")  # noqa: FBT003 - a field's default
    metrics_enabled: bool = Field(True, description="Whether `/metrics` is served")  # noqa: FBT003 - a field's default
    tracing_enabled: bool = Field(
        False,  # noqa: FBT003 - a field's default
        description="Whether OpenTelemetry traces are sent, to where `OTEL_EXPORTER_OTLP_ENDPOINT` says",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged"
    )

    @field_validator("trusted_proxies", "webhook_networks", "technologies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("technologies")
    @classmethod
    def _in_capitals(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(technology.upper() for technology in value)

    @field_validator("trusted_proxies", "webhook_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for network in value:
                ip_network(network)
        except ValueError:
            raise ValueError("not addresses or networks, comma-separated") from None
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        schedules.time_zone(value)
        return value

    @field_validator("country")
    @classmethod
    def _iso(cls, value: str) -> str:
        if value and not is_country(value):
            raise ValueError("must be a country's ISO code such as LT")
        return value

    @field_validator("guess_limit", "address_guess_limit")
    @classmethod
    def _limits(cls, value: str) -> str:
        try:
            limits = parse_many(value)
        except ValueError:
            limits = []
        if not limits or not all(limit.amount for limit in limits):
            raise ValueError("not limits such as 100/minute;1000/hour")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: SecretStr) -> SecretStr:
        try:
            parsed = urlsplit(value.get_secret_value())
            is_redis = parsed.scheme in {"redis", "rediss", "unix"} and parsed.port != 0
        except ValueError:
            # Its message would quote the URL, and with it the password.
            is_redis = False
        if value and not is_redis:
            raise ValueError("not a Redis URL such as redis://host/0")
        return value

    @field_validator("tracing_enabled")
    @classmethod
    def _can_trace(cls, value: bool) -> bool:  # noqa: FBT001 - a validator gets the value
        if value:
            try:
                import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: PLC0415 - of the extra `tracing`
                import opentelemetry.sdk.trace  # noqa: F401, PLC0415 - likewise
            except ImportError:
                raise ValueError("tracing needs the packages of callflow-service[tracing]") from None
        return value

    @field_validator("database_url", "read_database_url")
    @classmethod
    def _postgresql(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            driver_url(value)
        return value


def driver_url(url: SecretStr) -> URL:
    """The database URL for asyncpg, whatever PostgreSQL driver the operator named.

    Several hosts, as libpq takes them (`host1:5432,host2:5432`), become `host` and `port` in the URL's query, where
    SQLAlchemy has them.

    Raises:
        ValueError: It is no URL, or not of PostgreSQL.
    """
    text = url.get_secret_value()
    several = _SEVERAL_HOSTS.fullmatch(text)
    try:
        if several:
            parsed = make_url(several["before"] + (several["rest"] or ""))
            servers = [make_url(f"postgresql://{server}") for server in several["hosts"].split(",")]
            hosts = ",".join(server.host or "" for server in servers)
            ports = ",".join(str(server.port or _PORT) for server in servers)
            parsed = parsed.update_query_dict({"host": hosts, "port": ports})
        else:
            parsed = make_url(text)
    except (ArgumentError, ValueError):
        # The parser's own message would quote the URL, and with it the password.
        raise ValueError("not a database URL") from None
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError("not a PostgreSQL URL; PostgreSQL is the only database there is")
    return parsed.set(drivername="postgresql+asyncpg")


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: One is unknown or wrong. The text names it, and never quotes its value.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(
        name
        for name in os.environ
        if name.upper().startswith(PREFIX) and not name.startswith(_TESTS_OWN) and name.upper() not in known
    )
    if unknown:
        raise SettingsError(f"Unknown setting {unknown[0]}; the settings are {', '.join(sorted(known))}.")
    try:
        return Settings()
    except ValidationError as error:
        problem = error.errors()[0]
        name = PREFIX + str(problem["loc"][0]).upper()
        raise SettingsError(f"The setting {name} is wrong: {problem['msg'].removeprefix('Value error, ')}.") from None
