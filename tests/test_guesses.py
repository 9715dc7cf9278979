"""Who is wrong too often about an account or a switch user is refused for a while, and nobody else is."""

import asyncio
import itertools
import json
import re
import tracemalloc
from collections.abc import Iterator
from ipaddress import ip_address

import httpx
import pytest
import pytest_asyncio
from argon2 import PasswordHasher
from pydantic import SecretStr

from callflow_service.credentials.counting import Guesser
from callflow_service.credentials.guesses import Guessed, Guesses, guesser
from callflow_service.credentials.passwords import Passwords
from callflow_service.domain.errors import Overloaded, TooManyGuesses
from mor_requests import ERRORS, GET, GET_ERRORS, UPDATE, StartService, answer, get, got, refused, update, updated
from switch_questions import ALICE, FACES, FLAT_FACES, NONE, NOT_FOUND, SWITCH, flat

pytestmark = pytest.mark.usefixtures("untouched")

LIMIT = 5
ALONE = SecretStr("")
MANY = "1000000/minute"
ATTACKER = Guesser("attacker", "there")
OWNER = Guesser("owner", "here")
TOO_MANY = refused("Too many wrong requests, try again later", 429)
QUICK_HASH = PasswordHasher(time_cost=1, memory_cost=32)
"""Right or wrong takes no time, where it does not matter that it does."""
WRONG_HASH = {"hash": "0" * 40}


@pytest_asyncio.fixture(scope="module")
async def service(start_service: StartService, demo_url: SecretStr) -> httpx.AsyncClient:
    """A service that believes the tests in whose name they ask, and bears few wrong guesses."""
    return await start_service(demo_url, guess_limit=f"{LIMIT}/day", trusted_proxies=("127.0.0.1",))


@pytest.fixture(scope="module")
def hosts() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def here(hosts: Iterator[int]) -> dict[str, str]:
    """The headers of a client whose address no other test has."""
    return {"X-Forwarded-For": f"192.0.2.{next(hosts)}"}


@pytest.fixture
def elsewhere(hosts: Iterator[int]) -> dict[str, str]:
    return {"X-Forwarded-For": f"192.0.2.{next(hosts)}"}


async def guess_wrong(service: httpx.AsyncClient, headers: dict[str, str], *, u: str = "admin") -> None:
    for _ in range(LIMIT):
        page = answer(await service.post(GET, data=get(u=u) | WRONG_HASH, headers=headers))
        assert page == refused(GET_ERRORS[4])


def seconds_to_wait(response: httpx.Response) -> int:
    assert response.status_code == 429
    assert re.fullmatch("[1-9][0-9]*", response.headers["retry-after"])
    return int(response.headers["retry-after"])


@pytest.mark.parametrize("call", [UPDATE, GET])
async def test_after_so_many_wrong_signatures_right_ones_are_refused_too(
    service: httpx.AsyncClient, here: dict[str, str], call: str
) -> None:
    await guess_wrong(service, here)
    right = update() if call == UPDATE else get()
    for values in (right, right | WRONG_HASH, right):
        response = await service.post(call, data=values, headers=here)
        assert answer(response) == TOO_MANY
        assert seconds_to_wait(response) <= 24 * 60 * 60


async def test_both_calls_share_what_may_be_wrong(service: httpx.AsyncClient, here: dict[str, str]) -> None:
    wrong = {UPDATE: update() | WRONG_HASH, GET: get() | WRONG_HASH}
    for call in itertools.islice(itertools.cycle((UPDATE, GET)), LIMIT):
        assert answer(await service.post(call, data=wrong[call], headers=here)) == refused(ERRORS[4])
    assert answer(await service.post(UPDATE, data=update(), headers=here)) == TOO_MANY
    assert answer(await service.post(GET, data=get(), headers=here)) == TOO_MANY


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (get(u="nobody"), GET_ERRORS[3]),
        (get(u="blocked"), GET_ERRORS[3]),
        (get() | {"p": "wrong"}, GET_ERRORS[3]),
        (get(u="open"), GET_ERRORS[3]),
        (get(u="open") | {"p": "wrong"}, GET_ERRORS[3]),
        ({"u": "\ud800" * 70, "device_id": "4"}, GET_ERRORS[3]),
        ({}, GET_ERRORS[3]),
        (get() | WRONG_HASH, GET_ERRORS[4]),
        ({"u": "admin", "device_id": "4"}, GET_ERRORS[4]),
    ],
    ids=[
        "unknown",
        "blocked",
        "password",
        "no password",
        "policy off",
        "surrogates",
        "nobody",
        "hash",
        "no hash",
    ],
)
async def test_everything_that_can_be_guessed_counts(
    service: httpx.AsyncClient, here: dict[str, str], values: dict[str, str], error: str
) -> None:
    headers = here | {"Content-Type": "application/json"}
    body = json.dumps(values)
    pages = [answer(await service.post(GET, content=body, headers=headers)) for _ in range(LIMIT + 1)]
    assert pages == [refused(error)] * LIMIT + [TOO_MANY]


