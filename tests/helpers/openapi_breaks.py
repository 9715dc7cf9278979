"""What a change of the OpenAPI document would break in clients that were made for it as it was.

Operations, optional parameters and fields, and values of an enumeration may come. None may go, and nothing that was
taken may be refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Document = dict[str, Any]

_METHODS: Final = ("get", "put", "post", "delete", "patch")
_MOST: Final = ("maxLength", "maximum", "exclusiveMaximum", "maxItems", "maxProperties")
_LEAST: Final = ("minLength", "minimum", "exclusiveMinimum", "minItems", "minProperties")
_NAME: Final = re.compile(r"\{[^}]*\}")


def breaks(old: Document, new: Document) -> list[str]:
    """One line for each thing that clients of `old` would miss in `new`."""
    return list(_Comparison(old, new).operations())


@dataclass
class _Comparison:
    old: Document
    new: Document
    in_work: set[tuple[str, str, str]] = field(default_factory=set)

    def operations(self) -> Iterator[str]:
        found = {_NAME.sub("{}", path): item for path, item in self.new["paths"].items()}
        for path, item in self.old["paths"].items():
            for method in _METHODS:
                if method not in item:
                    continue
                call = f"{method.upper()} {path}"
                operation = found.get(_NAME.sub("{}", path), {}).get(method)
                if operation is None:
                    yield f"{call} is gone"
                else:
                    yield from (f"{call}: {each}" for each in self._operation(item[method], operation))

    def _operation(self, old: Document, new: Document) -> Iterator[str]:
        if old.get("operationId") != new.get("operationId"):
            yield f"its operationId was {old.get('operationId')}"
        yield from self._parameters(old.get("parameters", []), new.get("parameters", []))
        old_body, new_body = old.get("requestBody", {}), new.get("requestBody", {})
        if new_body.get("required") and not old_body.get("required"):
            yield "its body was optional"
        yield from self._contents(old_body, new_body, "request", "body")
        for status, answer in old["responses"].items():
            if status not in new["responses"]:
                yield f"status {status} is gone"
            else:
                yield from self._contents(answer, new["responses"][status], "response", status)

    def _parameters(self, old: list[Document], new: list[Document]) -> Iterator[str]:
        # What stands in the path has its place there, and its name is only for people.
        def named(parameters: list[Document]) -> dict[tuple[str, object], Document]:
            places = [each for each in parameters if each["in"] == "path"]
            by_place: dict[tuple[str, object], Document] = {("path", at): each for at, each in enumerate(places)}
            return by_place | {(each["in"], each["name"]): each for each in parameters if each["in"] != "path"}

        was, is_now = named(old), named(new)
        for key, parameter in was.items():
            if key not in is_now:
                yield f"parameter {parameter['name']} is gone"
            else:
                schemas = parameter.get("schema", {}), is_now[key].get("schema", {})
                yield from self._schema(*schemas, "request", f"parameter {parameter['name']}")
        for key, parameter in is_now.items():
            if parameter.get("required") and not was.get(key, {}).get("required"):
                yield f"parameter {parameter['name']} was not needed"

    def _contents(self, old: Document, new: Document, way: Literal["request", "response"], place: str) -> Iterator[str]:
        old, new = _resolved(self.old, old), _resolved(self.new, new)
        for media_type, content in old.get("content", {}).items():
            if media_type not in new.get("content", {}):
                yield f"{place} is no longer {media_type}"
            else:
                schemas = content.get("schema", {}), new["content"][media_type].get("schema", {})
                yield from self._schema(*schemas, way, place)

    def _schema(self, old: Document, new: Document, way: Literal["request", "response"], place: str) -> Iterator[str]:
        names = (str(old.get("$ref")), str(new.get("$ref")), way)
        if "$ref" in old and "$ref" in new:
            if names in self.in_work:
                return
            self.in_work.add(names)
        try:
            yield from self._branches(old, new, way, place)
        finally:
            if "$ref" in old and "$ref" in new:
                self.in_work.discard(names)

    def _branches(self, old: Document, new: Document, way: Literal["request", "response"], place: str) -> Iterator[str]:
        was, is_now = _branches_of(self.old, old), _branches_of(self.new, new)
        if len(was) == len(is_now) == 1:
            yield from self._plain(was[0], is_now[0], way, place)
            return
        for branch in was:
            tried = [list(self._plain(branch, each, way, place)) for each in is_now]
            if [] not in tried:
                # The one that is meant is the one that comes nearest.
                yield from min(tried, key=len)
        if way == "response" and _takes_null(is_now) and not _takes_null(was):
            yield f"{place} was never null"

    def _plain(self, old: Document, new: Document, way: Literal["request", "response"], place: str) -> Iterator[str]:
        if "type" in new and old.get("type") != new["type"] and (way == "request" or "type" in old):
            yield f"{place} was {old.get('type', 'anything')}"
            return
        was_values, values = _values(old), _values(new)
        if values is not None and (was_values is None or not was_values <= values):
            gone = "anything" if was_values is None else ", ".join(sorted(was_values - values))
            yield f"{place} was also {gone}"
        if way == "request":
            yield from _narrowed(old, new, place)
        fields, new_fields = old.get("properties", {}), new.get("properties", {})
        for name, schema in fields.items():
            inner = f"{place}.{name}"
            if name not in new_fields:
                yield f"{inner} is gone"
            else:
                yield from self._schema(schema, new_fields[name], way, inner)
        was_needed, needed = set(old.get("required", [])), set(new.get("required", []))
        missed = needed - was_needed if way == "request" else was_needed - needed
        for name in sorted(missed & (set(new_fields) if way == "request" else set(fields) & set(new_fields))):
            yield f"{place}.{name} was {'not needed' if way == 'request' else 'always there'}"
        for inside in ("items", "additionalProperties"):
            if isinstance(old.get(inside), dict) and isinstance(new.get(inside), dict):
                yield from self._schema(old[inside], new[inside], way, f"{place}[]")
        if way == "request" and new.get("additionalProperties") is False and old.get("additionalProperties", True):
            yield f"{place} took other fields too"


def _resolved(document: Document, part: Document) -> Document:
    for name in part.get("$ref", "").split("/")[1:]:
        document = document[name]
    return document if "$ref" in part else part


def _branches_of(document: Document, schema: Document) -> list[Document]:
    """The schemas one of which a value is of, without references at their top."""
    if "$ref" in schema:
        return _branches_of(document, _resolved(document, schema))
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return [branch for each in schema[choice] for branch in _branches_of(document, each)]
    if isinstance(schema.get("type"), list):
        return [schema | {"type": each} for each in schema["type"]]
    if len(schema.get("allOf", [])) == 1:
        return _branches_of(document, schema["allOf"][0])
    return [schema]


def _takes_null(branches: list[Document]) -> bool:
    return any(branch.get("type", "null") == "null" for branch in branches)


def _values(schema: Document) -> set[str] | None:
    if "const" in schema:
        return {str(schema["const"])}
    return {str(each) for each in schema["enum"]} if "enum" in schema else None


def _narrowed(old: Document, new: Document, place: str) -> Iterator[str]:
    for name in _MOST:
        if name in new and (name not in old or new[name] < old[name]):
            yield f"{place}: its {name} was {old.get(name, 'not set')}"
    for name in _LEAST:
        if name in new and new[name] > old.get(name, 0 if name != "minimum" else float("-inf")):
            yield f"{place}: its {name} was {old.get(name, 'not set')}"
    for name in ("pattern", "format"):
        if name in new and new[name] != old.get(name):
            yield f"{place}: its {name} was {old.get(name, 'not set')}"
