"""Build the ASGI application: mount every face and wrap it in what is around each request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_network

from fastapi import FastAPI
from starlette.types import ASGIApp

from callflow_service.api.dependencies import House
from callflow_service.api.face import api_face
from callflow_service.components import Components, build_components
from callflow_service.explorer.face import explorer_face
from callflow_service.mor.face import MorFace
from callflow_service.settings import Settings
from callflow_service.switch.face import SwitchFace
from callflow_service.watching.metrics import Metrics
from callflow_service.web.faces import Face, Faces
from callflow_service.web.fast_lane import FastLane
from callflow_service.web.health import health_router, metrics_router
from callflow_service.web.middleware import EachRequest, FromProxies
from callflow_service.web.openapi import application
from callflow_service.web.overload import Refusal

MakeFaces = Callable[[Settings, Components], Iterable[Face]]


def all_faces(settings: Settings, parts: Components) -> Iterable[Face]:
    """The faces of the service, one line for each."""
    yield MorFace(parts.call_flows, settings.allow_get, settings.error_envelope).face()
    yield SwitchFace(parts.calls, settings.switch_timeout_ms).face()
    if settings.docs_enabled:
        yield explorer_face()
    yield api_face(json_house(settings, parts))


def json_house(settings: Settings, parts: Components) -> House:
    """What the JSON API works with."""
    return House(
        transactions=parts.transactions,
        bulk=parts.bulk,
        guesses=parts.guesses,
        keys=parts.keys,
        calls=parts.calls,
        policing=parts.call_flows.policing,
        api_enabled=settings.api_enabled,
        require_if_match=settings.require_if_match,
        time_zone=settings.time_zone,
        feed=parts.feed,
        max_streams=settings.max_streams,
        webhook_networks=tuple(ip_network(network) for network in settings.webhook_networks),
        expect_messages=parts.dispatcher.expect,
    )


def create_command_app(house: House) -> ASGIApp:
    """The JSON API alone, for commands that call it in their own process."""
    faces = Faces([api_face(house)])
    return EachRequest(application(faces, has_docs=False, lifespan=None, tracing=None), faces, _observe_nothing)


def create_app(settings: Settings, make_faces: MakeFaces = all_faces) -> ASGIApp:
    """The application, ready to be served. It connects to the database when it is first asked something."""
    parts = build_components(settings)
    faces = Faces(make_faces(settings, parts))
    metrics = Metrics(faces.calls, has_replica=parts.has_replica) if settings.metrics_enabled else None
    observe = metrics.observe if metrics else _observe_nothing
    shared: dict[str, object] = {"faces": faces}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[Mapping[str, object]]:
        # Shared with the server, which sets it; a value of its own would be copied into each request as it begins.
        shared["ending"] = asyncio.Event()
        async with parts.running(metrics):
            yield shared

    app = application(faces, has_docs=settings.docs_enabled, lifespan=lifespan, tracing=parts.tracing)
    app.include_router(health_router(parts.database))
    if metrics:
        app.include_router(metrics_router(metrics))
    # Around the application and not in it, where each request would first pass layers that have nothing to do for it.
    # What is traced goes through it all the same, for FastAPI makes the spans.
    served = EachRequest(app if parts.tracing else FastLane(app, faces.all), faces, observe)
    proxied = FromProxies(served, settings.trusted_proxies)
    # The connections refuse by it, before there is a request.
    shared["refusal"] = Refusal(faces, is_full=lambda: parts.database.is_full, observe=observe, trusts=proxied.trusts)
    return proxied if settings.trusted_proxies else served


def _observe_nothing(_fields: Mapping[str, object], _seconds: float | None) -> None:
    pass
