"""Webhooks: where an account is told of changes, what it was told, and what the messages look like."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.callflow import entry_shape
from callflow_service.api.changes import Change
from callflow_service.api.dependencies import (
    ApiRoute,
    Caller,
    House,
    Reader,
    TheHouse,
    Writer,
    check_precondition,
    etag_of,
    with_etag,
)
from callflow_service.api.lists import Page, cursor_value, page_of
from callflow_service.api.problems import Problem, invalid
from callflow_service.api.shapes import Id, Moment, as_json, written_moment
from callflow_service.domain.access import Role
from callflow_service.domain.webhooks import (
    MAX_URL,
    PATIENCE,
    PING,
    Event,
    address_in,
    is_secret,
    may_reach,
    new_secret,
    url_problem,
)
from callflow_service.repositories import resources, webhooks
from callflow_service.repositories.history import Entry
from callflow_service.repositories.webhooks import Owned
from callflow_service.resources.types import CallerName, Username
from callflow_service.tables import WebhookAttemptRow, WebhookDeliveryRow

router = APIRouter(prefix="/v1/webhooks", tags=["Webhooks"], route_class=ApiRoute)
messages = APIRouter(tags=["Webhooks"])
"""What receivers get, for the OpenAPI document."""


def _checked_url(url: str) -> str:
    if problem := url_problem(url):
        raise ValueError(problem)
    return url


def _checked_secret(secret: str) -> str:
    if not is_secret(secret):
        raise ValueError("must be whsec_ and then 24 to 64 bytes in base64")
    return secret


def _each_once(events: list[Event]) -> list[Event]:
    return sorted(set(events))


Url = Annotated[
    str, AfterValidator(_checked_url), WithJsonSchema({"type": "string", "format": "uri", "maxLength": MAX_URL})
]
Secret = Annotated[
    str,
    AfterValidator(_checked_secret),
    WithJsonSchema({"type": "string", "pattern": "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$", "writeOnly": True}),
]
Events = Annotated[list[Event], Field(min_length=1, max_length=100), AfterValidator(_each_once)]

_EVENTS_SAY: Final = "What it is told of; null for everything"


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class NewWebhook(_Sent):
    """A webhook as it shall be."""

    url: Url = Field(description="Where the messages go, by POST", examples=["https://crm.example.com/callflow"])
    secret: Secret | None = Field(None, repr=False, description="What messages are signed with; else one is made")
    events: Events | None = Field(None, description=_EVENTS_SAY)
    enabled: bool = True
    description: CallerName = ""
    owner: Username | None = Field(None, description="Username of the account that it is for; else your own")


class WebhookChanges(_Sent):
    """What changes; null empties, and what is not named stays as it is."""

    url: Url | None = None
    secret: Secret | None = Field(None, repr=False)
    events: Events | None = Field(None, description=_EVENTS_SAY)
    enabled: bool | None = None
    description: CallerName | None = None


class ShownWebhook(BaseModel):
    """A webhook. Its secret can be written and never read."""

    id: int
    owner: str = Field(description="Username of the account that it is for: it is told of what that one may see")
    url: str
    events: list[str] | None = Field(description=_EVENTS_SAY)
    enabled: bool
    description: str
    disabled_because: str | None = Field(description="Why the service disabled it, where it did")
    created_at: Moment
    etag: str


class AddedWebhook(ShownWebhook):
    """A new webhook, with its secret where one was made: it is shown this once."""

    secret: str | None = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="])


class WebhookList(BaseModel):
    """A page of webhooks."""

    items: list[ShownWebhook]
    next: str | None


class DeliveryAttempt(BaseModel):
    """One try to deliver a message."""

    at: Moment
    milliseconds: int
    status: int | None = Field(description="What the receiver answered; null where it did not")
    problem: str | None = Field(description="What failed; null where it was delivered")


class Delivery(BaseModel):
    """A message for a webhook, and what came of it."""

    id: int
    message_id: str = Field(description="The message's header `webhook-id`", examples=["msg_7"])
    event: str
    history: int | None = Field(description="Id of the change in the history")
    created_at: Moment
    status: Literal["waiting", "delivered", "given_up"]
    problem: str | None = Field(description="Why it was given up")
    next_attempt_at: Moment | None = Field(description="Null while an earlier message about the same thing waits")
    finished_at: Moment | None
    attempts: list[DeliveryAttempt]


class Deliveries(BaseModel):
    """A page of deliveries."""

    items: list[Delivery]
    next: str | None


class Pinged(BaseModel):
    """What a ping is about."""

    webhook: int = Field(description="Id of the webhook")


class Message(BaseModel):
    """What a webhook is sent."""

    type: Event | Literal["ping"]
    timestamp: Moment = Field(description="When it was changed")
    data: Change | Pinged = Field(description="The change as the feed has it")


@router.get("", response_model=WebhookList)
async def list_webhooks(request: Request, page: Annotated[Page, Query()], caller: Reader, house: TheHouse) -> Response:
    """Your own webhooks, by id; for an admin all of them."""
    after = cursor_value(page.cursor, int) or 0
    async with house.transactions.begin() as session:
        rows = await webhooks.page(session, caller.account, after=after, limit=page.limit + 1)
    return page_of(request, rows, limit=page.limit, key=lambda owned: owned[0].id, shape=_shown)


@router.post("", status_code=201, response_model=AddedWebhook)
async def add_webhook(request: Request, body: NewWebhook, caller: Writer, house: TheHouse) -> Response:
    """Have changes told from now on. A secret that is made here is shown this once."""
    _check_place(house, body.url)
    made = None if body.secret else new_secret()
    after = await house.feed.head(now=True)
    async with house.changing(request, caller) as session:
        account_id, username = await _owner(session, caller, body.owner)
        if await webhooks.count(session, account_id) >= webhooks.MOST:
            raise Problem("invalid", f"An account has at most {webhooks.MOST} webhooks.", {"errors": []})
        fields = body.model_dump(exclude={"owner", "secret"})
        secret = house.keys.encrypt(body.secret or made or "")
        row = await webhooks.add(session, fields | {"account_id": account_id, "secret": secret}, after=after)
        shown = _shown((row, username))
    house.expect_messages()
    return with_etag(request, shown | {"secret": made}, status=201, location=f"/v1/webhooks/{row.id}")


@router.get("/{webhook_id}", response_model=ShownWebhook)
async def show_webhook(request: Request, webhook_id: Id, caller: Reader, house: TheHouse) -> Response:
    """One webhook."""
    async with house.transactions.begin() as session:
        return with_etag(request, _shown(await _found(session, caller, webhook_id)))


@router.patch(
    "/{webhook_id}",
    response_model=ShownWebhook,
    openapi_extra={
        "requestBody": {
            "content": {"application/merge-patch+json": {"schema": {"$ref": "#/components/schemas/WebhookChanges"}}}
        }
    },
)
async def change_webhook(
    request: Request, webhook_id: Id, body: WebhookChanges, caller: Writer, house: TheHouse
) -> Response:
    """Change a webhook. One that is disabled is told of nothing, and what waits for it is given up."""
    columns = _columns(house, body)
    after = await house.feed.head(now=True) if body.enabled else 0
    async with house.transactions.begin(caller.origin) as session:
        row, username = await _found(session, caller, webhook_id, locked=True)
        check_precondition(request, house, _shown((row, username)))
        was_enabled = row.enabled
        for name, value in columns.items():
            setattr(row, name, value)
        await session.flush()
        match was_enabled, row.enabled:
            case False, True:
                await webhooks.begin(session, webhook_id, after=after)
            case True, False:
                await webhooks.end(session, webhook_id, "The webhook was disabled.")
            case True, True:
                # Something is mended, perhaps.
                await webhooks.try_now(session, webhook_id)
        shown = _shown((row, username))
    house.expect_messages()
    return with_etag(request, shown)


@router.delete("/{webhook_id}", status_code=204, response_class=Response)
async def delete_webhook(request: Request, webhook_id: Id, caller: Writer, house: TheHouse) -> Response:
    """Take a webhook away. What waits for it is not delivered any more."""
    async with house.transactions.begin(caller.origin) as session:
        found = await _found(session, caller, webhook_id, locked=True)
        check_precondition(request, house, _shown(found))
        await webhooks.remove(session, webhook_id)
    return Response(status_code=204)


@router.get("/{webhook_id}/deliveries", response_model=Deliveries)
async def list_webhook_deliveries(
    request: Request, webhook_id: Id, page: Annotated[Page, Query()], caller: Reader, house: TheHouse
) -> Response:
    """What a webhook was sent or is to be sent, newest first, with every attempt; for seven days after its end."""
    before = cursor_value(page.cursor, int)
    async with house.transactions.begin() as session:
        await _found(session, caller, webhook_id)
        rows = await webhooks.deliveries(session, webhook_id, before=before, limit=page.limit + 1)
        attempts = await webhooks.attempts(session, [row.id or 0 for row in rows])
    return page_of(
        request,
        rows,
        limit=page.limit,
        key=lambda row: row.id,
        shape=lambda row: _delivery(row, attempts.get(row.id or 0, ())),
    )


@router.post("/{webhook_id}/test", status_code=202, response_model=Delivery)
async def send_webhook_test(request: Request, webhook_id: Id, caller: Writer, house: TheHouse) -> Response:
    """Send a ping. What comes of it stands among the deliveries."""
    if await request.body():
        raise Problem("invalid", "This call takes no body.", {"errors": []})
    async with house.changing(request, caller) as session:
        row, _ = await _found(session, caller, webhook_id)
        if not row.enabled:
            raise Problem("invalid", "The webhook is disabled.", {"errors": []})
        now = datetime.now(UTC)
        body = _written(PING, now, {"webhook": webhook_id})
        delivery = await webhooks.add_ping(session, webhook_id, body, now + PATIENCE)
        shown = _delivery(delivery, ())
    house.expect_messages()
    return as_json(shown, 202)


@messages.post("change", name="receive_change")
async def receive_change(_: Message) -> None:
    """What your server is sent, signed by Standard Webhooks: answer 2xx when you have it, 410 to get no more.

    The headers `webhook-id` (the same for each attempt), `webhook-timestamp` and `webhook-signature` come with it.
    """


def message_of(event: Event, entry: Entry) -> str:
    """The message about a change."""
    return _written(event, entry[0].changed_at, {"position": entry[0].position, **entry_shape(entry)})


def _written(event: str, moment: datetime, data: dict[str, Any]) -> str:
    message = {"type": event, "timestamp": written_moment(moment), "data": data}
    # A half surrogate pair cannot be sent, and stands for nothing that a receiver could use.
    return json.dumps(message, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()


def _check_place(house: House, url: str) -> None:
    address = address_in(url)
    if address and not may_reach(address, house.webhook_networks):
        raise invalid("url", f"{address} is not a public address")


def _columns(house: House, body: WebhookChanges) -> dict[str, Any]:
    """What is stored of a change."""
    columns = body.model_dump(exclude_unset=True)
    for name in ("url", "secret"):
        if name in columns and columns[name] is None:
            raise invalid(name, "cannot be emptied")
    if body.url:
        _check_place(house, body.url)
    if body.secret:
        columns["secret"] = house.keys.encrypt(body.secret)
    if "enabled" in columns:
        columns["enabled"] = True if body.enabled is None else body.enabled
        columns["disabled_because"] = None
    if "description" in columns:
        columns["description"] = body.description or ""
    return columns


async def _owner(session: AsyncSession, caller: Caller, username: str | None) -> tuple[int, str]:
    """Id and username of the account that a webhook is for."""
    if username in {None, caller.account.username}:
        return caller.account.id, caller.account.username
    found = await resources.account_by_name(session, caller.account, username or "")
    if found is None:
        raise invalid("owner", f"there is no account {username}")
    if caller.account.role is not Role.ADMIN:
        raise Problem("not-allowed", "A webhook for another account is an admin's to add.")
    return found.id, found.username


async def _found(session: AsyncSession, caller: Caller, webhook_id: int, *, locked: bool = False) -> Owned:
    found = await webhooks.one(session, caller.account, webhook_id, locked=locked)
    if found is None:
        raise Problem("not-found")
    return found


def _shown(owned: Owned) -> dict[str, Any]:
    row, username = owned
    shown = {
        "id": row.id,
        "owner": username,
        "url": row.url,
        "events": row.events,
        "enabled": row.enabled,
        "description": row.description,
        "disabled_because": row.disabled_because,
        "created_at": written_moment(row.created_at),
    }
    return shown | {"etag": etag_of(shown)}


def _delivery(row: WebhookDeliveryRow, attempts: Sequence[WebhookAttemptRow]) -> dict[str, Any]:
    return {
        "id": row.id,
        "message_id": f"msg_{row.id}",
        "event": row.event,
        "history": row.history_id,
        "created_at": written_moment(row.created_at),
        "status": row.outcome or "waiting",
        "problem": row.problem,
        "next_attempt_at": written_moment(row.due_at) if row.due_at else None,
        "finished_at": written_moment(row.finished_at) if row.finished_at else None,
        "attempts": [
            {
                "at": written_moment(attempt.at),
                "milliseconds": attempt.milliseconds,
                "status": attempt.status,
                "problem": attempt.problem,
            }
            for attempt in attempts
        ],
    }
