"""The application that FastAPI makes of the faces, with one document and one explorer for all of them."""

from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.types import Lifespan

from callflow_service import __version__
from callflow_service.web.faces import Face, Faces, Handler
from callflow_service.web.failures import FAILURES, answer_failure
from callflow_service.web.request import BodyLimit

if TYPE_CHECKING:
    from callflow_service.watching.tracing import Tracing

_DESCRIPTION: Final = """\
Change what a device does with a call, through the HTTP call that MOR's clients make already.

The flow is in force on the next call: FreeSWITCH, Asterisk, Kamailio and OpenSIPS ask here where a call goes.

Every MOR call is signed. The explorer signs with the username and the API key given at its top; `callflow-service sign`
prints the signed string, the hash and the whole request.
"""


def application(
    faces: Faces, *, has_docs: bool, lifespan: "Lifespan[FastAPI] | None", tracing: "Tracing | None"
) -> FastAPI:
    """The application with the routes of all faces, each of which words its failures itself."""
    app: FastAPI = (FastAPIOffline if has_docs else FastAPI)(
        title="callflow-service",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url="/openapi.json" if has_docs else None,
        # The explorer has its own page, and takes Swagger UI itself from what FastAPIOffline serves.
        docs_url=None,
        redoc_url=None,
        telemetry={
            "tracing": tracing is not None,
            "tracer_provider": tracing.provider if tracing else None,
            # Our own metrics know more, and its logs would quote exceptions.
            "metrics": False,
            "logs": False,
            "auto_configure": False,
        },
    )
    if tracing:
        from callflow_service.watching.tracing import TraceAndLog  # noqa: PLC0415 - the packages of the extra `tracing`

        app.add_middleware(TraceAndLog)
    app.add_middleware(BodyLimit)
    for face in faces.all:
        app.include_router(face.router)
        app.webhooks.include_router(face.webhooks)
    for failure in FAILURES:
        app.add_exception_handler(failure, answer_failure)
    for kind in {kind for face in faces.all for kind in face.handlers}:
        app.add_exception_handler(kind, _by_face(kind, app.exception_handlers.get(kind)))
    app.add_exception_handler(Exception, _answer_defect)
    _name_security_schemes(app, faces)
    return app


def _by_face(kind: type[Exception], otherwise: Any) -> Handler:  # noqa: ANN401 - Starlette's handlers have several shapes
    """Have an error answered by the face in which it happened, else by `otherwise`."""

    async def answer(request: Request, error: Exception) -> Response:
        handler = request.scope["face"].handlers.get(kind, otherwise)
        if handler is None:
            raise error
        response: Response = await handler(request, error)
        return response

    return answer


async def _answer_defect(request: Request, _: Exception) -> Response:
    face: Face = request.scope["face"]
    return face.failure(500, request.scope["log"]["request_id"])


def _name_security_schemes(app: FastAPI, faces: Faces) -> None:
    """Add the faces' security schemes and schemas to the OpenAPI document, which is made on first request."""
    make_document = app.openapi

    def openapi() -> dict[str, Any]:
        document = make_document()
        components = document.setdefault("components", {})
        for face in faces.all:
            components.setdefault("securitySchemes", {}).update(face.security_schemes)
            components.setdefault("schemas", {}).update(face.schemas)
            components.setdefault("responses", {}).update(face.responses)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document
