"""Which Whisper steps each video frame reads (design.md section 6, musetalk_v15.md section 3).

``centred`` is the alignment that MuseTalk was trained with, at every frame rate: frame i reads
the ten steps from floor(50*i/fps) - 4, that is -80 to +120 ms around the moment it shows.

``upstream`` is what MuseTalk's inference code reads. It is the same from 25 to 49 fps, except

- at 29 and 31 fps, where its floating-point product lands just under some whole numbers and
  those frames read one step earlier (frame 145 at 29 fps is the first);
- for speech so short (under 80 ms) that its padding is cut, where it ends with an error.

Below 25 fps it reads 40 ms (17 to 24 fps) up to 200 ms (8 fps) earlier. Its frame count is one
less for the few lengths where its quotient lands just under a whole number (129,920 samples at
25 fps); here both alignments have the exact count, so that sound and frames stay in step.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from orchestrator.errors import UsageError
from orchestrator.speech import SAMPLE_RATE

I32 = npt.NDArray[np.int32]
F16 = npt.NDArray[np.float16]
Alignment = Literal["centred", "upstream"]

STEP_RATE: Final = 50
"""Whisper encoder steps a second."""

WINDOW: Final = 10
"""Steps that a frame reads."""

LAYERS: Final = 5
"""Whisper hidden states of a step."""

WIDTH: Final = 384
"""Values of a hidden state."""

MIN_FPS: Final = 8
MAX_FPS: Final = 49

_BEFORE: Final = 4


def frame_count(samples: int, fps: int) -> int:
    """Video frames of ``samples`` at 16 kHz: floor(samples/16000*fps), exactly.

    Raises:
        UsageError: ``fps`` is not between 8 and 49.
    """
    if not MIN_FPS <= fps <= MAX_FPS:
        raise UsageError(
            f"{fps} frames a second are not possible", remedy=f"use {MIN_FPS} to {MAX_FPS}"
        )
    return samples * fps // SAMPLE_RATE


def step_count(samples: int) -> int:
    """Whole Whisper steps in ``samples`` at 16 kHz."""
    return samples * STEP_RATE // SAMPLE_RATE


def windows(steps_total: int, samples: int, fps: int, alignment: Alignment = "centred") -> I32:
    """The steps that each frame of an utterance reads.

    Args:
        steps_total: steps that there are; what a window has outside of them is a zero row.
        samples: length of the utterance at 16 kHz.
        fps: frames a second, 8 to 49.
        alignment: see the module.

    Returns:
        I32[N,10], N = ``frame_count(samples, fps)``; -1 is a zero row.

    Raises:
        UsageError: ``fps`` is not between 8 and 49.
    """
    count = frame_count(samples, fps)
    if alignment == "centred":
        starts = np.arange(count, dtype=np.int64) * STEP_RATE // fps - _BEFORE
    else:
        ratio = STEP_RATE / fps
        # Two steps of padding for each whole step of the ratio; made by copying the shape of
        # a slice, so never longer than the speech itself.
        padding = min(2 * math.ceil(ratio), steps_total)
        starts = np.floor(np.arange(count) * ratio).astype(np.int64) - padding
    rows = starts[:, None] + np.arange(WINDOW)
    return np.where((rows >= 0) & (rows < steps_total), rows, -1).astype(np.int32)


def gather(hidden: F16, indices: I32) -> F16:
    """Put the audio input of frames together.

    Args:
        hidden: F16[T,5,384], all steps of the utterance.
        indices: I32[N,10], from ``windows``.

    Returns:
        F16[N,50,384], token = 5*step + layer, before positional encoding.
    """
    audio = hidden[np.maximum(indices, 0)]
    audio[indices < 0] = 0
    return audio.reshape(len(indices), WINDOW * LAYERS, WIDTH)
