from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator

import pytest

from orchestrator import tracing
from orchestrator.errors import LlmError, SetupError
from orchestrator.sessions.times import TurnTimes
from orchestrator.settings import Settings


@pytest.fixture
def spans() -> Iterator[list]:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracing.trace_with(SimpleSpanProcessor(exporter))
    yield exporter
    tracing.stop_tracing()


async def test_spans_of_tasks_hang_together(spans) -> None:
    async def stage() -> str:
        with tracing.span("tts", model="m"):
            return tracing.trace_headers()["traceparent"]

    with tracing.span("turn"):
        parent = await asyncio.create_task(stage())
        tracing.past_span("llm", time.perf_counter() - 0.5, 0.25)
    tts, llm, turn = spans.get_finished_spans()
    assert [span.name for span in (tts, llm, turn)] == ["tts", "llm", "turn"]
    assert tts.parent.span_id == llm.parent.span_id == turn.context.span_id
    assert parent.startswith(f"00-{tts.context.trace_id:032x}-{tts.context.span_id:016x}-0")
    assert llm.end_time - llm.start_time == 250_000_000
    assert turn.start_time - llm.start_time == pytest.approx(0.5e9, abs=0.2e9)
    assert dict(tts.attributes) == {"model": "m"}


async def test_errors_are_told_by_their_code_alone(spans) -> None:
    with pytest.raises(LlmError), tracing.span("llm"):
        raise LlmError("somebody's words")
    with pytest.raises(asyncio.CancelledError), tracing.span("cancelled"):
        raise asyncio.CancelledError
    failed, cancelled = spans.get_finished_spans()
    assert failed.attributes["error.type"] == "llm" and not failed.status.is_ok
    assert "somebody" not in failed.to_json() and cancelled.status.is_unset


def test_off_by_default() -> None:
    tracing.setup_tracing(Settings(otel_endpoint=None, _env_file=None))
    with tracing.span("turn"):
        tracing.past_span("llm", 0, 1)
        assert tracing.trace_headers() == {}


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SetupError, match="OpenTelemetry") as caught:
        tracing.setup_tracing(Settings(otel_endpoint="http://127.0.0.1:9", _env_file=None))
    assert "telemetry" in caught.value.remedy


async def test_arrives_at_a_collector() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
    import grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service

    arrived: list[str] = []

    class Collector(service.TraceServiceServicer):
        async def Export(self, request, context):  # noqa: N802
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    arrived.extend(span.name for span in scope.spans)
            return messages.ExportTraceServiceResponse()

    server = grpc.aio.server()
    service.add_TraceServiceServicer_to_server(Collector(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    tracing.setup_tracing(Settings(otel_endpoint=f"http://127.0.0.1:{port}", _env_file=None))
    with tracing.span("turn"):
        pass
    await asyncio.to_thread(tracing.stop_tracing)
    await server.stop(0)
    assert arrived == ["turn"]


async def test_stages_of_a_turn_belong_to_it_whoever_notes_them(spans) -> None:
    times = TurnTimes()
    with tracing.span("turn"):
        times.belongs_here()
        with times.measure("speech"):
            pass
    for _ in range(3):
        with times.measure("llm"):
            pass
    times.note("encode", times.elapsed - 0.1)
    turn = next(span for span in spans.get_finished_spans() if span.name == "turn")
    stages = [span for span in spans.get_finished_spans() if span is not turn]
    assert [span.name for span in stages] == ["tts", "llm", "encoding"]
    assert {span.parent.span_id for span in stages} == {turn.context.span_id}
