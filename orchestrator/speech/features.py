"""From speech to the audio input of each video frame: mel, Whisper encoder, windows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orchestrator.errors import MediaError
from orchestrator.speech import SAMPLE_RATE
from orchestrator.speech.mel import SEGMENT, log_mel, segments
from orchestrator.speech.windows import (
    LAYERS,
    WIDTH,
    Alignment,
    frame_count,
    gather,
    step_count,
    windows,
)

if TYPE_CHECKING:
    from orchestrator.inference import Inference

I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]
F16 = npt.NDArray[np.float16]


class SpeechFeatures:
    """The audio input of every frame of an utterance, put together only where it is read.

    Neighbouring frames share most of their steps: ten minutes are 115 MB of hidden states, but
    576 MB of frames.

    Args:
        hidden: F16[T,5,384], what the Whisper encoder said.
        indices: I32[N,10], what each frame reads of it.
    """

    def __init__(self, hidden: F16, indices: I32) -> None:
        self._hidden = hidden
        self._indices = indices

    def __len__(self) -> int:
        """Number of video frames."""
        return len(self._indices)

    def __getitem__(self, frames: slice) -> F16:
        """F16[n,50,384] of some frames, before positional encoding."""
        return gather(self._hidden, self._indices[frames])

    def part(self, start: int, stop: int) -> SpeechFeatures:
        """The input of the frames from ``start`` to before ``stop``."""
        return SpeechFeatures(self._hidden, self._indices[start:stop])

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        """F16[N,50,384] of all frames."""
        return np.asarray(self[:], dtype)


async def speech_features(
    inference: Inference, pcm: I16, fps: int, alignment: Alignment = "centred"
) -> SpeechFeatures:
    """Encode one utterance by itself: a sentence, or a whole recording in segments of 30 s.

    Args:
        inference: Triton.
        pcm: I16[S] mono at 16 kHz.
        fps: frames a second, 8 to 49.
        alignment: which steps a frame reads, see ``windows``.

    Returns:
        The input of floor(S/16000*fps) frames; reads like F16[N,50,384].

    Raises:
        MediaError: the speech is shorter than one frame.
        UsageError: ``fps`` is not between 8 and 49.
        InferenceError: Triton failed.
    """
    if not frame_count(len(pcm), fps):
        raise MediaError(
            f"the speech is shorter than one frame: {len(pcm) / SAMPLE_RATE * 1000:.0f} ms, "
            f"a frame at {fps} fps needs {1000 / fps:.0f} ms"
        )
    hidden = np.empty((step_count(len(pcm)), LAYERS, WIDTH), np.float16)
    filled = 0
    for start, steps in segments(len(pcm)):
        mel = await asyncio.to_thread(log_mel, pcm[start : start + SEGMENT])
        hidden[filled : filled + steps] = await inference.encode_speech(mel, steps)
        filled += steps
    return SpeechFeatures(hidden, windows(len(hidden), len(pcm), fps, alignment))
