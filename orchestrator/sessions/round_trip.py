"""How long the way to a client and back is, by when it confirms the media that it was sent."""

from __future__ import annotations

from collections import deque
from typing import Final

LONGEST: Final = 1.0
"""Seconds; a client that confirms later than that is slow, not far away."""

_KEPT: Final = 8
_SENT_KEPT: Final = 16


class RoundTrip:
    """The shortest of the last round trips: what is longer waited in a queue for once."""

    def __init__(self) -> None:
        self._sent: dict[int, float] = {}
        self._trips: deque[float] = deque(maxlen=_KEPT)

    @property
    def seconds(self) -> float:
        """The estimate; 0 before a client confirmed anything."""
        return min(self._trips, default=0.0)

    def sent(self, sequence: int, at: float) -> None:
        """A message left at a moment of a monotonic clock, in seconds."""
        self._sent[sequence] = at
        while len(self._sent) > _SENT_KEPT:
            del self._sent[next(iter(self._sent))]

    def confirmed(self, sequence: int, at: float) -> None:
        """The client has it; numbers that are not on their way mean nothing."""
        left = self._sent.pop(sequence, None)
        if left is not None:
            self._trips.append(min(at - left, LONGEST))

    def restart(self) -> None:
        """Another connection: it may be another way."""
        self._sent.clear()
        self._trips.clear()
