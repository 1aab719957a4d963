"""A photograph in the public domain, media made from it, and an encoder that only counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from orchestrator.settings import Settings
from orchestrator.speech.ffmpeg import run_ffmpeg

GOLDEN = Path(__file__).parent.parent / "golden"
U8 = npt.NDArray[np.uint8]


class MeanEncoder:
    """The part of ``Inference`` that preparation needs: latents are the crop's mean colour."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset
        self.crops = 0

    async def encode_crops(
        self, crops: U8, *, timeout: float | None = None
    ) -> npt.NDArray[np.float16]:
        assert crops.shape[1:] == (256, 256, 3) and crops.dtype == np.uint8 and len(crops) <= 8
        self.crops += len(crops)
        means = crops.mean((1, 2, 3)) + self.offset
        return np.broadcast_to(means[:, None, None, None], (len(crops), 8, 32, 32)).astype(
            np.float16
        )

    async def has_model(self, name: str) -> bool:
        return False


@pytest.fixture
def encoder() -> MeanEncoder:
    return MeanEncoder()


@pytest.fixture(scope="session")
def photograph() -> U8:
    """640x640 BGR, one face about 120 pixels wide."""
    with np.load(GOLDEN / "chain.npz") as data:
        frame: U8 = data["frames"][0]
    return frame


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", max_avatar_seconds=4.0)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write a BGR picture through PIL: ``save(picture, "x.png", **options)``."""

    def write(picture: U8, name: str, **options: object) -> Path:
        path = tmp_path / name
        Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1])).save(path, **options)
        return path

    return write


@pytest.fixture
def film(tmp_path: Path, photograph: U8) -> Callable[..., object]:
    """Make a video of the photograph: ``await film("x.mp4", *ffmpeg output options)``."""

    async def make(name: str, *options: str, picture: U8 | None = None) -> Path:
        source = tmp_path / "source.png"
        cv2.imwrite(str(source), photograph if picture is None else picture)
        path = tmp_path / name
        await run_ffmpeg(["-loop", "1", "-i", f"file:{source}", *options, str(path)], timeout=60)
        return path

    return make
