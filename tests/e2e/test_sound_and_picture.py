"""What is heard belongs to what is seen, and to whom it was said."""

from __future__ import annotations

import asyncio
import io

import av
import numpy as np
import numpy.typing as npt
import pytest

I16 = npt.NDArray[np.int16]
FREQUENCIES = [310, 430, 560, 700, 860, 1040, 1250, 1490, 1770, 2100]


def decode(stream: bytes) -> tuple[npt.NDArray[np.float32], list[tuple[float, float]]]:
    """Sound at 48 kHz from moment 0 on, and moment and face brightness of each picture."""
    with av.open(io.BytesIO(stream)) as file:
        pictures = [
            (
                float(frame.pts * frame.time_base),
                float(frame.to_ndarray(format="gray")[24:40, 40:56].mean()),
            )
            for frame in file.decode(video=0)
        ]
    sound = np.zeros(0, np.float32)
    with av.open(io.BytesIO(stream)) as file:
        for frame in file.decode(audio=0):
            at = round(frame.pts * frame.time_base * 48_000)
            samples = frame.to_ndarray()[0]
            sound = np.pad(sound, (0, max(0, at + len(samples) - len(sound))))
            sound[at : at + len(samples)] = samples
    return sound, pictures


def onsets(values: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    return np.flatnonzero(values[1:] & ~values[:-1]) + 1


async def test_a_click_is_heard_when_its_flash_is_seen(stage, make_hum) -> None:
    """Speech of 9 s with a click every 1.52 s, in the middle of a frame."""
    rng = np.random.default_rng(1)
    speech = (rng.normal(size=9 * 16_000) * 30).astype(np.int16)
    clicks = [0.54 + 1.52 * n for n in range(6)]
    for click in clicks:
        at = int(click * 16_000)
        speech[at : at + 80] = 30_000 * (-1) ** np.arange(80)
    stage.voice.sounds["Click."] = speech
    async with stage.viewer() as viewer:
        await viewer.until(lambda: viewer.position > 1)
        turn = await viewer.begin("say", {"text": "Click."})
        performance = await viewer.performance(turn)
        await viewer.idle_again(turn)
        stream = viewer.stream()
    assert not viewer.problems and performance["frames_late"] == 0
    sound, pictures = decode(stream)
    loud = np.abs(sound) > 0.3
    quiet_before = np.convolve(loud, np.ones(2400), "full")[: len(loud)]
    heard = [at / 48_000 for at in onsets(loud) if quiet_before[at - 1] == 0]
    bright = np.array([value > 150 for _, value in pictures])
    seen = [pictures[at][0] for at in onsets(bright)]
    assert len(heard) == len(seen) == 6, (heard, seen)
    offsets = np.array(seen) - np.array(heard)
    print("A/V offsets in ms:", np.round(offsets * 1000, 1))  # noqa: T201 -- the measurement
    assert np.abs(offsets).max() <= 0.040
    assert np.ptp(offsets) <= 0.001
    assert np.allclose(np.diff(heard), 1.52, atol=0.002)


@pytest.mark.parametrize("killed", [False, True])
async def test_ten_sessions_hear_their_own_words(stage, make_hum, killed: bool) -> None:
    """Each viewer sends speech of its own frequency, all at the same time."""

    async def kill() -> None:
        for moment in (0.3, 0.4):
            await asyncio.sleep(0.5)
            stage.model.dead = True
            await asyncio.sleep(moment)
            stage.model.dead = False

    viewers = [stage.viewer() for _ in FREQUENCIES]
    try:
        await asyncio.gather(*(viewer.connect() for viewer in viewers))
        speaking = [
            speak(viewer, make_hum(2.4, frequency))
            for viewer, frequency in zip(viewers, FREQUENCIES, strict=True)
        ]
        await asyncio.gather(*speaking, *([kill()] if killed else []))
    finally:
        await asyncio.gather(*(viewer.disconnect() for viewer in viewers))
    assert bool(stage.model.refused) == killed
    for viewer, frequency in zip(viewers, FREQUENCIES, strict=True):
        assert not viewer.problems
        sound, _ = decode(viewer.stream())
        spectrum = np.abs(np.fft.rfft(sound)) ** 2
        moments = np.fft.rfftfreq(len(sound), 1 / 48_000)
        energy = {f: spectrum[np.abs(moments - f) < 30].sum() for f in FREQUENCIES}
        own = energy.pop(frequency)
        assert max(energy.values()) < own / 1000
        assert 2.3 < heard_seconds(sound) < 2.5


def heard_seconds(sound: npt.NDArray[np.float32]) -> float:
    """How long a hum is heard, whole or in parts: 10 ms count when they are half as loud."""
    blocks = sound[: len(sound) // 480 * 480].reshape(-1, 480)
    return float((np.sqrt((blocks**2).mean(1)) > 0.07).sum() * 0.01)


async def speak(viewer, sound: I16) -> None:
    data, step = sound.tobytes(), 6400
    turn = ""
    for start in range(0, len(data), step):
        chunk = {"audio": data[start : start + step], "final": start + step >= len(data)}
        turn = await viewer.begin("speech", chunk)
        await asyncio.sleep(0.05)
    await viewer.performance(turn)
    await viewer.idle_again(turn)
