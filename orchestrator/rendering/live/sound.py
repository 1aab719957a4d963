"""The sound of a session as it was meant, kept for as long as it may have to be encoded again."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.rendering.live.fmp4 import TICKS

I16 = npt.NDArray[np.int16]

KEPT_SECONDS: Final = 6
"""How far back the sound is known: a viewer's player never has more than that in hand."""

FADE: Final = TICKS // 50
"""Samples over which sound that is cut gives way to silence."""


class SoundLine:
    """Samples by their place on the timeline; where nothing was put, there is silence."""

    def __init__(self) -> None:
        self._start = 0
        self._samples: I16 = np.zeros(0, np.int16)

    @property
    def end(self) -> int:
        """Place after the last sample that was put; 0 if there is none."""
        return self._start + len(self._samples) if len(self._samples) else 0

    def read(self, start: int, stop: int) -> I16:
        """Samples I16[stop-start]; ``start`` may be before the beginning of time."""
        result = np.zeros(max(0, stop - start), np.int16)
        first, last = max(start, self._start), min(stop, self.end)
        if first < last:
            result[first - start : last - start] = self._samples[
                first - self._start : last - self._start
            ]
        return result

    def mix(self, at: int, samples: I16) -> None:
        """Add samples to what sounds from ``at`` on."""
        if not len(samples):
            return
        if not len(self._samples):
            self._start = at
        start, stop = min(at, self._start), max(at + len(samples), self.end)
        whole = self.read(start, stop)
        part = whole[at - start : at - start + len(samples)]
        mixed = np.add(part, samples, dtype=np.int32)
        part[:] = np.clip(mixed, -32768, 32767)
        self._start, self._samples = start, whole

    def is_silent(self, start: int, stop: int) -> bool:
        """Whether there is nothing to hear between two places."""
        return not self.read(start, stop).any()

    def fade(self, at: int) -> None:
        """Let the sound end between ``at`` and ``at + FADE``."""
        if self.end <= at:
            return
        gain = np.cos(np.linspace(0, np.pi / 2, FADE, endpoint=False)) ** 2
        faded = np.rint(self.read(at, at + FADE) * gain).astype(np.int16)
        kept = self.read(self._start, at)
        self._start = min(self._start, at)
        self._samples = np.concatenate([kept, faded])

    def forget(self, before: int) -> None:
        """Let go of the samples before a place."""
        if before >= self.end:
            self._samples = np.zeros(0, np.int16)
        elif before > self._start:
            self._samples = self._samples[before - self._start :].copy()
            self._start = before
