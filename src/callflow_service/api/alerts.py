"""What was refused or held for its number, for operators to look at."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from callflow_service.api.dependencies import ApiRoute, Reader, TheHouse
from callflow_service.api.lists import Page, cursor_value, page_of
from callflow_service.api.shapes import Id, Moment, written_moment
from callflow_service.repositories import alerts

router = APIRouter(prefix="/v1", tags=["Alerts"], route_class=ApiRoute)


class AlertsPage(Page):
    """Which alerts."""

    device: Annotated[Id | None, Field(description="Of this device alone")] = None


class ShownAlert(BaseModel):
    """A forward that was refused, or held, for its number. The same within an hour is one alert."""

    id: int
    at: Moment = Field(description="When it came last")
    first_at: Moment
    times: int
    device: int
    owner: str | None = Field(description="Username of the device's owner, where it is still there")
    number: str
    reason: str = Field(description="Why it was refused, or `held`")
    held_until: Moment | None = Field(description="From when on a held forward acts")
    account: str | None = Field(description="Username of the account that asked")
    face: str
    address: str | None


class Alerts(BaseModel):
    """A page of a list."""

    items: list[ShownAlert]
    next: str | None = Field(description="Where the next page is")


@router.get("/alerts", response_model=Alerts)
async def list_alerts(
    request: Request, page: Annotated[AlertsPage, Query()], caller: Reader, house: TheHouse
) -> Response:
    """What was refused or held for its number, newest first."""
    wanted = alerts.Wanted(page.limit + 1, cursor_value(page.cursor, int), page.device)
    async with house.transactions.begin() as session:
        rows = await alerts.page(session, caller.account, wanted)
    return page_of(request, rows, limit=page.limit, key=lambda row: row[0].id, shape=_shape)


def _shape(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row of three
    alert, owner, asked = row
    return {
        "id": alert.id,
        "at": written_moment(alert.last_at),
        "first_at": written_moment(alert.first_at),
        "times": alert.times,
        "device": alert.device_id,
        "owner": owner,
        "number": alert.number,
        "reason": alert.reason,
        "held_until": written_moment(alert.held_until) if alert.held_until else None,
        "account": asked,
        "face": alert.face,
        "address": str(alert.address) if alert.address else None,
    }
