"""Who may come in: switches, logins, roles, and what belongs to whom."""

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from callflow_service.credentials.counting import Guesser
from callflow_service.credentials.guesses import Guesses
from callflow_service.credentials.passwords import Passwords, hash_password, is_password
from mor_requests import (
    ADMIN_KEY,
    ERRORS,
    GET,
    GET_ERRORS,
    GOOD,
    UPDATE,
    StartService,
    answer,
    get,
    got,
    refused,
    signed,
    update,
    updated,
    with_changes,
)
from own_demo import OwnDemo, open_own_demo

pytestmark = pytest.mark.usefixtures("untouched")

KEYS = {
    "admin": ADMIN_KEY,
    "reseller": "reseller-secret",
    "basic": "basic-secret",
    "accountant": ADMIN_KEY,
    "user1": ADMIN_KEY,
    "user2": "reseller-secret",
    "user3": "basic-secret",
    "legacy": "legacy-secret",
    "closed": "closed-secret",
    "blocked": ADMIN_KEY,
}
OWNERS = {"2": "user1", "4": "user1", "5": "user1", "100": "user1", "200": "user2", "201": "user2"}
OWNERS |= {"300": "user3", "400": "legacy", "410": "open", "420": "closed"}
DEVICES = {"2": "FAX/102", "4": "IAX2/1002", "5": "IAX2/101", "100": "SIP/101", "200": "SIP/2001", "201": "FAX/2002"}
DEVICES |= {"300": "SIP/3001", "400": "SIP/4001", "410": "SIP/4101", "420": "SIP/4201"}
NAMES = {"user1": "Test User #1", "user2": "Test User #2", "user3": "Test User #3"}
NAMES |= {"legacy": "Legacy Reseller", "open": "Open Reseller", "closed": "Closed Reseller"}
REACH = {
    "admin": set(OWNERS),
    "reseller": {"200", "201"},
    "user1": {"2", "4", "5", "100"},
    "user2": {"200", "201"},
    "user3": {"300"},
    "legacy": {"400"},
}


@pytest.mark.parametrize("device", OWNERS)
@pytest.mark.parametrize("username", REACH)
async def test_each_role_sees_and_changes_what_is_its_own(
    demo_service: httpx.AsyncClient, username: str, device: str
) -> None:
    key = KEYS[username]
    seen = await demo_service.post(GET, data=get(device, u=username, key=key))
    wanted = update(key, u=username, device_id=device, forward_to_device=device)
    changed = await demo_service.post(UPDATE, data=wanted)
    if device in REACH[username]:
        owner = NAMES[OWNERS[device]]
        ring = 30 if OWNERS[device] == "user2" else 60
        assert answer(seen) == got(user=owner, device=DEVICES[device], ring=ring)
        assert answer(changed) == updated(user=owner, device=DEVICES[device], data=DEVICES[device])
        seen = await demo_service.post(GET, data=get(device, u=username, key=key))
        flow = ("Forward", DEVICES[device], "local", "1", "")
        assert answer(seen) == got(user=owner, device=DEVICES[device], ring=ring, before_call=flow)
    else:
        assert answer(seen) == answer(changed) == refused("Device was not found")


@pytest.mark.parametrize(
    ("username", "device", "target", "found"),
    [
        ("admin", "4", "300", True),
        ("admin", "4", "999", False),
        ("reseller", "200", "201", True),
        ("reseller", "200", "5", False),
        ("reseller", "200", "999", False),
        ("user1", "4", "5", True),
        ("user1", "4", "200", False),
        ("user1", "4", "999", False),
        ("user2", "200", "201", True),
        ("user2", "200", "400", False),
        ("legacy", "400", "200", False),
    ],
)
async def test_each_role_forwards_to_what_is_its_own(
    demo_service: httpx.AsyncClient, username: str, device: str, target: str, *, found: bool
) -> None:
    values = update(KEYS[username], u=username, device_id=device, forward_to_device=target)
    response = await demo_service.post(UPDATE, data=values)
    if found:
        assert answer(response) == updated(user=NAMES[OWNERS[device]], device=DEVICES[device], data=DEVICES[target])
    else:
        assert answer(response) == refused("Local device was not found")


@pytest.mark.parametrize(
    ("username", "device", "fax", "found"),
    [
        ("admin", "4", "201", True),
        ("admin", "4", "5", False),
        ("user1", "4", "2", True),
        ("user1", "4", "201", False),
        ("user1", "4", "999", False),
        ("reseller", "200", "201", True),
        ("reseller", "200", "2", False),
    ],
)
async def test_each_role_detects_faxes_for_a_fax_device_of_its_own(
    demo_service: httpx.AsyncClient, username: str, device: str, fax: str, *, found: bool
) -> None:
    values = {"u": username, "device_id": device, "callflow_action": "fax_detect", "fax_device": fax}
    response = await demo_service.post(UPDATE, data=update(KEYS[username], **values))
    if found:
        shown = {"user": NAMES[OWNERS[device]], "device": DEVICES[device], "data": DEVICES[fax]}
        assert answer(response) == updated(action="Fax detect", **shown)
    else:
        assert answer(response) == refused("FAX device was not found")


