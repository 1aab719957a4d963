"""A small deterministic Inference and an avatar whose frames say their index."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.avatars.masks import BlendMask
from orchestrator.errors import UnavailableError

GOLDEN = Path(__file__).parent.parent / "golden"

U8 = npt.NDArray[np.uint8]
F16 = npt.NDArray[np.float16]


@dataclass
class FakeInference:
    """Answers with a face whose grey is the first Whisper step that the frame reads, plus 1.

    Each step's hidden state holds its own number, so a frame that reads zero rows is told apart.
    """

    delay: float = 0.0
    before_lipsync: Callable[[int], None] = lambda call: None
    batches: list[int] = field(default_factory=list)
    latents: list[float] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    is_ready: bool = True

    async def encode_speech(
        self, mel: npt.NDArray[np.float32], steps: int, *, timeout: float | None = None
    ) -> F16:
        assert mel.shape == (80, 3000)
        hidden = np.zeros((steps, 5, 384), np.float16)
        hidden[:] = np.arange(1, steps + 1)[:, None, None]
        return hidden

    async def lipsync(self, latents: F16, audio: F16, *, timeout: float | None = None) -> U8:
        assert latents.shape[1:] == (8, 32, 32) and audio.shape[1:] == (50, 384)
        assert len(latents) == len(audio)
        call = len(self.batches)
        self.batches.append(len(latents))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.delay)
            self.before_lipsync(call)
        finally:
            self.running -= 1
        self.latents += [float(value) for value in latents[:, 0, 0, 0]]
        faces = np.empty((len(latents), 256, 256, 3), np.uint8)
        faces[:] = np.minimum(audio[:, 20, 0], 255).astype(np.uint8)[:, None, None, None]
        return faces

    async def has_model(self, name: str) -> bool:
        if not self.is_ready:
            raise UnavailableError("still away")
        return name == "lipsync"


class FakeAvatar:
    """Frames of 96x64 whose blue is 10 times their index; the face is a square in the middle."""

    name = "Ada"
    fps = 25
    width, height = 96, 64

    def __init__(self, frames: int = 5) -> None:
        self.count = frames
        self.latents = np.zeros((frames, 8, 32, 32), np.float16)
        self.latents[:] = np.arange(frames)[:, None, None, None]
        self.boxes = np.tile(np.array([32, 16, 64, 48], np.int32), (frames, 1))
        alpha = np.full((24, 24), 255, np.uint8)
        self.masks = [BlendMask(36, 20, alpha)] * frames

    def __len__(self) -> int:
        return self.count

    def frame(self, index: int) -> U8:
        frame = np.zeros((self.height, self.width, 3), np.uint8)
        frame[..., 0] = 10 * index
        frame.setflags(write=False)
        return frame

    def cycle_index(self, index: int) -> int:
        place = index % (2 * self.count)
        return place if place < self.count else 2 * self.count - 1 - place


@pytest.fixture
def avatar() -> FakeAvatar:
    return FakeAvatar()


@pytest.fixture
def inference() -> FakeInference:
    return FakeInference()


@pytest.fixture
def make_inference() -> type[FakeInference]:
    return FakeInference


@pytest.fixture(scope="session")
def golden_chain() -> dict[str, Any]:
    return dict(np.load(GOLDEN / "chain.npz"))


@pytest.fixture(scope="session")
def golden_blend() -> dict[str, Any]:
    return dict(np.load(GOLDEN / "blend.npz"))


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let retries wait for moments, not for a minute."""
    monkeypatch.setattr("orchestrator.rendering.render._RECOVERY_SECONDS", 0.2)
    monkeypatch.setattr("orchestrator.rendering.render._POLL_SECONDS", 0.02)
    yield
