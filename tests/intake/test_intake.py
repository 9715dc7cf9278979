"""Resources that come from no file: staged, checked and applied as those of a file are."""

from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr

from callflow_service.intake.applying import Counts, apply_staged, count_changes
from callflow_service.intake.checking import Conflict, check_staged
from callflow_service.intake.staging import Placed, stage
from callflow_service.resources.models import DeviceItem, Section
from encryption import KEYS
from own_demo import open_own_demo


@pytest_asyncio.fixture
async def database(
    create_database: Callable[..., SecretStr], migrated_url: SecretStr
) -> AsyncIterator[asyncpg.Connection]:
    """The demo's world in a transaction that is taken back."""
    async with open_own_demo(create_database, migrated_url) as demo:
        transaction = demo.database.transaction()
        await transaction.start()
        yield demo.database
        await transaction.rollback()


def devices(*ids: int, owner: str = "user1") -> list[tuple[Section, list[Placed]]]:
    items = [DeviceItem(id=id_, technology="sip", name=f"new{id_}", owner=owner) for id_ in ids]
    return [(Section.DEVICES, [Placed(item, position) for position, item in enumerate(items)])]


async def test_what_fits_together_is_applied(database: asyncpg.Connection) -> None:
    await stage(database, devices(900, 901), keys=KEYS)
    await check_staged(database)
    assert (await count_changes(database))[Section.DEVICES] == Counts(2, 0, 0)
    await apply_staged(database)
    rows = await database.fetch("SELECT id, technology, name, owner_id FROM device WHERE id >= 900 ORDER BY id")
    assert [tuple(row) for row in rows] == [(900, "SIP", "new900", 20), (901, "SIP", "new901", 20)]


@pytest.mark.parametrize(
    ("batches", "place", "sentence"),
    [
        (devices(900, 901, 900), "devices[2].id", "is the same as in devices[0]."),
        (devices(900, owner="nobody"), "devices[0].owner", "there is no account nobody."),
    ],
)
async def test_what_does_not_fit_is_named_by_its_position_where_there_are_no_lines(
    database: asyncpg.Connection, batches: list[tuple[Section, list[Placed]]], place: str, sentence: str
) -> None:
    await stage(database, batches, keys=KEYS)
    with pytest.raises(Conflict) as caught:
        await check_staged(database)
    assert (caught.value.place, caught.value.line, str(caught.value)) == (place, None, sentence)