async def test_what_is_signed_right_never_counts(service: httpx.AsyncClient, here: dict[str, str]) -> None:
    for _ in range(LIMIT):
        assert answer(await service.post(GET, data=get(), headers=here)) == got()
        assert answer(await service.post(GET, data=get("999"), headers=here)) == refused(ERRORS[6])
        assert answer(await service.post(GET, data=get(u="accountant"), headers=here)) == refused(ERRORS[5])
        assert answer(await service.get(GET, params=get(), headers=here)) == refused(ERRORS[2])
        assert answer(await service.post(UPDATE, data={"u": "closed"}, headers=here)) == refused(ERRORS[1])
    assert answer(await service.post(UPDATE, data=update(), headers=here)) == updated()


@pytest.mark.parametrize(
    ("call", "right", "page"),
    [(GET, get(), got()), (UPDATE, update(), updated()), (GET, get("999"), refused(ERRORS[6]))],
    ids=["get", "update", "signed right, but not there"],
)
async def test_who_turns_out_to_be_right_is_forgiven_what_was_wrong_before(
    service: httpx.AsyncClient, here: dict[str, str], call: str, right: dict[str, str], page: tuple[int, str, str]
) -> None:
    for _ in range(3):
        for _ in range(LIMIT - 1):
            assert answer(await service.post(call, data=right | WRONG_HASH, headers=here)) == refused(ERRORS[4])
        found = answer(await service.post(call, data=right, headers=here))
        assert found[:2] == page[:2]
        assert ("<error>" in found[2]) == ("<error>" in page[2])


async def test_the_owner_gets_in_from_elsewhere_and_others_from_here(
    service: httpx.AsyncClient, here: dict[str, str], elsewhere: dict[str, str]
) -> None:
    await guess_wrong(service, here)
    assert answer(await service.post(GET, data=get(), headers=here)) == TOO_MANY
    assert answer(await service.post(GET, data=get(), headers=elsewhere)) == got()
    assert answer(await service.post(GET, data=get(u="user1"), headers=here)) == got()


async def test_one_try_each_at_many_names_is_limited_for_the_address(
    start_service: StartService, demo_url: SecretStr, here: dict[str, str], elsewhere: dict[str, str]
) -> None:
    service = await start_service(demo_url, address_guess_limit=f"{LIMIT}/day", trusted_proxies=("127.0.0.1",))
    for number in range(LIMIT):
        page = answer(await service.post(GET, data=get(u=f"name{number}"), headers=here))
        assert page == refused(GET_ERRORS[3])
        # One that is right between them, as of a guesser with an account of its own, clears nothing.
        if number < LIMIT - 1:
            assert answer(await service.post(GET, data=get(), headers=here)) == got()
    for values in (get(u="another"), get()):
        response = await service.post(GET, data=values, headers=here)
        assert answer(response) == TOO_MANY
        assert seconds_to_wait(response) <= 24 * 60 * 60
    assert answer(await service.post(GET, data=get(), headers=elsewhere)) == got()
    # What is wrong about accounts does not stand in the way of the calls.
    assert (await ask_switch(service, "opensips", here)).status_code == 200


async def test_neighbours_of_one_ipv6_network_are_one(service: httpx.AsyncClient) -> None:
    await guess_wrong(service, {"X-Forwarded-For": "2001:db8:0:7::1"})
    for address, page in (("2001:db8:0:7:ffff::9", TOO_MANY), ("2001:db8:0:8::1", got())):
        response = await service.post(GET, data=get(), headers={"X-Forwarded-For": address})
        assert answer(response) == page


