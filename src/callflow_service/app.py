"""Put the house together: the faces on one application, and what is around every request."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from callflow_service import __version__
from callflow_service.credentials.api_keys import Keyring
from callflow_service.credentials.guesses import Guesses
from callflow_service.credentials.passwords import Passwords
from callflow_service.domain.errors import Overloaded, StorageUnavailable
from callflow_service.mor.face import PREFIXES, MorFace
from callflow_service.requests import EachRequest, FastLane, FromProxies, Refusal, TolerantPath
from callflow_service.service import CallFlows, Calls
from callflow_service.settings import Settings, load_settings
from callflow_service.storage.database import Database
from callflow_service.storage.replica import Reading
from callflow_service.storage.schema import schema_problem
from callflow_service.switch import documentation
from callflow_service.switch.face import SWITCHES, SwitchFace
from callflow_service.switch.users import SwitchUsers
from callflow_service.watching.logs import configure_logging
from callflow_service.watching.metrics import MEDIA_TYPE, Metrics, watch

if TYPE_CHECKING:
    from callflow_service.watching.tracing import Tracing

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]

_CALLS: Final = ("device_callflow_update", "device_callflow_get", *(f"switch.{switch.name}" for switch in SWITCHES))
_ASKED_SECONDS: Final = 1.0
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
    guesses = Guesses(settings.guess_limit, settings.address_guess_limit, settings.redis_url)
    mor = MorFace(
        call_flows=CallFlows(
            database,
            settings.api_enabled,
            settings.hash_policy,
            guesses,
            Passwords(guesses),
            Keyring(settings.encryption_keys, settings.data_dir),
        ),
        allow_get=settings.allow_get,
        envelope=settings.error_envelope,
    )
    switches = SwitchFace(
        users=SwitchUsers(reading, guesses),
        calls=Calls(reading, settings.technologies, settings.max_diversions, settings.ring_seconds),
        timeout_ms=settings.switch_timeout_ms,
    )

    metrics = Metrics(_CALLS, has_replica=reading is not database) if settings.metrics_enabled else None
    observe = metrics.observe if metrics else _observe_nothing
    tracing = _start_tracing() if settings.tracing_enabled else None
    # What a switch is answered depends on its question, so its questions are refused where that is known.
    addresses = tuple(f"{prefix}/".encode() for prefix in PREFIXES)
    state: dict[str, object] = {}

    closing = [guesses.close, reading.close, database.close]
    if tracing:
        closing.append(partial(asyncio.to_thread, tracing.stop))
    run = lifespan(
        state=state,
        beside=partial(watch, metrics, database, reading) if metrics else None,
        closing=closing,
    )
    app = _application(settings, run, tracing)
    routers = (mor.router(), switches.router())
    for router in routers:
        app.include_router(router)
    fast = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    _add_health(app, database)
    if metrics:
        _add_metrics(app, metrics)
    _name_security_scheme(app)

    def is_mor(path: str) -> bool:
        return any(path == prefix or path.startswith(prefix + "/") for prefix in PREFIXES)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        _name_both_methods(error, path)
        if not is_mor(path) or error.status_code not in {404, 405}:
            return await http_exception_handler(request, error)
        return mor.failed_transport(error.status_code, headers=dict(error.headers or {}))

    def defect(path: str) -> Response:
        return mor.failed_transport(500) if is_mor(path) else JSONResponse({"detail": "Internal error"}, 500)

    @app.exception_handler(Exception)
    async def answer_defect(request: Request, _: Exception) -> Response:
        return defect(request.url.path)

    # Around the application and not in it, where each request would first pass layers that have nothing to do for it.
    # What is traced goes through it all the same, for FastAPI makes the spans.
    served: ASGIApp = app if tracing else FastLane(app, routes=fast)
    served = EachRequest(TolerantPath(served, prefixes=PREFIXES), defect=defect, observe=observe)
    proxied = FromProxies(served, trusted=settings.trusted_proxies)
    state["refusal"] = Refusal(
        mor.unavailable(),
        is_due=lambda address: database.is_full and address.startswith(addresses),
        observe=observe,
        trusts=proxied.trusts,
    )
    return proxied if settings.trusted_proxies else served


def lifespan(
    *,
    state: Mapping[str, Any],
    beside: Callable[[], Coroutine[None, None, None]] | None,
    closing: Iterable[Callable[[], Awaitable[None]]],
) -> Lifespan:
    """What happens around serving: `beside` runs meanwhile, `closing` is called in the end, connections see `state`."""

    @asynccontextmanager
    async def run(_: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        # What is there by now stays, and requests leave next to nothing behind: the collector need not look so often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        # One that fails keeps none of the others from closing.
        async with AsyncExitStack() as ends:
            for close in closing:
                ends.push_async_callback(close)
            if beside:
                ends.push_async_callback(_cancel, asyncio.create_task(_logged(beside())))
            yield state

    return run


async def _logged(running: Coroutine[None, None, None]) -> None:
    """Run beside the requests; nobody waits for the end, so a defect is logged here."""
    try:
        await running
    except Exception:
        logging.getLogger(__name__).exception("defect")


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _application(
    settings: Settings,
    run: Lifespan,
    tracing: "Tracing | None",
) -> FastAPI:
    create = FastAPIOffline if settings.docs_enabled else FastAPI
    app: FastAPI = create(
        title="callflow-service",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=run,
        redirect_slashes=False,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        docs_url="/docs" if settings.docs_enabled else None,
        # ReDoc asks for its logo elsewhere, whatever it is served from.
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
    return app


def _start_tracing() -> "Tracing":
    from callflow_service.watching.tracing import Tracing  # noqa: PLC0415 - the packages of the extra `tracing`

    return Tracing()


def _observe_nothing(_fields: Mapping[str, object], _seconds: float | None) -> None:
    pass


def _add_metrics(app: FastAPI, metrics: Metrics) -> None:
    @app.get("/metrics", include_in_schema=False)
    async def exposition() -> Response:
        # In a thread: with several workers it sums up all of their files, which takes milliseconds.
        return Response(await asyncio.to_thread(metrics.exposition), media_type=MEDIA_TYPE)


def _name_both_methods(error: HTTPException, path: str) -> None:
    """Tell in `Allow` what a call takes: the router knows one route's method, and each call has a route for each."""
    if error.status_code == 405 and path.startswith((*PREFIXES, "/switch/")):  # noqa: PLR2004 - an HTTP status
        error.headers = {"Allow": "GET, POST"}


