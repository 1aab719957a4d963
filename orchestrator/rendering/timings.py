"""Where the time of a render goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

STAGES: Final = ("speech", "features", "lipsync", "composite", "encode", "finish")
"""Stages in the order of the data: text to speech, audio to features, Triton, and so on."""


@dataclass
class StageTimes:
    """Seconds of one render by stage; the stages overlap, so they add up to more than ``wall``.

    Attributes:
        seconds: by stage; time in which something of that stage was under way or waited for.
        wall: from the first to the last moment of the render.
        generated: frames that the model made.
        idle: frames taken from the avatar as they are.
        retries: requests that were sent again, because Triton did not answer.
        media: length of the video in seconds.
    """

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    wall: float = 0.0
    generated: int = 0
    idle: int = 0
    retries: int = 0
    media: float = 0.0

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent in the block to a stage, also when the block fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    @property
    def frames(self) -> int:
        """All frames of the video."""
        return self.generated + self.idle

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of video: below 1 is faster than real time."""
        return self.wall / self.media if self.media else 0.0
