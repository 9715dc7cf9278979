"""Accounts, devices, DIDs and switch users: found, listed and searched under the rights of the account that asks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    any_,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.orm import aliased
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from callflow_service.domain.access import Account, Role
from callflow_service.domain.callflow import MAX_ID
from callflow_service.repositories.visibility import may_see, may_use
from callflow_service.storage.transactions import plan_anew, run
from callflow_service.tables import (
    AccountRow,
    CallerListRow,
    CallFlowRow,
    DeviceRow,
    DidRow,
    ScheduleRow,
    SwitchUserRow,
)

Row = Any
"""A row of a resource with what is shown beside it: `(row, ...)`."""

Key = int | str

Statement = Select[*tuple[Any, ...]]

_WINDOW: Final = 2000
"""How many rows a search looks at one by one, in their order, before it asks the search index."""
_RARE: Final = 0.01
"""A text that a smaller part of those rows holds is left to the search index."""

_OWNER: Final = aliased(AccountRow, name="owner")
_ESCAPE: Final = str.maketrans({"%": r"\%", "_": r"\_", "\\": r"\\"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of a list: at most `limit` after the key `after`, that fit the filters and hold the text `q`."""

    limit: int
    after: Key | None = None
    descending: bool = False
    q: str | None = None
    owner: str | None = None
    technology: str | None = None
    device: int | None = None
    role: str | None = None
    forwarding: bool | None = None


def accounts(viewer: Account) -> Statement:
    """Every account that `viewer` may see, with its owner's username."""
    return (
        select(AccountRow, col(_OWNER.username))
        .outerjoin(_OWNER, col(_OWNER.id) == AccountRow.owner_id)
        .where(may_see(viewer, AccountRow))
    )


def devices(viewer: Account) -> Statement:
    """Every device that `viewer` may see, with its owner and the numbers of its DIDs."""
    numbers = (
        select(func.array_agg(aggregate_order_by(col(DidRow.number), col(DidRow.id))))
        .where(col(DidRow.device_id) == DeviceRow.id)
        .scalar_subquery()
    )
    return (
        select(DeviceRow, AccountRow, numbers)
        .join(AccountRow, col(AccountRow.id) == DeviceRow.owner_id)
        .where(may_see(viewer, AccountRow))
    )


def dids(viewer: Account) -> Statement:
    """Every DID that `viewer` may see, with the account that its device belongs to; free ones are the admins'."""
    statement = (
        select(DidRow, AccountRow)
        .outerjoin(DeviceRow, col(DeviceRow.id) == DidRow.device_id)
        .outerjoin(AccountRow, col(AccountRow.id) == DeviceRow.owner_id)
    )
    return statement if viewer.role is Role.ADMIN else statement.where(may_see(viewer, AccountRow))


def switches(viewer: Account) -> Statement:
    """Every switch user, for an admin."""
    return select(SwitchUserRow).where(true() if viewer.role is Role.ADMIN else false())


def schedules(viewer: Account) -> Statement:
    """Every schedule that `viewer` may use, with its owner and the time zone of its clocks, None where none is set."""
    owner, above, top = (aliased(AccountRow, name=name) for name in ("schedule_owner", "above", "top"))
    time_zone = func.coalesce(ScheduleRow.time_zone, owner.time_zone, above.time_zone, top.time_zone)
    return (
        select(ScheduleRow, owner, time_zone)
        .join(owner, col(owner.id) == ScheduleRow.owner_id)
        .outerjoin(above, col(above.id) == owner.owner_id)
        .outerjoin(top, col(top.id) == above.owner_id)
        .where(may_use(viewer, owner))
    )


def caller_lists(viewer: Account) -> Statement:
    """Every caller list that `viewer` may use, with its owner."""
    return (
        select(CallerListRow, AccountRow)
        .join(AccountRow, col(AccountRow.id) == CallerListRow.owner_id)
        .where(may_use(viewer, AccountRow))
    )


