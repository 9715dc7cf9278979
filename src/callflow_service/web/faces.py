"""The shape of a face, and the one place that tells which face a path belongs to."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from callflow_service.web.headers import SECURITY_HEADERS, Headers

WORDS: Final[Mapping[int, str]] = {
    400: "Request cannot be read",
    408: "Request did not arrive in time",
    413: "Request body is too large",
    429: "Too many wrong requests, try again later",
    500: "Internal error",
    503: "Service is temporarily unavailable",
}
"""Our texts for failed statuses for which a face has no words of its own; else it is HTTP's phrase."""

_SLASHES: Final = re.compile("/{2,}")

Handler = Callable[[Request, Any], Awaitable[Response]]


def _as_detail(_status: int, text: str, _request_id: str) -> tuple[str, bytes]:
    return "application/json", orjson.dumps({"detail": text})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Face:
    """One of the service's faces: its paths, its routes, and its words for what fails.

    Attributes:
        name: The face, as metrics call it.
        prefixes: The paths that are the face's, with everything below them.
        router: Its routes.
        webhooks: What it sends to others by itself, for the document.
        calls: Its calls, as log lines and metrics name them. A route whose name is one of them is counted by it.
        fast: Those of its routes that go past FastAPI: they have no security, dependencies or parameters in the path.
        words: Its texts for failed statuses; those of `WORDS` for the rest.
        write: The media type and the body of a failure, by its status, its text and the request's id.
        handlers: How it answers errors of its own, those of FastAPI's included.
        headers: The security headers of its answers.
        security_schemes: Its callers' credentials as the OpenAPI document has them, beside those that FastAPI finds.
        schemas: Schemas that its routes refer to by name, beside those that FastAPI finds.
        responses: Answers that its routes refer to by name.
        max_body: The largest request body that is read, in bytes.
        sheds: Whether its requests are refused unread while too much is in work.
        is_tolerant: Whether doubled slashes in a path count as one, and trailing ones are dropped.
    """

    name: str
    prefixes: tuple[str, ...]
    router: APIRouter = field(default_factory=APIRouter)
    webhooks: APIRouter = field(default_factory=APIRouter)
    calls: tuple[str, ...] = ()
    fast: tuple[APIRoute, ...] = ()
    words: Mapping[int, str] = field(default_factory=dict)
    write: Callable[[int, str, str], tuple[str, bytes]] = _as_detail
    handlers: Mapping[type[Exception], Handler] = field(default_factory=dict)
    headers: Headers = SECURITY_HEADERS
    security_schemes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    schemas: Mapping[str, Any] = field(default_factory=dict)
    responses: Mapping[str, Any] = field(default_factory=dict)
    max_body: int = 64 * 1024
    sheds: bool = False
    is_tolerant: bool = False

    def text(self, status: int) -> str:
        """The face's text for a failed status."""
        return self.words.get(status) or WORDS.get(status) or HTTPStatus(status).phrase

    def failure(self, status: int, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
        """The answer to a request that failed outside the face's own endpoints."""
        media_type, body = self.write(status, self.text(status), request_id)
        return Response(body, status, headers, media_type)

    def methods(self, path: str) -> str:
        """The methods that a path takes, as `Allow` lists them: the router knows one route's methods alone."""
        routes = [route for route in self.router.routes if isinstance(route, APIRoute)]
        return ", ".join(
            sorted({each for route in routes if route.path_regex.match(path) for each in route.methods or ()})
        )


NOBODYS: Final = Face(name="other", prefixes=())
"""Everything that belongs to no face: health, metrics, and paths that do not exist."""


class Faces:
    """All faces of the service, and which of them a path belongs to."""

    def __init__(self, faces: Iterable[Face]) -> None:
        self.all: Final = tuple(faces)
        # Most requests are for these paths as they are, and found by one look.
        self._routes = {
            route.path: face for face in self.all for route in face.router.routes if isinstance(route, APIRoute)
        }
        prefixes = [(f"{prefix}/", face) for face in self.all for prefix in face.prefixes]
        # The longest first: a face may have its paths below another one's.
        self._prefixes = sorted(prefixes, key=lambda found: -len(found[0]))

    def of(self, path: str) -> Face:
        """The face that a path belongs to, also where its slashes are doubled."""
        if (known := self._routes.get(path)) is not None:
            return known
        path = f"{plain(path)}/"
        for prefix, face in self._prefixes:
            if path.startswith(prefix):
                return face
        return NOBODYS

    def of_target(self, target: bytes) -> Face:
        """The same for a request's target as it came over the wire: a path, and perhaps a query."""
        return self.of(target.partition(b"?")[0].decode("latin-1"))

    @property
    def calls(self) -> dict[str, str]:
        """Every call, and the name of its face."""
        return {call: face.name for face in self.all for call in face.calls}


def plain(path: str) -> str:
    """A path with doubled slashes reduced to one and without trailing ones."""
    return (_SLASHES.sub("/", path) if "//" in path else path).rstrip("/")
