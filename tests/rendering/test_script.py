from __future__ import annotations

import io
import wave
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import MediaError, SpeechError, UsageError
from orchestrator.rendering.encode import AUDIO_RATE
from orchestrator.rendering.script import Utterance, read_recording, read_text
from orchestrator.rendering.timings import StageTimes
from orchestrator.settings import Settings
from orchestrator.speech.tts import SpeechChunk

SETTINGS = Settings(max_text_chars=200, max_audio_seconds=5)


class Voice:
    """Says a tone, a tenth of a second for each character, in two chunks at 22,050 Hz."""

    name = "test voice"

    def __init__(self, silent: bool = False) -> None:
        self.said: list[str] = []
        self.silent = silent

    async def synthesize(
        self, text: str, *, language: str | None = None
    ) -> AsyncGenerator[SpeechChunk, None]:
        self.said.append(text)
        if self.silent:
            return
        t = np.arange(round(0.1 * len(text) * 22050)) / 22050
        pcm = (10000 * np.sin(2 * np.pi * 300 * t)).astype(np.int16)
        yield SpeechChunk(pcm[:1000], 22050)
        yield SpeechChunk(pcm[1000:], 22050)

    async def close(self) -> None:
        pass


def wav(seconds: float, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        t = np.arange(round(seconds * rate)) / rate
        file.writeframes((10000 * np.sin(2 * np.pi * 300 * t)).astype("<i2").tobytes())
    return buffer.getvalue()


async def test_a_text_is_spoken_sentence_by_sentence() -> None:
    voice, times = Voice(), StageTimes()
    said = [u async for u in read_text("Hello. Hi again!", SETTINGS).utterances(voice, times)]
    assert voice.said == ["Hello.", "Hi again!"]
    assert [len(u.pcm) for u in said] == [9600, 14400]
    assert [len(u.sound) for u in said] == [28800, 43200]
    assert sum(u.share for u in said) == pytest.approx(1)
    assert said[0].pause and said[1].pause == 0
    assert times.seconds["speech"] > 0


async def test_both_rates_are_the_same_sound() -> None:
    (utterance,) = [
        u async for u in read_text("Hello.", SETTINGS).utterances(Voice(), StageTimes())
    ]
    apart = utterance.sound[::3].astype(int) - utterance.pcm
    assert np.abs(apart[200:-200]).max() < 300


async def test_a_voice_that_says_nothing_is_an_error() -> None:
    with pytest.raises(SpeechError, match="test voice said nothing"):
        async for _ in read_text("Hello.", SETTINGS).utterances(Voice(silent=True), StageTimes()):
            pass


@pytest.mark.parametrize("text", ["", " \n", "...", "x" * 201])
def test_texts_that_cannot_be_spoken(text: str) -> None:
    with pytest.raises(UsageError):
        read_text(text, SETTINGS)


async def test_a_recording_is_decoded_for_model_and_ear(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(1.5))
    for source in (path, wav(1.5)):
        recording = await read_recording(source, SETTINGS)
        assert abs(len(recording.pcm) - 24000) <= 16
        assert abs(len(recording.sound) - 1.5 * AUDIO_RATE) <= 48
        (utterance,) = [u async for u in recording.utterances(Voice(), StageTimes())]
        assert utterance.pause_frames(25) == 0


@pytest.mark.parametrize("data", [b"", b"no sound at all" * 100, wav(6)])
async def test_recordings_that_cannot_be_used(data: bytes) -> None:
    with pytest.raises(MediaError):
        await read_recording(data, SETTINGS)


@pytest.mark.parametrize(
    ("samples", "pause", "fps", "expected"),
    [(16000, 0.0, 25, 0), (16001, 0.0, 25, 1), (16000, 0.25, 25, 7), (100, 0.0, 25, 1)],
)
def test_pause_frames_fill_up_to_the_grid(
    samples: int, pause: float, fps: int, expected: int
) -> None:
    empty = np.zeros(samples, np.int16)
    assert Utterance(empty, empty, pause, 1.0).pause_frames(fps) == expected