@pytest.mark.parametrize("call", [UPDATE, GET])
async def test_a_foreign_device_looks_like_a_missing_one(demo_service: httpx.AsyncClient, call: str) -> None:
    pages = []
    for device in ("200", "999", "0", "", "-5", "4x", "٤", "9" * 30, str(2**63), "\x004"):
        values = with_changes(GOOD if call == UPDATE else {}, {"u": "user1", "device_id": device})
        response = await demo_service.post(call, data=signed(values))
        pages.append((answer(response), sorted(set(response.headers) - {"date"}), response.headers["content-length"]))
    assert len({str(page) for page in pages}) == 1
    assert pages[0][0] == refused("Device was not found")


@pytest.mark.parametrize("username", ["accountant", "basic"])
@pytest.mark.parametrize("device", ["4", "300", "999"])
@pytest.mark.parametrize("call", [UPDATE, GET])
async def test_a_role_without_call_flows_is_not_authorised(
    demo_service: httpx.AsyncClient, call: str, username: str, device: str
) -> None:
    key = KEYS[username]
    values = update(key, u=username, device_id=device) if call == UPDATE else get(device, u=username, key=key)
    response = await demo_service.post(call, data=values)
    assert answer(response) == refused(ERRORS[5])


@pytest.mark.parametrize("username", ["nobody", "blocked", None, "", "ADMIN", "admin ", "admin\x00", "\x01", "é" * 300])
@pytest.mark.parametrize("call", [UPDATE, GET])
async def test_who_is_not_known_or_blocked_cannot_log_in(
    demo_service: httpx.AsyncClient, call: str, username: str | None
) -> None:
    response = await demo_service.post(call, data=update(u=username) if call == UPDATE else {**get(), "u": username})
    assert answer(response) == refused((ERRORS if call == UPDATE else GET_ERRORS)[3])


@pytest_asyncio.fixture(scope="module")
async def switched_off(start_service: StartService, demo_url: SecretStr) -> httpx.AsyncClient:
    return await start_service(demo_url, api_enabled=False)


@pytest.mark.parametrize("call", [UPDATE, GET])
@pytest.mark.parametrize(
    "values", [{}, {"u": "admin"}, {"u": "nobody"}], ids=["nobody", "a known one", "an unknown one"]
)
async def test_the_api_can_be_switched_off_for_all(
    switched_off: httpx.AsyncClient, call: str, values: dict[str, str]
) -> None:
    assert answer(await switched_off.post(call, data=values)) == refused(ERRORS[1])


@pytest.mark.parametrize("call", [UPDATE, GET])
async def test_the_api_can_be_switched_off_for_an_account(demo_service: httpx.AsyncClient, call: str) -> None:
    assert answer(await demo_service.post(call, data={"u": "closed"})) == refused(ERRORS[1])
    assert answer(await demo_service.get(call, params={"u": "closed"})) == refused(ERRORS[1])


@pytest_asyncio.fixture
async def reseller_is_off(demo_database: asyncpg.Connection) -> AsyncIterator[None]:
    await demo_database.execute("UPDATE account SET api_enabled = false WHERE username = 'reseller'")
    yield
    await demo_database.execute("UPDATE account SET api_enabled = true WHERE username = 'reseller'")


@pytest.mark.usefixtures("reseller_is_off")
@pytest.mark.parametrize("call", [UPDATE, GET])
async def test_the_switch_of_a_reseller_covers_his_users_and_nobody_else(
    demo_service: httpx.AsyncClient, call: str
) -> None:
    assert answer(await demo_service.post(call, data={"u": "user2"})) == refused(ERRORS[1])
    assert answer(await demo_service.post(call, data={"u": "user1"})) == refused(ERRORS[4])
    assert answer(await demo_service.post(GET, data=get("200"))) == got(user="Test User #2", device="SIP/2001", ring=30)


@pytest_asyncio.fixture
async def admin_is_off(demo_database: asyncpg.Connection) -> AsyncIterator[None]:
    await demo_database.execute("UPDATE account SET api_enabled = false WHERE username = 'admin'")
    yield
    await demo_database.execute("UPDATE account SET api_enabled = true WHERE username = 'admin'")


