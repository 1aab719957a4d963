"""Whole streams, judged by PyAV and by the ffmpeg binary."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from orchestrator.rendering.live import LiveMedia, idle_clip
from orchestrator.rendering.live.fmp4 import TICKS
from tests.rendering.live.viewer import TICK, Viewer


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
