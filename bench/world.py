"""The benchmark's world: accounts, devices, DIDs and call flows, as many as wanted and always the same."""

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Final

import asyncpg
from pydantic import SecretStr

from callflow_service.credentials.switch_passwords import hash_switch_password
from callflow_service.domain.tokens import new_token, token_hash
from callflow_service.settings import driver_url

ADMIN_KEY: Final = "benchmark-admin-secret"
"""The API secret key that every update is signed with."""

SWITCH: Final = ("bench", "benchmark-switch-password")
"""The username and the password of the switch that asks."""

FIRST_DID: Final = 37_050_000_001
"""The number of the first device's DID; the second device has the next one, and so on."""

# A user for ten devices, a reseller for a hundred users. A FAX device in ten, and only odd ones.
_ACCOUNTS: Final = """
INSERT INTO account (id, username, name, role, owner_id, api_key, pbx_addon, api_enabled, blocked)
SELECT 1, 'admin', 'System Admin', 'admin', NULL, $2::text, true, true, false
UNION ALL
SELECT 1 + n, 'reseller' || n, 'Reseller #' || n, 'reseller', 1, 'reseller-secret-' || n, true, true, false
FROM generate_series(1, $1::bigint / 1000) AS n
UNION ALL
SELECT 1000000 + n, 'user' || n, 'User #' || n, 'user', 2 + (n - 1) / 100, NULL, true, true, false
FROM generate_series(1, $1::bigint / 10) AS n"""

_DEVICES: Final = """
INSERT INTO device (id, technology, name, owner_id, caller_number, caller_name, ring_seconds)
SELECT n, CASE n % 10 WHEN 5 THEN 'FAX' WHEN 7 THEN 'IAX2' ELSE 'SIP' END, (100000000 + n)::text,
    1000001 + (n - 1) / 10, (37060000000 + n)::text, 'Device ' || n, 30 + n % 30
FROM generate_series(1, $1::bigint) AS n"""

_DIDS: Final = """
INSERT INTO did (id, number, device_id)
SELECT n, ($2::bigint + n - 1)::text, n FROM generate_series(1, $1::bigint) AS n"""

# Of even devices, which no update touches, so that the same question has the same answer whatever ran before it. Of
# each twelve the 2nd forwards to the 8th, the 6th to an outside number, and the 4th's unanswered calls go to voicemail.
_FLOWS: Final = """
INSERT INTO callflow (device_id, state, priority, action, target_device_id, target_number, caller_id)
SELECT n + 2, 'before_call', 1, 'forward', n + 8, NULL, 'device' FROM generate_series(0, $1::bigint - 12, 12) AS n
UNION ALL
SELECT n + 6, 'before_call', 1, 'forward', NULL, (37061000000 + n)::text, 'source'
FROM generate_series(0, $1::bigint - 12, 12) AS n
UNION ALL
SELECT n + 4, 'no_answer', 1, 'voicemail', NULL, NULL, NULL FROM generate_series(0, $1::bigint - 12, 12) AS n"""

# Of each 24 devices the forwards of the first twelve have ten rules, none of which holds: five ask a schedule, which is
# never open, and five a caller list. Each leads to the 8th, the 10th or the 12th of its twelve.
_CONDITIONS: Final = """
INSERT INTO schedule (id, name, owner_id, weekly, exceptions) VALUES (1, 'Never', 1, '[]', '[]');
INSERT INTO caller_list (id, name, owner_id, entries) VALUES (1, 'Few', 1, ARRAY['+4420', '+4930*'])"""
_RULES: Final = """
UPDATE callflow SET rules = (
    SELECT jsonb_agg(jsonb_build_object(
        'name', 'Rule ' || n, 'enabled', true,
        'if', CASE n % 2 WHEN 0 THEN '{"schedule": 1}'::jsonb ELSE '{"caller": {"list": 1}}' END,
        'do', jsonb_build_object(
            'action', 'forward', 'then', '{"action": "empty"}'::jsonb,
            'steps', jsonb_build_array(jsonb_build_object(
                'to', jsonb_build_object('device', device_id / 12 * 12 + 8 + n % 3 * 2),
                'ring_seconds', 15, 'caller_id', '{"kind": "device"}'::jsonb)))))
    FROM generate_series(1, 10) AS n)
WHERE state = 'before_call' AND device_id % 24 < 12"""

_SWITCH_USER: Final = """
INSERT INTO switch_user (username, password_hash, domain, trust_headers, dial)
VALUES ($1, $2, 'bench.example', false, '{}')"""


def address(url: SecretStr) -> str:
    """The URL as asyncpg itself takes it."""
    return driver_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def folder() -> Path:
    """A folder for the embedded PostgreSQL and all else, which is removed when the program ends."""
    made = tempfile.mkdtemp(prefix="callflow-bench-")
    # What is registered first runs last: PostgreSQL stops before its folder goes.
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


async def create(server: SecretStr, *, devices: int) -> SecretStr:
    """Make the database `bench_DEVICES` anew on a server, with a world of that many devices (at least 1,000)."""
    name = f"bench_{devices}"
    connection = await asyncpg.connect(address(server))
    await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return SecretStr(driver_url(server).set(database=name).render_as_string(hide_password=False))


async def fill(url: SecretStr, *, devices: int) -> None:
    """Put the world into an empty database that has the schema."""
    connection = await asyncpg.connect(address(url))
    await connection.execute(_ACCOUNTS, devices, ADMIN_KEY)
    await connection.execute(_DEVICES, devices)
    await connection.execute(_DIDS, devices, FIRST_DID)
    await connection.execute(_FLOWS, devices)
    username, password = SWITCH
    await connection.execute(_SWITCH_USER, username, hash_switch_password(password))
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    await checkpoint(url)


async def make_token(url: SecretStr, *, account: int = 1) -> str:
    """A token for the JSON API, the admin's unless another account is named."""
    token = new_token()
    connection = await asyncpg.connect(address(url))
    statement = "INSERT INTO token (account_id, name, scope, token_hash) VALUES ($1, 'bench', 'write', $2)"
    await connection.execute(statement, account, token_hash(token))
    await connection.close()
    return token


async def add_rules(url: SecretStr) -> None:
    """Give half of the forwards before the call ten rules, see `_RULES`."""
    connection = await asyncpg.connect(address(url))
    await connection.execute(_CONDITIONS)
    await connection.execute(_RULES)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    await checkpoint(url)


async def checkpoint(url: SecretStr) -> None:
    """Have PostgreSQL write to its files what it has in memory, now."""
    connection = await asyncpg.connect(address(url))
    await connection.execute("CHECKPOINT")
    await connection.close()