@pytest.mark.usefixtures("admin_is_off")
async def test_the_switch_of_an_admin_covers_himself_alone(demo_service: httpx.AsyncClient) -> None:
    assert answer(await demo_service.post(GET, data=get())) == refused(ERRORS[1])
    assert answer(await demo_service.post(GET, data=get(u="user1"))) == got()


async def test_get_works_only_when_it_is_allowed(
    start_service: StartService, demo_service: httpx.AsyncClient, demo_url: SecretStr
) -> None:
    allowing = await start_service(demo_url, allow_get=True)
    for call, values, page in (
        (UPDATE, update(callflow_action="empty"), updated(action="", data="")),
        (GET, get(), got()),
    ):
        assert answer(await demo_service.get(call, params=values)) == refused(ERRORS[2])
        assert answer(await allowing.get(call, params=values)) == page
        assert answer(await allowing.post(call, params=values)) == page


SOMEBODY = Guesser("somebody", "here")


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(Guesses("1000/minute", "1000/minute", SecretStr("")).refuse_known)


async def test_a_password_is_slow_once_and_then_remembered(passwords: Passwords) -> None:
    stored = hash_password("admin1")
    assert not passwords.is_remembered("admin1", stored)
    assert await passwords.is_right("admin1", stored, SOMEBODY)
    assert passwords.is_remembered("admin1", stored)
    assert await passwords.is_right("admin1", stored, SOMEBODY)


async def test_a_wrong_password_is_never_remembered(passwords: Passwords) -> None:
    stored = hash_password("admin1")
    assert not await passwords.is_right("admin2", stored, SOMEBODY)
    assert not passwords.is_remembered("admin2", stored)
    assert not await passwords.is_right("admin2", stored, SOMEBODY)


async def test_a_remembered_password_is_forgotten_when_it_is_changed(passwords: Passwords) -> None:
    before, after = hash_password("before"), hash_password("after")
    assert await passwords.is_right("before", before, SOMEBODY)
    assert not passwords.is_remembered("before", after)
    assert not await passwords.is_right("before", after, SOMEBODY)
    assert await passwords.is_right("after", after, SOMEBODY)


async def test_any_text_can_be_a_password(passwords: Passwords) -> None:
    odd = "\x00é\ud800 " * 50
    stored = hash_password(odd)
    assert await passwords.is_right(odd, stored, SOMEBODY)
    assert not await passwords.is_right(odd[:-1], stored, SOMEBODY)


def test_nothing_is_the_password_of_what_is_no_hash() -> None:
    assert not is_password("admin1", "admin1")
    assert not is_password("", "")


@pytest.mark.parametrize("call", [UPDATE, GET])
async def test_a_right_password_or_none_passes_and_a_wrong_one_does_not(
    demo_service: httpx.AsyncClient, call: str
) -> None:
    values, page = (update(), updated()) if call == UPDATE else (get(), got())
    wrong = refused((ERRORS if call == UPDATE else GET_ERRORS)[3])
    assert answer(await demo_service.post(call, data=values)) == page
    assert answer(await demo_service.post(call, data={**values, "p": ""})) == page
    for _ in range(2):
        assert answer(await demo_service.post(call, data={**values, "p": "admin1"})) == page
        assert answer(await demo_service.post(call, data={**values, "p": "Admin1"})) == wrong
        assert answer(await demo_service.post(call, data={**values, "p": "admin1 "})) == wrong


async def test_a_password_is_ignored_where_the_account_has_none(demo_service: httpx.AsyncClient) -> None:
    assert answer(await demo_service.post(GET, data={**get(u="user1"), "p": "anything"})) == got()


async def test_many_passwords_at_once_are_all_answered(demo_service: httpx.AsyncClient) -> None:
    passwords = ["admin1", "wrong"] * 3
    responses = await asyncio.gather(*(demo_service.post(GET, data={**get(), "p": p}) for p in passwords))
    assert [answer(response) for response in responses] == [got(), refused(GET_ERRORS[3])] * 3


@pytest_asyncio.fixture(scope="module")
async def own_demo(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> AsyncIterator[OwnDemo]:
    async with open_own_demo(create_database, migrated_url) as demo:
        yield demo


async def test_a_changed_password_counts_at_once(start_service: StartService, own_demo: OwnDemo) -> None:
    service = await start_service(own_demo.url)
    before, after = {**get(), "p": "admin1"}, {**get(), "p": "changed"}
    assert answer(await service.post(GET, data=before)) == got()
    set_password = "UPDATE account SET password_hash = $1 WHERE username = 'admin'"
    await own_demo.database.execute(set_password, hash_password("changed"))
    assert answer(await service.post(GET, data=before)) == refused(GET_ERRORS[3])
    assert answer(await service.post(GET, data=after)) == got()
    await own_demo.database.execute(set_password, None)
    assert answer(await service.post(GET, data=before)) == got()
