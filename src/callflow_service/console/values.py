"""Read what is typed as NAME=VALUE into the JSON that the API takes."""

import json
import sys
from getpass import getpass
from typing import Any, Final

import typer

from callflow_service.resources.models import ITEMS, Section

PAIRS_HELP: Final = (
    "NAME=VALUE. Nothing after the = empties; commas part the entries of a list; a dot goes into an object "
    "(trunk.identity=forwarder); NAME:=JSON takes any JSON; of a secret, - reads one line, which a terminal asks for."
)


def fields(section: Section, pairs: list[str]) -> dict[str, Any]:
    """The object that the pairs make.

    Raises:
        typer.BadParameter: One of them is no pair, or says again what another one said.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip(":"):
            # It may be a secret that was typed in a wrong way, so it is not shown.
            raise typer.BadParameter("each must be NAME=VALUE", param_hint="FIELDS")
        if name.endswith(":"):
            name = name.removesuffix(":")
            value = _json(name, text)
        else:
            value = _value(section, name, text)
        _put(found, name, value)
    return found


def _put(found: dict[str, Any], name: str, value: object) -> None:
    *outer, last = name.split(".")
    for part in outer:
        inner = found.setdefault(part, {})
        if not isinstance(inner, dict):
            raise typer.BadParameter(f"{part} is there twice", param_hint="FIELDS")
        found = inner
    if last in found:
        raise typer.BadParameter(f"{name} is there twice", param_hint="FIELDS")
    found[last] = value


def _json(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        raise typer.BadParameter(f"{name} is not JSON", param_hint="FIELDS") from None


def _value(section: Section, name: str, text: str) -> object:
    field = ITEMS[section].model_fields.get(name)
    if field is not None and not field.repr and text == "-":
        return _secret(name)
    if not text:
        return None
    return [part.strip() for part in text.split(",")] if name in _lists(section) else text


def _lists(section: Section) -> set[str]:
    """The names of fields that are lists, those in an object with its name before them."""
    schema = ITEMS[section].model_json_schema()
    found = set()
    for name, field in schema["properties"].items():
        for choice in field.get("anyOf", [field]):
            if choice.get("type") == "array":
                found.add(name)
            inner = schema.get("$defs", {}).get(choice.get("$ref", "").rpartition("/")[2], {})
            found |= {f"{name}.{key}" for key, value in inner.get("properties", {}).items() if value.get("items")}
    return found


def _secret(name: str) -> str:
    if sys.stdin.isatty():
        return getpass(f"{name}: ")
    return sys.stdin.readline().removesuffix("\n")
