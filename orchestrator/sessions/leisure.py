"""When the next sentences of a turn may be worked on: not at the cost of frames about to be shown.

Voice and features of a sentence take as much of the machine as half a second of frames. Done as
soon as the sentence is known, they take it from the frames at the beginning of a turn, which have
no head start yet; done late, the sentence itself is late.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Final, Literal

SAFE_SECONDS: Final = 0.5
"""Frames that are there this long before they are shown: there is time for what comes next."""

NEXT_SECONDS: Final = 1.0
"""A sentence is begun at least so long before it is shown, longer where the machine is slow."""

_FIRST_MOUTHS_SECONDS: Final = 0.5
"""Between a sentence's features and the moment that its first frame is due."""

_LOOK_SECONDS: Final = 0.02

Step = Literal["voice", "features"]
"""What is done for a sentence before its mouths, in order."""


class Leisure:
    """Lets one thing at a time be done for later sentences, when there is time for it."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._there_is_time: Callable[[float], bool] = lambda _: False
        self._cost: dict[str, float] = {}
        self._clock = asyncio.get_running_loop().time

    def judge_by(self, there_is_time: Callable[[float], bool]) -> None:
        """Ask this from now on: is there time for what takes so many seconds until it shows?"""
        self._there_is_time = there_is_time

    @asynccontextmanager
    async def taken(
        self, step: Step, size: int = 1, *, at_once: bool = False
    ) -> AsyncIterator[None]:
        """Wait for time, keep others from taking the same, and learn how long the step takes.

        Args:
            step: of the work on a sentence.
            size: what its time grows with; characters for the voice.
            at_once: wait for nothing: it is the turn's first sentence.
        """
        async with nullcontext() if at_once else self._turn:
            while not (at_once or self._may_begin(step, size)):  # noqa: ASYNC110 -- time decides
                await asyncio.sleep(_LOOK_SECONDS)
            began = self._clock()
            yield
            self._cost[step] = (self._clock() - began) / size

    def _may_begin(self, step: Step, size: int) -> bool:
        """Whether there is time until the sentence's first frame, by what the one before took."""
        work = self._cost.get(step, 0.0) * size
        if step == "voice":
            work += self._cost.get("features", 0.0)
        return self._there_is_time(max(NEXT_SECONDS, work + _FIRST_MOUTHS_SECONDS))


def is_early(
    following: float | None,
    ending: float | None,
    now: float,
    *,
    needed: float = NEXT_SECONDS,
    hurried: bool = False,
) -> bool:
    """Whether frames are early enough, or the end so near that what comes next cannot wait.

    Args:
        following: moment at which the next frame that is not there yet is due; None: not known,
            the part has not begun to show.
        ending: moment at which the part ends, likewise.
        now: on the same clock.
        needed: seconds that what comes next takes until it shows.
        hurried: another session begins to speak and needs the machine: only the end counts.
    """
    if following is None or ending is None:
        return False
    return (following - now > SAFE_SECONDS and not hurried) or ending - now < needed
