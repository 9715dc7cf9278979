"""An account's requests come from where they may, by the address that a trusted proxy tells."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from mor_requests import ERRORS, GET, GET_ERRORS, UPDATE, StartService, answer, get, got, refused, update, updated
from own_demo import OwnDemo, open_own_demo

INSIDE = ["192.0.2.77", "::ffff:192.0.2.77", "2001:db8::77"]
OUTSIDE = ["192.0.3.1", "::ffff:192.0.3.1", "2001:db9::1", "unknown", ""]
KEYS = {"admin": "456789", "reseller": "reseller-secret", "user1": "456789", "user2": "reseller-secret"}
DEVICES = {"admin": "4", "reseller": "200", "user1": "4", "user2": "200"}
SEEN = {
    "4": got(),
    "200": got(user="Test User #2", device="SIP/2001", ring=30),
}


@pytest_asyncio.fixture(scope="module")
async def demo(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> AsyncIterator[OwnDemo]:
    async with open_own_demo(create_database, migrated_url) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def service(start_service: StartService, demo: OwnDemo) -> httpx.AsyncClient:
    """Behind a proxy that it trusts: the tests themselves."""
    return await start_service(demo.url, trusted_proxies=("127.0.0.1",))


async def allow(demo: OwnDemo, username: str, *networks: str) -> None:
    await demo.database.execute("UPDATE account SET allowed_addresses = NULL; TRUNCATE callflow")
    statement = "UPDATE account SET allowed_addresses = $2::text[]::cidr[] WHERE username = $1"
    await demo.database.execute(statement, username, list(networks))


async def see(service: httpx.AsyncClient, username: str, address: str) -> httpx.Response:
    values = get(DEVICES[username], u=username, key=KEYS[username])
    return await service.post(GET, data=values, headers={"X-Forwarded-For": address})


@pytest.mark.parametrize("address", INSIDE)
@pytest.mark.parametrize("username", KEYS)
async def test_each_role_comes_in_from_where_it_may(
    service: httpx.AsyncClient, demo: OwnDemo, username: str, address: str
) -> None:
    await allow(demo, username, "192.0.2.0/24", "2001:db8::/32")
    assert answer(await see(service, username, address)) == SEEN[DEVICES[username]]


@pytest.mark.parametrize("address", OUTSIDE)
@pytest.mark.parametrize("username", KEYS)
async def test_each_role_is_nobody_from_elsewhere(
    service: httpx.AsyncClient, demo: OwnDemo, username: str, address: str
) -> None:
    await allow(demo, username, "192.0.2.0/24", "2001:db8::/32")
    headers = {"X-Forwarded-For": address}
    wanted = update(KEYS[username], u=username, device_id=DEVICES[username], forward_to_device=DEVICES[username])
    nobody = [await service.post(call, data={**wanted, "u": "nobody"}, headers=headers) for call in (GET, UPDATE)]
    outsider = [await see(service, username, address), await service.post(UPDATE, data=wanted, headers=headers)]
    assert [answer(page) for page in outsider] == [refused(GET_ERRORS[3]), refused(ERRORS[3])]
    assert [answer(page) for page in outsider] == [answer(page) for page in nobody]
    assert await demo.database.fetch("SELECT FROM callflow") == []


async def test_a_list_is_the_accounts_own_and_not_of_whom_it_owns(service: httpx.AsyncClient, demo: OwnDemo) -> None:
    await allow(demo, "reseller", "192.0.2.0/24")
    assert answer(await see(service, "reseller", "198.51.100.1")) == refused(GET_ERRORS[3])
    assert answer(await see(service, "user2", "198.51.100.1")) == SEEN["200"]


async def test_an_empty_list_is_none(service: httpx.AsyncClient, demo: OwnDemo) -> None:
    await allow(demo, "admin")
    assert answer(await see(service, "admin", "198.51.100.1")) == got()


async def test_a_list_changes_from_one_request_to_the_next(service: httpx.AsyncClient, demo: OwnDemo) -> None:
    await allow(demo, "admin", "192.0.2.0/24")
    assert answer(await see(service, "admin", "198.51.100.1")) == refused(GET_ERRORS[3])
    await allow(demo, "admin", "198.51.100.1/32")
    assert answer(await see(service, "admin", "198.51.100.1")) == got()


async def test_who_is_not_a_trusted_proxy_cannot_say_where_a_request_comes_from(
    start_service: StartService, demo: OwnDemo
) -> None:
    service = await start_service(demo.url)
    await allow(demo, "admin", "192.0.2.0/24")
    assert answer(await see(service, "admin", "192.0.2.77")) == refused(GET_ERRORS[3])
    await allow(demo, "admin", "127.0.0.0/8")
    changed = await service.post(UPDATE, data=update(), headers={"X-Forwarded-For": "192.0.2.77"})
    assert answer(changed) == updated()


async def test_a_right_password_does_not_help_from_elsewhere(service: httpx.AsyncClient, demo: OwnDemo) -> None:
    await allow(demo, "open", "192.0.2.0/24")
    values = {"u": "open", "p": "open-sesame", "device_id": "410"}
    for address, expected in (
        ("192.0.2.1", got(user="Open Reseller", device="SIP/4101")),
        ("192.0.3.1", refused(GET_ERRORS[3])),
    ):
        response = await service.post(GET, data=values, headers={"X-Forwarded-For": address})
        assert answer(response) == expected
