"""Put the house together: the faces on one application, and what is around every request."""

import gc
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from callflow_service import __version__
from callflow_service.database import Database, Reading, schema_problem
from callflow_service.domain.errors import StorageUnavailable
from callflow_service.logs import configure_logging
from callflow_service.mor.face import PREFIXES, MorFace
from callflow_service.passwords import Passwords
from callflow_service.requests import EachRequest, Endpoint, FastLane, TolerantPath
from callflow_service.service import CallFlows, Calls
from callflow_service.settings import Settings, load_settings
from callflow_service.switch import documentation
from callflow_service.switch.face import SwitchFace
from callflow_service.switch_users import SwitchUsers

_DESCRIPTION: Final = """\
Change what a device does with a call, through the HTTP call that MOR's clients make already.

The flow is in force on the next call: FreeSWITCH, Asterisk, Kamailio and OpenSIPS ask here where a call goes.

Every MOR call is signed; `callflow-service sign` prints the signed string, the hash and the whole request.
"""


def create_app(settings: Settings) -> ASGIApp:
    """The application, ready to be served. It connects to the database when it is first asked something."""
    database = Database(
        settings.database_url,
        pool_size=settings.pool_size,
        timeout_ms=settings.database_timeout_ms,
        max_in_flight=settings.max_in_flight,
    )
    reading = _reading(settings, database)
    mor = MorFace(
        call_flows=CallFlows(database, settings.api_enabled, settings.hash_policy, Passwords()),
        allow_get=settings.allow_get,
        envelope=settings.error_envelope,
    )
    switches = SwitchFace(
        users=SwitchUsers(reading),
        calls=Calls(reading, settings.technologies, settings.max_diversions, settings.ring_seconds),
        timeout_ms=settings.switch_timeout_ms,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # What is there by now stays, and requests leave next to nothing behind: the collector need not look so often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        yield
        await reading.close()
        await database.close()

    app = FastAPIOffline(
        title="callflow-service",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        # ReDoc asks for its logo elsewhere, whatever it is served from.
        redoc_url=None,
    )
    faces = (mor.router(), switches.router())
    for face in faces:
        app.include_router(face)
    _add_health(app, database)
    _name_security_scheme(app)

    def is_mor(path: str) -> bool:
        return any(path == prefix or path.startswith(prefix + "/") for prefix in PREFIXES)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        if not is_mor(request.url.path) or error.status_code not in {404, 405}:
            return await http_exception_handler(request, error)
        headers = {"Allow": "GET, POST"} if error.status_code == 405 else None  # noqa: PLR2004 - an HTTP status
        return mor.failed_transport(error.status_code, headers=headers)

    def overloaded(path: str) -> Response | None:
        # What a switch is answered depends on its question, so its questions are refused where that is known.
        return mor.unavailable() if database.is_full and is_mor(path) else None

    def defect(path: str) -> Response:
        return mor.failed_transport(500) if is_mor(path) else JSONResponse({"detail": "Internal error"}, 500)

    # Around the application and not in it, where each request would first pass layers that have nothing to do for it.
    served: ASGIApp = FastLane(app, endpoints=_endpoints(faces))
    served = EachRequest(TolerantPath(served, prefixes=PREFIXES), refuse=overloaded, defect=defect, observe=_observe)
    if settings.trusted_proxies:
        served = ProxyHeadersMiddleware(served, trusted_hosts=list(settings.trusted_proxies))  # type: ignore[arg-type,assignment]  # uvicorn and Starlette write the same types differently
    return served


def _observe(_fields: Mapping[str, object], _seconds: float) -> None:
    pass


def _name_security_scheme(app: FastAPI) -> None:
    """Tell in the OpenAPI document how a switch shows who it is. The document is made when it is first asked for."""
    make_document = app.openapi

    def openapi() -> dict[str, Any]:
        document = make_document()
        components = document.setdefault("components", {})
        components["securitySchemes"] = {documentation.SCHEME: {"type": "http", "scheme": "basic"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _endpoints(faces: Iterable[APIRouter]) -> dict[tuple[str, str], Endpoint]:
    routes = [route for face in faces for route in face.routes if isinstance(route, APIRoute)]
    return {(method, route.path): route.endpoint for route in routes for method in route.methods or ()}


def _reading(settings: Settings, primary: Database) -> Database | Reading:
    """Where the switches' questions are answered from."""
    if not settings.read_database_url.get_secret_value():
        return primary
    # Half of a switch's time for the replica, so that half is left for the primary.
    timeout_ms = min(settings.database_timeout_ms, settings.switch_timeout_ms // 2)
    replica = Database(
        settings.read_database_url,
        pool_size=settings.pool_size,
        timeout_ms=timeout_ms,
        max_in_flight=settings.max_in_flight,
        wanted="any",
    )
    return Reading(replica, primary, timeout_ms=timeout_ms)


def _add_health(app: FastAPI, database: Database) -> None:
    @app.get("/health/live", tags=["Health"], summary="Whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/health/ready",
        tags=["Health"],
        summary="Whether calls can be served: the database answers and has the right schema",
        responses={503: {"description": "Not ready; `detail` says why"}},
    )
    async def ready() -> JSONResponse:
        try:
            problem = await database.run(schema_problem)
        except StorageUnavailable:
            problem = "The database cannot be reached."
        if problem:
            return JSONResponse({"status": "unavailable", "detail": problem}, 503)
        return JSONResponse({"status": "ok"})


def from_environment() -> ASGIApp:
    """The application of a worker process, by the settings in its environment."""
    settings = load_settings()
    configure_logging(settings.log_level)
    return create_app(settings)
