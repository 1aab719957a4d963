"""Where the viewer's player is on the media timeline, between the reports of its client."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

_SLACK_SECONDS: Final = 1.0
"""How far a client may claim to be ahead of a player that never paused; clocks drift."""

_JITTER_SECONDS: Final = 1.0
"""How much later than others a report may come; a player that halts is believed after that."""

_REPORTS_KEPT: Final = 64
"""Of the last moment; a client that sends more costs no more."""


class Playhead:
    """Estimates what is shown now; all moments are those of one monotonic clock.

    A client that reports nothing is taken to play from the moment it got its first fragment.
    """

    def __init__(self) -> None:
        self._time = 0.0
        self._at: float | None = None
        self._origin: tuple[float, float] | None = None
        self._end = 0.0
        # When a report came, and what the player's position was ahead of our clock by it.
        self._reports: deque[tuple[float, float]] = deque(maxlen=_REPORTS_KEPT)

    def sent(self, start: float, end: float, at: float) -> None:
        """A fragment was sent.

        Args:
            start: its first moment on the timeline, in seconds.
            end: its last.
            at: now.
        """
        if self._at is None:
            self._time, self._at = start, at
            self._origin = (start, at)
        elif self.now(at) >= self._end:
            # The player had run dry: it goes on only now.
            self._time, self._at = self._end, at
            self._reports.clear()
        self._end = max(self._end, end)

    def flushed(self, end: float) -> None:
        """The client drops what it has from ``end`` on."""
        self._end = min(self._end, end)

    def report(self, time: float, at: float) -> None:
        """The client says where it is; what cannot be true is brought to what can.

        A report that was held up on its way tells where the player was: of those of the last
        moments the one that puts it furthest holds.

        Args:
            time: position of its player in seconds.
            at: now.
        """
        if self._origin is None or not math.isfinite(time):
            return
        start, began = self._origin
        fastest = start + at - began + _SLACK_SECONDS
        possible = max(start, min(time, self._end, fastest))
        self._reports.append((at, possible - at))
        while self._reports[0][0] < at - _JITTER_SECONDS:
            self._reports.popleft()
        self._time = at + max(lead for _, lead in self._reports)
        self._at = at

    def restart(self, position: float) -> None:
        """The client starts with an empty player, which gets media from a position on."""
        self._at = None
        self._end = position
        self._reports.clear()

    def now(self, at: float) -> float:
        """Position in seconds: never past what was sent.

        Args:
            at: now.
        """
        if self._at is None:
            return self._end
        return min(self._time + at - self._at, self._end)
