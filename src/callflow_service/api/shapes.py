"""Shapes that several resources share, and how they are written."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Response
from pydantic import BaseModel, Field, PlainSerializer

from callflow_service.domain.callflow import MAX_ID


def written_moment(moment: datetime) -> str:
    """RFC 3339 in UTC, with a Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(written_moment, return_type=str, when_used="json")]
"""A point in time, written as RFC 3339 in UTC with a Z."""

Id = Annotated[int, Field(ge=0, le=MAX_ID)]
"""The id of something: what PostgreSQL's `bigint` holds."""

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""A text that PostgreSQL can look for."""


class WrongField(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(examples=["otherwise.to.device"])
    message: str


class ProblemDocument(BaseModel):
    """Why it could not be done (RFC 9457)."""

    type: str = Field(examples=["/problems/not-found"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="The request's id")
    errors: list[WrongField] | None = None


def as_json(document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A document as an answer."""
    body = json.dumps(document, ensure_ascii=False, default=str).encode("utf-8", "replace")
    return Response(body, status, headers, "application/json")
