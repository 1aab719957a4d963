"""When the next sentences of a turn may be worked on: not at the cost of frames about to be shown.

Voice and features of a sentence take as much of the machine as half a second of frames. Done as
soon as the sentence is known, they take it from the frames at the beginning of a turn, which have
no head start yet; done late, the sentence itself is late.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

SAFE_SECONDS: Final = 0.5
"""Frames that are there this long before they are shown: there is time for what comes next."""

NEXT_SECONDS: Final = 1.0
"""A sentence is spoken and encoded at least so long before it is shown."""

_LOOK_SECONDS: Final = 0.02


class Leisure:
    """Lets one thing at a time be done for later sentences, when there is time for it."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._there_is_time: Callable[[], bool] = lambda: False

    def judge_by(self, there_is_time: Callable[[], bool]) -> None:
        """Ask this from now on."""
        self._there_is_time = there_is_time

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait for time, and keep others from taking the same."""
        async with self._turn:
            while not self._there_is_time():  # noqa: ASYNC110 -- the clock decides as well
                await asyncio.sleep(_LOOK_SECONDS)
            yield


def is_early(
    following: float | None, ending: float | None, now: float, *, hurried: bool = False
) -> bool:
    """Whether frames are early enough, or the end so near that what comes next cannot wait.

    Args:
        following: moment at which the next frame that is not there yet is due; None: not known,
            the part has not begun to show.
        ending: moment at which the part ends, likewise.
        now: on the same clock.
        hurried: another session begins to speak and needs the machine: only the end counts.
    """
    if following is None or ending is None:
        return False
    return (following - now > SAFE_SECONDS and not hurried) or ending - now < NEXT_SECONDS
