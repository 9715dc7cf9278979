"""Accounts, devices, DIDs and switch users: one way to list, show, add, change and delete for all four."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, cast

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from sqlalchemy import ColumnElement
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel, col
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.dependencies import (
    ApiRoute,
    House,
    Reader,
    TheHouse,
    Writer,
    check_precondition,
    etag_of,
    problem_of_fields,
    with_etag,
)
from callflow_service.api.lists import Page, cursor_value, page_of
from callflow_service.api.problems import Problem, invalid
from callflow_service.api.shapes import Id, Text
from callflow_service.credentials.passwords import hash_password
from callflow_service.credentials.switch_passwords import hash_switch_password
from callflow_service.domain.access import Account, Role, may_change
from callflow_service.domain.callflow import FAX_TECHNOLOGY
from callflow_service.domain.signature import HashPolicy
from callflow_service.repositories import resources
from callflow_service.repositories.resources import Key, Row, Statement, Wanted
from callflow_service.resources.models import AccountItem, DeviceItem, DidItem, SwitchItem
from callflow_service.tables import AccountRow, DeviceRow, DidRow, SwitchUserRow


class AccountsPage(Page):
    """Which accounts."""

    q: Annotated[Text | None, Field(max_length=100, description="Part of a username or a name")] = None
    owner: Annotated[Text | None, Field(description="Username of the owner")] = None
    role: Role | None = None
    sort: Literal["id", "-id"] = "id"


class DevicesPage(Page):
    """Which devices."""

    q: Annotated[Text | None, Field(max_length=100, description="Part of a label or a caller ID")] = None
    owner: Annotated[Text | None, Field(description="Username of the owner")] = None
    technology: Text | None = None
    forwarding: Annotated[bool | None, Field(description="Whether any call flow is set")] = None
    sort: Literal["id", "-id"] = "id"


class DidsPage(Page):
    """Which DIDs."""

    q: Annotated[Text | None, Field(max_length=100, description="Part of a number")] = None
    owner: Annotated[Text | None, Field(description="Username of the owner of its device")] = None
    device: Annotated[Id | None, Field(description="Id of its device")] = None
    sort: Literal["id", "-id"] = "id"


class SwitchesPage(Page):
    """Which switch users."""

    q: Annotated[Text | None, Field(max_length=100, description="Part of a username")] = None
    sort: Literal["id", "-id"] = "id"


class ShownAccount(BaseModel):
    """An account. Its secrets can be written and never read."""

    id: int
    username: str
    name: str
    role: Role
    owner: str | None
    hash_policy: str | None
    pbx_addon: bool
    api_enabled: bool
    blocked: bool
    allowed_addresses: list[str] | None
    has_api_key: bool
    has_password: bool
    etag: str


class ShownDevice(BaseModel):
    """A device."""

    id: int
    technology: str
    name: str
    label: str = Field(examples=["SIP/101"])
    owner: str
    caller_number: str
    caller_name: str
    ring_seconds: int
    dids: list[str]
    etag: str


class ShownDid(BaseModel):
    """A DID."""

    id: int
    number: str
    device: int | None
    etag: str


class ShownSwitch(BaseModel):
    """A switch user. Its password can be written and never read."""

    id: str
    username: str
    domain: str
    trust_headers: bool
    dial: dict[str, str | None]
    rejected: str
    redirected: str
    early_media: bool
    trunk: dict[str, Any] | None
    etag: str


@dataclass(frozen=True, slots=True)
class Resource:
    """What tells one resource from the others."""

    name: str
    table: type[SQLModel]
    kind: str
    key: Any
    key_type: type[Any]
    item: type[BaseModel]
    shown: type[BaseModel]
    page: type[Page]
    statement: Callable[[Account], Statement]
    filters: Callable[[Wanted], list[ColumnElement[bool]]]
    shape: Callable[[Row], dict[str, Any]]
    owners: Callable[[Row], tuple[int, int | None] | None]
    columns: Callable[["Change"], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Change:
    """One resource as it shall be: `written` are the fields that the request itself names, `row` is what is stored."""

    session: AsyncSession
    house: House
    caller: Account
    item: BaseModel
    written: frozenset[str]
    row: Any = None


def _account_shape(row: Row) -> dict[str, Any]:
    account, owner = row
    addresses = account.allowed_addresses
    return {
        "id": account.id,
        "username": account.username,
        "name": account.name,
        "role": account.role,
        "owner": owner,
        "hash_policy": account.hash_policy,
        "pbx_addon": account.pbx_addon,
        "api_enabled": account.api_enabled,
        "blocked": account.blocked,
        "allowed_addresses": [str(network) for network in addresses] if addresses else None,
        "has_api_key": account.api_key is not None,
        "has_password": account.password_hash is not None,
    }


def _device_shape(row: Row) -> dict[str, Any]:
    device, owner, numbers = row
    return {
        "id": device.id,
        "technology": device.technology,
        "name": device.name,
        "label": f"{device.technology}/{device.name}",
        "owner": owner.username,
        "caller_number": device.caller_number,
        "caller_name": device.caller_name,
        "ring_seconds": device.ring_seconds,
        "dids": numbers or [],
    }


def _did_shape(row: Row) -> dict[str, Any]:
    did, _ = row
    return {"id": did.id, "number": did.number, "device": did.device_id}


def _switch_shape(row: Row) -> dict[str, Any]:
    (switch,) = row
    return {"id": switch.username, **switch.model_dump(exclude={"password_hash"})}


async def _account_columns(change: Change) -> dict[str, Any]:
    item, caller = cast(AccountItem, change.item), change.caller
    owner = await resources.account_by_name(change.session, caller, item.owner) if item.owner else None
    if item.owner and owner is None:
        raise invalid("owner", f"there is no account {item.owner}")
    allowed = {Role.ADMIN, Role.RESELLER} if item.role is Role.USER else {Role.ADMIN}
    if owner is not None and Role(owner.role) not in allowed:
        raise invalid("owner", "the owner of a user is a reseller or an admin, any other's an admin")
    if caller.role is Role.RESELLER and (item.role is not Role.USER or owner is None or owner.id != caller.id):
        raise Problem("not-allowed", "A reseller has users of its own, and no other accounts.")
    stored = change.row.hash_policy if change.row else None
    if caller.role is Role.RESELLER and item.hash_policy not in {None, HashPolicy.STRICT, caller.hash_policy, stored}:
        raise Problem("not-allowed", "A reseller gives no user a hash_policy that is laxer than its own.")
    columns = item.model_dump(exclude={"owner", "password", "api_key", "name"}) | {
        "name": item.name or item.username,
        "owner_id": owner.id if owner else None,
    }
    if "password" in change.written:
        # The hash is slow, and other requests go on meanwhile.
        columns["password_hash"] = await asyncio.to_thread(hash_password, item.password) if item.password else None
    if "api_key" in change.written:
        columns["api_key"] = change.house.keys.encrypt(item.api_key) if item.api_key else None
    return columns


async def _device_columns(change: Change) -> dict[str, Any]:
    item, caller = cast(DeviceItem, change.item), change.caller
    owner = await resources.account_by_name(change.session, caller, item.owner)
    if owner is None:
        raise invalid("owner", f"there is no account {item.owner}")
    if caller.role is not Role.ADMIN and caller.id not in {owner.id, owner.owner_id}:
        raise Problem("not-allowed")
    # A number that is called can be a device's name, so nobody may take the name of a device elsewhere.
    is_named_so = change.row is not None and (change.row.technology, change.row.name) == (item.technology, item.name)
    if not is_named_so and await resources.is_taken_elsewhere(change.session, caller, item.name):
        raise Problem("already-exists", f"There is a device {item.name} already.")
    return item.model_dump(exclude={"owner"}) | {"owner_id": owner.id}


async def _did_columns(change: Change) -> dict[str, Any]:
    item, caller = cast(DidItem, change.item), change.caller
    if caller.role is not Role.ADMIN and change.row is not None and change.row.number != item.number:
        raise Problem("not-allowed", "A DID's number is an admin's to change.")
    if item.device is None:
        if caller.role is not Role.ADMIN:
            raise Problem("not-allowed", "A DID without a device is an admin's.")
    else:
        condition = col(DeviceRow.id) == item.device
        if await resources.one(change.session, resources.devices(caller), condition) is None:
            raise invalid("device", f"there is no device {item.device}")
    return {"id": item.id, "number": item.number, "device_id": item.device}


async def _switch_columns(change: Change) -> dict[str, Any]:
    item = cast(SwitchItem, change.item)
    columns = item.model_dump(exclude={"password", "trunk"}) | {
        "trunk": json.loads(item.trunk.model_dump_json()) if item.trunk else None
    }
    if "password" in change.written:
        columns["password_hash"] = hash_switch_password(item.password)
    return columns


RESOURCES: Final = (
    Resource(
        name="accounts",
        table=AccountRow,
        kind="account",
        key=col(AccountRow.id),
        key_type=int,
        item=AccountItem,
        shown=ShownAccount,
        page=AccountsPage,
        statement=resources.accounts,
        filters=resources.account_filters,
        shape=_account_shape,
        owners=lambda row: (row[0].id, row[0].owner_id),
        columns=_account_columns,
    ),
    Resource(
        name="devices",
        table=DeviceRow,
        kind="device",
        key=col(DeviceRow.id),
        key_type=int,
        item=DeviceItem,
        shown=ShownDevice,
        page=DevicesPage,
        statement=resources.devices,
        filters=resources.device_filters,
        shape=_device_shape,
        owners=lambda row: (row[1].id, row[1].owner_id),
        columns=_device_columns,
    ),
    Resource(
        name="dids",
        table=DidRow,
        kind="did",
        key=col(DidRow.id),
        key_type=int,
        item=DidItem,
        shown=ShownDid,
        page=DidsPage,
        statement=resources.dids,
        filters=resources.did_filters,
        shape=_did_shape,
        owners=lambda row: (row[1].id, row[1].owner_id) if row[1] else None,
        columns=_did_columns,
    ),
    Resource(
        name="switches",
        table=SwitchUserRow,
        kind="switch_user",
        key=col(SwitchUserRow.username),
        key_type=str,
        item=SwitchItem,
        shown=ShownSwitch,
        page=SwitchesPage,
        statement=resources.switches,
        filters=resources.switch_filters,
        shape=_switch_shape,
        owners=lambda _: None,
        columns=_switch_columns,
    ),
)
"""The four."""


def routers() -> list[APIRouter]:
    """The routes of the four."""
    return [_router(resource) for resource in RESOURCES]


def _router(resource: Resource) -> APIRouter:  # noqa: C901, PLR0915 - five routes, each a few lines
    router = APIRouter(prefix=f"/v1/{resource.name}", tags=[resource.name.capitalize()], route_class=ApiRoute)
    key_type, page_type = resource.key_type, resource.page
    path_type = Id if key_type is int else Text
    singular = resource.kind.removesuffix("_user")
    new_item, changes = _new_model(resource), _patch_model(resource)
    listed = create_model(
        f"{resource.shown.__name__}List",
        items=(list[resource.shown], ...),  # type: ignore[name-defined]  # a model made at run time
        next=(str | None, Field(description="Where the next page is")),
        __doc__="A page of a list.",
    )

    @router.get("", response_model=listed, name=f"list_{resource.name}")
    async def list_(request: Request, page: Annotated[page_type, Query()], caller: Reader, house: TheHouse) -> Response:  # type: ignore[valid-type]  # likewise
        fields = cast(Page, page).model_dump(exclude={"limit", "cursor", "sort"})
        if resource.kind == "switch_user" and caller.account.role is not Role.ADMIN:
            raise Problem("not-allowed", "Switch users are an admin's.")
        after = cursor_value(page.cursor, key_type)  # type: ignore[attr-defined]  # likewise
        descending = page.sort == "-id"  # type: ignore[attr-defined]  # likewise
        wanted = Wanted(page.limit + 1, after, descending, **fields)  # type: ignore[attr-defined]  # likewise
        async with house.transactions.begin() as session:
            statement = resource.statement(caller.account).where(*resource.filters(wanted))
            rows = await resources.page(session, statement, resource.key, wanted)
        return page_of(
            request,
            rows,
            limit=wanted.limit - 1,
            key=lambda row: getattr(row[0], resource.key.key),
            shape=lambda row: _tagged(resource, row),
        )

    @router.get("/{key}", response_model=resource.shown, name=f"show_{singular}")
    async def show(request: Request, key: path_type, caller: Reader, house: TheHouse) -> Response:  # type: ignore[valid-type]  # likewise
        async with house.transactions.begin() as session:
            return with_etag(request, _tagged(resource, await _found(session, resource, caller.account, key)))

    @router.post("", status_code=201, response_model=resource.shown, name=f"add_{singular}")
    async def add(request: Request, body: new_item, caller: Writer, house: TheHouse) -> Response:  # type: ignore[valid-type]  # likewise
        _may_add(resource, caller.account)
        async with house.transactions.begin(caller.origin) as session:
            fields = cast(BaseModel, body).model_dump(mode="json", exclude_unset=True, exclude_none=True)
            if "id" in fields and caller.account.role is not Role.ADMIN:
                raise Problem("not-allowed", "An id is an admin's to choose.")
            if key_type is int and "id" not in fields:
                fields["id"] = await resources.next_id(session, resource.kind)  # type: ignore[arg-type]  # not a switch user's
            item = _validated(resource, fields)
            change = Change(session, house, caller.account, item, frozenset(fields))
            row = resource.table(**await resource.columns(change))
            session.add(row)
            await _flushed(session)
            key = getattr(row, resource.key.key)
            shown = _tagged(resource, await _found(session, resource, caller.account, key))
        return with_etag(request, shown, status=201, location=f"/v1/{resource.name}/{key}")

    patch_schema = {"$ref": f"#/components/schemas/{changes.__name__}"}

    @router.patch(
        "/{key}",
        response_model=resource.shown,
        name=f"change_{singular}",
        openapi_extra={"requestBody": {"content": {"application/merge-patch+json": {"schema": patch_schema}}}},
    )
    async def change(request: Request, key: path_type, body: changes, caller: Writer, house: TheHouse) -> Response:  # type: ignore[valid-type]  # likewise
        async with house.transactions.begin(caller.origin) as session:
            row = await _found(session, resource, caller.account, key, locked=True)
            _check_may_change(resource, caller.account, row)
            shown = _tagged(resource, row)
            check_precondition(request, house, shown)
            # The merge is of what was sent: `body` has read it, and says no longer what was null in an object.
            patch = await request.json()
            if resource.key.key in patch and getattr(body, resource.key.key) != key:
                raise invalid(resource.key.key, "cannot be changed")
            item = _validated(resource, _merged(_as_item(resource, shown), patch))
            columns = await resource.columns(Change(session, house, caller.account, item, frozenset(patch), row[0]))
            await _check_uses(session, resource, caller.account, row[0], columns)
            for name, value in columns.items():
                if getattr(row[0], name) != value:
                    setattr(row[0], name, value)
            await _flushed(session)
            shown = _tagged(resource, await _found(session, resource, caller.account, key))
        return with_etag(request, shown)

    @router.delete("/{key}", status_code=204, response_class=Response, name=f"delete_{singular}")
    async def delete(request: Request, key: path_type, caller: Writer, house: TheHouse) -> Response:  # type: ignore[valid-type]  # likewise
        async with house.transactions.begin(caller.origin) as session:
            row = await _found(session, resource, caller.account, key, locked=True)
            _check_may_change(resource, caller.account, row)
            check_precondition(request, house, _tagged(resource, row))
            uses = await resources.used_by(session, caller.account, resource.kind, key)
            if uses is not None:
                raise Problem("in-use", "", {"used_by": uses})
            await session.delete(row[0])
            await _flushed(session)
        return Response(status_code=204)

    return router


def _new_model(resource: Resource) -> type[BaseModel]:
    if resource.key_type is str:
        return resource.item
    annotation = resource.item.model_fields["id"].rebuild_annotation()
    return create_model(
        f"New{resource.item.__name__}",
        __base__=resource.item,
        __doc__=resource.item.__doc__,
        id=(annotation | None, Field(None, description="The next free one where it is not said")),
    )


def _patch_model(resource: Resource) -> type[BaseModel]:
    fields: dict[str, Any] = {
        name: (field.rebuild_annotation() | None, Field(None, description=field.description))
        for name, field in resource.item.model_fields.items()
    }
    return create_model(
        f"{resource.item.__name__}Changes",
        __config__=ConfigDict(extra="forbid", hide_input_in_errors=True),
        __doc__="What changes; null empties, and what is not named stays as it is.",
        **fields,
    )


def _merged(stored: Any, patch: Any) -> Any:  # noqa: ANN401 - JSON
    """What a merge patch makes of `stored` (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    found = dict(stored) if isinstance(stored, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = _merged(found.get(name), value)
    return found


async def _check_uses(
    session: AsyncSession,
    resource: Resource,
    caller: Account,
    row: Any,  # noqa: ANN401 - a row of any of the four
    columns: dict[str, Any],
) -> None:
    """Refuse a change by which what is used would no longer be what its users need.

    Raises:
        Problem: `in-use`.
    """
    match resource.kind:
        case "account" if row.role != columns["role"]:
            needed_as = "owner"
        case "device" if row.technology == FAX_TECHNOLOGY != columns["technology"]:
            needed_as = "fax_device"
        case "did" if row.device_id != columns["device_id"]:
            needed_as = "did"
        case _:
            return
    uses = await resources.used_by(session, caller, needed_as, row.id)
    if uses is not None:
        raise Problem("in-use", "", {"used_by": uses})


def _as_item(resource: Resource, shown: dict[str, Any]) -> dict[str, Any]:
    """A resource as the world file would have it. A stored secret, which is not shown, is stood in for."""
    item = {name: shown[name] for name in resource.item.model_fields if name in shown}
    if shown.get("has_password", resource.kind == "switch_user"):
        item["password"] = "stored"  # noqa: S105 - stands for one that is not known
    return item


def _validated(resource: Resource, fields: dict[str, Any]) -> BaseModel:
    try:
        return resource.item.model_validate(fields)
    except ValidationError as error:
        raise problem_of_fields(error.errors(include_url=False, include_input=False)) from None


def _tagged(resource: Resource, row: Row) -> dict[str, Any]:
    shown = resource.shape(row)
    return shown | {"etag": etag_of(shown)}


async def _found(session: AsyncSession, resource: Resource, viewer: Account, key: Key, *, locked: bool = False) -> Row:
    statement = resource.statement(viewer).execution_options(populate_existing=True)
    row = await resources.one(session, statement, resource.key == key, locked=resource.table if locked else None)
    if row is None:
        raise Problem("not-found")
    return row


def _may_add(resource: Resource, caller: Account) -> None:
    if caller.role is Role.ADMIN or (caller.role is Role.RESELLER and resource.kind in {"account", "device"}):
        return
    raise Problem("not-allowed")


def _check_may_change(resource: Resource, caller: Account, row: Row) -> None:
    owners = resource.owners(row)
    if owners is None:
        allowed = caller.role is Role.ADMIN
    elif resource.kind == "account":
        allowed = may_change(caller, *owners)
    else:
        # A reseller's own devices are its own to change, unlike its account.
        allowed = caller.role is Role.ADMIN or (caller.role is Role.RESELLER and caller.id in owners)
    if not allowed:
        raise Problem("not-allowed")


async def _flushed(session: AsyncSession) -> None:
    """Write what was changed.

    Raises:
        Problem: A constraint of the tables forbids it.
    """
    try:
        await session.flush()
    except IntegrityError as error:
        constraint = str(getattr(getattr(error.orig, "__cause__", None), "constraint_name", ""))
        if constraint.startswith(("pk_", "uq_")):
            raise Problem("already-exists") from None
        if constraint.startswith("fk_"):
            raise Problem("in-use", "A call flow still uses it as it is.", {"used_by": []}) from None
        raise invalid("", "what is stored meanwhile does not go with it") from None