def test_an_ipv4_address_is_the_same_however_it_is_written_and_no_other() -> None:
    addresses = ["192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.2", "::", "2001:db8::1", "2001:db8:0:1::1"]
    seen = [guesser(Guessed.ACCOUNT, "admin", ip_address(address)) for address in addresses]
    assert seen[0] == seen[1]
    assert len({*seen, guesser(Guessed.ACCOUNT, "admin", None), guesser(Guessed.SWITCH_USER, "admin", None)}) == 7


async def test_when_the_time_is_over_it_works_again(start_service: StartService, demo_url: SecretStr) -> None:
    service = await start_service(demo_url, guess_limit="2 per 2 seconds;1000/hour")
    response = await service.post(GET, data=get() | WRONG_HASH)
    while response.status_code == 200:
        response = await service.post(GET, data=get() | WRONG_HASH)
    assert seconds_to_wait(response) <= 2
    await asyncio.sleep(seconds_to_wait(response))
    assert answer(await service.post(GET, data=get())) == got()


@pytest.mark.parametrize("error_envelope", ["page", "bare"])
async def test_the_page_has_the_envelope_of_all_errors(
    start_service: StartService, demo_url: SecretStr, error_envelope: str
) -> None:
    service = await start_service(demo_url, guess_limit="1/day", error_envelope=error_envelope)
    wrong = [await service.post(GET, data=get() | WRONG_HASH) for _ in range(2)]
    shown = wrong[0].text.replace("Incorrect hash", "Too many wrong requests, try again later")
    assert answer(wrong[1]) == (429, "application/xml; charset=utf-8", shown)


async def test_a_forged_address_neither_hides_who_guesses_nor_locks_out_whose_it_is(
    start_service: StartService, demo_url: SecretStr
) -> None:
    service = await start_service(demo_url, guess_limit=f"{LIMIT}/day", trusted_proxies=("192.0.2.0/24",))
    other = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
    async with httpx.AsyncClient(base_url=service.base_url, transport=other) as attacker:
        for number in range(LIMIT):
            forged = {"X-Forwarded-For": "127.0.0.1" if number else "192.0.2.1"}
            wrong = await attacker.post(GET, data=get() | WRONG_HASH, headers=forged)
            assert answer(wrong) == refused(GET_ERRORS[4])
        for forged in ({}, {"X-Forwarded-For": "192.0.2.9"}, {"Forwarded": "for=192.0.2.9"}):
            assert answer(await attacker.post(GET, data=get(), headers=forged)) == TOO_MANY
    assert answer(await service.post(GET, data=get())) == got()


async def test_of_many_guesses_at_once_no_more_are_looked_at(service: httpx.AsyncClient, here: dict[str, str]) -> None:
    asked = [service.post(GET, data=get() | WRONG_HASH, headers=here) for _ in range(60)]
    pages = [answer(response) for response in await asyncio.gather(*asked)]
    assert sorted(pages) == sorted([refused(GET_ERRORS[4])] * LIMIT + [TOO_MANY] * (60 - LIMIT))


async def test_of_many_passwords_at_once_no_more_are_looked_at(
    service: httpx.AsyncClient, here: dict[str, str]
) -> None:
    guesses = [get(u="open") | {"p": f"wrong {number}"} for number in range(20)]
    asked = [service.post(GET, data=values, headers=here, timeout=60) for values in guesses]
    pages = [answer(response) for response in await asyncio.gather(*asked)]
    assert sorted(pages) == sorted([refused(GET_ERRORS[3])] * LIMIT + [TOO_MANY] * (20 - LIMIT))


async def test_a_password_that_waited_while_others_were_wrong_is_not_looked_at() -> None:
    guesses = Guesses("1/day", MANY, ALONE)
    passwords, stored = Passwords(guesses.refuse_known), QUICK_HASH.hash("admin1")
    await guesses.count(ATTACKER)
    with pytest.raises(TooManyGuesses):
        await passwords.is_right("admin1", stored, ATTACKER)
    assert not passwords.is_remembered("admin1", stored)
    assert await passwords.is_right("admin1", stored, OWNER)


