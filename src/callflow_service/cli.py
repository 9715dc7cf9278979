"""The command line: serve, migrate, load, sign, and the keys that API keys are encrypted with."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from sqlalchemy.exc import DBAPIError

from callflow_service import __version__
from callflow_service.console import flows, locking, resources, tokens
from callflow_service.credentials.api_keys import Keyring
from callflow_service.credentials.api_keys import new_key as fresh_key
from callflow_service.domain.errors import StorageUnavailable
from callflow_service.domain.signature import GET_ORDER, UPDATE_ORDER, digests, strict_strings
from callflow_service.mor.parameters import ALIASES
from callflow_service.settings import Settings, SettingsError
from callflow_service.storage.database import Database
from callflow_service.storage.embedded import EmbeddedUnavailable, settings_with_database
from callflow_service.storage.revisions import known_revisions
from callflow_service.storage.schema import schema_problem
from callflow_service.unpromised import LibraryChanged
from callflow_service.usecases.key_rotation import RotationRefused, rotate_keys, unreadable_keys_problem
from callflow_service.world.errors import WorldError

if TYPE_CHECKING:
    from callflow_service.world.loading import LoadReport

_CALLS: Final = {"device_callflow_update": UPDATE_ORDER, "device_callflow_get": GET_ORDER}
_DEMO_CALL: Final = ("device_callflow_get", {"u": "admin", "device_id": "100"}, "456789")

app = typer.Typer(
    help="Change call flows through MOR's call, and let any switch follow them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(tokens.app, name="tokens")
for name, commands in resources.apps():
    app.add_typer(commands, name=name)
app.add_typer(flows.app, name="flow")
app.add_typer(locking.app)
_out = Console(highlight=False, soft_wrap=True, emoji=False)
_err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def main() -> None:
    """Run the command line. What the operator can mend ends it with one sentence and status 1."""
    # Whatever ends it, a closed terminal too, the embedded PostgreSQL is stopped by a plain exit only.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        app()
    except (SettingsError, EmbeddedUnavailable, LibraryChanged, WorldError, RotationRefused) as error:
        _fail(str(error))
    except (StorageUnavailable, OSError, DBAPIError) as error:
        _fail(f"The database cannot be used: {_innermost(error)}")


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - as Typer calls it
    if wanted:
        _out.print(f"callflow-service {__version__}")
        raise typer.Exit


@app.callback()
def before_each(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    """Take what stands before the command."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to serve on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to serve on; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of worker processes.")] = None,
    *,
    demo: Annotated[
        bool, typer.Option("--demo", help="Migrate, and load the demo data into an empty database.")
    ] = False,
) -> None:
    """Serve the calls."""
    from callflow_service.serving import server  # noqa: PLC0415 - the web, which the other commands need not wait for

    settings = settings_with_database()
    host, port = host or settings.host, settings.port if port is None else port
    port_taken = _take_port(host, port)
    if demo:
        _prepare_demo(settings)
    _check_database(settings)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port_taken.getsockname()[1]}"
    _out.print(f"Serving on {address}, explorer at {address}/docs")
    if demo:
        call, values, key = _DEMO_CALL
        _out.print(f"Try: {_curl(address, call, values, _hash(call, values, key))}")
    server.serve(settings, port_taken, workers=workers or settings.workers)


@app.command()
def migrate(revision: Annotated[str, typer.Argument(help="Revision to upgrade to.")] = "head") -> None:
    """Bring the database to this release's schema."""
    from callflow_service.storage import migrating  # noqa: PLC0415 - Alembic, which serving need not wait for

    settings = settings_with_database()
    migrating.migrate(settings.database_url, revision)
    _out.print(f"The database is at revision {known_revisions()[-1] if revision == 'head' else revision}.")


