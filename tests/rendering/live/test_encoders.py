from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from orchestrator.errors import SetupError
from orchestrator.rendering.live import encoders
from orchestrator.rendering.live.encoders import AacEncoder, H264Encoder

SHAPE = (176, 320, 3)


def grey(level: int) -> Any:
    return np.full(SHAPE, level, np.uint8)


async def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


async def test_every_frame_is_a_picture_at_once() -> None:
    encoder = await H264Encoder.start(320, 176, 25, distance=5)
    try:
        pictures = []
        for number in range(11):
            got = await encoder.encode([grey(20 * number)])
            assert len(got) == 1
            pictures += got
        assert [picture.key for picture in pictures] == [n % 5 == 0 for n in range(11)]
        assert encoder.config[0] == 1
    finally:
        await encoder.close()
    assert await gone(encoder.pid)


async def test_odd_sizes_become_even() -> None:
    encoder = await H264Encoder.start(321, 177, 25)
    try:
        assert len(await encoder.encode([np.zeros((177, 321, 3), np.uint8)] * 3)) == 3
    finally:
        await encoder.close()


async def test_more_coded_data_than_any_pipe_holds() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 720, 1280, 3), np.uint8)
    encoder = await H264Encoder.start(1280, 720, 25)
    try:
        pictures = await encoder.encode(list(noise))
    finally:
        await encoder.close()
    assert len(pictures) == 20 and sum(len(picture.data) for picture in pictures) > 4 << 20


async def test_packets_come_one_after_the_sound_that_they_code() -> None:
    encoder = await AacEncoder.start()
    try:
        for samples, packets in [(1024, 0), (1023, 0), (1, 1), (1920, 1), (1920, 2), (0, 0)]:
            assert len(await encoder.encode(np.zeros(samples, np.int16))) == packets
    finally:
        await encoder.close()
    assert await gone(encoder.pid)


@pytest.mark.parametrize("kind", [H264Encoder, AacEncoder])
async def test_a_killed_encoder_is_told(kind: Any) -> None:
    encoder = await (kind.start(320, 176, 25) if kind is H264Encoder else kind.start())
    data = [grey(9)] if kind is H264Encoder else np.zeros(4096, np.int16)
    try:
        await encoder.encode(data)
        os.kill(encoder.pid, signal.SIGKILL)
        with pytest.raises(SetupError, match="could not be encoded: ffmpeg was ended by SIGKILL"):
            await encoder.encode(data)
    finally:
        await encoder.close()


async def test_a_process_is_killed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal to a dead child would take its status away from asyncio."""
    encoder = await AacEncoder.start()
    kills: list[int] = []
    kill = encoder._process.kill
    monkeypatch.setattr(encoder._process, "kill", lambda: (kills.append(1), kill()))
    encoder.kill()
    encoder.kill()
    await encoder.close()
    await encoder.close()
    assert kills == [1]


async def test_what_ffmpeg_says_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["-f", "rawvideo", "-i", "pipe:0", "-c:v", "nonsense"]
    monkeypatch.setattr(encoders, "video_arguments", lambda *_: arguments)
    encoder = await H264Encoder.start(320, 176, 25)
    try:
        with pytest.raises(SetupError, match=r"video could not be encoded: .*\w"):
            await encoder.encode([grey(9)])
    finally:
        await encoder.close()


async def test_no_ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(encoders, "ffmpeg_path", lambda: str(tmp_path / "ffmpeg"))
    before = psutil.Process().num_fds()
    for start in (H264Encoder.start(320, 176, 25), AacEncoder.start()):
        with pytest.raises(SetupError, match="cannot be started"):
            await start
    assert psutil.Process().num_fds() == before


async def test_no_more_files_can_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe", none_left)
    with pytest.raises(SetupError, match="Too many open files"):
        await H264Encoder.start(320, 176, 25)


@pytest.mark.parametrize("kind", [H264Encoder, AacEncoder])
async def test_a_stuck_encoder_is_told_and_a_cancel_ends_it(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "_TIMEOUT", 0.2)
    encoder = await (kind.start(320, 176, 25) if kind is H264Encoder else kind.start())
    data = [grey(9)] * 40 if kind is H264Encoder else np.zeros(9600, np.int16)
    os.kill(encoder.pid, signal.SIGSTOP)
    with pytest.raises(SetupError, match="did nothing"):
        await encoder.encode(data)
    await encoder.close()
    assert await gone(encoder.pid)

    monkeypatch.setattr(encoders, "_TIMEOUT", 60)
    encoder = await (kind.start(320, 176, 25) if kind is H264Encoder else kind.start())
    os.kill(encoder.pid, signal.SIGSTOP)
    task = asyncio.create_task(encoder.encode(data))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await encoder.close()
    assert await gone(encoder.pid)


async def test_nothing_is_left_behind() -> None:
    async def once() -> None:
        for encoder in (await H264Encoder.start(320, 176, 25), await AacEncoder.start()):
            await encoder.close()

    await once()
    before = psutil.Process().num_fds(), len(psutil.Process().threads())
    for _ in range(10):
        await once()
    after = psutil.Process().num_fds(), len(psutil.Process().threads())
    assert after[0] <= before[0] + 1 and after[1] <= before[1] + 2
