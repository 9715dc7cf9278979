"""Load a world file into the database, all of it or nothing."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Final

import asyncpg
from pydantic import SecretStr

from callflow_service.credentials.api_keys import Keyring
from callflow_service.domain.history import Face, Origin, Sender
from callflow_service.intake.applying import Counts, apply_staged, count_changes, find_warnings, tell_differences
from callflow_service.intake.checking import Conflict, check_staged
from callflow_service.intake.placing import Placed
from callflow_service.intake.staging import BATCH, stage
from callflow_service.resources.models import Section
from callflow_service.storage import locks
from callflow_service.storage.connecting import connected
from callflow_service.storage.waking import NOTIFY
from callflow_service.world.errors import WorldError
from callflow_service.world.parsing import parse_item
from callflow_service.world.reading import RawItem, read_items
from callflow_service.world.source import WorldText

DEMO_FILE: Final = Path(__file__).with_name("demo.yaml")
"""The demo world."""

# Sorting a large file in memory is worth more here than in the service's short statements.
_TRANSACTION: Final = "SET LOCAL lock_timeout = '10s'; SET LOCAL work_mem = '64MB'"
_ONE_AT_A_TIME: Final = f"SELECT pg_try_advisory_xact_lock({locks.TAKING_IN})"
# The checks found nothing in the way, so what is in the way now came in after them.
_INTERFERENCE: Final = (
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did, or with `dry_run` would do.

    Attributes:
        counts: For each section how many items are new, changed, unchanged.
        warnings: What is allowed but unwise, as sentences.
        differences: With `dry_run` the changes, a line for each item; empty without.
    """

    counts: Mapping[Section, Counts]
    warnings: list[str]
    differences: list[str]


async def load_world(  # noqa: PLR0913 - all but two are asked for by name
    url: SecretStr,
    file: Path,
    *,
    keys: Keyring,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    demo: bool = False,
) -> LoadReport:
    """Bring the database to what the file says, in one transaction; what it does not name stays as it is.

    Each change of it is in the history.

    Args:
        url: The database, with the schema of this release.
        file: YAML, or JSON where its name ends in `.json`.
        keys: Encrypts the API keys.
        dry_run: Do everything, tell the differences, and take it back.
        progress: Is told again and again how many bytes of how many were read.
        demo: Whether it is the demo, whose short secrets need no warning and whose history begins empty.

    Raises:
        WorldError: The file is wrong, or stands against what the database holds; nothing has changed.
        SettingsError: There is no key to encrypt API keys with, and none can be made; nothing has changed.
        StorageUnavailable: The database cannot be reached, or has no tables.
    """
    try:
        stream = file.open("rb")
    except OSError as error:
        raise WorldError(file, None, f"cannot be read: {error.strerror}.") from None
    with stream:
        async with connected(url) as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(_TRANSACTION)
            if not await connection.fetchval(_ONE_AT_A_TIME):
                raise WorldError(file, None, "another file is being loaded; try again when that is done.")
            text = WorldText(stream, file)
            try:
                await stage(connection, _batches(text, file, progress), keys=keys)
                await check_staged(connection)
                report = await _apply(connection, dry_run=dry_run, demo=demo)
            except Conflict as conflict:
                raise WorldError(file, conflict.line, f"{conflict.place}: {conflict}") from None
            except _INTERFERENCE as error:
                raise WorldError(file, None, _interference(error)) from error
            await (transaction.rollback() if dry_run else transaction.commit())
            if not dry_run:
                await connection.execute(NOTIFY)
    return report


def _new_origin() -> Origin:
    """Where the changes of one load come from: nobody's request, with an id that they have in common."""
    return Origin(None, Face.WORLD, Sender(None, secrets.token_hex(8)))


def _batches(
    text: WorldText, file: Path, progress: Callable[[int, int], None] | None
) -> Iterator[tuple[Section, list[Placed]]]:
    for section, items in groupby(read_items(text, file), key=lambda raw: raw.section):
        while batch := [_placed(raw, file) for raw in islice(items, BATCH)]:
            yield section, batch
            if progress:
                progress(text.bytes_read, text.size)


def _placed(raw: RawItem, file: Path) -> Placed:
    return Placed(parse_item(raw, file), raw.index, raw.line, raw.lines)


async def _apply(connection: asyncpg.Connection, *, dry_run: bool, demo: bool) -> LoadReport:
    counts = await count_changes(connection)
    differences = await tell_differences(connection, counts) if dry_run else []
    await apply_staged(connection, None if dry_run or demo else _new_origin())
    return LoadReport(counts, await find_warnings(connection, demo=demo), differences)


async def is_empty(url: SecretStr) -> bool:
    """Whether the database holds no accounts, and so nothing at all.

    Raises:
        StorageUnavailable: The database cannot be reached, or has no tables.
    """
    async with connected(url) as connection:
        return not await connection.fetchval("SELECT EXISTS (SELECT FROM account)")


def _interference(error: asyncpg.PostgresError) -> str:
    name = getattr(error, "constraint_name", None)
    what = f"something that stands against it ({name})" if name else "a lock"
    return f"somebody else has changed the database meanwhile, and {what} is in the way; try again."
