"""Rendering through a real tritonserver; its networks are a few hand-made operations."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest

from orchestrator.errors import MuseTalkError
from orchestrator.inference import connect
from orchestrator.rendering.provenance import Provenance
from orchestrator.rendering.render import RenderOptions
from orchestrator.rendering.script import Utterance
from orchestrator.rendering.timings import StageTimes
from orchestrator.rendering.video import speak_to_file
from orchestrator.settings import Settings

pytestmark = pytest.mark.triton


async def speech(seconds: float) -> AsyncGenerator[Utterance, None]:
    yield Utterance(
        np.full(round(seconds * 16000), 500, np.int16),
        np.full(round(seconds * 48000), 500, np.int16),
        None,
        1.0,
    )


async def render(avatar: Any, inference: Any, output: Path, times: StageTimes) -> None:
    await speak_to_file(
        avatar,
        speech(12),
        output,
        inference=inference,
        options=RenderOptions(batch=2),
        provenance=Provenance("MuseTalk v1.5", "hand-made", "Ada"),
        times=times,
    )


def mouths(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [
            int(frame.to_ndarray(format="bgr24")[32, 48].mean()) for frame in container.decode(0)
        ]


def kill_server() -> None:
    """The youngest: other tests of this run may have one too."""
    server = max(
        (
            child
            for child in psutil.Process().children(recursive=True)
            if child.name() == "tritonserver" and child.status() != psutil.STATUS_ZOMBIE
        ),
        key=psutil.Process.create_time,
    )
    os.kill(server.pid, signal.SIGKILL)


async def until(condition: Any, task: asyncio.Task[Any]) -> None:
    while not condition():
        if task.done():
            await task
            raise AssertionError("the render ended before the moment to kill its server")
        await asyncio.sleep(0.01)


async def test_a_killed_server_is_restarted_and_no_frame_is_lost(
    tmp_path: Path, avatar: Any, repository: Path
) -> None:
    output, times = tmp_path / "out.mp4", StageTimes()
    async with connect(Settings(repository=repository)) as inference:
        task = asyncio.create_task(render(avatar, inference, output, times))
        await until(lambda: times.generated > 50, task)
        kill_server()
        await asyncio.wait_for(task, 120)
    assert times.retries >= 1
    seen = mouths(output)
    assert len(seen) == 300
    for index, level in enumerate(seen):
        assert abs(level - min(2 * index + 1, 250)) <= 6


async def test_a_server_that_cannot_come_back_fails_with_the_reason(
    tmp_path: Path, avatar: Any, repository: Path
) -> None:
    output, times = tmp_path / "out" / "out.mp4", StageTimes()
    broken = tmp_path / "repository"
    broken.symlink_to(repository)
    async with connect(Settings(repository=broken)) as inference:
        task = asyncio.create_task(render(avatar, inference, output, times))
        await until(lambda: times.generated > 20, task)
        broken.unlink()
        kill_server()
        with pytest.raises(MuseTalkError) as caught:
            await asyncio.wait_for(task, 60)
    assert caught.value.code == "triton_died" and "not a folder" in str(caught.value)
    assert list(output.parent.iterdir()) == []
