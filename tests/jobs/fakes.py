"""A renderer without Triton, and the real service around it as a process.

``python fakes.py [VERSION]`` serves like ``musetalk serve``, with this renderer in place of
Triton's; VERSION is that of the sequence of steps, as a later release would have it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.avatars.masks import BlendMask
from orchestrator.errors import NotFoundError
from orchestrator.inference.schedule import Scheduler
from orchestrator.rendering.renderer import Renderer
from orchestrator.settings import Settings
from orchestrator.speech.tts import SpeechChunk, synthesizer

U8 = npt.NDArray[np.uint8]
F16 = npt.NDArray[np.float16]


class FakeAvatar:
    """Frames of 96x64 whose blue is 10 times their index; the face is a square in the middle."""

    id = "ada-1"
    name = "ada"
    fps = 25
    width, height = 96, 64

    def __init__(self, frames: int = 5) -> None:
        self.count = frames
        self.latents = np.zeros((frames, 8, 32, 32), np.float16)
        self.boxes = np.tile(np.array([32, 16, 64, 48], np.int32), (frames, 1))
        self.masks = [BlendMask(36, 20, np.full((24, 24), 255, np.uint8))] * frames

    def __len__(self) -> int:
        return self.count

    def frame(self, index: int) -> U8:
        frame = np.zeros((self.height, self.width, 3), np.uint8)
        frame[..., 0] = 10 * index
        return frame

    def cycle_index(self, index: int) -> int:
        place = index % (2 * self.count)
        return place if place < self.count else 2 * self.count - 1 - place


class FakeInference:
    """Faces whose grey is the Whisper step that the frame reads, as counted by the encoder."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.running = 0
        self.calls = 0

    async def encode_speech(self, mel: Any, steps: int, *, timeout: float | None = None) -> F16:
        hidden = np.zeros((steps, 5, 384), np.float16)
        hidden[:] = (np.arange(1, steps + 1) % 200)[:, None, None]
        return hidden

    async def lipsync(self, latents: F16, audio: F16, *, timeout: float | None = None) -> U8:
        self.calls += 1
        self.running += 1
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.running -= 1
        faces = np.empty((len(latents), 256, 256, 3), np.uint8)
        faces[:] = audio[:, 20, 0].astype(np.uint8)[:, None, None, None]
        return faces

    async def has_model(self, name: str) -> bool:
        return True

    async def ready(self) -> bool:
        return True


class FakeGallery:
    """One avatar."""

    def __init__(self) -> None:
        self.avatar = FakeAvatar()
        self.portraits = {self.avatar.name: Path("ada.npz")}
        self.store = SimpleNamespace(list=list)

    def names(self) -> list[str]:
        return [self.avatar.name]

    async def get(self, name: str | None, progress: Any = None) -> Any:
        if name not in (None, self.avatar.name):
            raise NotFoundError(f"there is no avatar {name!r}")
        return self.avatar

    async def poster(self, name: str) -> bytes:
        return bytes((await self.get(name)).jpegs[0])


class FakeVoice:
    """Speaks 40 ms for each character, a tone of its own for each text."""

    name = "fake"

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.languages: set[str | None] = set()
        self.error: Exception | None = None
        self.delay = 0.0

    async def synthesize(
        self, text: str, *, language: str | None = None
    ) -> AsyncGenerator[SpeechChunk, None]:
        self.texts.append(text)
        self.languages.add(language)
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        t = np.arange(24_000 * len(text) // 25) / 24_000
        tone = 6000 * np.sin(2 * np.pi * (200 + 10 * (len(text) % 20)) * t)
        yield SpeechChunk(tone.astype(np.int16), 24_000)

    async def close(self) -> None:
        pass


def fake_renderer(
    settings: Settings, *, voice: Any = None, inference: FakeInference | None = None
) -> Renderer:
    return Renderer(
        settings,
        inference or FakeInference(),  # type: ignore[arg-type]
        FakeGallery(),  # type: ignore[arg-type]
        voice or FakeVoice(),
        Scheduler(),
        batch=8,
        weights="w1",
    )


def main() -> None:
    import orchestrator.jobs.engine
    import orchestrator.jobs.keeper
    import orchestrator.serve

    @asynccontextmanager
    async def open_fake(settings: Settings) -> AsyncIterator[Renderer]:
        voice = synthesizer(settings)
        delay = float(os.environ.get("FAKE_DELAY", "0"))
        yield fake_renderer(settings, voice=voice, inference=FakeInference(delay))
        await voice.close()

    if len(sys.argv) > 1:
        for module in (orchestrator.jobs.engine, orchestrator.jobs.keeper):
            module.VERSION = int(sys.argv[1])  # type: ignore[attr-defined]
    orchestrator.serve.open_renderer = open_fake  # type: ignore[assignment]
    orchestrator.serve.serve(Settings())


if __name__ == "__main__":
    main()
