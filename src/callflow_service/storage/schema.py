"""Whether a database has what this release needs."""

from typing import Final

from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.storage.revisions import known_revisions

MINIMAL_VERSION: Final = 18
"""The oldest PostgreSQL that knows our statements (`RETURNING old, new`)."""


async def schema_problem(session: AsyncSession) -> str | None:
    """What keeps the service from working on this database, as a sentence; None where nothing does.

    A revision that this release does not know is a newer one's, and newer schemas serve older releases.
    """
    connection = await session.connection()
    version = (await connection.exec_driver_sql("SHOW server_version_num")).scalar_one()
    if int(version) < MINIMAL_VERSION * 10_000:
        return f"PostgreSQL {MINIMAL_VERSION} or later is needed; this one is {int(version) // 10_000}."
    table = (await connection.exec_driver_sql("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar_one()
    if not table:
        return "The database has no tables yet; run 'callflow-service migrate'."
    revision = (await connection.exec_driver_sql("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    known = known_revisions()
    if revision is None or revision in known[:-1]:
        return "The database has an older schema than this release; run 'callflow-service migrate'."
    return None
