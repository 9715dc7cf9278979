"""The JSON API as a face: its routes, what they work with, and its words for what fails."""

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http import HTTPStatus

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from callflow_service.api import (
    alerts,
    api_keys,
    bulk,
    callflow,
    changes,
    conditions,
    locking,
    profiles,
    resources,
    tokens,
    trial_calls,
    webhooks,
)
from callflow_service.api.dependencies import MAX_BODY, ApiRoute, House
from callflow_service.api.document import PROBLEMS, describe
from callflow_service.api.problems import KINDS, MEDIA_TYPE, Problem, pages
from callflow_service.api.shapes import ProblemDocument
from callflow_service.web.faces import Face

_SLUGS = {
    400: "unreadable",
    404: "not-found",
    405: "method-not-allowed",
    408: "unreadable",
    413: "too-large",
    429: "too-many-guesses",
    500: "internal",
    503: "unavailable",
}


def api_face(house: House) -> Face:
    """The face that works with `house`."""
    router = APIRouter(
        dependencies=[Depends(_at_hand(house))],
        generate_unique_id_function=lambda route: str(route.name),
    )
    # FastAPI keeps an included router as it is, so its routes are listed here.
    groups = [*routers(), pages()]
    routes = [route for each in groups for route in each.routes if isinstance(route, APIRoute)]
    for route in routes:
        if isinstance(route, ApiRoute):
            describe(route)
    for each in groups:
        router.include_router(each)
    return Face(
        name="json",
        prefixes=("/v1", "/problems"),
        router=router,
        webhooks=webhooks.messages,
        calls=tuple(f"api.{route.name}" for route in routes if isinstance(route, ApiRoute)),
        words={status: KINDS[slug].advice for status, slug in _SLUGS.items()},
        write=_problem,
        handlers={HTTPException: _answer_http(routes)},
        schemas=models_json_schema([(ProblemDocument, "serialization")], ref_template="#/components/schemas/{model}")[
            1
        ]["$defs"],
        responses=PROBLEMS,
        max_body=MAX_BODY,
        sheds=True,
    )


def routers() -> Iterator[APIRouter]:
    """The routes of the API, a line for each group."""
    yield tokens.router
    yield callflow.router
    yield trial_calls.router
    yield changes.router
    yield api_keys.router
    yield from resources.routers()
    yield bulk.router
    yield from profiles.routers()
    yield from conditions.routers()
    yield locking.router
    yield alerts.router
    yield webhooks.router


def _at_hand(house: House) -> Callable[[Request], Awaitable[None]]:
    async def put(request: Request) -> None:
        request.state.house = house

    return put


def _answer_http(routes: Sequence[APIRoute]) -> Callable[[Request, HTTPException], Awaitable[Response]]:
    """What the router says of an address that is not there, or does not take the method."""

    async def answer(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            path = request.url.path
            taken = {each for route in routes if route.path_regex.match(path) for each in route.methods or ()}
            headers["Allow"] = ", ".join(sorted(taken))
        problem = Problem(_SLUGS.get(error.status_code, "internal"), headers=headers)
        request.scope["log"]["outcome"] = problem.slug
        return problem.response(str(request.scope["log"]["request_id"]))

    return answer


def _problem(status: int, text: str, request_id: str) -> tuple[str, bytes]:
    slug = _SLUGS.get(status, "internal")
    document = {
        "type": f"/problems/{slug}",
        "title": KINDS[slug].title,
        "status": status,
        "detail": text,
        "instance": request_id,
    }
    return MEDIA_TYPE, json.dumps(document).encode()
