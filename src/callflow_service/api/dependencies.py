"""Who asks, and what a route may take for granted about it: read as permissions in each route's parameters."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.problems import Problem
from callflow_service.api.repeating import AnsweredBefore, OneChange, key_header
from callflow_service.credentials.api_keys import Keyring
from callflow_service.credentials.guesses import Guessed, Guesses, guesser
from callflow_service.domain import access
from callflow_service.domain.access import Account, Role
from callflow_service.domain.errors import LoginFailed, StorageUnavailable, TooManyGuesses
from callflow_service.domain.history import Face, Origin, Sender
from callflow_service.domain.tokens import Scope, is_token
from callflow_service.repositories import taken_numbers, tokens
from callflow_service.repositories.taken_numbers import Alert
from callflow_service.repositories.tokens import FoundToken
from callflow_service.resources.flows import CHOICES
from callflow_service.storage.transactions import Transactions, driver
from callflow_service.usecases.calls import Calls
from callflow_service.usecases.feed import Feed
from callflow_service.usecases.policing import Policing
from callflow_service.web.request import BodyTooLarge, client_address

MAX_BODY: Final = 1024 * 1024
"""The largest request body that is read, in bytes."""

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="callflow-service"'}
_RETRY_SECONDS: Final = "2"


@dataclass(frozen=True, slots=True)
class House:
    """What the routes work with, under the operator's rules.

    Attributes:
        time_zone: Of schedules that have none, nor their accounts.
        operator: Who asks, where it is the operator's own command in this process; None where tokens say it.
    """

    transactions: Transactions
    bulk: Transactions
    guesses: Guesses
    keys: Keyring
    calls: Calls
    policing: Policing
    api_enabled: bool
    require_if_match: bool
    time_zone: str
    feed: Feed
    max_streams: int
    webhook_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    expect_messages: Callable[[], None] = lambda: None
    operator: Account | None = None
    comment_seconds: float = 15.0

    @asynccontextmanager
    async def changing(
        self, request: Request, caller: "Caller", transactions: Transactions | None = None
    ) -> AsyncIterator[AsyncSession]:
        """A session in the one transaction of a POST, under `transactions` where the usual ones are not meant.

        It is not committed where the block ends, but when the route has given its answer; with an `Idempotency-Key` the
        answer is part of it. What comes after the block must not count on what other transactions see.

        Raises:
            AnsweredBefore: The same request was answered already, with this key.
            Problem: `idempotency-in-progress` or `idempotency-mismatch`.
            StorageUnavailable: As `Transactions.begin`.
        """
        one: OneChange = request.scope["one_change"]
        transaction = (transactions or self.transactions).begin(caller.origin)
        yield await one.open(transaction, caller.account.id, self.keys)


def _house(request: Request) -> House:
    house: House = request.state.house
    return house


TheHouse = Annotated[House, Depends(_house)]


@dataclass(frozen=True, slots=True)
class Caller:
    """The account that a request's token speaks for, and what the token may do."""

    account: Account
    scope: Scope
    origin: Origin
    token_expires_at: datetime | None = None


_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="A token of this service, `cf_...`")


async def _reader(request: Request, house: TheHouse, _: Annotated[object, Depends(_bearer)]) -> Caller:
    if house.operator is not None:
        origin = Origin(house.operator.id, Face.CLI, Sender(None, request.scope["log"]["request_id"]))
        return Caller(house.operator, Scope.WRITE, origin)
    token = _sent_token(request)
    if not token:
        raise Problem("token-missing", headers=_CHALLENGE)
    address = client_address(request)
    who = guesser(Guessed.TOKEN, "", address)
    house.guesses.refuse_known(who)
    await house.guesses.refuse(who)
    found = None
    if is_token(token):
        async with house.transactions.begin() as session:
            found = await tokens.find(session, token)
    try:
        found = _check_token(found, address)
    except Problem as problem:
        if problem.slug == "token-invalid":
            await house.guesses.count(who)
            await house.guesses.share(who)
        raise
    request.scope["log"]["account"] = found.account.username
    _check_use(found.account, house)
    origin = Origin(found.account.id, Face.JSON, Sender(address, request.scope["log"]["request_id"]))
    return Caller(found.account, found.scope, origin, found.expires_at)


