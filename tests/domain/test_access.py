"""Who may come in, and which devices are theirs."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from callflow_service.domain.access import (
    Account,
    Claim,
    OwnedDevice,
    PasswordCheck,
    Role,
    check_address,
    check_get_signature,
    check_login,
    check_open,
    check_role,
    check_update_signature,
    may_use,
    would_pass_compat,
)
from callflow_service.domain.callflow import Device
from callflow_service.domain.errors import (
    AccessError,
    ApiDisabled,
    LoginFailed,
    MethodDisabled,
    NotAuthorised,
    SignatureMismatch,
)
from callflow_service.domain.signature import HashPolicy, digests

ADMIN = Account(
    id=1,
    username="admin",
    role=Role.ADMIN,
    blocked=False,
    api_enabled=True,
    pbx_addon=True,
    hash_policy=None,
    api_key="456789",
    password_hash=None,
)
SENT = {"device_id": "4", "callflow_action": "empty", "state": "busy"}
CLAIM = Claim(username="admin", password=None, signature="", readings=(SENT,), method_allowed=True)
DEVICE = OwnedDevice(Device(4, "IAX2", "1002"), owner_id=20, owner_name="Test User #1", reseller_id=10, ring_seconds=60)


def signed(string: str, key: str = "456789") -> Claim:
    return replace(CLAIM, signature=next(digests(string, key)))


@pytest.mark.parametrize(
    ("account", "api_enabled", "method_allowed", "error"),
    [
        (ADMIN, False, True, ApiDisabled),
        (None, False, False, ApiDisabled),
        (replace(ADMIN, api_enabled=False), True, False, ApiDisabled),
        (None, True, False, MethodDisabled),
        (ADMIN, True, False, MethodDisabled),
    ],
)
def test_what_is_switched_off_is_refused(
    account: Account | None, *, api_enabled: bool, method_allowed: bool, error: type[AccessError]
) -> None:
    with pytest.raises(error):
        check_open(account, replace(CLAIM, method_allowed=method_allowed), api_enabled=api_enabled)


@pytest.mark.parametrize("account", [ADMIN, None], ids=["a known account", "an unknown account"])
def test_what_is_on_is_open(account: Account | None) -> None:
    check_open(account, CLAIM, api_enabled=True)


LISTED = replace(ADMIN, allowed_addresses=tuple(map(ip_network, ("192.0.2.0/24", "198.51.100.7", "2001:db8::/32"))))


@pytest.mark.parametrize("address", ["192.0.2.0", "192.0.2.255", "198.51.100.7", "2001:db8:ffff::1", "2001:db8::%eth0"])
def test_an_address_of_the_list_comes_in(address: str) -> None:
    check_address(LISTED, ip_address(address))


@pytest.mark.parametrize("address", ["192.0.1.255", "192.0.3.0", "198.51.100.6", "2001:db9::1", "::c000:201", None])
def test_an_address_outside_the_list_is_a_failed_login(address: str | None) -> None:
    with pytest.raises(LoginFailed):
        check_address(LISTED, ip_address(address) if address else None)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", None])
@pytest.mark.parametrize("account", [ADMIN, None], ids=["an account without a list", "an unknown account"])
def test_where_there_is_no_list_any_address_comes_in(account: Account | None, address: str | None) -> None:
    check_address(account, ip_address(address) if address else None)


@pytest.mark.parametrize(
    ("account", "password", "policy"),
    [
        (None, PasswordCheck.NOT_CHECKED, HashPolicy.STRICT),
        (replace(ADMIN, blocked=True), PasswordCheck.RIGHT, HashPolicy.STRICT),
        (ADMIN, PasswordCheck.WRONG, HashPolicy.STRICT),
        (ADMIN, PasswordCheck.WRONG, HashPolicy.COMPAT),
        (ADMIN, PasswordCheck.WRONG, HashPolicy.OFF),
        (ADMIN, PasswordCheck.NOT_CHECKED, HashPolicy.OFF),
    ],
)
def test_a_login_fails(account: Account | None, password: PasswordCheck, policy: HashPolicy) -> None:
    with pytest.raises(LoginFailed):
        check_login(account, password, policy)


@pytest.mark.parametrize(
    ("password", "policy"),
    [
        (PasswordCheck.NOT_CHECKED, HashPolicy.STRICT),
        (PasswordCheck.NOT_CHECKED, HashPolicy.COMPAT),
        (PasswordCheck.RIGHT, HashPolicy.STRICT),
        (PasswordCheck.RIGHT, HashPolicy.OFF),
    ],
)
def test_a_login_succeeds(password: PasswordCheck, policy: HashPolicy) -> None:
    assert check_login(ADMIN, password, policy) is ADMIN


@pytest.mark.parametrize("string", ["4emptybusy", "4busyempty"])
@pytest.mark.parametrize("policy", [HashPolicy.STRICT, HashPolicy.COMPAT])
def test_a_strict_signature_passes(string: str, policy: HashPolicy) -> None:
    check_update_signature(ADMIN, signed(string), policy)


@pytest.mark.parametrize("string", ["4", "4busyempty"])
def test_a_signature_that_clients_in_the_field_send_passes_under_compat(string: str) -> None:
    claim = replace(signed(string), readings=({**SENT, "custom": "not signed"},))
    check_update_signature(ADMIN, claim, HashPolicy.COMPAT)
    assert would_pass_compat(ADMIN, claim)
    with pytest.raises(SignatureMismatch):
        check_update_signature(ADMIN, claim, HashPolicy.STRICT)


@pytest.mark.parametrize("policy", [HashPolicy.STRICT, HashPolicy.COMPAT])
def test_a_signature_without_a_key_is_a_mismatch(policy: HashPolicy) -> None:
    keyless = replace(ADMIN, api_key="")
    with pytest.raises(SignatureMismatch):
        check_update_signature(keyless, signed("4emptybusy", ""), policy)
    with pytest.raises(SignatureMismatch):
        check_get_signature(keyless, signed("4", ""), policy)
    assert not would_pass_compat(keyless, signed("4", ""))


def test_no_signature_is_needed_where_the_policy_is_off() -> None:
    check_update_signature(ADMIN, CLAIM, HashPolicy.OFF)
    check_get_signature(ADMIN, CLAIM, HashPolicy.OFF)


@pytest.mark.parametrize("policy", [HashPolicy.STRICT, HashPolicy.COMPAT])
def test_a_get_is_signed_over_the_device_alone(policy: HashPolicy) -> None:
    check_get_signature(ADMIN, signed("4"), policy)
    with pytest.raises(SignatureMismatch):
        check_get_signature(ADMIN, signed("5"), policy)


@pytest.mark.parametrize(
    "account",
    [
        replace(ADMIN, role=Role.ACCOUNTANT),
        replace(ADMIN, role=Role.RESELLER, pbx_addon=False),
    ],
    ids=["an accountant", "a reseller without the addon"],
)
def test_a_role_without_call_flows_is_refused(account: Account) -> None:
    with pytest.raises(NotAuthorised):
        check_role(account)


@pytest.mark.parametrize(
    "account",
    [
        replace(ADMIN, pbx_addon=False),
        replace(ADMIN, role=Role.RESELLER),
        replace(ADMIN, role=Role.USER, pbx_addon=False),
    ],
    ids=["an admin", "a reseller with the addon", "a user"],
)
def test_a_role_with_call_flows_passes(account: Account) -> None:
    check_role(account)


@pytest.mark.parametrize(
    ("role", "id_", "may"),
    [
        (Role.ADMIN, 1, True),
        (Role.RESELLER, 10, True),
        (Role.RESELLER, 20, True),
        (Role.RESELLER, 11, False),
        (Role.USER, 20, True),
        (Role.USER, 10, False),
        (Role.USER, 21, False),
        (Role.ACCOUNTANT, 20, False),
    ],
)
def test_a_device_is_used_by_whom_it_belongs_to(role: Role, id_: int, *, may: bool) -> None:
    assert may_use(replace(ADMIN, id=id_, role=role), DEVICE) is may