def _name_security_scheme(app: FastAPI) -> None:
    """Tell in the OpenAPI document how a switch shows who it is. The document is made when it is first asked for."""
    make_document = app.openapi

    def openapi() -> dict[str, Any]:
        document = make_document()
        components = document.setdefault("components", {})
        components["securitySchemes"] = {documentation.SCHEME: {"type": "http", "scheme": "basic"}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document


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


class Readiness:
    """Whether calls can be served, asked of the database at most once a second, however often it is asked here."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asking: asyncio.Task[str | None] | None = None
        self._asked_at = float("-inf")
        self._last: str | None = None

    async def problem(self) -> str | None:
        """What keeps calls from being served, as a sentence; None where nothing does."""
        if self._asking is None or (self._asking.done() and time.monotonic() - self._asked_at >= _ASKED_SECONDS):
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> str | None:
        try:
            self._last = await self._database.run(schema_problem)
        except Overloaded:
            # A worker that is full says nothing new of the database: what was found last still holds.
            pass
        except StorageUnavailable:
            self._last = "The database cannot be reached."
        return self._last


def _add_health(app: FastAPI, database: Database) -> None:
    readiness = Readiness(database)

    @app.get("/health/live", tags=["Health"], summary="Whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/health/ready",
        tags=["Health"],
        summary="Whether calls can be served: the database answers and has the right schema",
        responses={503: {"description": "Not ready; `detail` says why"}},
    )
    async def ready(request: Request) -> JSONResponse:
        if getattr(request.state, "ending", False):
            problem: str | None = "The service is ending."
        else:
            problem = await readiness.problem()
        if problem:
            return JSONResponse({"status": "unavailable", "detail": problem}, 503)
        return JSONResponse({"status": "ok"})


def from_environment() -> ASGIApp:
    """The application of a worker process, by the settings in its environment."""
    settings = load_settings()
    configure_logging(settings.log_level)
    return create_app(settings)
