"""What a question costs the database: how many statements, and that an index finds every row."""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator

import asyncpg
import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from callflow_service.repositories import lookups
from callflow_service.storage.database import PLANNING
from statements import statements
from switch_questions import FACES, SWITCH, Flows, StartService, ask, connect, freeswitch_request

MANY = """
SET session_replication_role = replica;
INSERT INTO account (id, username, name, role, pbx_addon, api_enabled, blocked)
    VALUES (1, 'admin', 'Admin', 'admin', false, true, false);
INSERT INTO device (id, technology, name, owner_id, caller_number, caller_name, ring_seconds)
    SELECT i, 'SIP', 'd' || i, 1, '', '', 60 FROM generate_series(1000, 100000) AS i;
INSERT INTO did (id, number, device_id)
    SELECT i, (37060000000 + i)::text, i FROM generate_series(1000, 100000) AS i;
INSERT INTO callflow (device_id, state, priority, action, target_device_id, target_number, caller_id)
    SELECT i, state, 1, 'forward', CASE WHEN i % 2 = 0 THEN i - 1 END,
        CASE WHEN i % 2 = 1 THEN (37060000000 + i - 1)::text END, 'source'
    FROM generate_series(1001, 100000) AS i, unnest(ARRAY['before_call', 'busy']) AS state;
INSERT INTO schedule (id, name, owner_id, weekly, exceptions)
    SELECT i, 's' || i, 1, '[]', '[]' FROM generate_series(1000, 100000) AS i;
INSERT INTO caller_list (id, name, owner_id, entries)
    SELECT i, 'l' || i, 1, ARRAY[i::text] FROM generate_series(1000, 100000) AS i;
INSERT INTO caller_list_entry SELECT id, id::text FROM caller_list;
INSERT INTO callflow_reference (device_id, state, target_device_id, target_number, schedule_id, caller_list_id)
    SELECT i, 'busy', CASE n WHEN 0 THEN i - 1 END, CASE n WHEN 1 THEN (37060000000 + i - 1)::text END,
        CASE n WHEN 2 THEN i END, CASE n WHEN 3 THEN i END
    FROM generate_series(1001, 100000) AS i, generate_series(0, 3) AS n;
ANALYZE"""
INDEXED = {"device", "callflow", "did", "callflow_reference", "schedule", "caller_list_entry"}
"""The tables that grow with the devices."""


@pytest.mark.parametrize("face", FACES)
async def test_a_usual_question_is_one_statement_in_every_face(
    service: httpx.AsyncClient, flows: Flows, face: str
) -> None:
    await flows.forward(500, to=501)
    question = freeswitch_request("5000") if face == "freeswitch" else {"called": "5000"}
    await service.post(f"/switch/{face}", data=question, auth=SWITCH)
    async with statements() as sent:
        response = await service.post(f"/switch/{face}", data=question, auth=SWITCH)
    assert "5001" in response.text
    assert len(sent) == 1


@pytest.mark.parametrize(
    "question",
    [
        {"device": "500"},
        {"device": "502"},
        {"device": "503"},
        {"called": "nobody"},
        {"called": "37052000010"},
        {"path": "500b.501_c1", "state": "busy"},
        {"path": "500b.501n.502b.503_c1", "state": "no_answer"},
    ],
)
async def test_what_one_step_leads_to_is_one_statement(
    service: httpx.AsyncClient, flows: Flows, question: dict[str, str]
) -> None:
    await flows.forward(500, to="37052000004")
    await flows.forward(501, "busy", to=504)
    await flows.set(502, "before_call", "fax_detect", target=2)
    await flows.forward(503, "no_answer", to="37069999999")
    await ask(service, device="500")
    async with statements() as sent:
        await ask(service, **question)
    assert len(sent) == 1


async def test_a_long_chain_is_two_statements(start_switch_service: StartService, flows: Flows) -> None:
    service = await start_switch_service(max_diversions=9)
    for device in range(500, 508):
        await flows.forward(device, to=device + 1)
    await flows.set(508, "before_call", "fax_detect", target=2)
    await ask(service, device="501")
    async with statements() as sent:
        told = await ask(service, device="500")
    assert (told["action"], told["device"], told["leg"]) == ("fax", "508", "9")
    assert len(sent) == 2


