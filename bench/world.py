"""The benchmark's world: as many accounts, devices, DIDs and call flows as wanted, always the same."""

from typing import Final

import asyncpg

ADMIN_KEY: Final = "benchmark-admin-secret"
"""The key that every benchmark request is signed with."""

SWITCH: Final = ("bench", "benchmark-switch-password")
"""The switch user that asks, and its password."""

SWITCH_HASH: Final = (
    "sha256$00112233445566778899aabbccddeeff$5b1c0e1b9a4b4e2b00000000000000000000000000000000000000000000000000"
)
"""How the switch user's password is stored."""

# Every tenth device is a FAX device, every user has ten devices, every reseller a hundred users. Even devices have a DID
# and, two out of three, call flows that the benchmark never changes, so that a lookup always has the same answer: those
# with `id % 12` of 2 forward to the device before, 6 to an outside number; 4 sends what was not answered to voicemail.
_FILL: Final = """
INSERT INTO account (id, username, name, role, owner_id, api_key, pbx_addon, api_enabled, blocked)
SELECT 1, 'admin', 'System Admin', 'admin', NULL, $2, true, true, false
UNION ALL
SELECT 1 + n, 'reseller' || n, 'Reseller #' || n, 'reseller', 1, 'reseller-secret-' || n, true, true, false
FROM generate_series(1, $1::bigint / 1000) AS n
UNION ALL
SELECT 1000000 + n, 'user' || n, 'User #' || n, 'user', 2 + (n - 1) / 100, NULL, true, true, false
FROM generate_series(1, $1::bigint / 10) AS n"""