@app.command()
def load(
    file: Annotated[Path, typer.Argument(help="World file, YAML or JSON.", exists=True, dir_okay=False, readable=True)],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the difference.")] = False,
) -> None:
    """Load accounts, devices, DIDs and switch users; all of the file, or nothing."""
    from callflow_service.world import loading  # noqa: PLC0415 - YAML and more, which serving need not wait for

    settings = settings_with_database()
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as progress:
        task = progress.add_task("load", total=file.stat().st_size)
        report = asyncio.run(
            loading.load_world(
                settings.database_url,
                file,
                keys=_keys(settings),
                dry_run=dry_run,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        )
    _print_report(report, dry_run=dry_run)


@app.command()
def export(
    file: Annotated[
        Path | None, typer.Argument(help="World file to write; standard output where none is named.", dir_okay=False)
    ] = None,
) -> None:
    """Print everything as a world file that `load` takes back; passwords as hashes, API keys encrypted."""
    from callflow_service.world import exporting  # noqa: PLC0415 - much, which serving need not wait for

    settings = settings_with_database()
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as progress:
        task = progress.add_task("export", total=None)
        pieces = exporting.export_world(
            settings.database_url,
            keys=_keys(settings),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
        asyncio.run(exporting.write(pieces, file))


@app.command()
def sign(
    call: Annotated[str, typer.Argument(help=f"{' or '.join(_CALLS)}.")],
    values: Annotated[list[str], typer.Argument(help="Parameters as NAME=VALUE, in the order they will be sent.")],
    key: Annotated[str, typer.Option(prompt="API secret key", hide_input=True, help="Asked for where not given.")],
    url: Annotated[str, typer.Option(help="Where the service is.")] = "http://127.0.0.1:8000",
) -> None:
    """Print the signed string without the key, the hash, and the request as curl."""
    if call not in _CALLS:
        raise typer.BadParameter(f"the calls are {' and '.join(_CALLS)}", param_hint="CALL")
    parameters: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise typer.BadParameter(f"{value!r} is not NAME=VALUE", param_hint="VALUES")
        parameters[name] = text
    digest = _hash(call, parameters, key)
    # Letter by letter: the console would draw the :smile: of a value, and leave out its control characters.
    sys.stdout.write(f"signed string: {_signed_string(call, parameters)}\n")
    sys.stdout.write(f"hash:          {digest}\n")
    sys.stdout.write(f"{_curl(url, call, parameters, digest)}\n")


@app.command()
def new_key() -> None:
    """Print a fresh key for CALLFLOW_ENCRYPTION_KEYS."""
    sys.stdout.write(f"{fresh_key()}\n")


@app.command()
def rotate_key() -> None:
    """Encrypt every API key anew, with the first of CALLFLOW_ENCRYPTION_KEYS or else with a new key of the file."""
    settings = settings_with_database()
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as progress:
        task = progress.add_task("rotate", total=None)
        rotation = asyncio.run(
            rotate_keys(
                settings.database_url,
                _keys(settings),
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        )
    _out.print(f"API keys: {rotation.encrypted} encrypted anew, {rotation.already} as they were")


def _keys(settings: Settings) -> Keyring:
    return Keyring(settings.encryption_keys, settings.data_dir)


def _take_port(host: str, port: int) -> socket.socket:
    """A socket with the address. It listens once the service can answer: until then clients are refused, not kept."""
    taken = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except OSError as error:
        _fail(f"Cannot serve on {host} port {port}: {os.strerror(error.errno) if error.errno else error}.")
    return taken


def _prepare_demo(settings: Settings) -> None:
    from callflow_service.storage import migrating  # noqa: PLC0415 - Alembic, which serving need not wait for
    from callflow_service.world import loading  # noqa: PLC0415 - likewise

    migrating.migrate(settings.database_url)
    if asyncio.run(loading.is_empty(settings.database_url)):
        report = asyncio.run(
            loading.load_world(settings.database_url, loading.DEMO_FILE, keys=_keys(settings), demo=True)
        )
        _print_report(report, dry_run=False)


def _check_database(settings: Settings) -> None:
    keys = _keys(settings)

    async def problem() -> str | None:
        database = Database(settings.database_url, pool_size=1, timeout_ms=5000)
        try:
            return await database.run(schema_problem) or await database.run(
                lambda session: unreadable_keys_problem(session, keys)
            )
        finally:
            await database.close()

    if sentence := asyncio.run(problem()):
        _fail(sentence)


def _print_report(report: "LoadReport", *, dry_run: bool) -> None:
    for warning in report.warnings:
        _err.print(f"Warning: {warning}", markup=False)
    for difference in report.differences:
        _out.print(difference, markup=False)
    for section, counts in report.counts.items():
        _out.print(f"{section}: {counts.added} added, {counts.changed} changed, {counts.unchanged} unchanged")
    if dry_run:
        _out.print("Nothing was changed.")


def _signed_string(call: str, parameters: dict[str, str]) -> str:
    signed = {}
    for name, value in parameters.items():
        own_name = ALIASES.get(name, name)
        if own_name in _CALLS[call] and (own_name == name or not parameters.get(own_name)):
            signed[own_name] = value
    return next(iter(strict_strings(signed)))


def _hash(call: str, parameters: dict[str, str], key: str) -> str:
    return next(digests(_signed_string(call, parameters), key))


def _curl(url: str, call: str, parameters: dict[str, str], digest: str) -> str:
    fields = " ".join(f"--data-urlencode {quote(f'{name}={value}')}" for name, value in parameters.items())
    return f"curl {quote(f'{url}/billing/api/{call}')} {fields} -d hash={digest}"


def _innermost(error: BaseException) -> BaseException:
    """The driver's own sentence, without the words of the layers above it."""
    return _innermost(error.__cause__) if error.__cause__ else error


def _fail(sentence: str) -> NoReturn:
    _err.print(f"callflow-service: {sentence}", markup=False)
    sys.exit(1)


if __name__ == "__main__":
    main()
