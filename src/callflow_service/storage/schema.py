"""Whether a database has what this release needs."""

from asyncpg import Connection

from callflow_service.storage.connecting import version_problem
from callflow_service.storage.revisions import known_revisions


async def schema_problem(connection: Connection) -> str | None:
    """What keeps the service from working on this database, as a sentence; None where nothing does.

    A revision that this release does not know is a newer one's, and newer schemas serve older releases.
    """
    if problem := version_problem(connection):
        return problem
    if not await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL"):
        return "The database has no tables yet; run 'callflow-service migrate'."
    revision = await connection.fetchval("SELECT version_num FROM alembic_version")
    known = known_revisions()
    if revision is None or revision in known[:-1]:
        return "The database has an older schema than this release; run 'callflow-service migrate'."
    return None
