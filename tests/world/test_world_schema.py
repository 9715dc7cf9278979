"""The JSON Schema in the documentation is the models', and agrees with the loader."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from callflow_service.world.loading import DEMO_FILE
from callflow_service.world.schema import schema_text, world_schema

DOCUMENTED = Path(__file__).parents[2] / "docs" / "world.schema.json"


def test_the_documented_schema_is_the_models() -> None:
    assert DOCUMENTED.read_text() == schema_text(), (
        "run: python -m callflow_service.world.schema > docs/world.schema.json"
    )


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(world_schema())


def test_the_demo_is_right_by_the_schema() -> None:
    jsonschema.validate(yaml.safe_load(DEMO_FILE.read_text()), world_schema())


@pytest.mark.parametrize(
    "world",
    [
        {"device": []},
        {"dids": [{"id": 1}]},
        {"dids": [{"id": -1, "number": "1"}]},
        {"dids": [{"id": 1, "number": "*#"}]},
        {"dids": [{"id": 1, "number": "1", "color": "red"}]},
        {"devices": [{"id": 1, "technology": "SIP", "name": " 1", "owner": "a"}]},
        {"devices": [{"id": 1, "technology": "SIP", "name": "1", "owner": "a", "ring_seconds": 0}]},
        {"accounts": [{"id": 1, "username": "a", "role": "boss"}]},
        {"accounts": [{"id": 1, "username": "a", "role": "admin", "allowed_addresses": "192.0.2.1"}]},
        {"accounts": [{"id": 1, "username": "a", "role": "admin", "allowed_addresses": ["example.com"]}]},
        {"accounts": [{"id": 1, "username": "a", "role": "admin", "allowed_addresses": ["192.0.2.1"] * 101}]},
        {"switches": [{"username": "a", "password": "b", "dial": {"SIP": "a b"}}]},
        {"switches": [{"username": "a", "password": "b", "dial": {"S-P": "a"}}]},
    ],
    ids=json.dumps,
)
def test_the_schema_refuses_what_the_loader_refuses(world: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(world, world_schema())
