"""One way to list, show, add, change and delete, for every resource."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from sqlalchemy import ColumnElement
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.api.dependencies import (
    ApiRoute,
    Caller,
    House,
    Reader,
    TheHouse,
    Writer,
    check_precondition,
    etag_of,
    problem_of_fields,
    with_etag,
)
from callflow_service.api.lists import Page, cursor_value, page_of
from callflow_service.api.problems import Problem, invalid
from callflow_service.api.shapes import Id, Text
from callflow_service.domain.access import Account, Role
from callflow_service.repositories import resources
from callflow_service.repositories.resources import Key, Row, Statement, Wanted


@dataclass(frozen=True, slots=True)
class Resource:
    """What tells one resource from the others.

    Attributes:
        name: What it is called in addresses.
        kind: What it is called in the history.
        key: The column that tells one from the others.
        item: What may be sent of it.
        columns: What is stored of what was sent.
        changes: What a merge patch may say, where it is not each field of `item` or null.
        merged: What a merge patch may say of an object, where it is less than all of it.
        passing: What is shown besides that passes with time, as it is now, then as else it may have been.
        needed_as: What a change of its row to these columns would make it useless as, a key of `resources.used_by`.
        hash_password: Makes what is stored of a password; it may take long.
        check_deletion: Refuses to delete what is needed.
        cascade: Takes one out of everything that uses it, where its deletion may do so.
    """

    name: str
    table: type[SQLModel]
    kind: str
    key: Any
    key_type: type[Any]
    item: type[BaseModel]
    shown: type[BaseModel]
    page: type[Page]
    statement: Callable[[Account], Statement]
    filters: Callable[[Wanted], list[ColumnElement[bool]]]
    shape: Callable[[Row], dict[str, Any]]
    columns: Callable[["Change"], Awaitable[dict[str, Any]]]
    may_add: Callable[[Account], bool]
    may_change: Callable[[Account, Row], bool]
    changes: type[BaseModel] | None = None
    may_list: Callable[[Account], bool] = lambda _: True
    merged: Mapping[str, type[Any]] = field(default_factory=dict)
    passing: Callable[[House, Row], Sequence[dict[str, Any]]] = lambda _house, _row: ({},)
    needed_as: Callable[[Any, dict[str, Any]], str | None] = lambda _row, _columns: None
    hash_password: Callable[[str], str] | None = None
    check_deletion: Callable[[AsyncSession, Account, Row], Awaitable[None]] | None = None
    cascade: Callable[[AsyncSession, Caller, Row], Awaitable[None]] | None = None

    @property
    def title(self) -> str:
        """What the document calls its calls."""
        return "Switch users" if self.name == "switches" else self.name.replace("_", " ").capitalize()


@dataclass(frozen=True, slots=True)
class Change:
    """One resource as it shall be.

    Attributes:
        written: The fields that the request itself names.
        password_hash: What is stored of the password, where the request names one.
        row: What is stored.
    """

    session: AsyncSession
    house: House
    caller: Account
    item: BaseModel
    written: frozenset[str]
    password_hash: str | None
    row: Any = None


def router_of(resource: Resource) -> APIRouter:  # noqa: C901, PLR0915 - five routes, each a few lines
    """The routes of a resource."""
    router = APIRouter(prefix=f"/v1/{resource.name}", tags=[resource.title], route_class=ApiRoute)
    key_type, page_type = resource.key_type, resource.page
    singular = resource.kind.removesuffix("_user")
    named = f"{singular}_id" if key_type is int else resource.key.key
    path_type = Annotated[Id if key_type is int else Text, Path(alias=named)]  # type: ignore[valid-type]  # chosen at run time
    new_item, changes = _new_model(resource), resource.changes or _patch_model(resource)
    listed = create_model(
        "".join(part.capitalize() for part in resource.name.split("_")),
        items=(list[resource.shown], ...),  # type: ignore[name-defined]  # a model made at run time
        next=(str | None, Field(description="Where the next page is")),
        __doc__="A page of a list.",
    )

    @router.get("", response_model=listed, name=f"list_{resource.name}")
    async def list_(request: Request, page: Annotated[page_type, Query()], caller: Reader, house: TheHouse) -> Response:  # type: ignore[valid-type]  # likewise
        """A page of those that you may see."""
        fields = cast(Page, page).model_dump(exclude={"limit", "cursor", "sort"})
        if not resource.may_list(caller.account):
            raise Problem("not-allowed")
        after = cursor_value(page.cursor, key_type)  # type: ignore[attr-defined]  # likewise
        descending = page.sort == "-id"  # type: ignore[attr-defined]  # likewise
        wanted = Wanted(page.limit + 1, after, descending, **fields)  # type: ignore[attr-defined]  # likewise
        async with house.transactions.begin() as session:
            statement = resource.statement(caller.account).where(*resource.filters(wanted))
            rows = await resources.page(session, caller.account, statement, resource.key, wanted)
        return page_of(
            request,
            rows,
            limit=wanted.limit - 1,
            key=lambda row: getattr(row[0], resource.key.key),
            shape=lambda row: _tagged(resource, house, row),
        )

    @router.get(f"/{{{named}}}", response_model=resource.shown, name=f"show_{singular}")
    async def show(request: Request, key: path_type, caller: Reader, house: TheHouse) -> Response:  # type: ignore[valid-type]  # likewise
        """One that you may see."""
        async with house.transactions.begin() as session:
            return with_etag(request, _tagged(resource, house, await _found(session, resource, caller.account, key)))

    @router.post("", status_code=201, response_model=resource.shown, name=f"add_{singular}")
    async def add(request: Request, body: new_item, caller: Writer, house: TheHouse) -> Response:  # type: ignore[valid-type]  # likewise
        """Add one. The answer's `Location` is its address."""
        if not resource.may_add(caller.account):
            raise Problem("not-allowed")
        fields = cast(BaseModel, body).model_dump(mode="json", exclude_unset=True, exclude_none=True)
        hashed = await _hashed(resource, caller, fields)
        async with house.changing(request, caller) as session:
            if "id" in fields and caller.account.role is not Role.ADMIN:
                raise Problem("not-allowed", "An id is an admin's to choose.")
            if key_type is int and "id" not in fields:
                fields["id"] = await resources.next_id(session, resource.kind)  # type: ignore[arg-type]  # not a switch user's
            item = _validated(resource, fields)
            change = Change(session, house, caller.account, item, frozenset(fields), hashed)
            row = resource.table(**await resource.columns(change))
            session.add(row)
            await _flushed(session)
            key = getattr(row, resource.key.key)
            shown = _tagged(resource, house, await _found(session, resource, caller.account, key))
        return with_etag(request, shown, status=201, location=f"/v1/{resource.name}/{key}")

    patch_schema = {"$ref": f"#/components/schemas/{changes.__name__}"}

    @router.patch(
        f"/{{{named}}}",
        response_model=resource.shown,
        name=f"change_{singular}",
        openapi_extra={"requestBody": {"content": {"application/merge-patch+json": {"schema": patch_schema}}}},
    )
    async def change(request: Request, key: path_type, body: changes, caller: Writer, house: TheHouse) -> Response:  # type: ignore[valid-type]  # likewise
        """Change what is named (a merge patch, RFC 7396); the rest stays as it is."""
        # The merge is of what was sent: `body` has read it, and says no longer what was null in an object.
        patch = await request.json()
        hashed = await _hashed(resource, caller, cast(BaseModel, body).model_dump())
        async with house.transactions.begin(caller.origin) as session:
            row = await _found(session, resource, caller.account, key, locked=True)
            if not resource.may_change(caller.account, row):
                raise Problem("not-allowed")
            shown, *others = _as_time_has_it(resource, house, row)
            check_precondition(request, house, shown, others)
            if resource.key.key in patch and getattr(body, resource.key.key) != key:
                raise invalid(resource.key.key, "cannot be changed")
            item = _validated(resource, _merged(_as_item(resource, shown), patch))
            wanted = Change(session, house, caller.account, item, frozenset(patch), hashed, row[0])
            columns = await resource.columns(wanted)
            await _check_uses(session, resource, caller.account, row[0], columns)
            for name, value in columns.items():
                if getattr(row[0], name) != value:
                    setattr(row[0], name, value)
            await _flushed(session)
            shown = _tagged(resource, house, await _found(session, resource, caller.account, key))
        return with_etag(request, shown)

    delete = router.delete(f"/{{{named}}}", status_code=204, response_class=Response, name=f"delete_{singular}")
    if resource.cascade:

        @delete
        async def delete_with_its_uses(
            request: Request,
            key: path_type,  # type: ignore[valid-type]  # likewise
            uses: Annotated[Uses, Query()],
            caller: Writer,
            house: TheHouse,
        ) -> Response:
            """Delete one, with what uses it only where that is asked for."""
            return await _delete(resource, request, key, caller, house, cascade=uses.cascade)

    else:

        @delete
        async def delete_unused(request: Request, key: path_type, caller: Writer, house: TheHouse) -> Response:  # type: ignore[valid-type]  # likewise
            """Delete one that nothing uses any more."""
            return await _delete(resource, request, key, caller, house)

    return router


