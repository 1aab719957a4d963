"""How many renders run at a time; the rest is refused before any work is done for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from orchestrator.errors import OverloadedError
from orchestrator.telemetry import Telemetry


class Admission:
    """A bounded number of places.

    Args:
        places: renders at a time.
        telemetry: counts refusals and renders under way.
    """

    def __init__(self, places: int, telemetry: Telemetry) -> None:
        self._places = places
        self._telemetry = telemetry
        self._taken = 0
        self._usual_seconds = 5.0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for the length of the block.

        Raises:
            OverloadedError: all places are taken.
        """
        if self._taken >= self._places:
            self._telemetry.rejected.inc()
            raise OverloadedError(
                f"all {self._places} places for renders are taken",
                remedy=f"try again in {self.retry_after} s",
            )
        self._taken += 1
        self._telemetry.in_progress.set(self._taken)
        start = monotonic()
        try:
            yield
        finally:
            self._taken -= 1
            self._telemetry.in_progress.set(self._taken)
            self._usual_seconds += 0.2 * (monotonic() - start - self._usual_seconds)

    @property
    def retry_after(self) -> int:
        """Seconds after which a place is likely to be free."""
        return max(1, math.ceil(self._usual_seconds / self._places))
