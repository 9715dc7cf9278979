"""Make resources of a world file's items, and say in which line one is wrong."""

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from callflow_service.resources.models import MODELS, Item, TemplateError, TrunkItem
from callflow_service.world.errors import WorldError
from callflow_service.world.reading import RawItem, shown_key

_TRUNK: Final = "trunk"


def parse_item(raw: RawItem, file: Path) -> Item:
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
    "model_type": f"must be a mapping with the keys {', '.join(TrunkItem.model_fields)}",
    "dict_type": "must be a mapping of template names to templates",
    "list_type": "must be a list",
}
"""What is said of an error that needs no more words, by pydantic's name for it."""


def _problem(raw: RawItem, model: type[BaseModel], details: ErrorDetails) -> tuple[int, str]:
    key = str(details["loc"][0])
    if key == _TRUNK and len(details["loc"]) > 1:
        key, model = f"{_TRUNK}.{details['loc'][1]}", TrunkItem
    cause = details.get("ctx", {}).get("error")
    inner = ".".join(map(str, details["loc"]))
    if isinstance(cause, TemplateError):
        inner = f"{key}.{cause.key}"
    line = raw.lines.get(inner, raw.lines.get(key, raw.lines.get(_TRUNK, raw.line)))
    match details["type"]:
        case "extra_forbidden":
            sentence = f"is not known here; the keys are {', '.join(model.model_fields)}"
        case "value_error":
            sentence = str(cause)
        case "enum":
            sentence = "must be " + details["ctx"]["expected"].replace("'", "")
        case "too_long":
            sentence = f"must be at most {details['ctx']['max_length']} addresses and networks"
        case other:
            sentence = _SENTENCES.get(other, "must be a single value, not a list or a mapping")
    is_shown = all(shown_key(part) for part in key.split("."))
    return line, f"{raw.place}.{key}: {sentence}." if is_shown else f"{raw.place}: a key {sentence}."
