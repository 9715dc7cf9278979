"""What an update leaves in the database, and what it takes to get there."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import asyncpg
import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from callflow_service.domain.access import OwnedDevice
from callflow_service.domain.callflow import Device, Empty, State, Voicemail
from callflow_service.domain.changing import Change
from callflow_service.domain.history import Face, Origin, Sender
from callflow_service.repositories.callflows import save
from clusters import LONG
from mor_requests import ADMIN_KEY, ERRORS, GET, UPDATE, StartService, answer, get, got, refused, update, updated
from own_demo import OwnDemo, open_own_demo
from statements import statements

CALL_FLOWS = "SELECT to_jsonb(callflow) FROM callflow ORDER BY device_id, state"
HISTORY = """SELECT account_id, face, host(address) AS address, request_id, device_id, state, priority, before, after
FROM callflow_history ORDER BY id"""


@pytest_asyncio.fixture(scope="module")
async def proxied_service(start_service: StartService, demo_url: SecretStr) -> httpx.AsyncClient:
    """Behind a proxy that it trusts, whose requests keep their ids: the tests themselves."""
    return await start_service(demo_url, trusted_proxies=("127.0.0.1",))


def row(**changes: object) -> dict[str, object]:
    """A stored call flow as JSON: device 4 forwards to device 5 before the call."""
    return {
        "device_id": 4,
        "state": "before_call",
        "priority": 1,
        "action": "forward",
        "target_device_id": 5,
        "target_number": None,
        "caller_id": "device",
        "caller_id_did_id": None,
        "caller_id_text": None,
        "otherwise": None,
        "rules": None,
        **changes,
    }


def change(request_id: str, before: object, after: object, account_id: int = 1, **key: object) -> dict[str, object]:
    """A row of the history."""
    origin = {"account_id": account_id, "face": "mor", "address": "127.0.0.1", "request_id": request_id}
    return {**origin, "device_id": 4, "state": "before_call", "priority": 1, **key, "before": before, "after": after}


async def history(database: asyncpg.Connection) -> list[dict[str, object]]:
    return [
        {**found, **{when: found[when] and json.loads(found[when]) for when in ("before", "after")}}
        for found in map(dict, await database.fetch(HISTORY))
    ]


async def call_flows(database: asyncpg.Connection) -> list[dict[str, object]]:
    return [json.loads(found[0]) for found in await database.fetch(CALL_FLOWS)]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({}, row()),
        ({"src_callerid": "1"}, row(caller_id="source")),
        ({"did_id": "1"}, row(caller_id="did", caller_id_did_id=1)),
        ({"custom": "Me"}, row(caller_id="custom", caller_id_text="Me")),
        (
            {"forward_to_device": None, "external_number": "+370"},
            row(target_device_id=None, target_number="+370"),
        ),
        ({"callflow_action": "voicemail"}, row(action="voicemail", target_device_id=None, caller_id=None)),
        ({"callflow_action": "empty"}, row(action="empty", target_device_id=None, caller_id=None)),
        (
            {"callflow_action": "fax_detect", "fax_device": "2", "custom": "Me"},
            row(action="fax_detect", target_device_id=2, caller_id=None),
        ),
    ],
)
async def test_an_update_stores_one_row_and_who_made_it(
    proxied_service: httpx.AsyncClient,
    demo_database: asyncpg.Connection,
    sent: dict[str, str | None],
    stored: dict[str, object],
) -> None:
    await proxied_service.post(UPDATE, data=update(**sent), headers={"X-Request-ID": "the-request"})
    assert await call_flows(demo_database) == [stored]
    assert await history(demo_database) == [change("the-request", None, stored)]


@pytest.mark.usefixtures("untouched")
async def test_the_history_keeps_what_was_before_each_update(
    proxied_service: httpx.AsyncClient, demo_database: asyncpg.Connection
) -> None:
    first, second = row(), row(caller_id="custom", caller_id_text="Me")
    other = row(state="busy", target_device_id=4)
    for request_id, values in (
        ("first", update()),
        ("second", update(custom="Me", u="user1")),
        ("same", update(custom="Me")),
        ("other", update(state="busy", forward_to_device="4")),
    ):
        await proxied_service.post(UPDATE, data=values, headers={"X-Request-ID": request_id})
    assert await call_flows(demo_database) == [second, other]
    assert await history(demo_database) == [
        change("first", None, first),
        change("second", first, second, account_id=20),
        change("same", second, second),
        change("other", None, other, state="busy"),
    ]


@pytest.mark.usefixtures("untouched")
async def test_the_history_tells_when(demo_service: httpx.AsyncClient, demo_database: asyncpg.Connection) -> None:
    before = await demo_database.fetchval("SELECT clock_timestamp()")
    await demo_service.post(UPDATE, data=update())
    changed_at = await demo_database.fetchval("SELECT changed_at FROM callflow_history")
    assert before <= changed_at <= await demo_database.fetchval("SELECT clock_timestamp()")


@pytest.mark.usefixtures("untouched")
async def test_an_update_takes_two_statements_and_a_get_one(demo_service: httpx.AsyncClient) -> None:
    await demo_service.post(GET, data=get())
    async with statements() as executed:
        assert answer(await demo_service.post(UPDATE, data=update())) == updated()
        assert [statement.split()[0] for statement in executed] == ["SELECT", "WITH"]
    async with statements() as executed:
        assert answer(await demo_service.post(GET, data=get()))[0] == 200
        assert [statement.split()[0] for statement in executed] == ["SELECT"]
    async with statements() as executed:
        assert answer(await demo_service.post(UPDATE, data=update(did_id="2"))) == refused(ERRORS[13])
        assert [statement.split()[0] for statement in executed] == ["SELECT"]


@pytest.mark.usefixtures("untouched")
async def test_concurrent_updates_of_one_state_leave_one_row_and_a_history_without_gaps(
    demo_service: httpx.AsyncClient, demo_database: asyncpg.Connection
) -> None:
    texts = [f"caller {number}" for number in range(20)]
    responses = await asyncio.gather(*(demo_service.post(UPDATE, data=update(custom=text)) for text in texts))
    assert [answer(response) for response in responses] == [
        updated(callerid_type="Custom", callerid_data=text) for text in texts
    ]
    (stored,) = await call_flows(demo_database)
    changes = await history(demo_database)
    assert sorted(found["after"]["caller_id_text"] for found in changes) == sorted(texts)
    assert [found["before"] for found in changes].count(None) == 1
    left = [found["after"] for found in changes if found["after"] not in [other["before"] for other in changes]]
    assert left == [stored]


@pytest.mark.usefixtures("untouched")
async def test_a_first_change_that_waited_for_another_first_change_knows_what_that_one_left(
    proxied_service: httpx.AsyncClient, demo_database: asyncpg.Connection
) -> None:
    async with demo_database.transaction():
        await demo_database.execute("INSERT INTO callflow VALUES (4, 'before_call', 1, 'voicemail')")
        later = asyncio.create_task(proxied_service.post(UPDATE, data=update(), headers={"X-Request-ID": "later"}))
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
        async with asyncio.timeout(LONG):
            while not await demo_database.fetchval(waiting):  # noqa: ASYNC110 - PostgreSQL tells nobody
                await asyncio.sleep(0.01)
    assert answer(await later) == updated()
    voicemail = row(action="voicemail", target_device_id=None, caller_id=None)
    assert await history(demo_database) == [change("later", voicemail, row())]


@pytest.mark.usefixtures("untouched")
async def test_several_changes_in_one_transaction_each_know_what_was_before(demo_database: asyncpg.Connection) -> None:
    owned = OwnedDevice(Device(4, "IAX2", "1002"), 20, "Test User #1", 1, 60)
    async with demo_database.transaction():
        for state, flow in ((State.BUSY, Voicemail()), (State.BUSY, Empty()), (State.FAILED, Empty())):
            await save(demo_database, Change(owned, state, flow), Origin(1, Face.MOR, Sender(None, "one of several")))
    empty = row(state="busy", action="empty", target_device_id=None, caller_id=None)
    assert [(found["before"], found["after"]) for found in await history(demo_database)] == [
        (None, {**empty, "action": "voicemail"}),
        ({**empty, "action": "voicemail"}, empty),
        (None, {**empty, "state": "failed"}),
    ]


@pytest.mark.usefixtures("untouched")
async def test_a_change_that_cannot_be_noted_is_not_made(
    start_service: StartService, create_database: Callable[..., SecretStr], migrated_url: SecretStr
) -> None:
    async with open_own_demo(create_database, migrated_url) as demo:
        service = await start_service(demo.url, trusted_proxies=("127.0.0.1",))
        assert answer(await service.post(UPDATE, data=update())) == updated()
        await demo.database.execute("ALTER TABLE callflow_history ADD CHECK (request_id <> 'refused')")
        for path in (UPDATE, UPDATE.replace("/api", "//api")):
            response = await service.post(path, data=update(custom="Me"), headers={"X-Request-ID": "refused"})
            assert answer(response) == refused("Internal error", 500)
        assert await call_flows(demo.database) == [row()]


@pytest_asyncio.fixture(scope="module")
async def vanishing(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> AsyncIterator[OwnDemo]:
    """A demo from which rows may vanish."""
    async with open_own_demo(create_database, migrated_url) as demo:
        yield demo


@pytest_asyncio.fixture(scope="module")
async def service_on_vanishing(start_service: StartService, vanishing: OwnDemo) -> httpx.AsyncClient:
    service = await start_service(vanishing.url)
    assert answer(await service.post(GET, data=get())) == got()
    return service


@pytest.mark.parametrize(
    ("sent", "vanishes", "number"),
    [
        pytest.param({}, "DELETE FROM did WHERE id = 30; DELETE FROM device WHERE id = 31", 6, id="the device"),
        pytest.param({"forward_to_device": "32"}, "DELETE FROM device WHERE id = 32", 10, id="the local device"),
        pytest.param(
            {"callflow_action": "fax_detect", "fax_device": "33"}, "DELETE FROM device WHERE id = 33", 12, id="the FAX"
        ),
        pytest.param({"did_id": "30"}, "DELETE FROM did WHERE id = 30", 13, id="the DID"),
        pytest.param({"did_id": "30"}, "UPDATE did SET device_id = 4 WHERE id = 30", 13, id="the DID's device"),
    ],
)
async def test_what_vanishes_between_the_two_statements_was_not_found(
    service_on_vanishing: httpx.AsyncClient, vanishing: OwnDemo, sent: dict[str, str], vanishes: str, number: int
) -> None:
    await vanishing.database.execute("""
        DELETE FROM did WHERE id = 30; DELETE FROM device WHERE id IN (31, 32, 33);
        INSERT INTO device SELECT new.id, new.technology, new.id::text, 20, '', '', 60
        FROM (VALUES (31, 'SIP'), (32, 'SIP'), (33, 'FAX')) AS new (id, technology);
        INSERT INTO did VALUES (30, '30', 31)""")

    async def before_the_second(executed: list[str]) -> None:
        if len(executed) == 2:
            await vanishing.database.execute(vanishes)

    async with statements(before_the_second) as executed:
        response = await service_on_vanishing.post(UPDATE, data=update(device_id="31", **sent))
    assert len(executed) == 2
    assert answer(response) == refused(ERRORS[number])
    assert await vanishing.database.fetchval("SELECT count(*) FROM callflow_history") == 0


async def test_a_history_is_kept_when_its_device_is_deleted(
    service_on_vanishing: httpx.AsyncClient, vanishing: OwnDemo
) -> None:
    await service_on_vanishing.post(UPDATE, data=update(device_id="400", forward_to_device="400"))
    await vanishing.database.execute("DELETE FROM device WHERE id = 400")
    assert await call_flows(vanishing.database) == []
    (found,) = await history(vanishing.database)
    assert found["device_id"] == 400
    assert answer(await service_on_vanishing.post(GET, data=get("400", key=ADMIN_KEY))) == refused(ERRORS[6])
    await vanishing.database.execute("TRUNCATE callflow_history")
