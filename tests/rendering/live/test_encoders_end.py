"""Encoders that are killed, missing, cancelled or left alone: the stream goes on, nothing stays."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.errors import SetupError
from orchestrator.rendering.live import LiveMedia, encoders, idle_clip
from tests.rendering.live.viewer import TICK, Viewer, ffmpegs


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


async def test_a_start_that_failed_once_is_tried_again(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    viewer.idle()
    with monkeypatch.context() as patch:
        patch.setattr(encoders.H264Encoder, "start", broken)
        with pytest.raises(RuntimeError):
            await viewer.media.begin_turn()
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
