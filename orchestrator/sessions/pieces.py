"""What turns hand over to be shown, and what makes media of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from orchestrator.rendering.live import Fragment

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]


class Media(Protocol):
    """What a session asks of ``rendering.live.LiveMedia``."""

    init: bytes

    @property
    def end(self) -> float:
        """Length of the timeline so far, in seconds."""
        ...

    def prepare(self) -> None:
        """Speech comes soon."""
        ...

    def idle(self) -> Fragment:
        """The next idle fragment."""
        ...

    async def begin_turn(self) -> None:
        """Speech comes next."""
        ...

    async def speech(self, frames: Sequence[U8], sound: I16, last: bool = False) -> list[Fragment]:
        """Frames and their sound to fragments."""
        ...

    async def end_turn(self) -> list[Fragment]:
        """The rest of the speech."""
        ...

    async def cut(self, at: float) -> float:
        """End the timeline at ``at`` or soon after; returns where."""
        ...

    async def close(self) -> None:
        """End processes."""
        ...


@dataclass(frozen=True)
class Piece:
    """Frames to show next.

    Attributes:
        frames: each U8[H,W,3] BGR, on the session's frame grid.
        sound: I16[S] at 48 kHz, exactly as long as the frames.
        begins: called with the position in seconds at which the first of them will show, when
            it is the first of a sentence.
        encoded: called with the seconds of media that it was, and that encoding it took.
        head_start: seconds that speech which begins with it should be held back, because what
            follows takes so long.
    """

    frames: Sequence[U8]
    sound: I16
    begins: Callable[[float], None] | None
    encoded: Callable[[float, float], None]
    head_start: float = 0.0
