"""What commands print: tables for people, documents for programs, and a sentence where something is wrong."""

import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import typer
from rich.console import Console
from rich.table import Table

# A table that is not for a terminal is as wide as what stands in it.
_WIDE: Final = 100_000
_USES: Final = {"callflow": "the call flow of device", "did": "DID", "account": "account", "device": "device"}

out: Final = Console(highlight=False, emoji=False, markup=False, width=None if sys.stdout.isatty() else _WIDE)
err: Final = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False, markup=False)


def print_json(document: object) -> None:
    """A document as the API gives it."""
    sys.stdout.write(f"{json.dumps(document, ensure_ascii=False, indent=2)}\n")


async def print_pages(pages: AsyncIterator[Mapping[str, Any]]) -> None:
    """All pages of a list as one document, written as they come."""
    sys.stdout.write('{"items": [')
    between, following = "\n", None
    async for page in pages:
        for item in page["items"]:
            sys.stdout.write(f"{between}{json.dumps(item, ensure_ascii=False)}")
            between = ",\n"
        following = page["next"]
    sys.stdout.write(f'\n], "next": {json.dumps(following)}}}\n')


async def print_table(
    pages: AsyncIterator[Mapping[str, Any]], columns: Sequence[str], cells: Callable[[Mapping[str, Any]], Sequence[str]]
) -> None:
    """The pages of a list as a table, written as they come. A column never gets narrower from one page to the next."""
    widths = [len(column) for column in columns]
    is_first = True
    async for page in pages:
        rows = [cells(item) for item in page["items"]]
        for row in rows:
            widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
        table = Table(box=None, show_header=is_first, pad_edge=False)
        for column, width in zip(columns, widths, strict=True):
            # No wider than a terminal's share: there it may break.
            table.add_column(column, min_width=min(width, max(len(column), out.width // len(columns) - 1)))
        for row in rows:
            table.add_row(*row)
        out.print(table)
        is_first = False


def print_fields(document: Mapping[str, Any]) -> None:
    """One resource, a line for each field."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in document.items():
        if name != "etag":
            table.add_row(name, cell(value))
    out.print(table)


def cell(value: object) -> str:
    """A value as a table has it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case str() | int() | float():
            return str(value)
        case list() if all(isinstance(each, str | int) for each in value):
            return ", ".join(map(str, value))
        case _:
            return json.dumps(value, ensure_ascii=False) if value else ""


def print_problem(document: Mapping[str, Any]) -> None:
    """A problem document as one sentence, each wrong field or use on a line below it."""
    errors = document.get("errors")
    told = document["title"] if errors else f"{document['title']}: {document['detail']}"
    err.print(f"callflow-service: {told.rstrip('.')}.")
    for each in errors or ():
        err.print(f"  {each['field']}: {each['message']}" if each["field"] else f"  {each['message']}")
    for each in document.get("used_by", ()):
        kind = _USES.get(each["kind"], each["kind"])
        err.print(f"  {kind} {each['id']}{', ' + each['state'] if 'state' in each else ''}")
    for each in document.get("newer", ()):
        err.print(f"  change {each['id']} of {each['at']} by {each['account']}: {each['state']}")
    if path := document.get("path"):
        err.print(f"  device {' to '.join(map(str, [*path, path[0]]))}")


def fail(sentence: str) -> NoReturn:
    """End the command with one sentence."""
    err.print(f"callflow-service: {sentence}")
    raise typer.Exit(1)