async def test_wrong_credentials_cost_no_statement_for_every_question(service: httpx.AsyncClient) -> None:
    await ask(service, device="500")
    async with statements() as sent:
        for _ in range(10):
            assert (await service.post("/switch/opensips", auth=("switch", "wrong"))).status_code == 401
    assert len(sent) <= 2


@pytest.fixture(scope="module")
def many_url(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> SecretStr:
    return create_database(migrated_url)


@pytest_asyncio.fixture(scope="module", params=[2_000, 5_000, 100_000])
async def many(request: pytest.FixtureRequest, many_url: SecretStr) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the service has them, to a database of so many devices, each with a DID, forwards and rules."""
    connection = await connect(many_url)
    await connection.execute("TRUNCATE account CASCADE;" + MANY.replace("100000", str(request.param)))
    for name, value in PLANNING.items():
        await connection.execute(f"SET {name} = {value}")
    yield connection
    await connection.close()


def scans(plan: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Each table that a plan reads, and how."""
    if "Relation Name" in plan:
        yield str(plan["Relation Name"]), str(plan["Node Type"])
    for part in plan.get("Plans", ()):
        yield from scans(part)


INDEX_SCANS = {"Index Scan", "Index Only Scan", "Bitmap Heap Scan"}


async def reads(many: asyncpg.Connection, statement: str) -> set[tuple[str, str]]:
    """Each growing table that a statement of five parameters at most reads, and how."""
    await many.execute(f"PREPARE asked AS {statement}")
    nothing = ", ".join(["NULL"] * len({number for number in "12345" if f"${number}" in statement}))
    text = await many.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE asked ({nothing})")
    await many.execute("DEALLOCATE asked")
    return {(table, how) for table, how in scans(json.loads(text)[0]["Plan"]) if table in INDEXED}


@pytest.mark.parametrize(
    ("statement", "tables"),
    [
        (lookups._FIND, {"device", "callflow", "did", "callflow_reference"}),  # noqa: SLF001 - the statement itself is the subject
        (lookups._FOLLOW, {"device", "callflow", "did", "callflow_reference"}),  # noqa: SLF001 - likewise
    ],
    ids=["near", "a chain"],
)
async def test_an_index_finds_every_row_however_many_there_are(
    many: asyncpg.Connection, statement: str, tables: set[str]
) -> None:
    read = await reads(many, statement)
    assert {table for table, _ in read} == tables
    assert {how for _, how in read} <= INDEX_SCANS, read


# The variables of `callflow_notes`, and their types.
VARIABLES = {
    "near": "bigint[]",
    "named.dids": "bigint[]",
    "named.schedules": "bigint[]",
    "named.caller_lists": "bigint[]",
    "named.numbers": "text[]",
    "entries": "text[]",
    "digits": "text",
    "caller": "text",
}


def with_parameters(query: str) -> str:
    """The same with `$1`, `$2` and so on in place of variables."""
    number = 0
    for variable, type_ in VARIABLES.items():
        query, found = re.subn(rf"(?<![.\w]){re.escape(variable)}(?![.\w])", f"${number + 1}::{type_}", query)
        number += bool(found)
    return query


async def test_an_index_finds_what_rules_and_chains_name(many: asyncpg.Connection) -> None:
    source = await many.fetchval("SELECT prosrc FROM pg_proc WHERE proname = 'callflow_notes'")
    queries = re.findall(r":= \((SELECT [^;]*)\);", source)
    queries += [query.replace("INTO named", "") for query in re.findall(r"\n    (SELECT [^;]*);", source)]
    read: set[tuple[str, str]] = set()
    for query in queries:
        read |= await reads(many, with_parameters(query))
    assert len(queries) == 6
    assert {table for table, _ in read} == {"device", "did", "callflow_reference", "schedule", "caller_list_entry"}
    assert {how for _, how in read} <= INDEX_SCANS, read
