"""A call that nobody places: asked leg by leg as a switch would, with what each leg is told to come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from asyncpg import Connection

from callflow_service.domain.asked import Asked, SwitchUser
from callflow_service.domain.callerid import Caller
from callflow_service.domain.callflow import State
from callflow_service.domain.dialing import NUMBER, OTHER, LegRules
from callflow_service.domain.path import Path
from callflow_service.domain.routing import Decision, RouteAction
from callflow_service.usecases.calls import Calls

ANY_SWITCH: Final = SwitchUser("", "", domain="localhost", trust_headers=False, dial={}, legs=LegRules())
"""A switch that can ring every device and dial every number."""

_TEMPLATES: Final = {OTHER: "{technology}/{name}", NUMBER: "{number}"}
# After these a switch asks again, once the leg has ended.
_LEGS: Final = {RouteAction.RING, RouteAction.FORWARD, RouteAction.FAX}


@dataclass(frozen=True, slots=True)
class Leg:
    """What a switch is told, and the state in which it asks."""

    state: State
    decision: Decision


async def legs(  # noqa: PLR0913 - what a call is
    calls: Calls,
    connection: Connection,
    *,
    device_id: int,
    caller: Caller,
    outcomes: Sequence[State],
    at: datetime,
    switch: SwitchUser,
) -> list[Leg]:
    """The legs of a call to a device, one more than `outcomes` tells the ends of, or as many as there are."""
    plan = switch.plan("trial", _TEMPLATES)
    found: list[Leg] = []
    path: Path | None = None
    for state in (State.BEFORE_CALL, *outcomes):
        asked = Asked(
            device_id=None if path else device_id,
            called=None,
            path=path,
            state=state,
            caller=caller,
            call_id="",
            diversion="",
            history_info="",
            diversions_withheld=False,
            is_emergency_callback=False,
            explain=True,
            at=at,
        )
        decision = await calls.decide(connection, asked, switch, plan)
        found.append(Leg(state, decision))
        path = decision.path
        if decision.action not in _LEGS:
            break
    return found
