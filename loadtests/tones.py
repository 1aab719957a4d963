"""Markers against cross-talk: each viewer speaks a tone of its own and must hear that one only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.processes import end_process
from orchestrator.speech import SAMPLE_RATE
from orchestrator.speech.ffmpeg import ffmpeg_path

I16 = npt.NDArray[np.int16]

RATE: Final = 48_000
WINDOW: Final = RATE // 10
TOLERANCE: Final = 15.0
"""Hertz between what was sent and what is heard: a window tells 10 apart, tones are 40 apart."""

_LOUD: Final = 0.02
_ONSET: Final = 0.05
_DECODE_SECONDS: Final = 30.0


def frequency(user: int) -> float:
    """The tone of a user, in hertz: between 400 and 2760, the same for every 60th user."""
    return 400.0 + 40.0 * (user % 60)


def tone(hertz: float, seconds: float) -> I16:
    """A tone as a recording of speech: mono, 16 kHz."""
    moments = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.3 * 32767 * np.sin(2 * np.pi * hertz * moments)).astype(np.int16)


@dataclass(frozen=True)
class Heard:
    """What a sound is made of.

    Attributes:
        onset: seconds until it is first loud; None: never.
        frequencies: main frequency of each loud tenth of a second, in hertz.
    """

    onset: float | None
    frequencies: tuple[float, ...]

    def only(self, hertz: float) -> bool:
        """Whether there is a sound, and all of it is this tone."""
        return bool(self.frequencies) and all(
            abs(found - hertz) <= TOLERANCE for found in self.frequencies
        )


def listen(pcm: I16) -> Heard:
    """Analyse a sound.

    Args:
        pcm: mono, 48 kHz.
    """
    sound = pcm.astype(np.float64) / 32768
    loud = np.flatnonzero(np.abs(sound) > _ONSET)
    frequencies = []
    for start in range(0, len(sound) - WINDOW + 1, WINDOW):
        part = sound[start : start + WINDOW]
        if np.sqrt(np.mean(part**2)) > _LOUD:
            spectrum = np.abs(np.fft.rfft(part * np.hanning(WINDOW)))
            frequencies.append(float(np.argmax(spectrum)) * RATE / WINDOW)
    return Heard(float(loud[0]) / RATE if len(loud) else None, tuple(frequencies))


async def decode(mp4: bytes) -> I16:
    """The sound of an MP4: mono, 48 kHz.

    Raises:
        ValueError: it cannot be decoded.
        TimeoutError: decoding takes more than half a minute.
    """
    process = await asyncio.create_subprocess_exec(
        *(ffmpeg_path(), "-v", "error", "-i", "pipe:0", "-vn", "-ac", "1", "-ar", str(RATE)),
        *("-f", "s16le", "pipe:1"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, log = await asyncio.wait_for(process.communicate(mp4), _DECODE_SECONDS)
    finally:
        await end_process(process)
    if process.returncode:
        raise ValueError(f"the received sound cannot be decoded: {log.decode()[-300:]}")
    return np.frombuffer(out, np.int16)
