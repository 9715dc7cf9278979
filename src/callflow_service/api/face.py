"""The JSON API as a face: its routes, what they work with, and its words for what fails."""

import json
from collections.abc import Awaitable, Callable, Iterator

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from callflow_service.api import callflow, resources, tokens
from callflow_service.api.dependencies import MAX_BODY, House
from callflow_service.api.problems import KINDS, MEDIA_TYPE, Problem, pages
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
        dependencies=[Depends(_at_hand(house))], generate_unique_id_function=lambda route: str(route.name)
    )
    for each in _routers():
        router.include_router(each)
    router.include_router(pages())
    return Face(
        name="json",
        prefixes=("/v1", "/problems"),
        router=router,
        calls=tuple(f"api.{route.name}" for route in router.routes if isinstance(route, APIRoute)),
        words={status: KINDS[slug].advice for status, slug in _SLUGS.items()},
        write=_problem,
        handlers={HTTPException: _answer_http},
        max_body=MAX_BODY,
        sheds=True,
    )


def _routers() -> Iterator[APIRouter]:
    yield tokens.router
    yield callflow.router
    yield from resources.routers()


def _at_hand(house: House) -> Callable[[Request], Awaitable[None]]:
    async def put(request: Request) -> None:
        request.state.house = house

    return put


async def _answer_http(request: Request, error: HTTPException) -> Response:
    """What the router says of an address that is not there, or does not take the method."""
    problem = Problem(_SLUGS.get(error.status_code, "internal"), headers=dict(error.headers or {}))
    request.scope["log"]["outcome"] = problem.slug
    return problem.response(str(request.scope["log"]["request_id"]))


def _problem(status: int, text: str) -> tuple[str, bytes]:
    slug = _SLUGS.get(status, "internal")
    document = {"type": f"/problems/{slug}", "title": KINDS[slug].title, "status": status, "detail": text}
    return MEDIA_TYPE, json.dumps(document).encode()
