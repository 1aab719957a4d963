"""Prometheus metrics of live sessions.

The families:

- ``musetalk_sessions{state}``: ``idle``, ``thinking``, ``speaking`` or ``away``, asked at scrape
- ``musetalk_requests_waiting{model}``: for their turn to be sent to Triton, asked at scrape
- ``musetalk_turns_total{result}``: ``ok``, ``interrupted`` or the code of the error
- ``musetalk_session_refusals_total``: sessions and turns refused by admission control
- ``musetalk_first_seconds{what}``: from request to first ``token``, ``audio`` and ``frame``
- ``musetalk_turn_stage_seconds{stage}``: time of a turn in each stage (they overlap)
- ``musetalk_turn_real_time_factor``
- ``musetalk_live_frames_total{kind}``: ``generated``, ``idle`` or ``late`` (shown with an older
  mouth, or as an idle frame, because theirs was not there in time)
- ``musetalk_voice_switches_total``: sentences that the second voice spoke
- ``musetalk_errors_total{code}``: errors that viewers were told of
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from orchestrator.sessions.times import TurnTimes

_SECONDS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2, 3, 5, 10, 30, 60)
_FACTORS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 4)

Counts = Callable[[], Mapping[str, int]]


class LiveMetrics:
    """The metrics of live sessions.

    Args:
        registry: of the service.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.turns = Counter("musetalk_turns", "Turns by result", ["result"], registry=registry)
        self.refusals = Counter(
            "musetalk_session_refusals",
            "Sessions and turns refused by admission control",
            registry=registry,
        )
        self.first_seconds = Histogram(
            "musetalk_first_seconds",
            "Seconds from a turn's request to its first token, audio and frame",
            ["what"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "musetalk_turn_stage_seconds",
            "Seconds of a turn in each stage",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.real_time_factor = Histogram(
            "musetalk_turn_real_time_factor",
            "Seconds of a turn's work for a second of its video",
            buckets=_FACTORS,
            registry=registry,
        )
        self.frames = Counter(
            "musetalk_live_frames", "Frames of live turns by kind", ["kind"], registry=registry
        )
        self.voice_switches = Counter(
            "musetalk_voice_switches", "Sentences that the second voice spoke", registry=registry
        )
        self.errors = Counter(
            "musetalk_errors", "Errors that viewers were told of", ["code"], registry=registry
        )

    def watch(self, *, sessions: Counts, waiting: Counts) -> None:
        """Where the numbers come from that are asked for at each scrape.

        Args:
            sessions: how many there are, by state.
            waiting: requests that wait to be sent to Triton, by model.
        """
        self._registry.register(
            _Gauges(
                ("musetalk_sessions", "Live sessions by state", "state", sessions),
                ("musetalk_requests_waiting", "Requests not yet at Triton", "model", waiting),
            )
        )

    def turn_ended(self, result: str, times: TurnTimes) -> None:
        """Count one turn.

        Args:
            result: ``ok``, ``interrupted`` or the code of the error.
            times: what it took as far as it went.
        """
        self.turns.labels(result).inc()
        for what, seconds in times.first.items():
            self.first_seconds.labels(what).observe(seconds)
        for stage, seconds in times.seconds.items():
            if seconds:
                self.stage_seconds.labels(stage).observe(seconds)
        for kind, count in (
            ("generated", times.generated),
            ("idle", times.idle),
            ("late", times.late),
        ):
            self.frames.labels(kind).inc(count)
        if result == "ok" and times.made:
            self.real_time_factor.observe(times.real_time_factor)


class _Gauges(Collector):
    """Numbers that are asked for at each scrape: nothing to forget, nothing to leak."""

    def __init__(self, *families: tuple[str, str, str, Counts]) -> None:
        self._families = families

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Names only."""
        return [GaugeMetricFamily(name, words) for name, words, _, _ in self._families]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """All series now."""
        for name, words, label, counts in self._families:
            family = GaugeMetricFamily(name, words, labels=[label])
            for value, count in counts().items():
                family.add_metric([value], count)
            yield family
