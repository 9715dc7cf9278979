"""The JSON API in the command's own process: the same rights, checks and history, without a token or a network."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, TypeVar

import typer
from httpx import URL, ASGITransport, AsyncClient, Response

from callflow_service.console.printing import fail, print_problem
from callflow_service.storage.embedded import settings_with_database

ACCOUNT: Final = typer.Option("--account", help="Username of the admin that the history names; else the first one.")
AS_JSON: Final = typer.Option("--json", help="Print the JSON API's own document.")

Account = Annotated[str | None, ACCOUNT]
AsJson = Annotated[bool, AS_JSON]

_COMMAND_TIMEOUT_MS: Final = 30_000
_LONGEST_PAGE: Final = 1000

T = TypeVar("T")
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Api:
    """The calls of the JSON API. One that is refused ends the command with what the API says of it."""

    client: AsyncClient

    async def get(self, path: str) -> Document:
        """What is at `path`."""
        return _document(await self.client.get(path))

    async def send(self, method: str, path: str, body: object = None) -> Document:
        """The answer to a change; empty where there is none."""
        return _document(await self.client.request(method, path, json=body))

    async def pages(self, path: str, query: Mapping[str, object], limit: int | None) -> AsyncIterator[Document]:
        """The pages of a list, one after the other as they are wanted, at most `limit` items of it.

        Of the query counts what is not None.
        """
        url = URL(path, params={name: _written(value) for name, value in query.items() if value is not None})
        left = limit
        while True:
            size = _LONGEST_PAGE if left is None else min(left, _LONGEST_PAGE)
            page = _document(await self.client.get(url.copy_set_param("limit", size)))
            yield page
            if left is not None:
                left -= len(page["items"])
            if page["next"] is None or left == 0:
                return
            url = URL(page["next"])


def asked(account: str | None, work: Callable[[Api], Awaitable[T]]) -> T:
    """What `work` makes of the API, in the name of an admin account."""

    async def run() -> T:
        async with _opened(account) as api:
            return await work(api)

    return asyncio.run(run())


@asynccontextmanager
async def _opened(username: str | None) -> AsyncIterator[Api]:
    # The web and the database, which `--help` and the other commands need not wait for.
    from callflow_service.app import create_command_app, json_house  # noqa: PLC0415 - see above
    from callflow_service.components import build_components  # noqa: PLC0415 - see above
    from callflow_service.repositories import operators  # noqa: PLC0415 - see above
    from callflow_service.storage.schema import schema_problem  # noqa: PLC0415 - see above

    settings = settings_with_database().model_copy(
        update={
            "database_timeout_ms": _COMMAND_TIMEOUT_MS,
            "pool_size": 1,
            "metrics_enabled": False,
            "tracing_enabled": False,
            "require_if_match": False,
        }
    )
    parts = build_components(settings)
    async with parts.at_hand():
        if problem := await parts.database.run(schema_problem):
            fail(problem)
        async with parts.transactions.begin() as session:
            operator = await operators.operator(session, username)
        if operator is None:
            fail(f"There is no admin account {username}." if username else "There is no admin account; load one first.")
        app = create_command_app(replace(json_house(settings, parts), operator=operator))
        transport = ASGITransport(app)
        async with AsyncClient(transport=transport, base_url="http://callflow", timeout=None) as client:  # noqa: S113 - the database's own limit holds
            yield Api(client)


def _document(response: Response) -> Document:
    if response.is_success:
        document: Document = response.json() if response.content else {}
        return document
    print_problem(response.json())
    raise typer.Exit(1)


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
