"""The clock of a stream that is played: what comes late has been missed, and time goes on."""

from __future__ import annotations

import math
from typing import Final

_TICK: Final = 1e-9


def late_frames(behind: float, fps: float) -> int:
    """Frames whose moment has passed when the first of them comes ``behind`` seconds late."""
    return max(0, math.ceil(behind * fps - _TICK))


class Pace:
    """Chunks of frames that are asked for one after the other, each while the last one plays.

    The moments are those of the stream, not of the answers: after a stall the chunks that should
    have been played meanwhile are missed, and counted, though nobody asked for them.

    Attributes:
        due: when the next chunk is to be asked for; one chunk later it begins to play.

    Args:
        start: when the first chunk is asked for, on any clock.
        chunk: frames of each.
        fps: frames a second.
    """

    def __init__(self, start: float, chunk: int, fps: float) -> None:
        self.due = start
        self._chunk = chunk
        self._fps = fps

    def answered(self, now: float) -> tuple[int, int]:
        """A chunk is there, or has failed.

        Args:
            now: moment of that, on the clock of ``start``.

        Returns:
            Frames that this answers for, those of chunks that were skipped included; how many of
            them were not there in time.
        """
        period = self._chunk / self._fps
        self.due += period
        behind = now - self.due
        late = min(self._chunk, late_frames(behind, self._fps))
        skipped = max(0, math.floor(behind / period))
        self.due += skipped * period
        missed = skipped * self._chunk
        return self._chunk + missed, late + missed
