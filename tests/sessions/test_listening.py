from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import MediaError, OverloadedError
from orchestrator.sessions.listening import Listener
from orchestrator.sessions.times import TurnTimes
from orchestrator.speech.windows import frame_count

CHUNK = 16000  # half a second


def speech(seconds: float, level: int = 3000) -> bytes:
    rng = np.random.default_rng(1)
    return rng.integers(-level, level, round(seconds * 16000)).astype("<i2").tobytes()


async def collect(listener: Listener, world: Any) -> list[Any]:
    inference: Any = world.model
    return [part async for part in listener.parts(inference, TurnTimes())]


@pytest.mark.parametrize("fps", [15, 25])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 3.33, 7.0])
async def test_all_frames_and_all_sound_come_out(world: Any, fps: int, seconds: float) -> None:
    listener = Listener(fps, 60)
    audio = speech(seconds)
    for start in range(0, len(audio), CHUNK):
        listener.feed(audio[start : start + CHUNK], final=False)
    listener.feed(b"", final=True)
    parts = await collect(listener, world)
    samples = len(audio) // 2
    assert sum(len(part.features) for part in parts) == frame_count(samples, fps)
    assert sum(len(part.utterance.pcm) for part in parts) == samples
    sound = np.concatenate([part.utterance.sound for part in parts])
    assert len(sound) == 3 * samples
    assert [part.utterance.pause for part in parts[:-1]] == [None] * (len(parts) - 1)


async def test_each_frame_reads_the_steps_around_it(world: Any) -> None:
    """The model's hidden state counts the steps of its window, so their place can be seen."""
    listener = Listener(25, 60)
    listener.feed(speech(6), final=True)
    parts = await collect(listener, world)
    assert len(parts) > 2
    for number, part in enumerate(parts):
        read = np.asarray(part.features)[:, 20, 0]  # step at the middle of each frame's window
        # Up to one second before the part is encoded with it: 0, 0.6 and 1 s, in steps of 20 ms.
        assert read[0] == 1 + min(30 * number, 50)
        assert np.all(np.diff(read) == 2)


async def test_silence_costs_no_model(world: Any) -> None:
    listener = Listener(25, 60)
    listener.feed(speech(3) + speech(6, level=20) + speech(1), final=True)
    parts = await collect(listener, world)
    silent = [part.features is None for part in parts]
    assert any(silent) and not silent[0] and not silent[-1]


async def test_the_first_part_comes_before_the_speech_is_over(world: Any) -> None:
    listener = Listener(25, 60)
    inference: Any = world.model
    parts = listener.parts(inference, TurnTimes())
    listener.feed(speech(1.2), final=False)
    first = await asyncio.wait_for(anext(parts), 1)
    assert len(first.features) == 15
    await parts.aclose()


async def test_speech_that_stops_without_an_end(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.sessions.listening._SILENT_SECONDS", 0.1)
    listener = Listener(25, 60)
    listener.feed(speech(0.5), final=False)
    with pytest.raises(MediaError, match="without an end"):
        await collect(listener, world)


def test_limits() -> None:
    with pytest.raises(MediaError, match="half a sample"):
        Listener(25, 60).feed(b"\0\0\0", final=False)
    with pytest.raises(MediaError, match="longer"):
        Listener(25, 1).feed(speech(2), final=False)
    with pytest.raises(OverloadedError):
        Listener(25, 600).feed(speech(61), final=False)


async def test_a_session_repeats_what_it_hears(world: Any) -> None:
    session, client, media = await world.join()
    audio = speech(2.0)
    turns = {
        await session.speech(audio[start : start + CHUNK], final=start + CHUNK >= len(audio))
        for start in range(0, len(audio), CHUNK)
    }
    assert len(turns) == 1
    await client.until_state("idle")
    assert len(media.frames) == 50
    (report,) = client.of("performance")
    assert report["turn"] in turns and report["frames"] == 50