def account_filters(wanted: Wanted) -> list[ColumnElement[bool]]:
    """What a list of accounts can be narrowed by."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.q:
        conditions.append(holds(func.lower(col(AccountRow.username) + " " + col(AccountRow.name)), wanted.q))
    if wanted.owner is not None:
        conditions.append(col(_OWNER.username) == wanted.owner)
    if wanted.role is not None:
        conditions.append(col(AccountRow.role) == wanted.role)
    return conditions


def device_filters(wanted: Wanted) -> list[ColumnElement[bool]]:
    """What a list of devices can be narrowed by."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.q:
        # The expression of the index ix_search_device, to the letter.
        conditions.append(holds(literal_column(DEVICE_SEARCH), wanted.q))
    if wanted.owner is not None:
        owner = select(col(AccountRow.id)).where(col(AccountRow.username) == wanted.owner).scalar_subquery()
        conditions.append(col(DeviceRow.owner_id) == owner)
    if wanted.technology is not None:
        conditions.append(col(DeviceRow.technology) == wanted.technology.upper())
    if wanted.forwarding is not None:
        flows = select(col(CallFlowRow.device_id)).where(
            col(CallFlowRow.device_id) == DeviceRow.id,
            or_(
                col(CallFlowRow.action) != "empty",
                col(CallFlowRow.otherwise).is_not(None),
                col(CallFlowRow.rules).is_not(None),
            ),
        )
        if isinstance(wanted.after, int):
            # PostgreSQL may read both tables side by side, and would read the flows from the first device's on.
            flows = flows.where(_is_beyond(col(CallFlowRow.device_id), wanted))
        conditions.append(flows.exists() if wanted.forwarding else ~flows.exists())
    return conditions


