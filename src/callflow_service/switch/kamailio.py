"""Kamailio: routes for its rtjson module, the shared names beside them, on one line."""

from collections.abc import Mapping
from dataclasses import dataclass

from callflow_service.domain.asked import Asked
from callflow_service.domain.callerid import Caller, Privacy
from callflow_service.domain.dialing import DialPlan
from callflow_service.domain.routing import Decision
from callflow_service.switch.answers import carry_on_answer, dial_string, shared_answer
from callflow_service.switch.flat import URI_TEMPLATES, one_line
from callflow_service.switch.questions import read_question

_MEDIA_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Kamailio:
    """`http_connect` and `rtjson_push_routes`: at most one route, since another state means another question."""

    name: str = "kamailio"

    @property
    def templates(self) -> Mapping[str, str]:
        """How Kamailio dials where the switch user says nothing else."""
        return URI_TEMPLATES

    def read(self, values: Mapping[str, str]) -> Asked:
        """The question."""
        return read_question(values)

    def write(self, decision: Decision, plan: DialPlan, asked: Asked, values: Mapping[str, str]) -> tuple[str, bytes]:  # noqa: ARG002 - the faces' common shape
        """The answer, with its media type."""
        answer = shared_answer(decision, plan, explain=asked.explain)
        routes = [_route(decision, plan, asked.caller)] if answer["dial"] else []
        return _document(routes, answer)

    def carry_on(self, values: Mapping[str, str]) -> tuple[str, bytes]:
        """The answer where we have none."""
        return _document([], carry_on_answer(values))


def _document(routes: list[dict[str, object]], answer: dict[str, str]) -> tuple[str, bytes]:
    return _MEDIA_TYPE, one_line({"version": "1.0", "routing": "serial", "routes": routes, **answer})


def _route(decision: Decision, plan: DialPlan, came: Caller) -> dict[str, object]:
    headers: dict[str, object] = {}
    host = (plan.legs.trunk.from_host if plan.legs.trunk and decision.is_to_number else "") or plan.domain
    if decision.is_diverted and (decision.caller != came or decision.caller.is_number_withheld or host != plan.domain):
        headers["from"] = _from(decision.caller, host)
    extra = [("Diversion", decision.diversion), ("History-Info", decision.history_info)]
    if decision.asserted and decision.asserted.number:
        extra.append(("P-Asserted-Identity", _asserted(decision.asserted, host)))
        if decision.asserted.privacy is not Privacy.OFF:
            extra.append(("Privacy", "id"))
    if lines := "".join(f"{name}: {value}\r\n" for name, value in extra if value):
        headers["extra"] = lines
    route: dict[str, object] = {"uri": dial_string(decision, plan), "headers": headers}
    if decision.ring_seconds:
        route["fr_inv_timer"] = decision.ring_seconds * 1000
    return route


def _from(caller: Caller, domain: str) -> dict[str, str]:
    if not caller.number or caller.is_number_withheld:
        return {"display": '"Anonymous"', "uri": "sip:anonymous@anonymous.invalid"}
    name = "" if caller.privacy is Privacy.NAME else caller.name
    # The display name goes out as it is: its quotes are ours to write, and the allow-list leaves none inside.
    display = f'"{name or caller.number}"'
    return {"display": display, "uri": f"sip:{caller.number.replace('#', '%23')}@{domain}"}


def _asserted(caller: Caller, domain: str) -> str:
    display = f'"{caller.name}" ' if caller.name else ""
    return f"{display}<sip:{caller.number.replace('#', '%23')}@{domain}>"
