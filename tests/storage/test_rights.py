"""The right to use a device is one rule, in the domain and in SQL."""

from itertools import product

import asyncpg

from callflow_service.domain.access import Account, OwnedDevice, Role, may_use
from callflow_service.domain.callflow import Device
from callflow_service.repositories import rights

STATEMENT = f"""SELECT {rights.may_use("owner")} IS TRUE
FROM (VALUES ($1::bigint, $2::text)) AS caller (id, role), (VALUES ($3::bigint, $4::bigint)) AS owner (id, owner_id)"""  # noqa: S608 - of constants
IDS = (1, 2, 3)


async def test_sql_and_the_domain_give_every_caller_the_same_devices(demo_database: asyncpg.Connection) -> None:
    statement = await demo_database.prepare(STATEMENT)
    given = 0
    for role, caller, owner, owners_owner in product(Role, IDS, IDS, (None, *IDS)):
        account = Account(
            id=caller,
            username="caller",
            role=role,
            blocked=False,
            api_enabled=True,
            pbx_addon=True,
            hash_policy=None,
            api_key="",
            password_hash=None,
        )
        is_given = may_use(account, OwnedDevice(Device(1, "SIP", "1"), owner, "owner", owners_owner, 60))
        found = await statement.fetchval(caller, role, owner, owners_owner)
        assert found == is_given, (role, caller, owner, owners_owner)
        given += is_given
    # An admin all 36, a reseller its own and those of its accounts, a user its own, an accountant none.
    assert given == 36 + 18 + 12