async def test_the_line_of_passwords_has_an_end_and_moves_on() -> None:
    passwords, stored = Passwords(Guesses("1/day", MANY, ALONE).refuse_known), QUICK_HASH.hash("admin1")
    asked = [passwords.is_right(f"wrong {number}", stored, ATTACKER) for number in range(100)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert found[:22] == [False] * 22
    assert [type(refusal) for refusal in found[22:]] == [Overloaded] * 78
    assert await passwords.is_right("admin1", stored, OWNER)


async def test_one_password_many_times_at_once_is_one_in_the_line() -> None:
    passwords, stored = Passwords(Guesses("1/day", MANY, ALONE).refuse_known), QUICK_HASH.hash("admin1")
    assert all(await asyncio.gather(*(passwords.is_right("admin1", stored, OWNER) for _ in range(100))))


async def test_made_up_names_fill_no_memory_and_free_nobody() -> None:
    guesses = Guesses("2/day;5 per month", MANY, ALONE, most_counts=200)
    for _ in range(2):
        await guesses.count(ATTACKER)
    most = []
    tracemalloc.start()
    for names in (range(200), range(2000)):
        for name in names:
            await guesses.count(Guesser(f"made up {name}", "there"))
        most.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert most[1] < 2 * most[0]
    with pytest.raises(TooManyGuesses):
        await guesses.refuse(ATTACKER)
    await guesses.refuse(Guesser("made up 0", "there"))


async def test_a_service_that_finds_no_redis_counts_alone_and_says_so_once(
    start_service: StartService, demo_url: SecretStr, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = SecretStr("redis://:canary@127.0.0.1:1/0")
    service = await start_service(demo_url, guess_limit=f"{LIMIT}/day", redis_url=nothing)
    assert answer(await service.post(GET, data=get())) == got()
    await guess_wrong(service, {})
    assert answer(await service.post(GET, data=get())) == TOO_MANY
    said = [record.getMessage() for record in caplog.records if "Redis" in record.getMessage()]
    assert said == ["Redis cannot be asked (ConnectionError); each worker counts wrong guesses alone"]
    assert "canary" not in caplog.text


async def ask_switch(
    service: httpx.AsyncClient, face: str, headers: dict[str, str], *, password: str = SWITCH[1], **question: str
) -> httpx.Response:
    asked = {**ALICE, "device": "4", **question}
    return await service.post(f"/switch/{face}", data=asked, headers=headers, auth=(SWITCH[0], password))


@pytest.mark.parametrize("face", FACES)
async def test_a_switch_that_is_wrong_too_often_is_refused_and_its_calls_carry_on(
    service: httpx.AsyncClient, here: dict[str, str], elsewhere: dict[str, str], face: str
) -> None:
    for _ in range(LIMIT):
        assert (await ask_switch(service, face, here, password="wrong")).status_code == 401
    for password in ("wrong", SWITCH[1]):
        response = await ask_switch(service, face, here, password=password)
        assert seconds_to_wait(response) <= 24 * 60 * 60
        if face == "freeswitch":
            assert response.content == NOT_FOUND
        else:
            assert flat(face, response) == NONE
    assert (await ask_switch(service, face, elsewhere)).status_code == 200


@pytest.mark.parametrize("face", FLAT_FACES)
async def test_a_refused_switch_ends_the_calls_that_are_on_their_way(
    service: httpx.AsyncClient, here: dict[str, str], face: str
) -> None:
    for _ in range(LIMIT):
        await ask_switch(service, face, here, password="wrong")
    response = await ask_switch(service, face, here, path="4_c1", state="busy")
    assert response.status_code == 429
    ended = {"action": "end", "cause": "486", "flow_id": "c1", "path": "4_c1"}
    assert {name: flat(face, response)[name] for name in ended} == ended


async def test_a_switch_that_shows_no_password_guesses_nothing(
    service: httpx.AsyncClient, here: dict[str, str]
) -> None:
    for _ in range(LIMIT + 1):
        response = await service.post("/switch/opensips", data=ALICE, headers=here)
        assert response.status_code == 401
    assert (await ask_switch(service, "opensips", here)).status_code == 200


async def test_of_many_switch_passwords_at_once_no_more_are_looked_at(
    service: httpx.AsyncClient, here: dict[str, str]
) -> None:
    asked = [ask_switch(service, "opensips", here, password=f"wrong {number}") for number in range(60)]
    statuses = [response.status_code for response in await asyncio.gather(*asked)]
    assert sorted(statuses) == [401] * LIMIT + [429] * (60 - LIMIT)


async def test_switches_and_accounts_are_counted_apart(service: httpx.AsyncClient, here: dict[str, str]) -> None:
    for _ in range(LIMIT):
        await service.post(GET, data={**get(), "u": "switch"}, headers=here)
    assert answer(await service.post(GET, data={**get(), "u": "switch"}, headers=here)) == TOO_MANY
    assert (await ask_switch(service, "opensips", here)).status_code == 200
