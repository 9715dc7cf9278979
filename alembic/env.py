"""How Alembic reaches the database: by the connection it is handed, else by the settings."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from callflow_service.storage.embedded import settings_with_database
from callflow_service.storage.migrating import is_compared, with_connection
from callflow_service.tables import metadata


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_type=True, include_object=is_compared)
    with context.begin_transaction():
        context.run_migrations()


handed: Connection | None = context.config.attributes.get("connection")
if handed is not None:
    run(handed)
else:
    asyncio.run(with_connection(settings_with_database().database_url, run))
