"""The accounts that are locked; which forwards that refuses stands in `domain.targets`."""

from asyncpg import Connection


async def lock(connection: Connection, account: int) -> None:
    """Lock an account that is there; one that is locked stays so."""
    await connection.execute("INSERT INTO account_lock (account_id) VALUES ($1) ON CONFLICT DO NOTHING", account)


async def unlock(connection: Connection, account: int) -> None:
    """Open an account again."""
    await connection.execute("DELETE FROM account_lock WHERE account_id = $1", account)