class Uses(BaseModel):
    """What becomes of what uses the thing that is deleted."""

    model_config = ConfigDict(extra="forbid")

    cascade: Annotated[
        bool, Field(description="Whether to empty the call flows that lead to it, and to free its DIDs")
    ] = False


async def _delete(  # noqa: PLR0913 - of any resource
    resource: Resource, request: Request, key: Key, caller: Caller, house: House, *, cascade: bool = False
) -> Response:
    async with house.transactions.begin(caller.origin) as session:
        row = await _found(session, resource, caller.account, key, locked=True)
        if not resource.may_change(caller.account, row):
            raise Problem("not-allowed")
        shown, *others = _as_time_has_it(resource, house, row)
        check_precondition(request, house, shown, others)
        if resource.check_deletion:
            await resource.check_deletion(session, caller.account, row)
        if cascade and resource.cascade:
            await resource.cascade(session, caller, row)
        uses = await resources.used_by(session, caller.account, resource.kind, key)
        if uses is not None:
            raise Problem("in-use", "", {"used_by": uses})
        await session.delete(row[0])
        await _flushed(session)
    return Response(status_code=204)


async def _hashed(resource: Resource, caller: Caller, fields: dict[str, Any]) -> str | None:
    """What is stored of the password that was sent; made before there is a transaction, for it can take long.

    Whoever adds none of these changes none of them either, and is refused later.
    """
    password = fields.get("password")
    if not password or resource.hash_password is None or not resource.may_add(caller.account):
        return None
    return await asyncio.to_thread(resource.hash_password, password)


