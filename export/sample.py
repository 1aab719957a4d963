"""Real inputs that come with the project: faces and speech to compare networks on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from export.modules import CROP
from orchestrator.errors import MediaError
from orchestrator.speech.decode import decode_audio
from orchestrator.speech.windows import gather, windows

Array = npt.NDArray[Any]
SAMPLE = Path(__file__).parent / "samples" / "verify.npz"
FPS = 25


@dataclass(frozen=True)
class Sample:
    """Real inputs.

    Attributes:
        crops: faces BGR, UINT8 [n,256,256,3].
        pcm: speech, INT16 [samples] at 16 kHz, long enough for n frames.
        audio: Whisper windows FP16 [n,50,384] of real speech, for a checkpoint without Whisper.
    """

    crops: npt.NDArray[np.uint8]
    pcm: npt.NDArray[np.int16]
    audio: npt.NDArray[np.float16]


def shipped_sample() -> Sample:
    """The sample of this package."""
    with np.load(SAMPLE) as data:
        return Sample(data["crops"], data["pcm"], data["audio"])


async def load_sample(frames: Path | None, audio: Path | None) -> Sample:
    """The shipped sample, with the user's own picture or speech in its place.

    Raises:
        MediaError: the picture or the speech cannot be read.
    """
    sample = shipped_sample()
    crops, pcm = sample.crops, sample.pcm
    if frames is not None:
        picture = cv2.imread(str(frames))
        if picture is None:
            raise MediaError(f"{frames}: not a readable picture")
        crop = cv2.resize(picture, (CROP, CROP), interpolation=cv2.INTER_LANCZOS4)
        crops = np.repeat(crop[None].astype(np.uint8), len(crops), axis=0)
    if audio is not None:
        pcm = await decode_audio(audio, max_seconds=30.0, max_bytes=200 << 20)
    return Sample(crops, pcm, sample.audio)


def audio_windows(hidden: Array, samples: int, count: int) -> Array:
    """Audio windows FP16 [count,50,384], spread evenly over the speech.

    Args:
        hidden: Whisper's states [steps,5,384].
        samples: of the speech, at 16 kHz.
        count: how many windows.
    """
    indices = windows(len(hidden), samples, FPS)
    chosen = np.linspace(0, len(indices) - 1, count).astype(int)
    return np.asarray(gather(hidden.astype(np.float16), indices[chosen]))


def parsing_images(crops: npt.NDArray[np.uint8]) -> Array:
    """The faces as ``face_parsing`` takes them, RGB UINT8 [n,512,512,3]."""
    return np.stack([cv2.resize(crop, (512, 512))[:, :, ::-1] for crop in crops])
