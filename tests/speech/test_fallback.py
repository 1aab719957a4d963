from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import MuseTalkError, SetupError, SpeechError, UsageError
from orchestrator.settings import Settings
from orchestrator.speech.fallback import FallbackSynthesizer, Switch
from orchestrator.speech.tts import SpeechChunk, synthesizer


class Engine:
    """Says its number as often as it is told, then fails, hangs or ends."""

    def __init__(self, number: int, sounds: int = 3, error: MuseTalkError | None = None) -> None:
        self.number, self.sounds, self.error = number, sounds, error
        self.hangs = self.closed = False
        self.slow = 0.0
        self.asked: list[tuple[str, str | None]] = []
        self.open = 0

    @property
    def name(self) -> str:
        return f"engine {self.number}"

    async def synthesize(
        self, text: str, *, language: str | None = None
    ) -> AsyncGenerator[SpeechChunk, None]:
        self.asked.append((text, language))
        self.open += 1
        try:
            await asyncio.sleep(self.slow)
            for _ in range(self.sounds):
                yield SpeechChunk(np.full(4, self.number, np.int16), 16_000)
            if self.hangs:
                await asyncio.sleep(60)
            if self.error:
                raise self.error
        finally:
            self.open -= 1

    async def close(self) -> None:
        self.closed = True


async def speak(voice: FallbackSynthesizer, text: str = "Hello.") -> list[int]:
    return [int(chunk.pcm[0]) async for chunk in voice.synthesize(text, language="en")]


async def test_the_chosen_engine_speaks() -> None:
    first, second, told = Engine(1), Engine(2), []
    voice = FallbackSynthesizer(first, second, told.append)
    assert await speak(voice) == [1, 1, 1]
    assert not told and not second.asked and voice.name == "engine 1"
    await voice.close()
    assert first.closed and second.closed


@pytest.mark.parametrize("kind", [SpeechError, SetupError])
async def test_the_other_one_speaks_what_did_not_sound(kind: type[MuseTalkError]) -> None:
    first, second = Engine(1, 0, kind("no")), Engine(2)
    told: list[Switch] = []
    voice = FallbackSynthesizer(first, second, told.append)
    assert await speak(voice, "One.") == [2, 2, 2]
    assert await speak(voice, "Two.") == [2, 2, 2]
    assert [text for text, _ in first.asked] == ["One."]  # it rests after a failure
    assert second.asked == [("One.", "en"), ("Two.", "en")]
    assert len(told) == 2 and told[0].error is first.error
    assert (told[0].chosen, told[0].spoken_by) == ("engine 1", "engine 2")


async def test_an_engine_that_starts_has_more_time() -> None:
    first = Engine(1)
    first.slow = 0.2
    voice = FallbackSynthesizer(first, Engine(2), patience=0.1)
    assert await speak(voice) == [1, 1, 1]
    assert await speak(voice) == [2, 2, 2]


@pytest.mark.parametrize("hangs", [True, False])
async def test_silence_counts_as_failure(hangs: bool) -> None:
    first = Engine(1, 0)
    first.hangs = hangs
    voice = FallbackSynthesizer(first, Engine(2), patience=0.1)
    assert await speak(voice) == [2, 2, 2]
    assert first.open == 0


async def test_it_is_asked_again_after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.speech.fallback._REST_SECONDS", 0.0)
    first = Engine(1, 0, SpeechError("no"))
    voice = FallbackSynthesizer(first, Engine(2))
    assert await speak(voice) == [2, 2, 2]
    first.sounds, first.error = 3, None
    assert await speak(voice) == [1, 1, 1]


async def test_nothing_is_said_twice() -> None:
    first, second = Engine(1, 2, SpeechError("cut off")), Engine(2)
    heard = []
    with pytest.raises(SpeechError, match="cut off"):
        async for chunk in FallbackSynthesizer(first, second).synthesize("Hello."):
            heard.append(int(chunk.pcm[0]))
    assert heard == [1, 1] and not second.asked


async def test_both_fail() -> None:
    first, second = Engine(1, 0, SpeechError("first")), Engine(2, 0, SpeechError("second"))
    told: list[Switch] = []
    with pytest.raises(SpeechError, match="first"):
        await speak(FallbackSynthesizer(first, second, told.append))
    assert not told


async def test_a_language_that_only_the_other_one_has() -> None:
    first, second = Engine(1, 0, UsageError("not French")), Engine(2)
    voice = FallbackSynthesizer(first, second)
    assert await speak(voice) == [2, 2, 2]
    assert await speak(voice) == [2, 2, 2]
    assert len(first.asked) == 2  # that is no reason to rest


async def test_each_session_hears_of_its_own_switches() -> None:
    first, second = Engine(1, 0, SpeechError("no")), Engine(2)
    shared, mine, yours = FallbackSynthesizer(first, second), [], []
    assert await speak(shared.told(mine.append)) == [2, 2, 2]
    assert await speak(shared.told(yours.append)) == [2, 2, 2]
    assert len(mine) == len(yours) == 1 and len(first.asked) == 1


@pytest.mark.parametrize("failing", [True, False])
async def test_closing_stops_the_engine(failing: bool) -> None:
    first, second = Engine(1, 0 if failing else 9, SpeechError("no")), Engine(2, 9)
    async with aclosing(FallbackSynthesizer(first, second).synthesize("Hello.")) as chunks:
        await anext(chunks)
    assert first.open == second.open == 0


async def test_by_settings(tmp_path: Path) -> None:
    pytest.importorskip("piper")
    url = "http://127.0.0.1:9/v1"
    both = synthesizer(Settings(tts="openai", tts_base_url=url, _env_file=None))
    assert isinstance(both, FallbackSynthesizer) and both.name == "tts-1/alloy"
    other = synthesizer(Settings(tts="piper", tts_base_url=url, _env_file=None))
    assert isinstance(other, FallbackSynthesizer) and other.name.startswith("piper/")
    one = synthesizer(Settings(tts="openai", tts_base_url=url, tts_fallback=False, _env_file=None))
    missing = tmp_path / "none.onnx"
    alone = synthesizer(
        Settings(tts="openai", tts_base_url=url, piper_voice=missing, _env_file=None)
    )
    for voice in (one, alone):
        assert not isinstance(voice, FallbackSynthesizer)
    for voice in (both, other, one, alone):
        await voice.close()
