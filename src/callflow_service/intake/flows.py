"""Call flows as staged rows: their columns, and everything that they name, so that SQL can look whether it is there."""

from collections.abc import Iterator
from typing import Any

from callflow_service.domain.callflow import State
from callflow_service.domain.flow_documents import BY_ID, read_rules
from callflow_service.domain.flow_documents import read_action as read_stored_action
from callflow_service.intake.placing import Placed
from callflow_service.repositories.callflows import stored_columns
from callflow_service.resources.flows import FlowItem, SentState

_NOTHING = SentState.model_validate({"otherwise": {"action": "empty"}})


def flow_records(placed: Placed, item: FlowItem) -> Iterator[dict[str, object]]:
    """A row for each state; in one that is not named nothing is set."""
    line = placed.lines.get("device", placed.line)
    for state in State:
        sent = getattr(item.states, state) or _NOTHING
        document = sent.model_dump(mode="json", by_alias=True)
        columns = stored_columns(read_stored_action(document["otherwise"], BY_ID), read_rules(document["rules"], BY_ID))
        place = {"position": placed.position, "device_line": line, "device_id": item.device}
        yield {**place, "state": state.value, "priority": 1, **columns}


def flow_names(placed: Placed, item: FlowItem) -> Iterator[dict[str, object]]:
    """Everything that a call flow names: its kind, its id, and where it stands."""
    named: list[tuple[str, str, int]] = [("device", "device", item.device)]
    for state in State:
        if sent := getattr(item.states, state):
            named += _named(sent.model_dump(mode="json", by_alias=True), f"states.{state}")
    for place, kind, id_ in named:
        line = placed.lines.get(place, placed.line)
        shown = {"position": placed.position, "line": line, "device_id": item.device, "place": place}
        yield {**shown, "kind": kind, "id": id_}


_KINDS = {
    "device": "device",
    "did": "did",
    "schedule": "schedule",
    "not_schedule": "schedule",
    "list": "caller_list",
    "not_list": "caller_list",
}


def _named(value: Any, place: str, *, fax: bool = False) -> Iterator[tuple[str, str, int]]:  # noqa: ANN401 - any part of a document
    if isinstance(value, list):
        for at, each in enumerate(value):
            yield from _named(each, f"{place}.{at}")
    if isinstance(value, dict):
        detects = value.get("action") == "fax_detect"
        for name, inner in value.items():
            if name in _KINDS and isinstance(inner, int):
                yield f"{place}.{name}", "fax" if fax else _KINDS[name], inner
            else:
                yield from _named(inner, f"{place}.{name}", fax=detects)
