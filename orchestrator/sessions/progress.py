"""How far each stage of a turn is, in percent that only grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from orchestrator.speech import SAMPLE_RATE

StageName = Literal["llm", "tts", "avatar_generation", "encoding"]

_ALMOST: Final = 99


class TurnProgress:
    """Percentages of one turn.

    How long a reply will be is known only at its end: until then the later stages count against
    the part of the reply that is there, scaled by how much of the longest reply that is.

    Args:
        tokens: of the longest reply; 0 for a text that is there from the start.
        fps: of the frame grid.
        tell: called with a stage and its percent, each time it has grown by a whole one.
    """

    def __init__(self, tokens: int, fps: int, tell: Callable[[StageName, int], None]) -> None:
        self._tell = tell
        self._longest = tokens
        self._fps = fps
        self._written = not tokens
        self._tokens = 0
        self._chars = 0
        self._voiced = 0
        self._seconds = 0.0
        self._frames = 0
        self._encoded = 0.0
        self._told: dict[StageName, int] = {}

    def token(self) -> None:
        """A piece of the reply came."""
        self._tokens += 1
        if self._longest:
            self._reach("llm", self._tokens / self._longest)

    def sentence(self, chars: int) -> None:
        """A sentence waits for the voice."""
        self._chars += chars

    def voiced(self, chars: int, samples: int) -> None:
        """A sentence of so many characters is so many samples at 16 kHz long."""
        self._voiced += chars
        self._seconds += samples / SAMPLE_RATE
        self._reach("tts", self._voiced / max(1, self._chars) * self._known)

    def rendered(self, frames: int) -> None:
        """Frames are there."""
        self._frames += frames
        self._reach("avatar_generation", self._part(self._frames / self._fps))

    def encoded(self, seconds: float) -> None:
        """So much media is encoded."""
        self._encoded += seconds
        self._reach("encoding", self._part(self._encoded))

    def complete(self, stage: StageName) -> None:
        """A stage is over."""
        if stage == "llm":
            self._written = True
            if not self._longest:
                return
        self._say(stage, 100)

    @property
    def _known(self) -> float:
        return 1.0 if self._written else min(1.0, self._tokens / self._longest)

    def _part(self, seconds: float) -> float:
        voiced = self._voiced / max(1, self._chars) if self._chars else 1.0
        return min(1.0, seconds / max(seconds, self._seconds)) * voiced * self._known

    def _reach(self, stage: StageName, part: float) -> None:
        self._say(stage, min(_ALMOST, int(100 * part)))

    def _say(self, stage: StageName, percent: int) -> None:
        if percent > self._told.get(stage, -1):
            self._told[stage] = percent
            self._tell(stage, percent)
