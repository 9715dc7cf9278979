"""Ask a replica for facts that may be a moment old, and the primary while that is away."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from asyncpg import Connection

from callflow_service.domain.errors import Overloaded, StorageUnavailable
from callflow_service.storage.database import Database, PoolUse

_REPLICA_REST_SECONDS: Final = 1.0

# The lag is 0 if a WAL receiver is running and everything received is replayed. (Unprivileged roles see the receiver's
# row, not its columns.) Otherwise the data is as old as the last change replayed, or older than the server's start.
_LAG_STATEMENT: Final = """
SELECT CASE
    WHEN NOT pg_is_in_recovery() THEN 0
    WHEN EXISTS (SELECT FROM pg_stat_wal_receiver) AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
    ELSE greatest(0, extract(epoch FROM
        clock_timestamp() - coalesce(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())))
END::float8"""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class ReplicaFirst:
    """Where facts are read that may be a moment old: from a replica, and from the primary while that is away.

    A replica that was away is asked again after `_REPLICA_REST_SECONDS`, so that not every call waits for it.
    """

    def __init__(self, replica: Database, primary: Database) -> None:
        self._replica = replica
        self._primary = primary
        self._was_away = False
        self._rests_until = float("-inf")

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do the work of one request that only reads.

        Raises:
            StorageUnavailable: Neither can be asked.
        """
        if time.monotonic() < self._rests_until:
            return await self._primary.run(work)
        if self._was_away:
            # One call tries whether the replica is back; those beside it need not wait.
            self._rests_until = time.monotonic() + _REPLICA_REST_SECONDS
        try:
            found = await self._replica.run(work)
        except Overloaded:
            # It is there; the primary would not be helped by having this too.
            raise
        except StorageUnavailable as error:
            self._was_away = True
            self._rests_until = time.monotonic() + _REPLICA_REST_SECONDS
            _log.warning("The replica cannot be asked (%s); lookups go to the primary", error)
            return await self._primary.run(work)
        self._was_away = False
        self._rests_until = float("-inf")
        return found

    @property
    def pool_use(self) -> PoolUse:
        """What the connections to the replica do at this moment."""
        return self._replica.pool_use

    async def lag_seconds(self) -> float | None:
        """How old what the replica shows may be, in seconds; None where it cannot be asked.

        Raises:
            Overloaded: Nobody knows, for too much is in work already.
        """
        try:
            return await self._replica.run(_lag_seconds)
        except Overloaded:
            raise
        except StorageUnavailable:
            return None

    async def close(self) -> None:
        """Close every connection to the replica."""
        await self._replica.close()


async def _lag_seconds(connection: Connection) -> float:
    return float(await connection.fetchval(_LAG_STATEMENT))
