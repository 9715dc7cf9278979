"""Traces reach a collector whole, and in them nothing that a caller wrote."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pydantic import SecretStr

from callflow_service.settings import SettingsError, load_settings
from clusters import until
from mor_requests import UPDATE, StartService, answer, refused, update, updated
from own_demo import open_own_demo
from switch_questions import ALICE, SWITCH, ask

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@dataclass(slots=True)
class Collector:
    """Takes traces as OTLP's collectors do, and keeps every byte."""

    requests: list[bytes] = field(default_factory=list)

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in ExportTraceServiceRequest.FromString(request.partition(b"\r\n\r\n")[2]).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    async def spans_of(self, name: str) -> list[Span]:
        """The spans of that name, once there is one."""

        async def has_come() -> bool:
            return any(span.name == name for span in self.spans())

        await until(has_come)
        return [span for span in self.spans() if span.name == name]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers.get("Content-Encoding") is None
            collector.requests.append(f"{self.requestline}\r\n{self.headers}".encode().strip() + b"\r\n\r\n" + body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector
        server.shutdown()


@pytest.fixture
async def traced(start_service: StartService, collector: Collector, demo_url: SecretStr) -> httpx.AsyncClient:
    """The service on the demo data, whose traces the collector gets."""
    del collector
    return await start_service(demo_url, tracing_enabled=True, trusted_proxies=("127.0.0.1",))


def attributes(span: Span) -> dict[str, object]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value") or "") for item in span.attributes}


@pytest.mark.usefixtures("untouched")
async def test_a_call_is_a_span_that_follows_the_callers_trace(
    traced: httpx.AsyncClient, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "callflow_service.request")
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "the-id"}
    assert answer(await traced.post(f"{UPDATE}/", data=update(), headers=headers)) == updated()
    (span,) = await collector.spans_of(f"POST {UPDATE}")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(span) == {
        "callflow.outcome": "ok",
        "callflow.request_id": "the-id",
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": UPDATE,
        "network.protocol.version": "1.1",
        "url.scheme": "http",
    }
    (record,) = [record for record in caplog.records if record.name == "callflow_service.request"]
    assert (record.__dict__["fields"]["request_id"], record.__dict__["fields"]["trace_id"]) == ("the-id", TRACE)
    assert b"callflow-service" in collector.requests[0]


@pytest.mark.usefixtures("untouched")
async def test_a_lookup_is_a_span_of_a_trace_of_its_own(traced: httpx.AsyncClient, collector: Collector) -> None:
    await ask(traced, device="4")
    (span,) = await collector.spans_of("POST /switch/opensips")
    assert span.parent_span_id == b""
    assert attributes(span)["callflow.outcome"] == "none"


@pytest.mark.usefixtures("untouched")
async def test_nothing_that_a_caller_wrote_is_in_a_trace(traced: httpx.AsyncClient, collector: Collector) -> None:
    canary = "canary0"
    headers = {
        "Host": f"{canary}.example",
        "User-Agent": canary,
        "Authorization": f"Bearer {canary}",
        "Cookie": canary,
        "traceparent": f"00-{TRACE}-{PARENT}-01",
        "tracestate": f"{canary}={canary}",
        "baggage": f"{canary}={canary}",
        "X-Forwarded-Host": canary,
    }
    secrets = {"p": canary, "hash": canary, "API_Secret_Key": canary}
    for method, path in (
        *(("POST", UPDATE), ("GET", UPDATE), ("POST", f"{UPDATE}%3Fp={canary}"), ("POST", f"/billing/api/{canary}")),
        *(("POST", f"/{canary}"), ("PROPFIND", UPDATE), ("GET", f"/static-offline-docs/{canary}")),
    ):
        body = {**update(u=canary, custom=canary), **secrets}
        await traced.request(method, path, params=secrets, data=body, headers=headers)
    await traced.post(UPDATE, content=json.dumps(secrets), headers=headers | {"Content-Type": f"application/{canary}"})
    question = {**ALICE, "device": canary, "call_id": canary, "diversion": canary}
    await traced.post("/switch/kamailio", params=question, data=question, headers=headers, auth=(canary, canary))
    await traced.post("/switch/kamailio", params=question, data=question, headers=headers, auth=SWITCH)
    await traced.get("/health/live")
    await collector.spans_of("GET /health/live")
    roots = [span for span in collector.spans() if span.kind == Span.SPAN_KIND_SERVER]
    assert len(roots) == 11
    everything = b"".join(collector.requests)
    assert canary.encode() not in everything.lower()
    assert not any(span.trace_state or span.events or span.links or span.status.message for span in collector.spans())


async def test_a_defect_leaves_its_type_in_the_trace_and_gets_the_usual_page(
    start_service: StartService,
    collector: Collector,
    create_database: Callable[..., SecretStr],
    migrated_url: SecretStr,
) -> None:
    async with open_own_demo(create_database, migrated_url) as demo:
        service = await start_service(demo.url, tracing_enabled=True)
        await demo.database.execute("DROP TABLE callflow")
        response = await service.post(UPDATE, data=update())
    assert answer(response) == refused("Internal error", status=500)
    (span,) = await collector.spans_of(f"POST {UPDATE}")
    assert span.status == Status(code=Status.STATUS_CODE_ERROR)
    assert attributes(span) == {
        "callflow.request_id": response.headers["x-request-id"],
        "error.type": "asyncpg.exceptions.UndefinedTableError",
        "http.request.method": "POST",
        "http.response.status_code": 500,
        "http.route": UPDATE,
        "network.protocol.version": "1.1",
        "url.scheme": "http",
    }


def test_tracing_without_its_packages_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLFLOW_TRACING_ENABLED", "true")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.delitem(sys.modules, "callflow_service.watching.tracing", raising=False)
    monkeypatch.delattr("callflow_service.watching.tracing", raising=False)
    with pytest.raises(SettingsError) as error:
        load_settings()
    sentence = "The setting CALLFLOW_TRACING_ENABLED is wrong: tracing needs the packages of callflow-service[tracing]."
    assert str(error.value) == sentence


def test_without_tracing_none_of_its_packages_is_read() -> None:
    program = """import sys
from callflow_service.app import create_app
from callflow_service.settings import Settings
create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/nowhere"))
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
