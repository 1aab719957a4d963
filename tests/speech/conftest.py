from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.speech.ffmpeg import ffmpeg_path

I16 = npt.NDArray[np.int16]
MakeSound = Callable[..., Path]

TONE = "aevalsrc=0.5*sin(880*PI*t)|0.3*sin(880*PI*t):s=48000"


@pytest.fixture
def make_sound(tmp_path: Path) -> MakeSound:
    """Write a 440 Hz tone (left louder than right) with ffmpeg, in whatever format is named."""

    def make(
        name: str, *options: str, seconds: float = 2.0, video: bool = False, source: str = TONE
    ) -> Path:
        path = tmp_path / name
        picture = ["-f", "lavfi", "-i", f"testsrc=s=64x64:r=10:d={seconds}"] if video else []
        subprocess.run(
            [
                *(ffmpeg_path(), "-v", "error", "-nostdin", "-y"),
                *("-f", "lavfi", "-i", f"{source}:d={seconds}", *picture, *options, str(path)),
            ],
            check=True,
            timeout=60,
        )
        return path

    return make


@pytest.fixture
def speechlike() -> Callable[[int], I16]:
    """Noise whose loudness rises and falls as that of syllables."""

    def make(samples: int, seed: int = 0) -> I16:
        noise = np.random.default_rng(seed).normal(size=samples)
        return (noise * 4000 * (np.sin(np.arange(samples) / 1500) ** 4 + 0.02)).astype(np.int16)

    return make
