"""Prometheus metrics of the service: one registry for each running service.

The families:

- ``musetalk_renders_total{result}``: ``ok``, ``cancelled`` or the code of the error
- ``musetalk_renders_in_progress``
- ``musetalk_rejected_total``: refused by admission control, before any work
- ``musetalk_frames_total{kind}``: ``generated`` by the model or ``idle``
- ``musetalk_retries_total``: requests to Triton that were sent again
- ``musetalk_stage_seconds{stage}``: time of a render in each stage (they overlap)
- ``musetalk_render_seconds`` and ``musetalk_real_time_factor``: of each finished render
- ``musetalk_triton_channel{state}``: 1 for the state that the way to Triton is in
- ``musetalk_triton_resent_total{reason}``: calls that another replica got, because one was
  ``unavailable`` or ``stopping``
- ``musetalk_videos_total{result}``: video jobs, ``ok`` or the code of the error
- ``musetalk_http_requests_total{method,route,status}``

and those of live sessions, in ``live_metrics.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from orchestrator.inference import TritonClient
from orchestrator.live_metrics import LiveMetrics
from orchestrator.rendering.timings import StageTimes

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_FACTORS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 4, 8, 16, 32)


# A series for the birth of each series, which nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]


_STATES: Final = ("idle", "connecting", "ready", "transient_failure", "shutdown")


class _TritonCollector(Collector):
    """What a client of Triton knows, read when the metrics are."""

    def __init__(self, client: TritonClient) -> None:
        self._client = client

    def collect(self) -> Iterator[Metric]:
        """The two families."""
        now = self._client.state
        channel = GaugeMetricFamily(
            "musetalk_triton_channel", "State of the way to Triton", labels=["state"]
        )
        for state in _STATES:
            channel.add_metric([state], float(state == now))
        yield channel
        resent = CounterMetricFamily(
            "musetalk_triton_resent", "Calls that another replica got", labels=["reason"]
        )
        for reason in ("unavailable", "stopping"):
            resent.add_metric([reason], self._client.resent[reason])
        yield resent


class Telemetry:
    """The metrics of one service.

    A registry of its own keeps two services in one process apart, as the tests have them.

    Attributes:
        live: metrics of live sessions.
    """

    content_type: Final = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.renders = Counter(
            "musetalk_renders", "Renders by result", ["result"], registry=self.registry
        )
        self.videos = Counter(
            "musetalk_videos", "Video jobs by result", ["result"], registry=self.registry
        )
        self.in_progress = Gauge(
            "musetalk_renders_in_progress", "Renders under way", registry=self.registry
        )
        self.rejected = Counter(
            "musetalk_rejected", "Requests refused by admission control", registry=self.registry
        )
        self.frames = Counter("musetalk_frames", "Frames by kind", ["kind"], registry=self.registry)
        self.retries = Counter(
            "musetalk_retries", "Requests to Triton sent again", registry=self.registry
        )
        self.stage_seconds = Histogram(
            "musetalk_stage_seconds",
            "Seconds of a render in each stage",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.render_seconds = Histogram(
            "musetalk_render_seconds",
            "Seconds from request to finished video",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.real_time_factor = Histogram(
            "musetalk_real_time_factor",
            "Seconds of work for a second of video",
            buckets=_FACTORS,
            registry=self.registry,
        )
        self.http_requests = Counter(
            "musetalk_http_requests",
            "HTTP requests",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.live = LiveMetrics(self.registry)

    def watch(self, inference: object) -> None:
        """Add the state of the way to Triton to the metrics.

        Args:
            inference: a client; one that is no :class:`TritonClient` has none to show.
        """
        if isinstance(inference, TritonClient):
            self.registry.register(_TritonCollector(inference))

    def render_ended(self, result: str, times: StageTimes) -> None:
        """Count one render, whole or not.

        Args:
            result: ``ok``, ``cancelled`` or the code of the error.
            times: what it took as far as it went.
        """
        self.renders.labels(result).inc()
        self.frames.labels("generated").inc(times.generated)
        self.frames.labels("idle").inc(times.idle)
        self.retries.inc(times.retries)
        if result != "ok":
            return
        for stage, seconds in times.seconds.items():
            self.stage_seconds.labels(stage).observe(seconds)
        self.render_seconds.observe(times.wall)
        self.real_time_factor.observe(times.real_time_factor)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
