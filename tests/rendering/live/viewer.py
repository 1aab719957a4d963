"""A session and its viewer, for the tests of whole streams."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psutil

from orchestrator.rendering.live import LiveMedia
from orchestrator.rendering.live.fmp4 import TICKS

I16 = npt.NDArray[np.int16]

TICK: Final = 1920
"""Samples of a frame at 25 fps."""


def ffmpegs() -> int:
    """Encoders of this process that run now; other tests have servers of theirs beside them."""
    found = psutil.Process().children(recursive=True)
    return sum(process.name().startswith("ffmpeg") for process in found)


class Viewer:
    """A session and its viewer: what was said and shown, and what arrived."""

    def __init__(self, tools: Any, avatar: Any, media: LiveMedia, fps: int = 25) -> None:
        self.tools, self.avatar, self.media, self.fps = tools, avatar, media, fps
        self.player = tools.Player(media.init)
        self.said = np.zeros(60 * TICKS, np.int64)
        self.tick = TICKS // fps

    def frame(self, index: int) -> Any:
        return self.avatar.frame(self.avatar.cycle_index(index * self.avatar.fps // self.fps))

    async def turn(self, chunks: list[int], *, seed: int = 1, end: bool = True) -> None:
        """Speak ``chunks`` of frames, as the renderer would."""
        await self.media.begin_turn()
        sound = self.tools.voice(sum(chunks) * self.tick, seed=seed)
        for chunk in chunks:
            await self.speak(chunk, sound[: chunk * self.tick])
            sound = sound[chunk * self.tick :]
        if end:
            await self.end()

    async def speak(self, chunk: int, sound: I16) -> None:
        at = round(self.media.end * TICKS)
        first = round(self.media.end * self.fps)
        self.said[at : at + len(sound)] += sound
        frames = [self.frame(first + index) for index in range(chunk)]
        self.player.append(*await self.media.speech(frames, sound))

    async def end(self) -> None:
        self.player.append(*await self.media.end_turn())

    def idle(self, count: int = 1) -> None:
        self.player.append(*(self.media.idle() for _ in range(count)))

    async def cut(self, at: float) -> float:
        position = await self.media.cut(at)
        self.player.flush(position)
        return position


def loudness(sound: npt.NDArray[Any]) -> Any:
    """Root mean square of each 1024 samples."""
    whole = sound[: len(sound) // 1024 * 1024].astype(np.float64).reshape(-1, 1024)
    return np.sqrt((whole**2).mean(axis=1))
