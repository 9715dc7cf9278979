"""Accounts, devices, DIDs and switch users: what each of the four has of its own."""

import json
from typing import Annotated, Any, Final, Literal, cast

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.dependencies import Caller
from callflow_service.api.lists import Page
from callflow_service.api.problems import Problem, invalid
from callflow_service.api.resource_routes import Change, Resource, router_of
from callflow_service.api.shapes import Id, Text
from callflow_service.credentials.passwords import hash_password
from callflow_service.credentials.switch_passwords import hash_switch_password
from callflow_service.domain.access import Account, Role, may_change
from callflow_service.domain.callflow import FAX_TECHNOLOGY
from callflow_service.domain.signature import HashPolicy
from callflow_service.domain.targets import Refusal
from callflow_service.repositories import flows, resources, taken_numbers
from callflow_service.repositories.resources import Row
from callflow_service.resources.models import AccountItem, DeviceItem, DidItem, SwitchItem, TargetsChanges, TargetsItem
from callflow_service.storage.transactions import driver
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
    time_zone: str | None
    country: str | None
    number_pattern: str | None
    targets: TargetsItem | None
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
        "time_zone": account.time_zone,
        "country": account.country,
        "number_pattern": account.number_pattern,
        "targets": account.targets,
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
    written = switch.model_dump(exclude={"password_hash"}) | {"id": switch.username}
    return {name: written[name] for name in ShownSwitch.model_fields if name in written}


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
    if caller.role is Role.RESELLER and item.country != (change.row.country if change.row else None):
        # Numbers are read by it, so what is refused in one country might pass in another.
        raise Problem("not-allowed", "The country of an account is an admin's to change.")
    columns = item.model_dump(exclude={"owner", "password", "api_key", "name"}) | {
        "name": item.name or item.username,
        "owner_id": owner.id if owner else None,
    }
    if change.row is not None and (item.blocked or item.role != Role.ADMIN):
        await _keep_admins(change.session, caller, change.row, "blocked" if item.blocked else "role")
    if "password" in change.written:
        columns["password_hash"] = change.password_hash
    if "api_key" in change.written:
        columns["api_key"] = change.house.keys.encrypt(item.api_key) if item.api_key else None
    return columns


async def _keep_admins(session: AsyncSession, caller: Account, row: AccountRow, field: str) -> None:
    """Refuse what would leave no admin that can come in, and what an admin would do to itself.

    Raises:
        Problem: `invalid`.
    """
    if row.role != Role.ADMIN:
        return
    if row.id == caller.id:
        raise invalid(field, "an admin cannot do this to its own account; another admin can")
    if not await resources.has_other_admins(session, row.id):
        raise invalid(field, "no admin would be left")


async def _check_account_s_deletion(session: AsyncSession, caller: Account, row: Row) -> None:
    try:
        await _keep_admins(session, caller, row[0], "")
    except Problem as problem:
        raise Problem("in-use", problem.detail, {"used_by": [{"kind": "account", "id": caller.id}]}) from None


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
    if change.row is not None and change.row.owner_id != owner.id:
        await _take_numbers_along(change, owner)
    return item.model_dump(exclude={"owner"}) | {"owner_id": owner.id}


async def _take_numbers_along(change: Change, owner: AccountRow) -> None:
    """Have the new owner of a device take up the numbers that its flows lead to.

    Raises:
        Problem: `target-refused`: it may not.
    """
    connection = await driver(change.session)
    numbers = await taken_numbers.of_device(connection, change.row.id)
    rules = await flows.target_rules(connection, owner.id)
    past = await change.house.policing.past(connection, owner.id, rules, numbers)
    for number in numbers:
        outcome = past.take(number)
        if isinstance(outcome, Refusal):
            errors = [{"field": "owner", "message": f"its flows lead to {number}: {outcome.sentence}"}]
            raise Problem("target-refused", errors[0]["message"], {"reason": outcome.value, "errors": errors})
    await past.keep(connection)


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
        columns["password_hash"] = change.password_hash
    return columns


def _is_admin(caller: Account) -> bool:
    return caller.role is Role.ADMIN


def _is_manager(caller: Account) -> bool:
    return caller.role in {Role.ADMIN, Role.RESELLER}


def _is_managed_by(caller: Account, owner: AccountRow | None) -> bool:
    """Whether what belongs to `owner` is the caller's to manage: a reseller's own too, unlike its account."""
    if caller.role is Role.RESELLER:
        return owner is not None and caller.id in {owner.id, owner.owner_id}
    return caller.role is Role.ADMIN


async def _take_out_device(session: AsyncSession, caller: Caller, row: Row) -> None:
    """Empty the flows that lead to a device and free its DIDs, where all that is the caller's to change.

    Raises:
        Problem: `not-allowed`.
    """
    device, _, numbers = row
    connection = await driver(session)
    owners = await flows.owners_before(connection, device.id)
    account = caller.account
    if account.role is not Role.ADMIN:
        if any(account.id not in both for both in owners):
            raise Problem("not-allowed", "Call flows lead to it that your account may not change.")
        if numbers:
            raise Problem("not-allowed", "A DID without a device is an admin's.")
    await flows.empty_around(connection, device.id, caller.origin)


RESOURCES: Final = (
    Resource(
        name="accounts",
        table=AccountRow,
        kind="account",
        key=col(AccountRow.id),
        key_type=int,
        item=AccountItem,
        merged={"targets": TargetsChanges},
        shown=ShownAccount,
        page=AccountsPage,
        statement=resources.accounts,
        filters=resources.account_filters,
        shape=_account_shape,
        columns=_account_columns,
        may_add=_is_manager,
        may_change=lambda caller, row: may_change(caller, row[0].id, row[0].owner_id),
        needed_as=lambda row, columns: "owner" if row.role != columns["role"] else None,
        hash_password=hash_password,
        check_deletion=_check_account_s_deletion,
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
        columns=_device_columns,
        may_add=_is_manager,
        may_change=lambda caller, row: _is_managed_by(caller, row[1]),
        needed_as=lambda row, new: "fax_device" if row.technology == FAX_TECHNOLOGY != new["technology"] else None,
        cascade=_take_out_device,
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
        columns=_did_columns,
        may_add=_is_admin,
        may_change=lambda caller, row: _is_managed_by(caller, row[1]),
        needed_as=lambda row, columns: "did" if row.device_id != columns["device_id"] else None,
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
        columns=_switch_columns,
        may_add=_is_admin,
        may_change=lambda caller, _: _is_admin(caller),
        may_list=_is_admin,
        hash_password=hash_switch_password,
    ),
)
"""The four."""


def routers() -> list[APIRouter]:
    """The routes of the four."""
    return [router_of(resource) for resource in RESOURCES]
