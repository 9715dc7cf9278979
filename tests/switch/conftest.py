"""The demo's world and more, for the switch faces: more devices, and switches that dial in other ways."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from callflow_service.domain.tokens import new_token, token_hash
from callflow_service.world.loading import DEMO_FILE, load_world
from encryption import KEYS
from switch_questions import Api, Flows, StartService, add_switch, connect

NO_HURRY = 20_000
"""A time limit, in milliseconds, that even a busy machine keeps; the limit itself is tested apart."""

MORE_DEVICES = """
INSERT INTO device (id, technology, name, owner_id, caller_number, caller_name, ring_seconds)
SELECT 500 + i, 'SIP', (5000 + i)::text, 20, '', '', 20 + i FROM generate_series(0, 11) AS i;
INSERT INTO device (id, technology, name, owner_id, caller_number, caller_name, ring_seconds) VALUES
    (520, 'ZAP', '7000', 21, '', '', 60), (521, 'H323', '7000', 21, '', '', 60), (522, 'H323', '7001', 21, '', '', 60),
    (530, 'SIP', '5300', 21, '', 'Only a name', 60), (531, 'SIP', '*53#', 21, '*53#', 'Star', 60),
    (532, 'SIP', '5320', 21, 'anna.k', 'Anna', 60);
INSERT INTO did (id, number, device_id) VALUES (10, '+37052000010', 500), (11, '37052000011', 500)"""


@pytest.fixture(scope="session")
def switch_url(create_database: Callable[..., SecretStr], migrated_url: SecretStr) -> SecretStr:
    """A database with the demo's world and more, which the tests of the switch faces share."""
    url = create_database(migrated_url)
    asyncio.run(_fill(url))
    return url


async def _fill(url: SecretStr) -> None:
    await load_world(url, DEMO_FILE, keys=KEYS, demo=True)
    connection = await connect(url)
    await connection.execute(MORE_DEVICES)
    await add_switch(connection, "untrusted", trust_headers=False)
    await add_switch(
        connection,
        "templated",
        dial='{"SIP": "sip:{name}@phones.example:5070", "IAX2": null, "number": "sip:0{number}@trunk.example",'
        ' "voicemail": "sip:vm-{technology}-{name}@{domain}"}',
    )
    await add_switch(connection, "local", dial='{"number": null, "FAX": null}')
    await add_switch(connection, "twice", dial='{"SIP": "user/{name}@a.example,user/{name}@b.example"}')
    for username in ("early", "rejected", "redirected"):
        await add_switch(connection, username)
    await connection.execute("""UPDATE switch_user SET early_media = username = 'early',
        rejected = CASE username WHEN 'rejected' THEN 'failed' ELSE 'busy' END,
        redirected = CASE username WHEN 'redirected' THEN 'caller' ELSE 'failed' END""")
    await add_switch(connection, "silent", dial='{"SIP": null, "IAX2": null, "default": null, "number": null}')
    await add_switch(
        connection,
        "forwarding",
        trunk='{"from_host": "carrier.example", "identity": "forwarder", "headers": ["diversion"]}',
    )
    await add_switch(connection, "headerless", trunk='{"from_host": null, "identity": "caller", "headers": []}')
    await connection.close()


@pytest_asyncio.fixture(scope="session")
async def start_switch_service(start_service: StartService, switch_url: SecretStr) -> StartService:
    """Serve the switch faces' world with the settings given."""

    async def start(**settings: Any) -> httpx.AsyncClient:
        patient = {"switch_timeout_ms": NO_HURRY, "database_timeout_ms": NO_HURRY, "pool_size": 4}
        return await start_service(switch_url, **(patient | settings))

    return start


@pytest_asyncio.fixture(scope="session")
async def service(start_switch_service: StartService) -> httpx.AsyncClient:
    """The service on the switch faces' world, with the settings as they come, but in no hurry."""
    return await start_switch_service()


@pytest_asyncio.fixture(scope="session")
async def switch_database(switch_url: SecretStr) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the tests' own to the switch faces' world."""
    connection = await connect(switch_url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def flows(switch_database: asyncpg.Connection) -> Flows:
    """Sets call flows; none is set yet."""
    await switch_database.execute("DELETE FROM callflow")
    return Flows(switch_database)


@pytest_asyncio.fixture
async def api(service: httpx.AsyncClient, switch_database: asyncpg.Connection, flows: Flows) -> Api:  # noqa: ARG001 - sets the stage
    """Change anything by the JSON API, as an admin, and return the answer; no flow is set yet."""
    token = new_token()
    await switch_database.execute(
        "INSERT INTO token (account_id, name, scope, token_hash) VALUES (1, 'switches', 'write', $1)",
        token_hash(token),
    )

    async def change(method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        response = await service.request(method, f"/v1/{path}", json=body, headers=headers)
        assert response.is_success, response.text
        return response.json()

    return change
