"""A face brings its paths, its routes and its words, and everything around the requests goes by them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import SecretStr

from callflow_service.app import all_faces
from callflow_service.components import Components, lifetime
from callflow_service.domain.errors import StorageUnavailable, TooManyGuesses
from callflow_service.settings import Settings
from callflow_service.watching.logs import JsonLines
from callflow_service.watching.metrics import Metrics
from callflow_service.web.faces import NOBODYS, Face, Faces
from callflow_service.web.fast_lane import FastLane
from callflow_service.web.overload import Refusal
from callflow_service.web.request import read_body
from mor_requests import StartService

TOKEN = {"Authorization": "Bearer secret"}
NAMES = ("toy.ring", "toy.rest")

router = APIRouter(prefix="/toy", dependencies=[Depends(HTTPBearer())])


@router.post("/bells/{bell}", name="toy.ring")
async def ring(request: Request, bell: str) -> str:
    for name, error in {"broken": ValueError(), "busy": TooManyGuesses(7), "away": StorageUnavailable("gone")}.items():
        if bell == name:
            raise error
    return f"{bell}: {len(await read_body(request))}"


@router.put("/bells", name="toy.rest")
async def rest(bells: Annotated[list[str], Body()]) -> int:
    return len(bells)


TOY = Face(
    name="toy",
    prefixes=("/toy", "/billing/api/toy"),
    router=router,
    calls=NAMES,
    max_body=10,
    words={404: "no toy", 405: "not so", 413: "too much", 429: "too often", 500: "broken", 503: "no time"},
    write=lambda status, text, _request_id: ("application/toy", f"toy {status}: {text}".encode()),
    sheds=True,
)


def with_a_toy(settings: Settings, parts: Components) -> Iterable[Face]:
    return [*all_faces(settings, parts), TOY]


@pytest.fixture
async def toy(start_service: StartService, demo_url: SecretStr) -> httpx.AsyncClient:
    service = await start_service(demo_url, make_faces=with_a_toy)
    service.headers.update(TOKEN)
    return service


def toys(status: int, text: str) -> tuple[int, str, str]:
    return status, "application/toy", f"toy {status}: {text}"


async def test_a_faces_failures_are_told_in_its_own_words(toy: httpx.AsyncClient) -> None:
    for method, path, body, answer, headers in (
        ("POST", "/toy/bells/dong", "", (200, "application/json", '"dong: 0"'), {}),
        ("POST", "/toy/nothing", "", toys(404, "no toy"), {}),
        ("POST", "/billing/api/toy/nothing", "", toys(404, "no toy"), {}),
        ("GET", "/toy/bells/dong", "", toys(405, "not so"), {"allow": "POST"}),
        ("POST", "/toy/bells/dong", "12345678901", toys(413, "too much"), {}),
        ("PUT", "/toy/bells", '["1","2"]', (200, "application/json", "2"), {}),
        ("PUT", "/toy/bells", '["1","2",""]', toys(413, "too much"), {}),
        ("POST", "/toy/bells/busy", "", toys(429, "too often"), {"retry-after": "7"}),
        ("POST", "/toy/bells/broken", "", toys(500, "broken"), {}),
        ("POST", "/toy/bells/away", "", toys(503, "no time"), {"retry-after": "2"}),
    ):
        response = await toy.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.headers["content-type"], response.text) == answer
        assert {name: response.headers[name] for name in headers} == headers
        assert response.headers["x-frame-options"] == "DENY"
    assert (await toy.post("/nothing")).json() == {"detail": "Not Found"}


async def test_a_faces_security_is_kept_and_documented(toy: httpx.AsyncClient) -> None:
    response = await toy.post("/toy/bells/dong", headers={"Authorization": ""})
    assert (response.status_code, response.text) == (401, "toy 401: Unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    document = (await toy.get("/openapi.json")).json()
    assert document["paths"]["/toy/bells/{bell}"]["post"]["security"] == [{"HTTPBearer": []}]
    assert document["components"]["securitySchemes"]["HTTPBearer"] == {"type": "http", "scheme": "bearer"}


async def test_a_faces_calls_are_counted_by_their_names(toy: httpx.AsyncClient) -> None:
    for bell in ("dong", "ding", "busy", "broken"):
        await toy.post(f"/toy/bells/{bell}")
    lines = (await toy.get("/metrics")).text.splitlines()
    for outcome, number in (("ok", 2), ("too often", 1), ("defect", 1), ("overloaded", 0)):
        assert f'callflow_calls_total{{call="toy.ring",face="toy",outcome="{outcome}"}} {number}.0' in lines
    assert 'callflow_request_seconds_count{call="toy.ring"} 4.0' in lines
    assert 'callflow_calls_total{call="toy.rest",face="toy",outcome="ok"} 0.0' in lines


@pytest.mark.parametrize(
    ("path", "face"),
    [
        ("/toy", "toy"),
        ("//toy//bells/", "toy"),
        ("/toys", "other"),
        ("/", "other"),
        ("", "other"),
        ("/billing/api", "mor"),
        ("/billing/api/toy", "toy"),
        ("/billing/api/toys", "mor"),
        ("/docs/", "explorer"),
        ("/switch/asterisk", "switch"),
    ],
)
def test_a_path_is_the_face_that_has_the_longest_of_its_beginnings(path: str, face: str) -> None:
    faces = Faces([Face(name="mor", prefixes=("/billing/api",)), TOY, Face(name="switch", prefixes=("/switch",))])
    found = faces.of(path)
    assert found.name == (face if face != "explorer" else NOBODYS.name)
    assert faces.of_target(f"{path}?u=/billing/api/toy/x".encode()) is found


async def answer_in_kind(_: Request, error: Exception) -> Response:
    return PlainTextResponse(f"own {type(error).__name__}", 409)


async def test_a_face_answers_errors_of_its_own_and_nobody_elses(
    start_service: StartService, demo_url: SecretStr
) -> None:
    def faces(settings: Settings, parts: Components) -> Iterable[Face]:
        for name, handlers in (("own", {KeyError: answer_in_kind}), ("plain", {})):
            one = APIRouter(prefix=f"/{name}")

            @one.get("/fails")
            async def fails() -> None:
                raise KeyError

            yield Face(name=name, prefixes=(f"/{name}",), router=one, handlers=handlers)
        yield from all_faces(settings, parts)

    service = await start_service(demo_url, make_faces=faces)
    response = await service.get("/own/fails")
    assert (response.status_code, response.text) == (409, "own KeyError")
    response = await service.get("/plain/fails")
    assert (response.status_code, response.json()) == (500, {"detail": "Internal error"})


def test_a_route_with_security_cannot_go_the_way_on_which_it_would_be_skipped() -> None:
    def must_have_token() -> None:
        raise NotImplementedError

    async def plain(request: Request) -> Response:
        raise NotImplementedError

    async def secured(request: Request, _: Annotated[None, Depends(must_have_token)]) -> Response:
        raise NotImplementedError

    open_to_all, locked = APIRouter(), APIRouter(dependencies=[Depends(must_have_token)])
    open_to_all.add_api_route("/plain", plain)
    open_to_all.add_api_route("/by-its-signature", secured)
    open_to_all.add_api_route("/by-its-route", plain, dependencies=[Depends(must_have_token)])
    locked.add_api_route("/by-its-router", plain)
    taken, *others = [route for route in (*open_to_all.routes, *locked.routes) if isinstance(route, APIRoute)]
    FastLane(FastAPI(), [Face(name="toy", prefixes=("/toy",), fast=(taken,))])
    assert len(others) == 3
    for route in others:
        with pytest.raises(ValueError, match=f"^{route.path} needs what FastAPI does"):
            FastLane(FastAPI(), [Face(name="toy", prefixes=("/toy",), fast=(route,))])


def test_a_refusal_is_in_the_words_of_the_face_and_counted_but_does_not_make_the_calls_look_fast() -> None:
    metrics = Metrics({}, has_replica=False)
    refusal = Refusal(
        Faces([TOY, Face(name="switch", prefixes=("/switch",))]),
        is_full=lambda: True,
        observe=metrics.observe,
        trusts=lambda _: False,
    )
    assert [refusal.is_due(target) for target in (b"/toy/bells?a=b", b"/switch/asterisk", b"/")] == [True, False, False]
    raw = refusal.written(b"/toy/bells?a=b", [], None, keep_alive=True)
    assert raw.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert raw.endswith(b"\r\n\r\ntoy 503: no time")
    text = metrics.exposition().decode()
    assert 'callflow_calls_total{call="other",face="other",outcome="overloaded"} 1.0' in text
    assert 'callflow_request_seconds_count{call="other"} 0.0' in text


async def test_what_cannot_be_closed_keeps_nothing_else_open(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    closed: list[str] = []
    has_failed = asyncio.Event()

    async def fail() -> None:
        has_failed.set()
        raise RuntimeError("secret")

    def close(name: str) -> Callable[[], Awaitable[None]]:
        async def note() -> None:
            closed.append(name)

        return note

    with pytest.raises(RuntimeError):
        async with lifetime([fail()], [close("first"), fail, close("last")]):
            await has_failed.wait()
    assert closed == ["first", "last"]
    # What ran beside the requests was told, too.
    (record,) = caplog.records
    assert '"error":"RuntimeError"' in JsonLines().format(record)
