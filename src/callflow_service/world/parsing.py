"""Make resources of a world file's items, and say in which line one is wrong."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from callflow_service.resources.kept import AS_STORED, MODELS, KeptItem
from callflow_service.resources.models import (
    ExceptionDays,
    HolidaysOf,
    Hours,
    TargetsItem,
    TemplateError,
    TrunkItem,
    WeeklyHours,
)
from callflow_service.world.errors import WorldError
from callflow_service.world.reading import RawItem, is_shown_place

_HOURS: Final = "hours"
# The keys that are mappings or lists of them, and the keys that stand in these. Of the first the whole key is told of
# that is wrong in a message, of the others the place within it too.
_INNER: Final = {"trunk": tuple(TrunkItem.model_fields), "targets": tuple(TargetsItem.model_fields)}
_NESTED: Final = {
    "weekly": tuple(WeeklyHours.__annotations__),
    "exceptions": tuple(ExceptionDays.__annotations__),
    _HOURS: tuple(Hours.__annotations__),
    "holidays": tuple(HolidaysOf.__annotations__),
}
_STATES: Final = "states"
_COUNTED: Final = {"allowed_addresses": "addresses and networks"}


def parse_item(raw: RawItem, file: Path) -> KeptItem:
    """The item as its section's model has it.

    Raises:
        WorldError: It says something that it cannot say; of several things the first in the file.
    """
    model = MODELS[raw.section]
    # A key without a value is as good as none, but it must be a known one.
    fields = {key: value for key, value in raw.fields.items() if value is not None or key not in model.model_fields}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        problems = [_problem(raw, model, details) for details in error.errors(include_url=False, include_input=False)]
    line, sentence = min(problems, key=lambda problem: problem[0])
    raise WorldError(file, line, sentence)


_SENTENCES: Final = {
    "missing": "is missing",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a mapping of template names to templates",
    "list_type": "must be a list",
    "int_parsing": "must be a whole number",
    "too_short": "must not be empty",
}
"""What is said of an error that needs no more words, by pydantic's name for it."""


def _problem(raw: RawItem, model: type[BaseModel], details: ErrorDetails) -> tuple[int, str]:
    place = details["loc"]
    outer = str(place[0])
    keys, key = tuple(sorted(model.model_fields, key=lambda name: name in AS_STORED)), outer
    if outer in _INNER:
        keys = _INNER[outer]
        key = ".".join(map(str, place[:2]))
    elif outer in _NESTED:
        keys = _NESTED[_HOURS if _HOURS in place[:-1] else outer]
        key = ".".join(map(str, place))
    elif outer == _STATES:
        keys, key = (), _as_written(raw, place)
        place = tuple(key.split("."))
    cause = details.get("ctx", {}).get("error")
    wrong = f"{key}.{cause.key}" if isinstance(cause, TemplateError) else ".".join(map(str, place))
    sentence = _sentence(details, outer, keys)
    told = f"{raw.place}.{key}: {sentence}." if is_shown_place(key) else f"{raw.place}: a key {sentence}."
    return _line(raw, wrong), told


def _as_written(raw: RawItem, place: tuple[int | str, ...]) -> str:
    """A place in the file, without the names of the choices that led to it."""
    path = str(place[0])
    for at, part in enumerate(place[1:], 2):
        if f"{path}.{part}" in raw.lines or at == len(place):
            path = f"{path}.{part}"
    return path


def _line(raw: RawItem, place: str) -> int:
    """The line of a place, else of what it is in."""
    while place:
        if place in raw.lines:
            return raw.lines[place]
        place = place.rpartition(".")[0]
    return raw.line


def _sentence(details: ErrorDetails, outer: str, keys: Iterable[str]) -> str:
    context = details.get("ctx", {})
    kind = details["type"]
    listed = ", ".join(keys)
    sentences = {
        "extra_forbidden": f"is not known here; the keys are {listed}" if listed else "is not known here",
        "union_tag_invalid": f"must be one of {context.get('expected_tags')}".replace("'", ""),
        "union_tag_not_found": "is missing",
        "value_error": str(context.get("error")),
        "too_long": f"must be at most {context.get('max_length')} {_COUNTED.get(outer, 'entries')}",
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "less_than_equal": f"must be at most {context.get('le')}",
    }
    if kind in {"enum", "literal_error"}:
        return "must be " + str(context["expected"]).replace("'", "")
    if kind in {"model_type", "dict_type"} and (outer in _INNER or outer in _NESTED):
        return f"must be a mapping with the keys {listed}"
    return sentences.get(kind) or _SENTENCES.get(kind, "must be a single value, not a list or a mapping")
