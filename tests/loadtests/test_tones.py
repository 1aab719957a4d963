"""The marker against cross-talk is heard in a coded sound, and another one beside it too."""

from __future__ import annotations

import asyncio
import subprocess

import numpy as np
import pytest

from loadtests.tones import RATE, decode, frequency, listen, tone
from orchestrator.speech.ffmpeg import ffmpeg_path


def sound(hertz: float, seconds: float = 1.0) -> np.ndarray:
    moments = np.arange(round(seconds * RATE)) * 16_000 / RATE
    recorded = tone(hertz, seconds)
    return np.interp(moments, np.arange(len(recorded)), recorded).astype(np.int16)


def test_users_next_to_each_other_are_told_apart() -> None:
    mine = sound(frequency(3))
    heard = listen(mine)
    assert heard.only(frequency(3))
    assert not heard.only(frequency(2)) and not heard.only(frequency(4))
    assert heard.onset == pytest.approx(0, abs=0.002)


def test_a_foreign_moment_is_found() -> None:
    mixed = sound(frequency(3), 2.0)
    mixed[RATE : RATE + RATE // 5] = sound(frequency(7), 0.2)
    assert not listen(mixed).only(frequency(3))


def test_silence_is_no_marker() -> None:
    heard = listen(np.zeros(RATE, np.int16))
    assert heard.onset is None and not heard.only(400)


def test_a_tone_survives_aac() -> None:
    coded = subprocess.run(
        [
            *(ffmpeg_path(), "-v", "error", "-f", "s16le", "-ar", str(RATE), "-ac", "1"),
            *("-i", "pipe:0", "-c:a", "aac", "-f", "mp4", "-movflags", "empty_moov", "pipe:1"),
        ],
        input=sound(frequency(5)).tobytes(),
        capture_output=True,
        check=True,
    ).stdout
    assert listen(asyncio.run(decode(coded))).only(frequency(5))
    with pytest.raises(ValueError, match="cannot be decoded"):
        asyncio.run(decode(b"nothing"))
