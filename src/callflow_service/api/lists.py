"""Pages of a list: how many, from where on, and where the next one is."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from callflow_service.api.problems import Problem
from callflow_service.domain.access import is_username
from callflow_service.domain.callflow import MAX_ID

MAX_LIMIT: Final = 1000
"""The longest page."""

Row = TypeVar("Row")


class Page(BaseModel):
    """Which part of a list is asked for."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="How many items at most")] = 100
    cursor: Annotated[str | None, Field(description="Where to go on, as `next` of the page before has it")] = None


def cursor_value(cursor: str | None, kind: type[Any]) -> Any:  # noqa: ANN401 - an id or a name
    """The key that a page begins after, None for the first page.

    Raises:
        Problem: `cursor-invalid`.
    """
    if cursor is None:
        return None
    try:
        value = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        raise Problem("cursor-invalid") from None
    if type(value) is not kind or not (is_username(value) if kind is str else 0 <= value <= MAX_ID):
        raise Problem("cursor-invalid")
    return value


def page_of(
    request: Request,
    rows: Sequence[Row],
    *,
    limit: int,
    key: Callable[[Row], object],
    shape: Callable[[Row], dict[str, Any]],
) -> Response:
    """The answer with one page, made of one row more than it shows where there are more."""
    shown = rows[:limit]
    following = None
    if len(rows) > limit:
        cursor = base64.urlsafe_b64encode(json.dumps(key(shown[-1])).encode()).decode().rstrip("=")
        query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        following = f"{request.url.path}?{urlencode([*query, ('cursor', cursor)])}"
    document = {"items": [shape(row) for row in shown], "next": following}
    headers = {"Link": f'<{following}>; rel="next"'} if following else {}
    body = json.dumps(document, default=str, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, headers=headers, media_type="application/json")
