"""Who may come in, and which devices are theirs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, assert_never

from callflow_service.domain import signature
from callflow_service.domain.callflow import Device
from callflow_service.domain.errors import (
    ApiDisabled,
    LoginFailed,
    MethodDisabled,
    NotAuthorised,
    SignatureMismatch,
)
from callflow_service.domain.signature import HashPolicy

USERNAME: Final = "[A-Za-z0-9._@+-]([A-Za-z0-9 ._@+-]{0,62}[A-Za-z0-9._@+-])?"
"""What a username looks like, as a regular expression; accounts with another one cannot be loaded."""

_USERNAME: Final = re.compile(USERNAME)


class Role(StrEnum):
    """What an account is, and so what it may do."""

    ADMIN = "admin"
    RESELLER = "reseller"
    ACCOUNTANT = "accountant"
    USER = "user"


class PasswordCheck(StrEnum):
    """What came of the password that was, or was not, sent."""

    NOT_CHECKED = "not_checked"
    RIGHT = "right"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Account:
    """The caller of a request, with what it has from its owners.

    Attributes:
        api_enabled: Its own switch and, for a reseller's user, the reseller's.
        hash_policy: Its own, None where the setting decides.
        api_key: Its own key, else its owner's, else its owner's owner's; empty where there is none. As it is stored,
            until it is needed and decrypted.
        allowed_addresses: Where its requests may come from, its own list alone; empty for anywhere.
    """

    id: int
    username: str
    role: Role
    blocked: bool
    api_enabled: bool
    pbx_addon: bool
    hash_policy: HashPolicy | None
    api_key: str
    password_hash: str | None
    allowed_addresses: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnedDevice:
    """A device and who it belongs to; `reseller_id` is the owner of its owner."""

    device: Device
    owner_id: int
    owner_name: str
    reseller_id: int | None
    ring_seconds: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says of who it comes from.

    Attributes:
        username: None where it was not sent or can be nobody's.
        password: None where it was not sent.
        signature: Empty where it was not sent.
        readings_with_plus: The same with a `+` where a blank may be one that was not escaped; empty where none may be.
        readings: The signed values in the order of the request, aliases under their own name's. More than one where
            a value has two spellings (JSON's `true`, which PHP signs as `1`).
        method_allowed: Whether the request came by a method that is allowed.
    """

    username: str | None
    password: str | None
    signature: str
    readings: tuple[Mapping[str, str], ...]
    method_allowed: bool
    readings_with_plus: tuple[Mapping[str, str], ...] = ()


def is_username(text: str) -> bool:
    """Whether an account can have this username."""
    return _USERNAME.fullmatch(text) is not None


def check_open(account: Account | None, claim: Claim, *, api_enabled: bool) -> None:
    """Refuse what is switched off. An account that is not there counts as on.

    Raises:
        ApiDisabled: For all, for the account, or for the account's reseller.
        MethodDisabled: The request came by GET where that is not allowed.
    """
    if not api_enabled or (account is not None and not account.api_enabled):
        raise ApiDisabled
    if not claim.method_allowed:
        raise MethodDisabled


def check_address(account: Account | None, address: IPv4Address | IPv6Address | None) -> None:
    """Refuse a request that comes from where the account's do not, as if there were no such account.

    An address that is not known is nowhere.

    Raises:
        LoginFailed: The account has a list of allowed addresses, and this one is not in it.
    """
    if account is None or not account.allowed_addresses:
        return
    if address is None or not any(address in network for network in account.allowed_addresses):
        raise LoginFailed


def check_login(account: Account | None, password: PasswordCheck, policy: HashPolicy) -> Account:
    """The account, where it may log in.

    Raises:
        LoginFailed: No such account, blocked, a wrong password, or none under the policy that lives by it.
    """
    if account is None or account.blocked or password is PasswordCheck.WRONG:
        raise LoginFailed
    if policy is HashPolicy.OFF and password is not PasswordCheck.RIGHT:
        raise LoginFailed
    return account


def check_get_signature(account: Account, claim: Claim, policy: HashPolicy) -> None:
    """Refuse a wrong signature of `device_callflow_get`: it is over the device id alone.

    Raises:
        SignatureMismatch: It is not, or there is no key anywhere.
    """
    if policy is HashPolicy.OFF:
        return
    strings = (reading.get("device_id", "") for reading in claim.readings)
    if not account.api_key or not signature.matches(claim.signature, account.api_key, strings):
        raise SignatureMismatch


def check_update_signature(account: Account, claim: Claim, policy: HashPolicy) -> None:
    """Refuse a wrong signature of `device_callflow_update`.

    Raises:
        SignatureMismatch: No string that the policy accepts gives it, or there is no key anywhere.
    """
    match policy:
        case HashPolicy.OFF:
            return
        case HashPolicy.STRICT:
            right = _is_strict(account, claim)
        case HashPolicy.COMPAT:
            right = _is_strict(account, claim) or would_pass_compat(account, claim)
        case _:
            assert_never(policy)
    if not right:
        raise SignatureMismatch


def would_pass_compat(account: Account, claim: Claim) -> bool:
    """Whether a signature is one of those that only `HashPolicy.COMPAT` takes: worth a word to the operator."""
    strings = (string for reading in claim.readings for string in signature.compat_strings(reading))
    return bool(account.api_key) and signature.matches(claim.signature, account.api_key, strings)


def is_plus_signed(account: Account, claim: Claim) -> bool:
    """Whether the signature shows that the client meant a `+` where a blank came."""
    if not claim.readings_with_plus or not account.api_key:
        return False
    strings = (string for reading in claim.readings_with_plus for string in signature.strict_strings(reading))
    return signature.matches(claim.signature, account.api_key, strings)


def check_role(account: Account) -> None:
    """Refuse the roles that have no call flows.

    Raises:
        NotAuthorised: An accountant, or a reseller without the PBX addon.
    """
    if account.role is Role.ACCOUNTANT or (account.role is Role.RESELLER and not account.pbx_addon):
        raise NotAuthorised


def may_change(account: Account, owner_id: int, owners_owner_id: int | None) -> bool:
    """Whether an account, or what belongs to it, is another's to change: an admin's, or the reseller's above it.

    Args:
        account: The account that wants to change something.
        owner_id: The account that is changed, or that the thing belongs to.
        owners_owner_id: The owner of that account.
    """
    if account.role is Role.RESELLER:
        return account.pbx_addon and owners_owner_id == account.id and owner_id != account.id
    return account.role is Role.ADMIN


def may_use(account: Account, device: OwnedDevice) -> bool:
    """Whether a device is the account's, to change or to forward to."""
    match account.role:
        case Role.ADMIN:
            return True
        case Role.RESELLER:
            return account.id in (device.owner_id, device.reseller_id)
        case Role.USER:
            return account.id == device.owner_id
        case Role.ACCOUNTANT:
            return False
        case _:
            assert_never(account.role)


def _is_strict(account: Account, claim: Claim) -> bool:
    readings = claim.readings + claim.readings_with_plus
    strings = (string for reading in readings for string in signature.strict_strings(reading))
    return bool(account.api_key) and signature.matches(claim.signature, account.api_key, strings)
