"""The schema: what its constraints forbid, and that the migrations make it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import Connection, inspect

from callflow_service.storage.connecting import connected
from callflow_service.storage.migrating import alembic_config, is_compared, migrate, with_connection
from callflow_service.tables import metadata
from callflow_service.usecases.key_rotation import Rotation, rotate_keys
from encryption import KEYS
from mor_requests import GET, StartService, answer, get, got
from own_demo import OwnDemo, open_own_demo


@pytest_asyncio.fixture(scope="module")
async def demo(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> AsyncIterator[OwnDemo]:
    async with open_own_demo(create_database, migrated_url) as opened:
        yield opened


GOOD_ROW = {
    "device_id": "4",
    "state": "'busy'",
    "priority": "1",
    "action": "'forward'",
    "target_device_id": "5",
    "target_number": "NULL",
    "caller_id": "'device'",
    "caller_id_did_id": "NULL",
    "caller_id_text": "NULL",
    "otherwise": "NULL",
    "rules": "NULL",
}


def action(**step: Any) -> str:
    """A forward to device 5 as a document, with parts of its one step as they are given."""
    whole = {"to": {"device": 5}, "ring_seconds": None, "caller_id": {"kind": "device"}} | step
    return json.dumps({"action": "forward", "steps": [whole], "then": {"action": "empty"}})


def rules(conditions: Any, do: Any = None, **other: Any) -> str:
    """One rule as a document."""
    return json.dumps([{"name": "r", "enabled": True, "if": conditions, "do": do or {"action": "empty"}} | other])


STEP = json.loads(action())["steps"][0]
IMPOSSIBLE_ACTIONS = [
    "[]",
    "{}",
    '{"action": "hangup"}',
    '{"action": "end"}',
    '{"action": "end", "cause": 200}',
    '{"action": "voicemail", "of": {}}',
    '{"action": "fax_detect", "to": {"device": 5}}',
    '{"action": "forward"}',
    '{"action": "forward", "steps": [], "then": {"action": "empty"}}',
    json.dumps({"action": "forward", "steps": [STEP] * 11, "then": {"action": "empty"}}),
    json.dumps({"action": "forward", "steps": [STEP]}),
    json.dumps({"action": "forward", "steps": [STEP], "then": {"action": "forward", "steps": [STEP]}}),
    json.dumps({"action": "forward", "steps": [STEP], "then": {"action": "end", "cause": 1}}),
    action(to={}),
    action(to={"device": 5, "number": "1"}),
    action(to={"number": "one"}),
    action(to={"device": "5"}),
    action(ring_seconds=0),
    action(ring_seconds=3601),
    action(caller_id={}),
    action(caller_id={"kind": "did"}),
    action(caller_id={"kind": "custom"}),
    action(caller_id={"kind": "custom", "text": "a" * 256}),
]
IMPOSSIBLE_RULES = [
    "{}",
    "[]",
    "[{}]",
    "[null]",
    json.dumps(json.loads(rules({})) * 21),
    rules([]),
    rules({}, name=1),
    rules({}, enabled="yes"),
    rules({}, {"action": "hangup"}),
]

NO_TARGET = {"target_device_id": "NULL", "caller_id": "NULL"}
BAD_ROWS = [
    ({"device_id": "999"}, "fk_callflow_device_id"),
    ({"target_device_id": "999"}, "fk_callflow_target_device_id"),
    ({"caller_id": "'did'", "caller_id_did_id": "999"}, "fk_callflow_caller_id_did_id_device_id"),
    ({"caller_id": "'did'", "caller_id_did_id": "2"}, "fk_callflow_caller_id_did_id_device_id"),
    ({"caller_id": "'did'", "caller_id_did_id": "3"}, "fk_callflow_caller_id_did_id_device_id"),
    ({"state": "'answered'"}, "ck_callflow_state"),
    ({"priority": "0"}, "ck_callflow_priority"),
    ({"action": "'hangup'", **NO_TARGET}, "ck_callflow_action"),
    ({"action": "'fax_detect'", "caller_id": "NULL"}, "ck_callflow_fax_detect_before_call"),
    ({"target_device_id": "NULL"}, "ck_callflow_one_target"),
    ({"target_number": "'1'"}, "ck_callflow_one_target"),
    ({"action": "'empty'", "caller_id": "NULL"}, "ck_callflow_one_target"),
    ({"action": "'voicemail'", "caller_id": "NULL"}, "ck_callflow_one_target"),
    ({"action": "'fax_detect'", "state": "'before_call'", **NO_TARGET}, "ck_callflow_one_target"),
    (
        {"action": "'fax_detect'", "state": "'before_call'", **NO_TARGET, "target_number": "'1'"},
        "ck_callflow_number_is_forward",
    ),
    ({"caller_id": "NULL"}, "ck_callflow_caller_id_is_forward"),
    ({"action": "'empty'", "target_device_id": "NULL"}, "ck_callflow_caller_id_is_forward"),
    ({"caller_id": "'anonymous'"}, "ck_callflow_caller_id"),
    ({"caller_id": "'did'"}, "ck_callflow_caller_id_did"),
    ({"caller_id_did_id": "1"}, "ck_callflow_caller_id_did"),
    ({"caller_id": "'custom'"}, "ck_callflow_caller_id_text"),
    ({"caller_id_text": "'Me'"}, "ck_callflow_caller_id_text"),
    ({"caller_id": "'custom'", "caller_id_text": "repeat('a', 256)"}, "ck_callflow_caller_id_text_length"),
    *(({"otherwise": f"'{document}'"}, "ck_callflow_otherwise") for document in IMPOSSIBLE_ACTIONS),
    *(({"rules": f"'{document}'"}, "ck_callflow_rules") for document in IMPOSSIBLE_RULES),
    ({"otherwise": "'" + action(to={"device": 999}) + "'"}, "fk_callflow_reference_target_device_id"),
    ({"otherwise": "'" + action(caller_id={"kind": "did", "did": 2}) + "'"}, "fk_callflow_reference_did_id_device_id"),
    ({"rules": "'" + rules({"schedule": 9}) + "'"}, "fk_callflow_reference_schedule_id"),
    ({"rules": "'" + rules({"not_schedule": 9}) + "'"}, "fk_callflow_reference_schedule_id"),
    ({"rules": "'" + rules({"caller": {"list": 9}}) + "'"}, "fk_callflow_reference_caller_list_id"),
    ({"rules": "'" + rules({"caller": {"not_list": 9}}) + "'"}, "fk_callflow_reference_caller_list_id"),
]


def insert(**changes: str) -> str:
    values = {**GOOD_ROW, **changes}
    return f"INSERT INTO callflow ({', '.join(values)}) VALUES ({', '.join(values.values())})"  # noqa: S608 - the tests' own


@pytest.mark.parametrize(("changes", "constraint"), BAD_ROWS, ids=lambda value: value if isinstance(value, str) else "")
async def test_an_impossible_call_flow_cannot_be_stored(
    demo: OwnDemo, changes: dict[str, str], constraint: str
) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as violation:
        await demo.database.execute(insert(**changes))
    assert violation.value.constraint_name == constraint


async def test_a_possible_call_flow_is_stored_once_for_each_state_and_priority(demo: OwnDemo) -> None:
    await demo.database.execute(insert())
    await demo.database.execute(insert(priority="2"))
    with pytest.raises(asyncpg.UniqueViolationError) as violation:
        await demo.database.execute(insert())
    assert violation.value.constraint_name == "pk_callflow"
    await demo.database.execute("TRUNCATE callflow")


ACCOUNT = "INSERT INTO account VALUES ({id}, '{name}', 'Name', '{role}', {owner}, NULL, {password}, {policy}, {flags})"


def account(**changes: str) -> str:
    values = {"id": "90", "name": "new", "role": "user", "owner": "1", "password": "NULL", "policy": "NULL"}
    return ACCOUNT.format(**{**values, "flags": "false, true, false", **changes})


def schedule(**values: str) -> str:
    row = {"id": "3", "name": "'open'", "owner_id": "1", "weekly": "'[]'", "holidays": "NULL", "exceptions": "'[]'"}
    row |= values
    return f"INSERT INTO schedule ({', '.join(row)}) VALUES ({', '.join(row.values())})"  # noqa: S608 - constants


def alert(times: str = "1") -> str:
    into = "INSERT INTO target_alert (id, times, device_id, number, reason, account_id, face) OVERRIDING SYSTEM VALUE"
    return f"{into} VALUES (1, {times}, 4, '112', 'emergency', 1, 'mor')"


def caller_list(list_id: str = "7", owner_id: str = "1", entries: str = "'{1}'") -> str:
    return f"INSERT INTO caller_list VALUES ({list_id}, 'friends', {owner_id}, {entries})"  # noqa: S608 - constants


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        (account(id="1"), "pk_account"),
        (account(name="admin"), "uq_account_username"),
        (account(owner="999"), "fk_account_owner_id"),
        (account(id="-1"), "ck_account_id"),
        (account(role="root"), "ck_account_role"),
        (account(policy="'none'"), "ck_account_hash_policy"),
        (account(policy="'off'"), "ck_account_off_needs_password"),
        (account(owner="NULL"), "ck_account_owner"),
        (account(role="admin"), "ck_account_owner"),
        ("INSERT INTO device VALUES (4, 'SIP', 'new', 20, '', '', 60)", "pk_device"),
        ("INSERT INTO device VALUES (-1, 'SIP', 'new', 20, '', '', 60)", "ck_device_id"),
        ("INSERT INTO device VALUES (90, 'SIP', 'new', 999, '', '', 60)", "fk_device_owner_id"),
        ("INSERT INTO device VALUES (90, 'SIP', 'new', 20, '', '', 0)", "ck_device_ring_seconds"),
        ("INSERT INTO device VALUES (90, 'SIP', 'new', 20, '', '', 3601)", "ck_device_ring_seconds"),
        ("DELETE FROM account WHERE id = 20", "fk_device_owner_id"),
        ("INSERT INTO did VALUES (1, '90', NULL)", "pk_did"),
        ("INSERT INTO did VALUES (-1, '90', NULL)", "ck_did_id"),
        ("INSERT INTO did VALUES (90, '90', 999)", "fk_did_device_id"),
        ("INSERT INTO did VALUES (90, '37052000001', NULL)", "uq_did_number"),
        ("INSERT INTO did VALUES (90, '+37052000001', NULL)", "uq_did_number"),
        ("INSERT INTO switch_user VALUES ('', 'hash', 'host', true, '{}')", "ck_switch_user_username"),
        ("INSERT INTO switch_user VALUES ('switch', 'hash', 'host', true, '{}')", "pk_switch_user"),
        ("UPDATE switch_user SET rejected = 'no_answer'", "ck_switch_user_rejected"),
        ("UPDATE switch_user SET redirected = 'busy'", "ck_switch_user_redirected"),
        ("UPDATE account SET country = 'lt'", "ck_account_country"),
        ("UPDATE account SET number_pattern = repeat('1', 256)", "ck_account_number_pattern"),
        ("UPDATE account SET targets = '[]'", "ck_account_targets"),
        (schedule(id="-1"), "ck_schedule_id"),
        (schedule(owner_id="999"), "fk_schedule_owner_id"),
        (schedule(weekly="'{}'"), "ck_schedule_weekly"),
        (schedule(holidays="'[]'"), "ck_schedule_holidays"),
        (schedule(exceptions="'{}'"), "ck_schedule_exceptions"),
        (f"{schedule()}; {schedule()}", "pk_schedule"),
        (caller_list("-1"), "ck_caller_list_id"),
        (caller_list(owner_id="999"), "fk_caller_list_owner_id"),
        (caller_list(entries="array_fill('1'::text, ARRAY[10001])"), "ck_caller_list_entries"),
        (f"{caller_list()}; {caller_list()}", "pk_caller_list"),
        ("INSERT INTO caller_list_entry VALUES (999, '1')", "fk_caller_list_entry_list_id"),
        ("INSERT INTO taken_number VALUES (999, '1', '', now())", "fk_taken_number_account_id"),
        ("INSERT INTO taken_number SELECT 1, '1', '', now() FROM generate_series(1, 2)", "pk_taken_number"),
        (alert(times="0"), "ck_target_alert_times"),
        (f"{alert()}; {alert()}", "pk_target_alert"),
        (caller_list() + "; INSERT INTO caller_list_entry VALUES (7, '1')", "pk_caller_list_entry"),  # noqa: S608 - constants
    ],
)
async def test_an_impossible_world_cannot_be_stored(demo: OwnDemo, statement: str, constraint: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as violation:
        await demo.database.execute(statement)
    assert violation.value.constraint_name == constraint


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("DELETE FROM device WHERE id = 2", "fk_callflow_target_device_id"),
        ("UPDATE did SET device_id = 5 WHERE id = 1", "fk_callflow_caller_id_did_id_device_id"),
        ("DELETE FROM did WHERE id = 1", "fk_callflow_caller_id_did_id_device_id"),
    ],
)
async def test_what_a_call_flow_names_cannot_be_taken_away(demo: OwnDemo, statement: str, constraint: str) -> None:
    await demo.database.execute(insert(target_device_id="2", caller_id="'did'", caller_id_did_id="1"))
    try:
        with pytest.raises(asyncpg.ForeignKeyViolationError) as violation:
            await demo.database.execute(statement)
        assert violation.value.constraint_name == constraint
    finally:
        await demo.database.execute("TRUNCATE callflow")


def test_the_migrations_go_up_down_and_up_again_to_what_the_tables_say(
    create_database: Callable[..., SecretStr],
) -> None:
    url = create_database()
    found: list[tuple[object, set[str]]] = []

    def compare(connection: Connection) -> None:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": is_compared})
        found.append((compare_metadata(context, metadata), set(inspect(connection).get_table_names())))

    migrate(url)
    asyncio.run(with_connection(url, compare))
    asyncio.run(with_connection(url, lambda connection: command.check(alembic_config(connection))))
    asyncio.run(with_connection(url, lambda connection: command.downgrade(alembic_config(connection), "base")))
    asyncio.run(with_connection(url, lambda connection: found.append(([], set(inspect(connection).get_table_names())))))
    migrate(url)
    migrate(url)
    asyncio.run(with_connection(url, compare))
    tables = {"alembic_version", *metadata.tables}
    assert found == [([], tables), ([], {"alembic_version"}), ([], tables)]


async def test_a_database_from_before_encryption_is_migrated_and_served_with_its_plain_api_keys(
    start_service: StartService, create_database: Callable[..., SecretStr]
) -> None:
    url = await asyncio.to_thread(create_database)
    await asyncio.to_thread(migrate, url, "0001")
    older = account(id="1", name="admin", role="admin", owner="NULL")
    async with connected(url) as database:
        await database.execute(older)
        await database.execute("UPDATE account SET api_key = '456789'")
        await database.execute("INSERT INTO device VALUES (4, 'IAX2', '1002', 1, '', '', 60)")
        await asyncio.to_thread(migrate, url)
        service = await start_service(url)
        expected = got(user="Name")
        assert answer(await service.post(GET, data=get())) == expected
        # The release before this one goes on writing accounts as it knows them.
        await database.execute(account(id="2", name="later"))
        assert await rotate_keys(url, KEYS) == Rotation(1, 0)
        rows = await database.fetch("SELECT id, api_key, allowed_addresses FROM account ORDER BY id")
    assert answer(await service.post(GET, data=get())) == expected
    assert [(row[0], row[1] and KEYS.decrypt(row[1]), row[2]) for row in rows] == [(1, "456789", None), (2, None, None)]


def test_every_constraint_of_the_tables_is_shown_to_forbid_something() -> None:
    named = {
        str(constraint.name)
        for table in ("callflow", "account", "device", "did", "switch_user")
        for constraint in metadata.tables[table].constraints
    }
    shown = {constraint for _, constraint in BAD_ROWS}
    marks = test_an_impossible_world_cannot_be_stored.pytestmark
    shown |= {constraint for mark in marks for _, constraint in mark.args[1]}
    # The primary key of a call flow has a test of its own; (id, device_id) of a DID is unique because its id is.
    assert {name.removesuffix("_") for name in named} - shown == {"pk_callflow", "uq_did_id_device_id"}
