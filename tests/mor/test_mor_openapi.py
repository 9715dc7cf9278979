"""What the service says of MOR's calls."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from mor_requests import ERRORS, GET, GET_ERRORS, ORDER, UPDATE, answer, page, refused

TYPES = {"application/x-www-form-urlencoded", "application/json", "multipart/form-data"}
PARAMETERS = {UPDATE: {"u", "p", "hash", *ORDER}, GET: {"u", "p", "hash", "device_id"}}
TEXTS = {UPDATE: list(ERRORS.values()), GET: list(GET_ERRORS.values())}


@pytest.fixture
async def document(demo_service: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await demo_service.get("/openapi.json")).json())


@pytest.mark.parametrize("call", [UPDATE, GET])
def test_every_parameter_is_described_for_both_methods(document: dict[str, Any], call: str) -> None:
    content = document["paths"][call]["post"]["requestBody"]["content"]
    assert set(content) == TYPES
    for body in content.values():
        assert set(body["schema"]["properties"]) == PARAMETERS[call]
        assert all(described["description"] for described in body["schema"]["properties"].values())
    by_get = document["paths"][call]["get"]["parameters"]
    assert {parameter["name"] for parameter in by_get} == PARAMETERS[call]
    assert all(parameter["description"] and parameter["in"] == "query" for parameter in by_get)


def test_closed_choices_are_listed(document: dict[str, Any]) -> None:
    schema = document["paths"][UPDATE]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert schema["callflow_action"]["enum"] == ["empty", "forward", "fax_detect", "voicemail"]
    assert schema["state"]["enum"] == ["before_call", "no_answer", "failed", "busy"]


@pytest.mark.parametrize("call", [UPDATE, GET])
@pytest.mark.parametrize("method", ["post", "get"])
def test_every_error_is_shown_as_its_page(document: dict[str, Any], call: str, method: str) -> None:
    examples = document["paths"][call][method]["responses"]["200"]["content"]["application/xml"]["examples"]
    shown = {name: example["value"] for name, example in examples.items() if name != "success"}
    assert list(shown) == TEXTS[call]
    assert all(page(value) == refused(text) for text, value in shown.items())


@pytest.mark.parametrize("call", [UPDATE, GET])
@pytest.mark.parametrize("status", ["429", "503"])
def test_what_asks_to_come_again_says_when(document: dict[str, Any], call: str, status: str) -> None:
    described = document["paths"][call]["post"]["responses"][status]
    assert described["headers"]["Retry-After"]["schema"] == {"type": "integer"}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("call", [UPDATE, GET])
@pytest.mark.parametrize("content_type", sorted(TYPES))
async def test_the_example_works_on_the_demo_and_gives_the_page_shown(
    demo_service: httpx.AsyncClient, document: dict[str, Any], call: str, content_type: str
) -> None:
    described = document["paths"][call]["post"]
    example = described["requestBody"]["content"][content_type]["example"]
    shown = described["responses"]["200"]["content"]["application/xml"]["examples"]["success"]["value"]
    sending: dict[str, Callable[[], dict[str, Any]]] = {
        "application/json": lambda: {"json": example},
        "application/x-www-form-urlencoded": lambda: {"data": example},
        "multipart/form-data": lambda: {"files": {name: (None, value) for name, value in example.items()}},
    }
    assert answer(await demo_service.post(call, **sending[content_type]())) == page(shown)


def test_the_document_names_what_is_signed_in_its_order(document: dict[str, Any]) -> None:
    aliases = {"action": "callflow_action", "foward_to_device": "forward_to_device"}
    for call, order, found in ((UPDATE, list(ORDER), aliases), (GET, ["device_id"], {})):
        for operation in document["paths"][call].values():
            assert operation["x-signature"] == {"order": order, "aliases": found}
