"""Phone times of a recording whose text is known, by dynamic time warping.

A synthesiser says the text too, and the two are laid over each other. Rough, some tens of
milliseconds: enough to ask whether lips close where they must, not enough to judge a lag. Piper
speaks, in the process of its own (``voice_worker.py``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.demo.speech_data import Speaker, Voice
from export.demo.visemes import Phone
from orchestrator.speech.mel import log_mel

I16 = NDArray[np.int16]
F64 = NDArray[np.float64]
Rows = NDArray[np.int64]

_HOP = 160
_CEPSTRA = 13
_MOST = 3
"""Steps of the rendering that one step of the recording may take."""
_WAIT = 0.6
"""Price of standing still in the rendering, in mean distances: pauses cost little."""


def cepstra(pcm: I16) -> F64:
    """F64[N,26], one row in 10 ms: cepstra and their slopes, the speaker's mean taken out."""
    mel = log_mel(pcm)[:, : max(4, len(pcm) // _HOP)].astype(np.float64)
    bands = np.arange(mel.shape[0]) + 0.5
    waves = np.cos(np.pi * np.arange(_CEPSTRA)[:, None] * bands / mel.shape[0])
    found = (waves @ mel).T
    found = np.hstack([found, np.gradient(found, axis=0) * 2])
    result: F64 = (found - found.mean(0)) / (found.std(0) + 1e-6)
    return result


def warp(recording: F64, rendering: F64) -> Rows:
    """For each row of the recording the row of the rendering that is like it, never backwards."""
    far = np.sqrt(
        np.maximum(
            np.square(recording).sum(1)[:, None]
            + np.square(rendering).sum(1)
            - 2 * recording @ rendering.T,
            0,
        )
    )
    count, length = far.shape
    price = np.array([_WAIT, 0.0, 0.2, 0.6]) * far.mean() * 0.5
    came = np.zeros((count, length), np.int8)
    cost = np.full(length, np.inf)
    cost[: length // 4 + 1] = far[0, : length // 4 + 1]
    for i in range(1, count):
        options = np.full((_MOST + 1, length), np.inf)
        for k in range(_MOST + 1):
            options[k, k:] = cost[: length - k] + price[k]
        came[i] = options.argmin(0)
        cost = options.min(0) + far[i]
    path = np.empty(count, np.int64)
    path[-1] = length - 1 - int(cost[::-1][: length // 4 + 1].argmin())
    for i in range(count - 1, 0, -1):
        path[i - 1] = path[i] - came[i, path[i]]
    return path


def align(pcm: I16, text: str, speaker: Speaker, voice: Voice) -> list[Phone]:
    """The phones of `text` with their times in the recording.

    Args:
        pcm: I16[S] at 16 kHz, at most 30 s.
        text: what is said, in the voice's language.
        speaker: a running one.
        voice: that says it too.
    """
    said, phones = speaker.speak(voice, text, 1.0, 50)
    said = said[: 30 * 16000]
    path = warp(cepstra(pcm), cepstra(said))
    # When the rendering has come as far as a row, for the first time.
    at = np.searchsorted(path, np.arange(path[-1] + 2)).clip(0, len(path) - 1) * _HOP / 16000

    def moved(seconds: float) -> float:
        row = seconds * 16000 / _HOP
        return float(np.interp(row, np.arange(len(at)), at))

    moves = [Phone(moved(p.start), moved(p.end), p.symbol) for p in phones]
    return [phone for phone in moves if phone.end > phone.start]
