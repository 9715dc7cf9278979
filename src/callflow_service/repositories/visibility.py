"""The rights of an account as conditions of SQL, for lists and single rows alike. `domain.access` has them in words."""

from typing import assert_never

from sqlalchemy import ColumnElement, and_, false, or_, true
from sqlalchemy.orm import aliased
from sqlmodel import col, select

from callflow_service.domain.access import Account, Role
from callflow_service.tables import AccountRow


def may_see(viewer: Account, owner: type[AccountRow]) -> ColumnElement[bool]:
    """Whether `viewer` may see an account, or what belongs to it; `owner` is that account's table or an alias of it."""
    itself = col(owner.id) == viewer.id
    match viewer.role:
        case Role.ADMIN:
            return true()
        case Role.RESELLER:
            return or_(itself, col(owner.owner_id) == viewer.id) if viewer.pbx_addon else false()
        case Role.USER:
            return itself
        case Role.ACCOUNTANT:
            admin = select(AccountRow.owner_id).where(AccountRow.id == viewer.id).scalar_subquery()
            return or_(itself, and_(col(owner.owner_id) == admin, col(owner.role) == Role.USER))
        case _ as never:
            assert_never(never)


def may_use(viewer: Account, owner: type[AccountRow]) -> ColumnElement[bool]:
    """Whether `viewer` may use what an account shares with those below it: what it may see, or an account above has."""
    above = select(AccountRow.owner_id).where(AccountRow.id == viewer.id).scalar_subquery()
    further = aliased(AccountRow, name="further_above")
    top = select(further.owner_id).where(col(further.id) == above).scalar_subquery()
    return or_(may_see(viewer, owner), col(owner.id) == above, col(owner.id) == top)
