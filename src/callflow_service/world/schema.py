"""Print the JSON Schema of a world file: `python -m callflow_service.world.schema`."""

import json
import sys
from typing import Any

from callflow_service.resources.flows import FlowItem
from callflow_service.resources.kept import KeptAccount, KeptSwitch
from callflow_service.resources.models import (
    CallerListItem,
    DeviceItem,
    DidItem,
    Resource,
    ScheduleItem,
)
from callflow_service.resources.types import NETWORK


class WorldFile(Resource):
    """A world file: who may call, what rings, which numbers reach it, which switches ask, what conditions stand on."""

    accounts: list[KeptAccount] | None = None
    devices: list[DeviceItem] | None = None
    dids: list[DidItem] | None = None
    switches: list[KeptSwitch] | None = None
    schedules: list[ScheduleItem] | None = None
    caller_lists: list[CallerListItem] | None = None
    flows: list[FlowItem] | None = None


def world_schema() -> dict[str, Any]:
    """The JSON Schema of a world file, for editors and for those who generate one."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **WorldFile.model_json_schema()}
    _let_digits_go_without_quotes(schema)
    return schema


def _let_digits_go_without_quotes(schema: object) -> None:
    """Digits need no quotes in a file, and then an editor takes them for a number."""
    if isinstance(schema, list):
        for part in schema:
            _let_digits_go_without_quotes(part)
    elif isinstance(schema, dict):
        if schema.get("type") == "string" and schema.get("pattern") not in {None, f"^{NETWORK}$"}:
            schema["type"] = ["string", "number"]
        for part in schema.values():
            _let_digits_go_without_quotes(part)


def schema_text() -> str:
    """The schema as it is kept in the documentation."""
    return json.dumps(world_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