def did_filters(wanted: Wanted) -> list[ColumnElement[bool]]:
    """What a list of DIDs can be narrowed by."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.q:
        conditions.append(holds(func.lower(col(DidRow.number)), wanted.q))
    if wanted.device is not None:
        conditions.append(col(DidRow.device_id) == wanted.device)
    if wanted.owner is not None:
        conditions.append(col(AccountRow.username) == wanted.owner)
    return conditions


def switch_filters(wanted: Wanted) -> list[ColumnElement[bool]]:
    """What a list of switch users can be narrowed by."""
    return [holds(func.lower(col(SwitchUserRow.username)), wanted.q)] if wanted.q else []


def named_filters(table: type[ScheduleRow | CallerListRow]) -> Callable[[Wanted], list[ColumnElement[bool]]]:
    """What a list of schedules or caller lists can be narrowed by."""

    def filters(wanted: Wanted) -> list[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = []
        if wanted.q:
            conditions.append(holds(func.lower(col(table.name)), wanted.q))
        if wanted.owner is not None:
            owner = select(col(AccountRow.id)).where(col(AccountRow.username) == wanted.owner).scalar_subquery()
            conditions.append(col(table.owner_id) == owner)
        return conditions

    return filters


DEVICE_SEARCH: Final = (
    "lower(device.technology || '/' || device.name || ' ' || device.caller_name || ' ' || device.caller_number)"
)
"""What a search for devices looks at; the index `ix_search_device` is over the same expression."""


async def page(
    session: AsyncSession,
    viewer: Account,
    statement: Statement,
    key: Any,  # noqa: ANN401 - a column of any kind
    wanted: Wanted,
) -> Sequence[Row]:
    """One page of a list in the order of `key`.

    Neither way to find it is good for every page. In the order of the keys a common text fills it at once, and a rare
    one needs the whole table; the search index finds a rare text, and would sort all that has a common one. So the next
    rows come first, a fixed number of them, then the next ones of the accounts that `viewer` may see, and the search
    index where they do not fill the page.
    """
    await plan_anew(session)
    statement = statement.limit(wanted.limit)
    if wanted.after is not None:
        statement = statement.where(_is_beyond(key, wanted))
    for window in _windows(viewer, key, wanted):
        keys = list((await run(session, window)).scalars())
        near = statement.where(key == any_(literal(keys, ARRAY(key.type)))).order_by(_in_order(key, wanted))
        rows: Sequence[Row] = (await run(session, near)).all()
        if len(rows) == wanted.limit or len(keys) < _WINDOW:
            return rows
        if (
            wanted.q
            and key is DeviceRow.id
            and viewer.role is not Role.ADMIN
            and await _is_rare(session, wanted.q, keys)
        ):
            break
    if wanted.q and wanted.owner is None:
        # The key's own index cannot give this order, so PostgreSQL does not take it.
        key = func.coalesce(key, key)
    return (await run(session, statement.order_by(_in_order(key, wanted)))).all()


async def _is_rare(session: AsyncSession, q: str, keys: Sequence[int]) -> bool:
    """Whether so few of these devices hold a text, whoever has them, that the search index finds all that do soon."""
    held = select(func.count()).where(
        col(DeviceRow.id) == any_(literal(keys, ARRAY(BigInteger))), *device_filters(Wanted(0, q=q))
    )
    return int((await run(session, held)).scalar_one()) < len(keys) * _RARE


def _windows(viewer: Account, key: Any, wanted: Wanted) -> Iterator[Select[Any]]:  # noqa: ANN401 - a column of any kind
    """The keys to look at first, whatever the filters; none where an index gives the page in its order."""
    keys: Select[Any] = select(key).order_by(_in_order(key, wanted)).limit(_WINDOW)
    if wanted.after is not None:
        keys = keys.where(_is_beyond(key, wanted))
    if wanted.owner is not None or not (wanted.q or viewer.role in {Role.RESELLER, Role.ACCOUNTANT}):
        return
    if viewer.role is not Role.USER:
        yield keys
    if viewer.role is not Role.ADMIN and key is DeviceRow.id:
        # From each account its next ones: among all devices those of one reseller may lie far away.
        owned = keys.where(col(DeviceRow.owner_id) == AccountRow.id).correlate(AccountRow).lateral("owned")
        seen = select(owned.c.id).select_from(AccountRow).join(owned, true()).where(may_see(viewer, AccountRow))
        yield seen.order_by(_in_order(owned.c.id, wanted)).limit(_WINDOW)


def _is_beyond(key: Any, wanted: Wanted) -> Any:  # noqa: ANN401 - a column of any kind
    return key < wanted.after if wanted.descending else key > wanted.after


def _in_order(key: ColumnElement[Any], wanted: Wanted) -> ColumnElement[Any]:
    return key.desc() if wanted.descending else key


async def one(
    session: AsyncSession, statement: Statement, condition: ColumnElement[bool], *, locked: type[Any] | None = None
) -> Row | None:
    """One row, None where none may be seen; it is locked until the transaction ends where `locked` names its table."""
    statement = statement.where(condition)
    if locked:
        statement = statement.with_for_update(of=locked, key_share=True)
    return (await run(session, statement)).one_or_none()


async def account_by_name(session: AsyncSession, viewer: Account, username: str) -> AccountRow | None:
    """The account of that username, None where `viewer` may not see it."""
    statement = select(AccountRow).where(col(AccountRow.username) == username, may_see(viewer, AccountRow))
    return (await run(session, statement)).scalar_one_or_none()


async def is_taken_elsewhere(session: AsyncSession, viewer: Account, name: str) -> bool:
    """Whether a device that `viewer` may not see has this name."""
    seen = select(col(DeviceRow.id)).join(AccountRow, col(AccountRow.id) == DeviceRow.owner_id)
    statement = select(col(DeviceRow.id)).where(
        col(DeviceRow.name) == name, col(DeviceRow.id).not_in(seen.where(may_see(viewer, AccountRow)))
    )
    return (await run(session, statement.limit(1))).first() is not None


async def has_other_admins(session: AsyncSession, account_id: int) -> bool:
    """Whether there is an admin besides this one that is not blocked; asked by one transaction at a time."""
    await run(session, text("SELECT pg_advisory_xact_lock(hashtext('callflow admins'))"))
    others = select(col(AccountRow.id)).where(
        col(AccountRow.role) == Role.ADMIN, col(AccountRow.blocked).is_(False), col(AccountRow.id) != account_id
    )
    return (await run(session, others.limit(1))).first() is not None


async def next_id(
    session: AsyncSession, table: Literal["account", "device", "did", "profile", "schedule", "caller_list"]
) -> int:
    """The next free id, which nothing had before; other transactions that want one wait until this one ends.

    The history of a device is shown to whoever has the device, so a deleted one's id must not come back.
    """
    await run(session, text("SELECT pg_advisory_xact_lock(hashtext(:lock))"), lock=f"callflow id {table}")
    found = await run(session, text(_NEXT_ID[table]), most=MAX_ID)
    return int(found.scalar_one())


async def used_by(session: AsyncSession, viewer: Account, kind: str, key: Key) -> list[dict[str, Any]] | None:
    """What names a resource still, as `{"kind": ..., "id": ...}`, None where nothing does.

    Of the first hundred it lists those that `viewer` may see.
    """
    found = await run(session, text(f"SELECT kind, id, state FROM ({_USES[kind]}) AS uses LIMIT 100"), key=key)  # noqa: S608 - ours
    uses: Sequence[Row] = found.all()
    if not uses:
        return None
    named = [id_ for kind, id_, _ in uses if kind in {"callflow", "device"}]
    visible = select(col(DeviceRow.id)).join(AccountRow, col(AccountRow.id) == DeviceRow.owner_id)
    visible = visible.where(col(DeviceRow.id).in_(named), may_see(viewer, AccountRow))
    seen = set((await run(session, visible)).scalars())
    return [
        {"kind": kind, "id": id_} | ({"state": state} if state else {})
        for kind, id_, state in uses
        if kind not in {"callflow", "device"} or id_ in seen
    ]


_NEXT_ID: Final = {
    "account": """SELECT greatest((SELECT max(id) FROM account WHERE id < :most),
        (SELECT max(account_id) FROM callflow_history WHERE account_id < :most), 0) + 1""",
    "device": """SELECT greatest((SELECT max(id) FROM device WHERE id < :most),
        (SELECT max(device_id) FROM callflow_history WHERE device_id < :most), 0) + 1""",
    "did": "SELECT coalesce((SELECT max(id) FROM did WHERE id < :most), 0) + 1",
    "profile": "SELECT coalesce((SELECT max(id) FROM profile WHERE id < :most), 0) + 1",
    "schedule": "SELECT coalesce((SELECT max(id) FROM schedule WHERE id < :most), 0) + 1",
    "caller_list": "SELECT coalesce((SELECT max(id) FROM caller_list WHERE id < :most), 0) + 1",
}
_USES: Final = {
    "account": """SELECT 'device' AS kind, id, NULL AS state FROM device WHERE owner_id = :key
        UNION ALL SELECT 'account', id, NULL FROM account WHERE owner_id = :key
        UNION ALL SELECT 'profile', id, NULL FROM profile WHERE owner_id = :key
        UNION ALL SELECT 'schedule', id, NULL FROM schedule WHERE owner_id = :key
        UNION ALL SELECT 'caller_list', id, NULL FROM caller_list WHERE owner_id = :key""",
    "device": """SELECT 'callflow' AS kind, device_id AS id, state FROM callflow WHERE target_device_id = :key
            AND device_id <> :key
        UNION SELECT 'callflow', device_id, state FROM callflow_reference WHERE target_device_id = :key
            AND device_id <> :key
        UNION ALL SELECT 'did', id, NULL FROM did WHERE device_id = :key""",
    "did": """SELECT 'callflow' AS kind, device_id AS id, state FROM callflow WHERE caller_id_did_id = :key
        UNION SELECT 'callflow', device_id, state FROM callflow_reference WHERE did_id = :key""",
    "owner": "SELECT 'account' AS kind, id, NULL AS state FROM account WHERE owner_id = :key",
    "fax_device": """SELECT 'callflow' AS kind, device_id AS id, state FROM callflow
        WHERE (target_device_id = :key AND action = 'fax_detect') OR jsonb_path_exists(
            jsonb_build_array(otherwise, rules),
            '$.** ? (@.action == "fax_detect").to.device ? (@ == $key)', jsonb_build_object('key', :key))""",
    "profile": """SELECT 'callflow' AS kind, device_id AS id, state FROM remembered_flow
        WHERE kind = 'profile' AND holder_id = :key""",
    "schedule": """SELECT DISTINCT 'callflow' AS kind, device_id AS id, state FROM callflow_reference
        WHERE schedule_id = :key""",
    "caller_list": """SELECT DISTINCT 'callflow' AS kind, device_id AS id, state FROM callflow_reference
        WHERE caller_list_id = :key""",
    "switch_user": "SELECT 'switch' AS kind, 0 AS id, NULL AS state WHERE false AND :key <> ''",
}


def holds(expression: Any, q: str) -> ColumnElement[bool]:  # noqa: ANN401 - a column or a text
    """Whether a text in lower case holds another one."""
    condition: ColumnElement[bool] = expression.like(f"%{q.lower().translate(_ESCAPE)}%", escape="\\")
    return condition