def _sent_token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _check_token(found: FoundToken | None, address: IPv4Address | IPv6Address | None) -> FoundToken:
    try:
        access.check_address(found.account if found else None, address)
    except LoginFailed:
        found = None
    if found is None or found.account.blocked:
        raise Problem("token-invalid", headers=_CHALLENGE)
    if found.is_expired:
        raise Problem("token-expired", headers=_CHALLENGE)
    return found


def _check_use(account: Account, house: House) -> None:
    if not (house.api_enabled and account.api_enabled):
        raise Problem("api-disabled")
    if account.role is Role.RESELLER and not account.pbx_addon:
        raise Problem("not-allowed", "A reseller needs the PBX addon.")


async def token_account(request: Request, house: House, session: AsyncSession) -> Account:
    """The account of a request that was let in before, as it is now.

    Raises:
        Problem: It would not be let in any more.
    """
    found = _check_token(await tokens.find(session, _sent_token(request)), client_address(request))
    _check_use(found.account, house)
    return found.account


Reader = Annotated[Caller, Depends(_reader)]
"""Any account with a token."""


async def _writer(caller: Reader) -> Caller:
    if caller.scope is not Scope.WRITE:
        raise Problem("scope-too-small")
    return caller


Writer = Annotated[Caller, Depends(_writer)]
"""An account with a token that may change things."""


_TOLD: Final = (Problem, RequestValidationError, TooManyGuesses, StorageUnavailable, BodyTooLarge)


class ApiRoute(APIRoute):
    """A route whose every failure is a problem document, and which takes an `Idempotency-Key` where it is a POST."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:  # noqa: ANN401 - FastAPI's own
        if "POST" in (options.get("methods") or ()):
            options["dependencies"] = [*(options.get("dependencies") or ()), Depends(key_header)]
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request of this route."""
        answer = super().get_route_handler()
        takes_query = bool(self.dependant.query_params) or any(
            dependency.query_params for dependency in self.dependant.dependencies
        )

        async def handle(request: Request) -> Response:
            log: dict[str, object] = request.scope["log"]
            log["call"] = f"api.{self.name}"
            try:
                if not takes_query:
                    _refuse_query(request)
                await _check_body(request)
                response, refused = await _in_one_change(request, answer)
            except _TOLD as error:
                refused = problem_of(error)
                response = refused.response(str(log["request_id"]))
            if refused:
                log["outcome"] = refused.slug
                if refused.slug == "target-refused":
                    log["targets_refused"] = [refused.members["reason"]]
                if refused.alerts and refused.origin:
                    await _tell(request.state.house, refused.alerts, refused.origin)
            log.setdefault("outcome", "ok")
            return response

        return handle


async def _in_one_change(
    request: Request, answer: Callable[[Request], Coroutine[Any, Any, Response]]
) -> tuple[Response, Problem | None]:
    """The answer of a route, and the problem that it tells; the transaction that `House.changing` opened ends here."""
    refused = None
    async with AsyncExitStack() as ending:
        request.scope["one_change"] = one = OneChange(request, ending)
        try:
            response = await answer(request)
        except AnsweredBefore as before:
            return before.response, None
        except Problem as problem:
            if not one.is_kept:
                raise
            await one.take_back()
            refused = problem
            response = problem.response(request.scope["log"]["request_id"])
        await one.keep(response)
    return response, refused


async def _tell(house: House, alerts: Sequence[Alert], origin: Origin) -> None:
    # The refusal is the answer, whether or not it can be told of.
    with suppress(StorageUnavailable):
        async with house.transactions.begin(origin) as session:
            await taken_numbers.tell(await driver(session), alerts, origin)


