from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import av
import psutil
import pytest

from orchestrator.errors import SetupError
from orchestrator.rendering.live import IdleClip, encoders, forget_idle_clip, idle, idle_clip
from orchestrator.rendering.live.encoders import H264Encoder


@pytest.fixture(autouse=True)
def _own_cache() -> None:
    idle._clips.clear()


def ffmpegs() -> list[psutil.Process]:
    """Those of this process that run now; other tests have servers of theirs beside them."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if process.name().startswith("ffmpeg")]


def numbers(tools: Any, clip: IdleClip, frame: int) -> list[int]:
    """What ``run`` shows."""
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.extradata = clip.config
    run = clip.run(frame)
    assert run[0].key and not any(picture.key for picture in run[1:])
    pictures = [p for picture in run for p in decoder.decode(av.Packet(picture.data))]
    pictures += decoder.decode(None)
    return [tools.number_of(picture.to_ndarray(format="bgr24")) for picture in pictures]


async def test_the_cycle_goes_forward_and_back_without_end(tools: Any) -> None:
    avatar = tools.Portrait(20)
    clip = await idle_clip(avatar)
    await clip.finish()
    assert clip.complete and clip.cycle == 40
    seen: list[int] = []
    while len(seen) < 100:
        seen += numbers(tools, clip, len(seen))
    assert seen == [avatar.cycle_index(frame) for frame in range(len(seen))]
    assert not ffmpegs()


@pytest.mark.parametrize(("count", "fps", "cycle"), [(1, 25, 16), (10, 15, 12), (11, 15, 66)])
async def test_any_length_at_any_rate_keeps_the_speed_of_motion(
    tools: Any, count: int, fps: int, cycle: int
) -> None:
    avatar = tools.Portrait(count)
    clip = await idle_clip(avatar, fps)
    await clip.finish()
    assert clip.cycle == cycle
    seen: list[int] = []
    while len(seen) < cycle + 10:
        seen += numbers(tools, clip, len(seen))
    assert seen == [avatar.cycle_index(frame * 25 // fps) for frame in range(len(seen))]


async def test_it_can_be_entered_anywhere(tools: Any) -> None:
    avatar = tools.Portrait(20)
    clip = await idle_clip(avatar)
    await clip.finish()
    assert clip.can_enter(15) and not clip.can_enter(21)
    off = numbers(tools, clip, 21)
    assert len(off) == 9, "the piece after it begins in time, also without an entry"
    encoder = await H264Encoder.start(clip.width, clip.height, 25)
    try:
        await clip.enter(avatar, 61, encoder)
    finally:
        await encoder.close()
    assert clip.can_enter(21)
    assert numbers(tools, clip, 21) == [avatar.cycle_index(frame) for frame in range(21, 30)]
    frames = await clip.frames_to_piece(avatar, 21)
    assert [tools.number_of(frame) for frame in frames] == numbers(tools, clip, 21)
    assert await clip.frames_to_piece(avatar, 30) == []


async def test_entries_are_bounded(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "_ENTRIES_KEPT", 2)
    avatar = tools.Portrait(20)
    clip = await idle_clip(avatar)
    encoder = await H264Encoder.start(clip.width, clip.height, 25)
    try:
        for frame in (14, 13, 12):
            await clip.enter(avatar, frame, encoder)
    finally:
        await encoder.close()
    await clip.finish()
    assert [clip.can_enter(frame) for frame in (14, 13, 12)] == [False, True, True]


async def test_it_is_encoded_once_for_all(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[object] = []
    start = H264Encoder.start

    async def counted(*args: Any, **kwargs: Any) -> H264Encoder:
        starts.append(args)
        return await start(*args, **kwargs)

    monkeypatch.setattr(H264Encoder, "start", counted)
    clips = await asyncio.gather(*(idle_clip(tools.Portrait(20)) for _ in range(5)))
    clips.append(await idle_clip(tools.Portrait(20)))
    assert len(set(map(id, clips))) == 1 and len(starts) == 1
    await clips[0].finish()


async def test_a_waiter_that_leaves_does_not_take_it_from_the_others(tools: Any) -> None:
    first = asyncio.create_task(idle_clip(tools.Portrait(20)))
    second = asyncio.create_task(idle_clip(tools.Portrait(20)))
    await asyncio.sleep(0)
    first.cancel()
    clip = await second
    await clip.finish()
    assert clip.complete


async def test_the_cache_is_bounded(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "_CLIPS_KEPT", 2)
    for width in (64, 80, 96):
        clip = await idle_clip(tools.Portrait(3, width=width, height=64))
        await clip.finish()
    assert len(idle._clips) == 2


async def test_a_deleted_avatar_is_forgotten(tools: Any) -> None:
    avatar, other = tools.Portrait(3), tools.Portrait(4)
    for one in (avatar, other):
        await (await idle_clip(one)).finish()
    forget_idle_clip(avatar.id)
    forget_idle_clip("unknown")
    assert [key[0] for key in idle._clips] == [other.id]


async def test_an_encoder_that_dies_leaves_a_shorter_clip_and_is_tried_again(
    tools: Any, caplog: pytest.LogCaptureFixture
) -> None:
    avatar = tools.Portrait(200, width=640, height=352)
    clip = await idle_clip(avatar)
    (ffmpeg,) = ffmpegs()
    os.kill(ffmpeg.pid, signal.SIGKILL)
    await clip.finish()
    assert "stays short" in caplog.text and not clip.complete
    assert clip.run(395)[0].key
    again = await idle_clip(avatar)
    assert again is not clip
    await again.close()
    assert not ffmpegs()


async def test_no_ffmpeg(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(encoders, "ffmpeg_path", lambda: "/nowhere/ffmpeg")
        with pytest.raises(SetupError, match="cannot be started"):
            await idle_clip(tools.Portrait(20))
    await (await idle_clip(tools.Portrait(20))).finish()


def test_a_frame_must_be_a_whole_number_of_samples(tools: Any) -> None:
    with pytest.raises(ValueError, match="29 fps"):
        IdleClip(tools.Portrait(3), 29)