def _new_model(resource: Resource) -> type[BaseModel]:
    if resource.key_type is str:
        return resource.item
    annotation = resource.item.model_fields["id"].rebuild_annotation()
    return create_model(
        f"New{resource.item.__name__.removesuffix('Item')}",
        __base__=resource.item,
        __doc__=resource.item.__doc__,
        id=(annotation | None, Field(None, description="The next free one where it is not said")),
    )


def _patch_model(resource: Resource) -> type[BaseModel]:
    fields: dict[str, Any] = {
        name: (
            (resource.merged.get(name) or declared.rebuild_annotation()) | None,
            Field(None, description=declared.description),
        )
        for name, declared in resource.item.model_fields.items()
    }
    return create_model(
        f"{resource.item.__name__.removesuffix('Item')}Changes",
        __config__=ConfigDict(extra="forbid", hide_input_in_errors=True),
        __doc__="What changes; null empties, and what is not named stays as it is.",
        **fields,
    )


def _merged(stored: Any, patch: Any) -> Any:  # noqa: ANN401 - JSON
    """What a merge patch makes of `stored` (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    found = dict(stored) if isinstance(stored, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = _merged(found.get(name), value)
    return found


async def _check_uses(
    session: AsyncSession,
    resource: Resource,
    caller: Account,
    row: Any,  # noqa: ANN401 - a row of any resource
    columns: dict[str, Any],
) -> None:
    """Refuse a change by which what is used would no longer be what its users need.

    Raises:
        Problem: `in-use`.
    """
    needed_as = resource.needed_as(row, columns)
    if needed_as is None:
        return
    uses = await resources.used_by(session, caller, needed_as, row.id)
    if uses is not None:
        raise Problem("in-use", "", {"used_by": uses})


def _as_item(resource: Resource, shown: dict[str, Any]) -> dict[str, Any]:
    """A resource as the world file would have it. A stored secret, which is not shown, is stood in for."""
    item = {name: shown[name] for name in resource.item.model_fields if name in shown}
    if shown.get("has_password", resource.kind == "switch_user"):
        item["password"] = "stored"  # noqa: S105 - stands for one that is not known
    return item


def _validated(resource: Resource, fields: dict[str, Any]) -> BaseModel:
    try:
        return resource.item.model_validate(fields)
    except ValidationError as error:
        raise problem_of_fields(error.errors(include_url=False, include_input=False)) from None


def _tagged(resource: Resource, house: House, row: Row) -> dict[str, Any]:
    return _as_time_has_it(resource, house, row)[0]


def _as_time_has_it(resource: Resource, house: House, row: Row) -> list[dict[str, Any]]:
    """A resource as it is now, then as else it may have been shown while it was stored like this."""
    versions = [resource.shape(row) | passing for passing in resource.passing(house, row)]
    return [shown | {"etag": etag_of(shown)} for shown in versions]


async def _found(session: AsyncSession, resource: Resource, viewer: Account, key: Key, *, locked: bool = False) -> Row:
    statement = resource.statement(viewer).execution_options(populate_existing=True)
    row = await resources.one(session, statement, resource.key == key, locked=resource.table if locked else None)
    if row is None:
        raise Problem("not-found")
    return row


async def _flushed(session: AsyncSession) -> None:
    """Write what was changed.

    Raises:
        Problem: A constraint of the tables forbids it.
    """
    try:
        await session.flush()
    except IntegrityError as error:
        constraint = str(getattr(getattr(error.orig, "__cause__", None), "constraint_name", ""))
        if constraint.startswith(("pk_", "uq_")):
            raise Problem("already-exists") from None
        if constraint.startswith("fk_"):
            raise Problem("in-use", "A call flow still uses it as it is.", {"used_by": []}) from None
        raise invalid("", "what is stored meanwhile does not go with it") from None
