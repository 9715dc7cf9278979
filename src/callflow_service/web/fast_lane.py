"""Hand the requests that a call waits for straight to their endpoints, past FastAPI."""

import inspect
from collections.abc import Awaitable, Callable, Iterable

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from callflow_service.web.faces import Face
from callflow_service.web.failures import FAILURES, answer_failure


class FastLane:
    """Hands a request straight to its endpoint where path and method name one; all others go on to the application.

    Matching these routes among all others, solving dependencies that they do not have and keeping exit stacks that stay
    empty would cost a request more than its decision does.

    Args:
        app: What answers all other requests.
        faces: Each names the routes that go this way. Their endpoints take the request, return the response, and
            need nothing else.

    Raises:
        ValueError: A route has dependencies, which would be skipped, and its security with them.
    """

    def __init__(self, app: ASGIApp, faces: Iterable[Face]) -> None:
        self._app = app
        self._endpoints: dict[tuple[str, str], Callable[[Request], Awaitable[Response]]] = {}
        for route in (route for face in faces for route in face.fast):
            taken = [parameter.annotation for parameter in inspect.signature(route.endpoint).parameters.values()]
            if route.dependencies or taken != [Request]:
                raise ValueError(f"{route.path} needs what FastAPI does for a route; it cannot go the fast way")
            self._endpoints |= {(method, route.path): route.endpoint for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        endpoint = self._endpoints.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await endpoint(request)
        except FAILURES as error:
            response = await answer_failure(request, error)
        await response(scope, receive, send)
