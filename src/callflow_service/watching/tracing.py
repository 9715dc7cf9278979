"""Send traces by OpenTelemetry, and in them nothing that a caller wrote."""

from collections.abc import Sequence
from threading import Timer
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, Status
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from callflow_service import __version__

_ALLOWED: Final = frozenset(
    {
        "callflow.outcome",
        "callflow.request_id",
        "code.function.name",
        "error.type",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "network.protocol.version",
        "url.scheme",
    }
)
"""The attributes that leave. FastAPI's others hold the path and the query as sent, and what `Host` says."""

_PATIENCE_SECONDS: Final = 1.0


class Tracing:
    """Where spans go, by the variables that OpenTelemetry reads (`OTEL_EXPORTER_OTLP_ENDPOINT`)."""

    def __init__(self) -> None:
        self._exporter = OTLPSpanExporter()
        self.provider = TracerProvider(
            resource=Resource.create({"service.name": "callflow-service", "service.version": __version__}),
            shutdown_on_exit=False,
        )
        self.provider.add_span_processor(BatchSpanProcessor(_AllowedOnly(self._exporter)))

    def stop(self) -> None:
        """Send what was not sent yet; where the collector is away, that is given up soon."""
        giving_up = Timer(_PATIENCE_SECONDS, self._exporter.shutdown)
        giving_up.start()
        self.provider.shutdown()
        giving_up.cancel()


class TraceAndLog:
    """Within FastAPI's span: the trace's id goes into the log line, the request's id and its outcome into the span."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fields: dict[str, object] = scope["log"]
        span = trace.get_current_span()
        fields["trace_id"] = trace.format_trace_id(span.get_span_context().trace_id)
        span.set_attribute("callflow.request_id", str(fields["request_id"]))

        async def send_noted(message: Message) -> None:
            # The span ends with the answer's last byte, before the outer layers get the request back.
            if message["type"] == "http.response.start" and "outcome" in fields:
                span.set_attribute("callflow.outcome", str(fields["outcome"]))
            await send(message)

        await self._app(scope, receive, send_noted)


class _AllowedOnly(SpanExporter):
    """Sends spans with the attributes that are allowed, without events, descriptions and the caller's trace state."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([_allowed(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _allowed(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=_without_state(span.context),
        parent=_without_state(span.parent),
        resource=span.resource,
        attributes={name: value for name, value in (span.attributes or {}).items() if name in _ALLOWED},
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _without_state(context: SpanContext | None) -> SpanContext | None:
    # A caller's `tracestate` may hold anything.
    return context and SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)
