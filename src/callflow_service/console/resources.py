"""The commands for accounts, devices, DIDs, switches, schedules and caller lists."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from callflow_service.console.api import Account, Api, AsJson, asked
from callflow_service.console.printing import cell, out, print_fields, print_json, print_pages, print_table
from callflow_service.console.values import PAIRS_HELP, fields
from callflow_service.domain.access import Role
from callflow_service.resources.models import Section

Limit = Annotated[int | None, typer.Option(min=1, help="How many at most; else all of them.")]
Search = Annotated[str | None, typer.Option("--q", help="Part of a name, label, number or username.")]
Owner = Annotated[str | None, typer.Option(help="Username of the owner.")]
Descending = Annotated[bool, typer.Option("--descending", help="The highest id first.")]
Cascade = Annotated[bool, typer.Option("--cascade", help="Empty the call flows that lead to it, and free its DIDs.")]
Pairs = Annotated[list[str], typer.Argument(metavar="NAME=VALUE...", help=PAIRS_HELP)]


@dataclass(frozen=True, slots=True)
class Noun:
    """One kind of resource, as commands speak of it."""

    section: Section
    singular: str
    columns: Sequence[str]
    key: str = "id"

    def path(self, key: str) -> str:
        """Where the API has one of them."""
        return f"/v1/{self.section}/{quote(key, safe='')}"


_ACCOUNT_COLUMNS: Final = ("id", "username", "name", "role", "owner", "blocked", "has_api_key", "has_password")
_ACCOUNTS: Final = Noun(Section.ACCOUNTS, "account", _ACCOUNT_COLUMNS)
_DEVICE_COLUMNS: Final = ("id", "label", "owner", "caller_number", "caller_name", "ring_seconds", "dids")
_DEVICES: Final = Noun(Section.DEVICES, "device", _DEVICE_COLUMNS)
_DIDS: Final = Noun(Section.DIDS, "DID", ("id", "number", "device"))
_SWITCHES: Final = Noun(Section.SWITCHES, "switch", ("username", "domain", "trust_headers", "trunk"), key="username")
_SCHEDULES: Final = Noun(Section.SCHEDULES, "schedule", ("id", "name", "owner", "time_zone", "open_now"))
_CALLER_LISTS: Final = Noun(Section.CALLER_LISTS, "caller list", ("id", "name", "owner", "entries"))

accounts = typer.Typer(help="Accounts: who may change call flows.", no_args_is_help=True)
devices = typer.Typer(help="Devices: what rings.", no_args_is_help=True)
dids = typer.Typer(help="DIDs: numbers, and the device that each reaches.", no_args_is_help=True)
switches = typer.Typer(help="Switches that may ask where a call goes.", no_args_is_help=True)
schedules = typer.Typer(help="Schedules: when something is open.", no_args_is_help=True)
caller_lists = typer.Typer(help="Caller lists: callers that belong together.", no_args_is_help=True)


def apps() -> Iterator[tuple[str, typer.Typer]]:
    """The commands of each kind, by its name."""
    for noun, app in (
        (_ACCOUNTS, accounts),
        (_DEVICES, devices),
        (_DIDS, dids),
        (_SWITCHES, switches),
        (_SCHEDULES, schedules),
        (_CALLER_LISTS, caller_lists),
    ):
        _add_commands(app, noun)
        yield noun.section.replace("_", "-"), app


@accounts.command("list")
def list_accounts(  # noqa: PLR0913, PLR0917 - the options of a list
    q: Search = None,
    owner: Owner = None,
    role: Annotated[Role | None, typer.Option(help="Only those of this role.")] = None,
    limit: Limit = None,
    descending: Descending = False,  # noqa: FBT002 - as Typer has it
    as_json: AsJson = False,  # noqa: FBT002 - likewise
    account: Account = None,
) -> None:
    """List accounts, by id."""
    query = {"q": q, "owner": owner, "role": role, "sort": _sort(descending=descending)}
    _print_list(_ACCOUNTS, query, limit, account, as_json=as_json)


@devices.command("list")
def list_devices(  # noqa: PLR0913, PLR0917 - the options of a list
    q: Search = None,
    owner: Owner = None,
    technology: Annotated[str | None, typer.Option(help="Only those of this technology.")] = None,
    forwarding: Annotated[
        bool | None, typer.Option("--forwarding/--not-forwarding", help="Only those with any call flow set, or none.")
    ] = None,
    limit: Limit = None,
    descending: Descending = False,  # noqa: FBT002 - as Typer has it
    as_json: AsJson = False,  # noqa: FBT002 - likewise
    account: Account = None,
) -> None:
    """List devices, by id."""
    query = {"q": q, "owner": owner, "technology": technology, "forwarding": forwarding}
    _print_list(_DEVICES, query | {"sort": _sort(descending=descending)}, limit, account, as_json=as_json)


@dids.command("list")
def list_dids(  # noqa: PLR0913, PLR0917 - the options of a list
    q: Search = None,
    owner: Owner = None,
    device: Annotated[int | None, typer.Option(help="Id of the device that they reach.")] = None,
    limit: Limit = None,
    descending: Descending = False,  # noqa: FBT002 - as Typer has it
    as_json: AsJson = False,  # noqa: FBT002 - likewise
    account: Account = None,
) -> None:
    """List DIDs, by id."""
    query = {"q": q, "owner": owner, "device": device, "sort": _sort(descending=descending)}
    _print_list(_DIDS, query, limit, account, as_json=as_json)


@switches.command("list")
def list_switches(
    q: Search = None,
    limit: Limit = None,
    descending: Descending = False,  # noqa: FBT002 - as Typer has it
    as_json: AsJson = False,  # noqa: FBT002 - likewise
    account: Account = None,
) -> None:
    """List switches, by username."""
    _print_list(_SWITCHES, {"q": q, "sort": _sort(descending=descending)}, limit, account, as_json=as_json)


@schedules.command("list")
def list_schedules(  # noqa: PLR0913, PLR0917 - the options of a list
    q: Search = None,
    owner: Owner = None,
    limit: Limit = None,
    descending: Descending = False,  # noqa: FBT002 - as Typer has it
    as_json: AsJson = False,  # noqa: FBT002 - likewise
    account: Account = None,
) -> None:
    """List schedules, by id."""
    query = {"q": q, "owner": owner, "sort": _sort(descending=descending)}
    _print_list(_SCHEDULES, query, limit, account, as_json=as_json)


@caller_lists.command("list")
def list_caller_lists(  # noqa: PLR0913, PLR0917 - the options of a list
    q: Search = None,
    owner: Owner = None,
    limit: Limit = None,
    descending: Descending = False,  # noqa: FBT002 - as Typer has it
    as_json: AsJson = False,  # noqa: FBT002 - likewise
    account: Account = None,
) -> None:
    """List caller lists, by id."""
    query = {"q": q, "owner": owner, "sort": _sort(descending=descending)}
    _print_list(_CALLER_LISTS, query, limit, account, as_json=as_json)


def _sort(*, descending: bool) -> str:
    return "-id" if descending else "id"


def _print_list(noun: Noun, query: dict[str, Any], limit: int | None, account: str | None, *, as_json: bool) -> None:
    async def work(api: Api) -> None:
        pages = api.pages(f"/v1/{noun.section}", query, limit)
        if as_json:
            await print_pages(pages)
        else:
            await print_table(pages, noun.columns, lambda item: [cell(item[column]) for column in noun.columns])

    asked(account, work)


def _add_commands(app: typer.Typer, noun: Noun) -> None:
    """The commands that are the same for each kind."""
    key_argument = typer.Argument(metavar=noun.key.upper(), help=f"The {noun.singular}'s {noun.key}.")

    @app.command(help=f"Show one {noun.singular}.")
    def show(key: Annotated[str, key_argument], as_json: AsJson = False, account: Account = None) -> None:  # noqa: FBT002 - as Typer has it
        document = asked(account, lambda api: api.get(noun.path(key)))
        (print_json if as_json else print_fields)(document)

    @app.command(help=f"Add one {noun.singular}; its id is the next free one where it is not said.")
    def add(pairs: Pairs, as_json: AsJson = False, account: Account = None) -> None:  # noqa: FBT002 - as Typer has it
        body = {name: value for name, value in fields(noun.section, pairs).items() if value is not None}
        document = asked(account, lambda api: api.send("POST", f"/v1/{noun.section}", body))
        (print_json if as_json else print_fields)(document)

    @app.command("set", help=f"Change one {noun.singular}; what is not named stays as it is.")
    def set_(
        key: Annotated[str, key_argument],
        pairs: Pairs,
        as_json: AsJson = False,  # noqa: FBT002 - as Typer has it
        account: Account = None,
    ) -> None:
        body = fields(noun.section, pairs)
        document = asked(account, lambda api: api.send("PATCH", noun.path(key), body))
        (print_json if as_json else print_fields)(document)

    if noun.section is not Section.DEVICES:

        @app.command(help=f"Delete one {noun.singular} that nothing uses any more.")
        def delete(key: Annotated[str, key_argument], as_json: AsJson = False, account: Account = None) -> None:  # noqa: FBT002 - as Typer has it
            _delete(noun, noun.path(key), key, account, as_json=as_json)


@devices.command("delete")
def delete_device(
    key: Annotated[str, typer.Argument(metavar="ID", help="The device's id.")],
    cascade: Cascade = False,  # noqa: FBT002 - as Typer has it
    as_json: AsJson = False,  # noqa: FBT002 - likewise
    account: Account = None,
) -> None:
    """Delete one device that nothing uses any more."""
    _delete(_DEVICES, f"{_DEVICES.path(key)}?cascade={str(cascade).lower()}", key, account, as_json=as_json)


def _delete(noun: Noun, path: str, key: str, account: str | None, *, as_json: bool) -> None:
    asked(account, lambda api: api.send("DELETE", path))
    if not as_json:
        out.print(f"The {noun.singular} {key} is deleted.")
