"""Profiles: found and listed under the rights of the account that asks."""

from sqlalchemy import ColumnElement, func, select
from sqlmodel import col

from callflow_service.domain.access import Account
from callflow_service.repositories.resources import Statement, Wanted, holds
from callflow_service.repositories.visibility import may_see
from callflow_service.tables import AccountRow, ProfileRow


def profiles(viewer: Account) -> Statement:
    """Every profile that `viewer` may see, with its owner."""
    return (
        select(ProfileRow, AccountRow)
        .join(AccountRow, col(AccountRow.id) == ProfileRow.owner_id)
        .where(may_see(viewer, AccountRow))
    )


def profile_filters(wanted: Wanted) -> list[ColumnElement[bool]]:
    """What a list of profiles can be narrowed by."""
    conditions: list[ColumnElement[bool]] = []
    if wanted.q:
        conditions.append(holds(func.lower(col(ProfileRow.name)), wanted.q))
    if wanted.owner is not None:
        conditions.append(col(AccountRow.username) == wanted.owner)
    return conditions
