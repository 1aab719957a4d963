"""Processes that have written more than anybody reads are still seen to end."""

from __future__ import annotations

import asyncio
import sys

import pytest

from orchestrator.errors import MediaError
from orchestrator.processes import end_process, gone
from orchestrator.speech.ffmpeg import execute

ENDLESS = "import os\nwhile True: os.write(1, bytes(65536)); os.write(2, bytes(65536))"


async def flooding() -> asyncio.subprocess.Process:
    """A process of whose output so much lies unread that asyncio has paused its pipes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", ENDLESS),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await asyncio.sleep(0.5)
    return process


async def test_a_killed_process_is_gone_whatever_it_wrote() -> None:
    process = await flooding()
    await asyncio.wait_for(end_process(process), 10)
    assert process.returncode == -9
    await end_process(process)  # nothing to do


async def test_an_output_that_is_still_read_is_left_to_its_reader() -> None:
    process = await flooding()
    assert process.stdout is not None and process.stderr is not None
    reading = asyncio.create_task(process.stderr.read())
    await asyncio.sleep(0)
    process.kill()
    assert await asyncio.wait_for(gone(process, process.stdout, process.stderr), 10) == -9
    assert len(await reading) >= 65536


async def test_ffmpeg_that_writes_more_than_allowed_is_ended_at_once() -> None:
    endless = ["-f", "lavfi", "-i", "color=s=1280x720", "-f", "rawvideo", "pipe:1"]
    for _ in range(5):
        with pytest.raises(MediaError, match="larger than 1 bytes"):
            await asyncio.wait_for(execute(endless, timeout=60, max_output=1), 20)