def problem_of(error: Exception) -> Problem:
    """What went wrong, in the API's words."""
    match error:
        case Problem():
            return error
        case TooManyGuesses():
            return Problem("too-many-guesses", headers={"Retry-After": str(error.retry_after_seconds)})
        case StorageUnavailable():
            return Problem("unavailable", headers={"Retry-After": _RETRY_SECONDS})
        case BodyTooLarge():
            return Problem("too-large")
        case RequestValidationError():
            return problem_of_fields(error.errors())
        case _:
            raise error


def _refuse_query(request: Request) -> None:
    if request.query_params:
        errors = [{"field": name, "message": "is not known here"} for name in request.query_params]
        raise Problem("invalid", "This call takes no query parameters.", {"errors": errors})


def problem_of_fields(details: Sequence[Any]) -> Problem:
    """All that is wrong with the fields of a request, at once, of pydantic's error details."""
    if any(each["type"] == "json_invalid" for each in details):
        return Problem("unreadable", "The request body is not JSON.")
    errors = [{"field": _field_of(each["loc"]), "message": _sentence(each)} for each in details]
    told = "; ".join(f"{each['field']}: {each['message']}" for each in errors[:3])
    return Problem("invalid", told, {"errors": errors})


def _field_of(place: Sequence[int | str]) -> str:
    field: list[str] = []
    before: int | str = ""
    for part in place:
        if part not in {"body", "query", "path", "header"} and part not in CHOICES.get(str(before), ()):
            field.append(str(part))
        before = part
    return ".".join(field)


def _sentence(details: Any) -> str:  # noqa: ANN401 - pydantic's error details
    if details["type"] == "value_error":
        return str(details["ctx"]["error"])
    if details["type"] == "extra_forbidden":
        return "is not known here"
    return str(details["msg"][:1].lower() + details["msg"][1:])


async def _check_body(request: Request) -> None:
    body = await request.body()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and media_type not in {"application/json", "application/merge-patch+json"}:
        raise Problem("media-type")
    if body and request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem("media-type", headers={"Accept-Encoding": "identity"})
    if body:
        _refuse_names_that_stand_twice(body)


class _StandsTwice(Exception):
    pass


def _refuse_names_that_stand_twice(body: bytes) -> None:
    """Refuse an object that says two things under one name: which of them counts is told nowhere.

    Raises:
        Problem: `unreadable`.
    """

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise _StandsTwice(name)
            found[name] = value
        return found

    try:
        json.loads(body, object_pairs_hook=checked)
    except _StandsTwice as error:
        raise Problem("unreadable", f"The name {error} stands twice in one object.") from None
    except (ValueError, RecursionError):
        # Told by whoever reads the body next.
        return


def etag_of(shown: dict[str, Any]) -> str:
    """A strong entity tag of what is shown."""
    text = json.dumps(shown, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def check_precondition(
    request: Request, house: House, current: dict[str, Any], others: Sequence[dict[str, Any]] = ()
) -> None:
    """Refuse a change of something that was changed since the client saw it.

    `others` are how it may have been shown meanwhile without a change.

    Raises:
        Problem: `changed-meanwhile`, or `precondition-needed` where the setting makes `If-Match` a must.
    """
    wanted = request.headers.get("if-match")
    if wanted is None:
        if house.require_if_match:
            raise Problem("precondition-needed")
        return
    tags = {tag.strip() for tag in wanted.split(",")}
    if "*" not in tags and tags.isdisjoint(f'"{shown["etag"]}"' for shown in (current, *others)):
        raise Problem("changed-meanwhile", "", {"current": current}, {"ETag": f'"{current["etag"]}"'})


def with_etag(request: Request, shown: dict[str, Any], *, status: int = 200, location: str = "") -> Response:
    """The answer with one resource; 304 where the client has it already."""
    tag = f'"{shown["etag"]}"'
    headers = {"ETag": tag} | ({"Location": quote(location)} if location else {})
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if request.method == "GET" and (tag in known or "*" in known):
        return Response(status_code=304, headers=headers)
    body = json.dumps(shown, default=str, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, headers, "application/json")
