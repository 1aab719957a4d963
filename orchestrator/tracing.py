"""OpenTelemetry traces, off unless ``MUSETALK_OTEL_ENDPOINT`` is set.

The packages are an extra: without the setting nothing of OpenTelemetry is imported. Spans carry
durations, names of models and codes of errors, never texts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from orchestrator.errors import MuseTalkError, SetupError
from orchestrator.settings import Settings

_NAME: Final = "musetalk-orchestrator"


class _Off:
    """No traces."""

    @contextmanager
    def span(self, name: str, **attributes: str | int | float) -> Iterator[None]:
        yield

    def past(self, name: str, start: float, seconds: float) -> None:
        """Nothing."""

    def failed(self, code: str) -> None:
        """Nothing."""

    def headers(self) -> dict[str, str]:
        return {}

    def shutdown(self) -> None:
        """Nothing."""


class _On:
    """Traces by way of an OpenTelemetry provider."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._current = trace.get_current_span
        self._status = trace.StatusCode.ERROR
        self._provider = provider
        self._tracer = provider.get_tracer(_NAME)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(self, name: str, **attributes: str | int | float) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            # An exception's message may hold what somebody said: only its code is recorded.
            name,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except asyncio.CancelledError:
                span.set_attribute("musetalk.cancelled", True)
                raise
            except Exception as error:
                self.failed(error.code if isinstance(error, MuseTalkError) else "internal")
                raise

    def past(self, name: str, start: float, seconds: float) -> None:
        began = time.time_ns() - int((time.perf_counter() - start) * 1e9)
        span = self._tracer.start_span(name, start_time=began)
        span.end(began + int(seconds * 1e9))

    def failed(self, code: str) -> None:
        span = self._current()
        span.set_attribute("error.type", code)
        span.set_status(self._status)

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def shutdown(self) -> None:
        self._provider.shutdown()


_tracing: _Off | _On = _Off()


def setup_tracing(settings: Settings) -> None:
    """Send traces where the settings say, or nowhere.

    Args:
        settings: ``otel_endpoint``, an OTLP collector's gRPC address: ``http://host:4317``.

    Raises:
        SetupError: the extra ``telemetry`` is not installed.
    """
    if settings.otel_endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SetupError(
            "traces need OpenTelemetry",
            remedy="pip install 'musetalk-serving[telemetry]', or unset MUSETALK_OTEL_ENDPOINT",
        ) from error
    insecure = not settings.otel_endpoint.startswith("https://")
    exporter = OTLPSpanExporter(endpoint=settings.otel_endpoint, insecure=insecure)
    trace_with(BatchSpanProcessor(exporter))


def trace_with(processor: Any) -> None:
    """Hand all spans to an OpenTelemetry span processor."""
    global _tracing
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(resource=Resource.create({"service.name": _NAME}))
    provider.add_span_processor(processor)
    _tracing = _On(provider)


def stop_tracing() -> None:
    """Send what waits, and trace no more."""
    global _tracing
    _tracing.shutdown()
    _tracing = _Off()


@contextmanager
def span(name: str, **attributes: str | int | float) -> Iterator[None]:
    """A span around a block, and around the tasks that start in it.

    Args:
        name: of the span.
        attributes: names and numbers, never what somebody said.
    """
    with _tracing.span(name, **attributes):
        yield


def past_span(name: str, start: float, seconds: float) -> None:
    """A span, under the current one, of something that is over.

    Args:
        name: of the span.
        start: when it began, a value of ``time.perf_counter``.
        seconds: how long it took.
    """
    _tracing.past(name, start, seconds)


def mark_failed(code: str) -> None:
    """Say that what the current span is around has failed, where no exception leaves it.

    Args:
        code: of the error.
    """
    _tracing.failed(code)


def trace_headers() -> dict[str, str]:
    """W3C headers with which a called service continues the trace; none when it is off."""
    return _tracing.headers()
