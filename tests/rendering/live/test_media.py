"""Whole streams, judged by PyAV and by the ffmpeg binary."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from orchestrator.errors import SetupError
from orchestrator.rendering.live import LiveMedia, encoders, idle_clip
from orchestrator.rendering.live.encoders import AacEncoder
from orchestrator.rendering.live.fmp4 import TICKS

I16 = npt.NDArray[np.int16]

TICK = 1920
"""Samples of a frame at 25 fps."""


def ffmpegs() -> int:
    """Encoders of this process that run now; other tests have servers of theirs beside them."""
    found = psutil.Process().children(recursive=True)
    return sum(process.name().startswith("ffmpeg") for process in found)


class Viewer:
    """A session and its viewer: what was said and shown, and what arrived."""

    def __init__(self, tools: Any, avatar: Any, media: LiveMedia, fps: int = 25) -> None:
        self.tools, self.avatar, self.media, self.fps = tools, avatar, media, fps
        self.player = tools.Player(media.init)
        self.said = np.zeros(60 * TICKS, np.int64)
        self.tick = TICKS // fps

    def frame(self, index: int) -> Any:
        return self.avatar.frame(self.avatar.cycle_index(index * self.avatar.fps // self.fps))

    async def turn(self, chunks: list[int], *, seed: int = 1, end: bool = True) -> None:
        """Speak ``chunks`` of frames, as the renderer would."""
        await self.media.begin_turn()
        sound = self.tools.voice(sum(chunks) * self.tick, seed=seed)
        for chunk in chunks:
            await self.speak(chunk, sound[: chunk * self.tick])
            sound = sound[chunk * self.tick :]
        if end:
            await self.end()

    async def speak(self, chunk: int, sound: I16) -> None:
        at = round(self.media.end * TICKS)
        first = round(self.media.end * self.fps)
        self.said[at : at + len(sound)] += sound
        frames = [self.frame(first + index) for index in range(chunk)]
        self.player.append(*await self.media.speech(frames, sound))

    async def end(self) -> None:
        self.player.append(*await self.media.end_turn())

    def idle(self, count: int = 1) -> None:
        self.player.append(*(self.media.idle() for _ in range(count)))

    async def cut(self, at: float) -> float:
        position = await self.media.cut(at)
        self.player.flush(position)
        return position


@pytest.fixture
async def viewer(tools: Any) -> AsyncIterator[Viewer]:
    avatar = tools.Portrait()
    clip = await idle_clip(avatar)
    await clip.finish()
    media = LiveMedia(avatar, clip)
    yield Viewer(tools, avatar, media)
    await media.close()
    assert ffmpegs() == 0


def loudness(sound: npt.NDArray[Any]) -> Any:
    """Root mean square of each 1024 samples."""
    whole = sound[: len(sound) // 1024 * 1024].astype(np.float64).reshape(-1, 1024)
    return np.sqrt((whole**2).mean(axis=1))


async def test_idle_turns_and_cuts_are_one_valid_file(viewer: Viewer, tmp_path: Path) -> None:
    starts = []
    viewer.idle(2)
    for number, chunks in enumerate([[4, 8, 8, 5], [3, 8], [1]]):
        starts.append(viewer.media.end)
        await viewer.turn(chunks, seed=number)
        viewer.idle(number)
    starts.append(viewer.media.end)
    await viewer.turn([4, 8, 8], end=False)
    end = viewer.media.end
    position = await viewer.cut(end - 0.43)
    assert position == pytest.approx(end - 0.4)
    starts.append(position)
    viewer.idle()
    starts.append(viewer.media.end)
    await viewer.turn([4, 4])
    viewer.idle(2)

    viewer.player.check()
    path = viewer.player.file(tmp_path / "session.mp4")
    assert viewer.tools.complaints(path) == ""
    frames, sound = viewer.tools.decoded(path)
    assert [tick for tick, _ in frames] == [TICK * index for index in range(len(frames))]
    assert len(frames) == round(viewer.media.end * 25) == len(viewer.player.video)
    shown = [viewer.tools.number_of(frame) for _, frame in frames]
    assert shown == [viewer.avatar.cycle_index(index) for index in range(len(frames))]
    assert 0 <= len(frames) * TICK - len(sound) <= 3 * 1024 + TICK
    keys = {sample.start for sample in viewer.player.video if sample.key}
    assert {round(start * TICKS) for start in starts} <= keys
    assert viewer.media.cycle_position == len(frames) % 40


async def test_the_stream_says_that_it_is_made_by_ai(viewer: Viewer, tmp_path: Path) -> None:
    viewer.idle()
    with av.open(str(viewer.player.file(tmp_path / "x.mp4"))) as container:
        assert "Made by AI: the mouth movements of Ada" in container.metadata["comment"]


async def test_a_long_turn_can_be_joined_each_second(viewer: Viewer) -> None:
    viewer.idle()
    await viewer.turn([4] + [8] * 9)
    keys = [sample.start // TICK for sample in viewer.player.video if sample.key]
    assert keys == [0, 15, 40, 65, 90][: len(keys)] and len(keys) >= 4


async def test_frames_are_those_that_went_in(viewer: Viewer, tmp_path: Path) -> None:
    viewer.idle()
    await viewer.turn([4, 8])
    frames, _ = viewer.tools.decoded(viewer.player.file(tmp_path / "x.mp4"))
    for index, (_, frame) in enumerate(frames):
        difference = frame.astype(int) - viewer.frame(index)
        assert np.sqrt((difference[8:] ** 2).mean()) < 6, index


async def test_speech_sounds_as_it_went_in_over_all_seams(viewer: Viewer, tmp_path: Path) -> None:
    viewer.idle()
    await viewer.turn([4, 8, 8, 5], seed=1)
    await viewer.turn([3, 8], seed=2)
    viewer.idle()
    await viewer.turn([4, 7], seed=3)
    await viewer.turn([1], seed=4)
    await viewer.turn([2, 2, 2], seed=5)
    viewer.idle(2)
    path = viewer.player.file(tmp_path / "x.mp4")
    _, sound = viewer.tools.decoded(path)
    said = viewer.said[: len(sound)]

    encoder = await AacEncoder.start()  # the same without any seam
    try:
        around = np.zeros(8 * 1024, np.int16)
        packets = await encoder.encode(np.concatenate([around, said.astype(np.int16), around]))
    finally:
        await encoder.close()
    whole = viewer.tools.Player(viewer.media.init, viewer.player.video)
    sample = type(viewer.player.audio[0])
    whole.audio = [
        sample(index * 1024, 1024, packet, True) for index, packet in enumerate(packets[9:])
    ]
    _, reference = viewer.tools.decoded(whole.file(tmp_path / "whole.mp4"))
    level = loudness(said)
    error, usual = loudness(sound - said), loudness(reference[: len(sound)] - said)
    ratio = 10 * np.log10((level**2).sum() / (error**2).sum())
    assert ratio > 20
    worse = np.flatnonzero(error > 3 * usual + 40)
    assert not len(worse), [(int(block), error[block], usual[block]) for block in worse]


async def test_cut_sound_fades_without_a_click(viewer: Viewer, tmp_path: Path) -> None:
    viewer.idle()
    await viewer.media.begin_turn()
    time = np.arange(25 * TICK) / TICKS
    tone = np.asarray(9000 * np.sin(2 * np.pi * 317 * time), np.int16)
    for index in range(5):
        await viewer.speak(5, tone[index * 5 * TICK : (index + 1) * 5 * TICK])
    position = round(await viewer.cut(viewer.media.end - 0.5) * TICKS)
    viewer.idle(3)
    path = viewer.player.file(tmp_path / "x.mp4")
    viewer.player.check()
    assert viewer.tools.complaints(path) == ""
    _, sound = viewer.tools.decoded(path)
    begin = round(0.6 * TICKS)
    steps = np.abs(np.diff(sound[begin + 2048 :].astype(int)))
    # A tone of 317 Hz moves by 373 between two samples; a click would be thousands.
    assert steps.max() < 500
    # What was sent is completed before the fade begins.
    kept = slice(begin + 2048, position + 2048)
    assert np.abs(sound[kept] - viewer.said[kept]).max() < 900
    assert np.abs(sound[position + TICKS // 10 :]).max() < 20


async def test_a_cut_straight_into_the_next_turn(viewer: Viewer, tmp_path: Path) -> None:
    viewer.idle()
    await viewer.turn([4, 8, 8], seed=1, end=False)
    position = round(await viewer.cut(viewer.media.end - 0.3) * TICKS)
    viewer.said[position:] = 0
    await viewer.turn([4, 8], seed=2)
    viewer.idle(2)
    viewer.player.check()
    path = viewer.player.file(tmp_path / "x.mp4")
    assert viewer.tools.complaints(path) == ""
    _, sound = viewer.tools.decoded(path)
    late = slice(position + TICKS // 10, len(sound))
    error = loudness(sound[late] - viewer.said[late])
    assert error.max() < 0.35 * loudness(viewer.said[late]).max()
    assert np.sqrt((error**2).mean()) < 0.08 * np.sqrt((loudness(viewer.said[late]) ** 2).mean())


async def test_idle_video_can_be_cut_for_speech(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer.idle(3)
    with monkeypatch.context() as patch:
        patch.setattr(encoders, "_spawn", None)  # silence needs no encoder
        assert await viewer.cut(0.9) == pytest.approx(0.92)
    await viewer.turn([4])
    viewer.idle()
    viewer.player.check()
    assert viewer.player.video[23].start == 23 * TICK and viewer.player.video[23].key


@pytest.mark.parametrize(("at", "expected"), [(-3.0, 0.0), (0.0, 0.0), (0.601, 0.64), (99.0, 1.2)])
async def test_where_a_cut_goes(viewer: Viewer, at: float, expected: float) -> None:
    viewer.idle(2)
    assert await viewer.cut(at) == pytest.approx(expected)
    assert viewer.media.end == pytest.approx(expected)


async def test_a_cut_goes_no_further_back_than_the_sound_is_known(viewer: Viewer) -> None:
    viewer.idle(20)
    end = viewer.media.end
    assert await viewer.cut(0) == pytest.approx(end - 5, abs=0.61)
    position = viewer.media.end
    assert await viewer.cut(0) == position


async def test_picture_and_sound_belong_together(viewer: Viewer, tmp_path: Path) -> None:
    """White frames and clicks at the beginning and the end of a long turn, and after a cut."""
    marks: list[int] = []

    async def marked_turn(chunks: list[int], flashes: set[int]) -> None:
        await viewer.media.begin_turn()
        count = 0
        for chunk in chunks:
            first = round(viewer.media.end * 25)
            frames = [viewer.frame(first + index) for index in range(chunk)]
            sound = np.zeros(chunk * TICK, np.int16)
            for index in range(chunk):
                if count + index in flashes:
                    marks.append((first + index) * TICK)
                    frames[index] = np.full_like(frames[index], 255)
                    sound[index * TICK : index * TICK + 24] = 30_000
            viewer.player.append(*await viewer.media.speech(frames, sound))
            count += chunk

    viewer.idle()
    await marked_turn([4] + [8] * 62, {0, 2, 250, 494, 499})  # 20 s
    await viewer.end()
    viewer.idle()
    await marked_turn([4, 8, 8], {1})
    await viewer.cut(viewer.media.end - 0.3)
    viewer.idle()
    await marked_turn([4, 8, 8], {0, 19})
    await viewer.end()
    viewer.idle(2)

    frames, sound = viewer.tools.decoded(viewer.player.file(tmp_path / "x.mp4"))
    flashes = [tick for tick, frame in frames if frame[40:].mean() > 220]
    assert flashes == marks
    for mark in marks:
        near = sound[mark - 2400 : mark + 2400].astype(int)
        heard = mark - 2400 + int(np.abs(near).argmax())
        assert abs(heard - mark) < 0.005 * TICKS, (mark, heard)
    loud = np.flatnonzero(loudness(sound) > 1000) * 1024
    assert all(min(abs(int(place) - mark) for mark in marks) < 3000 for place in loud)


async def test_half_rate_shows_each_picture_for_two_frames(viewer: Viewer, tmp_path: Path) -> None:
    viewer.idle()
    await viewer.media.begin_turn()
    for count in (2, 3, 4):
        pictures = [viewer.tools.marked(viewer.avatar.frame(0), 40 + n) for n in range(count)]
        twice = [picture for picture in pictures for _ in range(2)]
        (fragment,) = await viewer.media.speech(twice, np.zeros(2 * count * TICK, np.int16))
        assert fragment.frames == 2 * count
        assert len(viewer.tools.samples_of(fragment.data)[1]) == count
        viewer.player.append(fragment)
    await viewer.end()
    viewer.idle()
    viewer.player.check()
    path = viewer.player.file(tmp_path / "x.mp4")
    assert viewer.tools.complaints(path) == ""
    frames, _ = viewer.tools.decoded(path)
    spoken = [(tick, viewer.tools.number_of(frame)) for tick, frame in frames[15:24]]
    assert [number for _, number in spoken] == [40, 41, 40, 41, 42, 40, 41, 42, 43]
    assert [tick for tick, _ in spoken] == [(15 + 2 * index) * TICK for index in range(9)]


async def test_fifteen_frames_a_second(tools: Any, tmp_path: Path) -> None:
    avatar = tools.Portrait(20)
    media = LiveMedia(avatar, await idle_clip(avatar, 15))
    viewer = Viewer(tools, avatar, media, fps=15)
    try:
        viewer.idle()
        await viewer.turn([2, 2, 2, 2])
        viewer.idle()
        await viewer.turn([2, 2, 2], end=False)
        await viewer.cut(viewer.media.end - 0.2)
        viewer.idle(3)
    finally:
        await media.close()
    viewer.player.check()
    path = viewer.player.file(tmp_path / "x.mp4")
    assert tools.complaints(path) == ""
    frames, _ = tools.decoded(path)
    assert [tick for tick, _ in frames] == [3200 * index for index in range(len(frames))]
    shown = [tools.number_of(frame) for _, frame in frames]
    assert shown == [avatar.cycle_index(index * 25 // 15) for index in range(len(frames))]


async def test_missing_sound_is_silence_and_early_sound_is_kept(
    viewer: Viewer, tmp_path: Path
) -> None:
    viewer.idle()
    at = round(viewer.media.end * TICKS)
    await viewer.media.begin_turn()
    sound = viewer.tools.voice(8 * TICK)
    viewer.said[at : at + len(sound)] += sound
    first = round(viewer.media.end * 25)
    frames = [viewer.frame(first + index) for index in range(12)]
    none = sound[:0]
    viewer.player.append(*await viewer.media.speech(frames[:4], sound))
    viewer.player.append(*await viewer.media.speech(frames[4:8], none))
    viewer.player.append(*await viewer.media.speech(frames[8:], none, last=True))
    await viewer.end()
    viewer.idle(2)
    viewer.player.check()
    _, heard = viewer.tools.decoded(viewer.player.file(tmp_path / "x.mp4"))
    error = loudness(heard - viewer.said[: len(heard)])
    assert error.max() < 0.2 * loudness(viewer.said).max()
    assert loudness(heard[at + 9 * TICK :]).max() < 50


async def test_sound_longer_than_the_frames_is_heard_over_idle(
    viewer: Viewer, tmp_path: Path
) -> None:
    viewer.idle()
    at = round(viewer.media.end * TICKS)
    sound = viewer.tools.voice(30 * TICK)
    viewer.said[at : at + len(sound)] += sound
    await viewer.media.begin_turn()
    viewer.player.append(*await viewer.media.speech([viewer.frame(15)], sound))
    await viewer.end()
    viewer.idle(4)
    viewer.player.check()
    _, heard = viewer.tools.decoded(viewer.player.file(tmp_path / "x.mp4"))
    error = loudness(heard - viewer.said[: len(heard)])
    assert error.max() < 0.2 * loudness(viewer.said).max()


async def test_bad_calls(viewer: Viewer) -> None:
    silence = np.zeros(TICK, np.int16)
    with pytest.raises(RuntimeError, match="outside"):
        await viewer.media.speech([viewer.frame(0)], silence)
    assert await viewer.media.end_turn() == []
    await viewer.media.begin_turn()
    with pytest.raises(RuntimeError, match="in the middle"):
        await viewer.media.begin_turn()
    with pytest.raises(RuntimeError, match="in the middle"):
        viewer.media.idle()
    with pytest.raises(ValueError, match="frame"):
        await viewer.media.speech([np.zeros((10, 10, 3), np.uint8)], silence)
    with pytest.raises(ValueError, match="ahead"):
        await viewer.media.speech([viewer.frame(0)], np.zeros(11 * TICKS, np.int16))
    assert await viewer.media.speech([], silence[:0]) == []
    assert await viewer.media.end_turn() == []


@pytest.mark.parametrize("which", ["video", "audio"])
async def test_an_encoder_killed_in_a_turn_is_told_and_the_stream_goes_on(
    viewer: Viewer, tmp_path: Path, which: str
) -> None:
    viewer.idle()
    await viewer.turn([4, 8], end=False)
    assert viewer.media._turn is not None
    os.kill(getattr(viewer.media._turn, which).pid, signal.SIGKILL)
    with pytest.raises(SetupError, match="SIGKILL"):
        await viewer.speak(8, viewer.tools.voice(8 * TICK))
    assert viewer.media.end == pytest.approx(0.6 + 12 * 0.04)
    assert ffmpegs() == 0
    viewer.idle(2)
    await viewer.turn([4, 8])
    viewer.idle()
    viewer.player.check()
    path = viewer.player.file(tmp_path / "x.mp4")
    assert viewer.tools.complaints(path) == ""
    frames, _ = viewer.tools.decoded(path)
    shown = [viewer.tools.number_of(frame) for _, frame in frames]
    assert shown == [viewer.avatar.cycle_index(index) for index in range(len(frames))]


async def test_without_ffmpeg_a_turn_fails_and_idle_goes_on(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    viewer.idle()
    await viewer.turn([4, 8, 8], end=False)
    with monkeypatch.context() as patch:
        patch.setattr(encoders, "ffmpeg_path", lambda: "/nowhere/ffmpeg")
        await viewer.media._drop_spare()
        await viewer.cut(viewer.media.end - 0.3)
        assert "could not be encoded" in caplog.text
        viewer.idle()
        with pytest.raises(SetupError, match="cannot be started"):
            await viewer.media.begin_turn()
        viewer.idle(2)
    await viewer.turn([4])
    viewer.idle()
    viewer.player.check()


async def test_a_cancelled_step_leaves_a_timeline_that_goes_on(viewer: Viewer) -> None:
    viewer.idle()
    await viewer.turn([4], end=False)
    assert viewer.media._turn is not None
    os.kill(viewer.media._turn.video.pid, signal.SIGSTOP)
    end = viewer.media.end
    task = asyncio.create_task(viewer.speak(8, viewer.tools.voice(8 * TICK)))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await viewer.cut(99) == end
    assert ffmpegs() == 0
    viewer.idle()
    await viewer.turn([4])
    viewer.player.check()


async def test_close_ends_everything_at_any_moment(tools: Any) -> None:
    avatar = tools.Portrait()
    clip = await idle_clip(avatar)
    await clip.finish()
    chance = random.Random(3)
    for _ in range(6):
        media = LiveMedia(avatar, clip)
        viewer = Viewer(tools, avatar, media)
        viewer.idle()
        task = asyncio.create_task(viewer.turn([4, 8, 8, 8]))
        await asyncio.sleep(chance.uniform(0, 0.3))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await media.close()
        await media.close()
        assert ffmpegs() == 0


async def test_an_idle_session_owns_no_process(viewer: Viewer) -> None:
    viewer.idle()
    await viewer.turn([4])
    viewer.idle()
    assert ffmpegs() == 0
    viewer.media.prepare()
    viewer.media.prepare()
    await viewer.turn([4], end=False)
    assert ffmpegs() <= 4


async def test_random_conversations_are_valid(viewer: Viewer, tmp_path: Path) -> None:
    chance = random.Random(11)
    for number in range(25):
        action = chance.choice(["idle", "idle", "turn", "cut turn", "cut"])
        if action == "idle":
            viewer.idle()
        elif action == "cut":
            await viewer.cut(viewer.media.end - chance.uniform(0, 0.7))
        else:
            chunks = [chance.randint(1, 8) for _ in range(chance.randint(1, 3))]
            await viewer.turn(chunks, seed=number, end=action == "turn")
            if action == "cut turn":
                await viewer.cut(viewer.media.end - chance.uniform(-0.1, 0.5))
    viewer.idle(2)
    viewer.player.check()
    path = viewer.player.file(tmp_path / "x.mp4")
    assert viewer.tools.complaints(path) == ""
    frames, sound = viewer.tools.decoded(path)
    shown = [viewer.tools.number_of(frame) for _, frame in frames]
    assert len(shown) == round(viewer.media.end * 25)
    assert shown == [viewer.avatar.cycle_index(index) for index in range(len(shown))]
    assert np.abs(np.diff(sound.astype(int))).max() < 12_000


async def test_interrupted_turns_leave_nothing_behind(viewer: Viewer) -> None:
    process = psutil.Process()

    async def interrupted() -> None:
        viewer.idle()
        viewer.media.prepare()
        await viewer.turn([2, 2], end=False)
        await viewer.cut(viewer.media.end - 0.1)

    def held() -> tuple[int, int, int]:
        return process.num_fds(), process.num_threads(), len(asyncio.all_tasks())

    for _ in range(3):
        await interrupted()
    before = held()
    for _ in range(15):
        await interrupted()
    after = held()
    assert ffmpegs() == 0
    assert after[0] <= before[0] and after[1] <= before[1] + 4 and after[2] <= before[2]
