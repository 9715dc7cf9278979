"""Print the JSON Schema of a world file: `python -m callflow_service.world.schema`."""

import json
import sys
from typing import Any

from callflow_service.world.items import WorldFile


def world_schema() -> dict[str, Any]:
    """The JSON Schema of a world file, for editors and for those who generate one."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **WorldFile.model_json_schema()}


def schema_text() -> str:
    """The schema as it is kept in the documentation."""
    return json.dumps(world_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
