"""A trace that began in the orchestrator goes on inside a real tritonserver."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from loadtests.loopback_llm import Exchange, loopback_llm
from orchestrator import tracing
from orchestrator.inference import EmbeddedTriton
from orchestrator.inference.client import TritonClient


@pytest.mark.triton
async def test_triton_continues_a_trace(one_model) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    async def accept(exchange: Exchange) -> None:
        await exchange.status(200, {})

    x = np.zeros((1, 3), np.float16)
    exporter = InMemorySpanExporter()
    tracing.trace_with(SimpleSpanProcessor(exporter))
    try:
        async with loopback_llm(answer=accept) as collector:
            url = collector.url.replace("/v1", "/v1/traces")
            server = EmbeddedTriton(one_model(), traces=url)
            async with server, TritonClient(server.grpc_address) as client:
                await client.infer("scale", {"x": x})
                with tracing.span("turn"):
                    await client.infer("scale", {"x": x})
                for _ in range(200):  # it sends them a few seconds later
                    if collector.exchanges:
                        break
                    await asyncio.sleep(0.1)
    finally:
        tracing.stop_tracing()
    spans = [
        span
        for exchange in collector.exchanges
        for resource in json.loads(exchange.body)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    untraced, ours, turn = exporter.get_finished_spans()
    assert untraced.parent is None and ours.parent.span_id == turn.context.span_id
    parents = {span.get("parentSpanId"): span["traceId"] for span in spans}
    assert parents[f"{ours.context.span_id:016x}"] == f"{ours.context.trace_id:032x}"
