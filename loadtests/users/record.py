"""What users report: Locust's events by the field's names, and a line in a file for the report."""

from __future__ import annotations

import os
from pathlib import Path

from locust.env import Environment

from loadtests.figures import Turn

_UNITLESS = "real_time_factor"


class Record:
    """All turns of a run.

    Attributes:
        turns: so far.
    """

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        folder = os.environ.get("MUSETALK_LOAD_OUTPUT")
        self._file = (Path(folder) / "turns.jsonl").open("w") if folder else None

    def add(self, environment: Environment, turn: Turn) -> None:
        """Report a turn: one Locust request for it, one for each of its figures.

        Locust knows milliseconds only: a real-time factor of 0.5 is reported as 500, and late
        frames as the milliseconds that they last.
        """
        self.turns.append(turn)
        if self._file is not None:
            self._file.write(turn.line() + "\n")
            self._file.flush()
        kind = f"{turn.kind} {turn.request}"
        if turn.refused:
            _fire(environment, kind, "refused", 0.0)
            return
        if turn.error:
            _fire(environment, kind, "failed", 0.0, RuntimeError(turn.error))
            return
        for name, value in turn.figures.items():
            words = name.replace("_", " ") + (" (x1000)" if name == _UNITLESS else "")
            _fire(environment, kind, words, value * 1000)
        if turn.frames:
            _fire(environment, kind, "late frames", turn.late * 40.0)
        if turn.marker is not None:
            wrong = None if turn.marker else RuntimeError("another sound or word than its own")
            _fire(environment, kind, "own marker", 0.0, wrong)


def _fire(
    environment: Environment, kind: str, name: str, ms: float, failure: Exception | None = None
) -> None:
    environment.events.request.fire(  # type: ignore[no-untyped-call]  # Locust's hook
        request_type=kind, name=name, response_time=ms, response_length=0, exception=failure
    )


RECORD = Record()
