"""When each stage of a turn was at work, in seconds from the viewer's request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, Final

from orchestrator.logs import timing
from orchestrator.rendering.timings import StageTimes
from orchestrator.tracing import past_span

LIVE_STAGES: Final = {
    "llm": "llm",
    "speech": "tts",
    "features": "features",
    "queue": "queue",
    "inference": "inference",
    "composite": "compositing",
    "encode": "encoding",
}
"""What clients call the stages, by the names that they have inside."""


class TurnTimes(StageTimes):
    """Times of one turn, under way from the moment it is made.

    Attributes:
        first: seconds until the first ``token``, ``audio`` and ``frame``, as they come.
        late: frames that showed an older mouth, or none, because theirs came too late.
        reduced: frames of batches with fewer mouths than the profile asks for, under overload.
        made: seconds of media that were encoded.
        waited: seconds for which frames that were ready waited for the viewer's player.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[str, float] = {}
        self.late = 0
        self.reduced = 0
        self.made = 0.0
        self.waited = 0.0
        self._began = time.perf_counter()
        self._spans: dict[str, tuple[float, float]] = {}
        self._context: Context = copy_context()

    @property
    def elapsed(self) -> float:
        """Seconds since the request."""
        return time.perf_counter() - self._began

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of media; the player's own pace does not count."""
        return (self.wall - self.waited) / self.made if self.made else 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """In the block frames wait for the player."""
        start = self.elapsed
        try:
            yield
        finally:
            self.waited += self.elapsed - start

    def reached(self, what: str) -> None:
        """Note the first time that something is there."""
        self.first.setdefault(what, self.elapsed)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent in the block to a stage, also when the block fails."""
        start = self.elapsed
        try:
            yield
        finally:
            self.note(stage, start)

    def note(self, stage: str, start: float) -> None:
        """Add the time since ``start``, a value of ``elapsed``, to a stage."""
        end = self.elapsed
        self.seconds[stage] = self.seconds.get(stage, 0.0) + end - start
        first, last = self._spans.get(stage, (start, end))
        self._spans[stage] = (min(first, start), max(last, end))
        if stage != "llm" or first == start:  # of a reply's pieces only the wait for the first
            self._context.run(self._publish, stage, start, end - start)

    def belongs_here(self) -> None:
        """The current log fields and trace span are the turn's, whichever task notes a time."""
        self._context = copy_context()

    def _publish(self, stage: str, start: float, seconds: float) -> None:
        name = LIVE_STAGES.get(stage, stage)
        timing(name, start=start, seconds=seconds)
        past_span(name, self._began + start, seconds)

    def report(self) -> dict[str, Any]:
        """The ``performance`` event, without the turn's id."""
        first = {
            f"first_{what}": round(self.first[what], 4) if what in self.first else None
            for what in ("token", "audio", "frame")
        }
        return {
            "generation_time": round(self.wall, 4),
            **first,
            "real_time_factor": round(self.real_time_factor, 4) if self.made else None,
            "frames": self.frames,
            "frames_late": self.late,
            "frames_reduced": self.reduced,
            "stages": {
                public: {
                    "start": round(self._spans[stage][0], 4),
                    "duration": round(self._spans[stage][1] - self._spans[stage][0], 4),
                    "busy": round(self.seconds[stage], 4),
                }
                for stage, public in LIVE_STAGES.items()
                if stage in self._spans
            },
        }
