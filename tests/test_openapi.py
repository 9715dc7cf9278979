"""The OpenAPI document: kept in the tree, so that each change of it is seen, and broken for nobody who relies on it."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest
import pytest_asyncio

from openapi_breaks import breaks
from openapi_document import kept, made

Document = dict[str, Any]


@pytest_asyncio.fixture(scope="module")
async def document() -> Document:
    return await made()


def calls(document: Document) -> Iterator[tuple[str, Document]]:
    """The JSON API's calls, by method and path."""
    for path, item in document["paths"].items():
        if path.startswith("/v1/"):
            yield from ((f"{method.upper()} {path}", operation) for method, operation in item.items())


def schema(document: Document, name: str) -> Document:
    found: Document = document["components"]["schemas"][name]
    return found


def test_no_client_is_broken(document: Document) -> None:
    assert breaks(kept(), document) == []


def test_the_kept_document_is_the_served_one(document: Document) -> None:
    assert kept() == document, "make openapi"


def test_every_call_has_a_name_of_its_own_and_says_what_it_does(document: Document) -> None:
    named = [operation["operationId"] for _, operation in calls(document)]
    assert len(named) == len(set(named))
    for call, operation in calls(document):
        assert operation["operationId"].isidentifier(), call
        assert operation["description"].endswith("."), call


def test_every_answer_has_a_model_with_a_name(document: Document) -> None:
    for call, operation in calls(document):
        for status, answer in operation["responses"].items():
            if status in {"200", "201", "202"}:
                for media_type, content in answer["content"].items():
                    assert set(content["schema"]) == {"$ref"} or media_type == "text/event-stream", call
            elif status not in {"204", "304"}:
                assert answer["$ref"] == f"#/components/responses/Problem{status}", call
        assert operation["responses"].keys() >= {"401", "403", "404", "422", "429", "503"}


def test_every_body_has_an_example_that_is_valid(document: Document) -> None:
    for call, operation in calls(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "example" in content, call
            jsonschema.validate(content["example"], content["schema"] | {"components": document["components"]})


def gone(document: Document) -> None:
    del document["paths"]["/v1/devices/{device_id}"]["delete"]


def renamed(document: Document) -> None:
    document["paths"]["/v1/devices"]["get"]["operationId"] = "devices"


def without_a_filter(document: Document) -> None:
    parameters = document["paths"]["/v1/devices"]["get"]["parameters"]
    parameters[:] = [each for each in parameters if each["name"] != "owner"]


def with_a_must(document: Document) -> None:
    parameters = document["paths"]["/v1/devices"]["get"]["parameters"]
    parameters.append({"name": "colour", "in": "query", "required": True, "schema": {"type": "string"}})


def with_a_smaller_page(document: Document) -> None:
    parameters = document["paths"]["/v1/devices"]["get"]["parameters"]
    next(each for each in parameters if each["name"] == "limit")["schema"]["maximum"] = 10


def without_a_shown_field(document: Document) -> None:
    del schema(document, "ShownDevice")["properties"]["label"]


def with_a_field_that_may_be_absent(document: Document) -> None:
    schema(document, "ShownDevice")["required"].remove("owner")


def with_a_field_that_may_be_null(document: Document) -> None:
    schema(document, "ShownDevice")["properties"]["owner"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}


def with_a_field_of_another_type(document: Document) -> None:
    schema(document, "ShownDid")["properties"]["number"] = {"type": "integer"}


def with_a_needed_field(document: Document) -> None:
    schema(document, "NewDevice")["required"].append("caller_name")


def without_a_field_that_was_taken(document: Document) -> None:
    del schema(document, "DeviceChanges")["properties"]["ring_seconds"]


def without_a_value(document: Document) -> None:
    schema(document, "Role")["enum"].remove("accountant")


def without_a_kind_of_action(document: Document) -> None:
    otherwise = schema(document, "SentState")["properties"]["otherwise"]
    otherwise["oneOf"] = [each for each in otherwise["oneOf"] if not each["$ref"].endswith("VoicemailAction")]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (gone, "DELETE /v1/devices/{device_id} is gone"),
        (renamed, "GET /v1/devices: its operationId was list_devices"),
        (without_a_filter, "GET /v1/devices: parameter owner is gone"),
        (with_a_must, "GET /v1/devices: parameter colour was not needed"),
        (with_a_smaller_page, "GET /v1/devices: parameter limit: its maximum was 1000"),
        (without_a_shown_field, "GET /v1/devices/{device_id}: 200.label is gone"),
        (with_a_field_that_may_be_absent, "GET /v1/devices/{device_id}: 200.owner was always there"),
        (with_a_field_that_may_be_null, "GET /v1/devices/{device_id}: 200.owner was never null"),
        (with_a_field_of_another_type, "GET /v1/dids/{did_id}: 200.number was string"),
        (with_a_needed_field, "POST /v1/devices: body.caller_name was not needed"),
        (without_a_field_that_was_taken, "PATCH /v1/devices/{device_id}: body.ring_seconds is gone"),
        (without_a_value, "GET /v1/accounts: parameter role was also accountant"),
        (without_a_kind_of_action, "PUT /v1/devices/{device_id}/callflow/{state}: body.otherwise"),
    ],
)
def test_what_breaks_clients_is_told(document: Document, change: Callable[[Document], None], told: str) -> None:
    changed = copy.deepcopy(document)
    change(changed)
    assert any(each.startswith(told) for each in breaks(document, changed))


def test_what_comes_besides_breaks_nobody(document: Document) -> None:
    changed = copy.deepcopy(document)
    changed["paths"]["/v1/colours"] = copy.deepcopy(changed["paths"]["/v1/dids"])
    schema(changed, "ShownDevice")["properties"]["colour"] = {"type": "string"}
    schema(changed, "ShownDevice")["required"].append("colour")
    schema(changed, "NewDevice")["properties"]["colour"] = {"type": "string"}
    schema(changed, "Role")["enum"].append("guest")
    assert breaks(document, changed) == []
