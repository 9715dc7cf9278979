"""What a switch asks, and the switch that asks it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from callflow_service.domain.callerid import Caller
from callflow_service.domain.callflow import State
from callflow_service.domain.dialing import DialPlan, LegRules
from callflow_service.domain.path import Path


@dataclass(frozen=True, slots=True)
class SwitchUser:
    """A switch that may ask, and how it dials."""

    username: str
    password_hash: str
    domain: str
    trust_headers: bool
    dial: Mapping[str, str]
    legs: LegRules
    # Every question needs one.
    _plans: dict[str, DialPlan] = field(default_factory=dict, compare=False, repr=False)

    def plan(self, kind: str, templates: Mapping[str, str]) -> DialPlan:
        """Its dial strings where it asks as a `kind` of switch, over the templates of that kind."""
        plan = self._plans.get(kind)
        if plan is None:
            plan = self._plans[kind] = DialPlan({**templates, **self.dial}, self.domain, self.legs)
        return plan


class Asked(NamedTuple):
    """One question of a switch.

    Attributes:
        device_id: The device asked about, None where it is asked for by number or by path.
        called: The number that was dialled, None where none was.
        explain: Whether the answer shall say why.
        at: The time of the call where that is neither now nor in the path.
    """

    device_id: int | None
    called: str | None
    path: Path | None
    state: State
    caller: Caller
    call_id: str
    diversion: str
    history_info: str
    diversions_withheld: bool
    is_emergency_callback: bool
    explain: bool
    at: datetime | None = None
