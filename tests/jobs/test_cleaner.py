"""What is deleted after a job, and what never is."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import (
    NotFoundError,
)
from orchestrator.jobs.cleaner import Cleaner
from orchestrator.jobs.order import Order
from orchestrator.jobs.store import open_store

TEXT = " ".join(f"This is the sentence with the number {n} of a text." for n in range(10))


async def test_retention_spares_what_is_in_use(
    opened: Any, wait: Any, content: Any, address: str
) -> None:
    async with opened(video_store=address, video_retention=0.2) as videos:
        store = open_store(address)
        read, unread = [
            await wait(videos, await videos.create("me", Order(text=text)))
            for text in ("Hello there.", "Something else.")
        ]
        result = await videos.result("me", read.id)  # from here on somebody reads it
        await store.put("0123/speech-000.48k", b"of a job that is just being created")
        await asyncio.sleep(0.3)
        cleaner: Cleaner = videos._cleaner
        await cleaner.expire()
        await cleaner.sweep()
        with pytest.raises(NotFoundError):
            await videos.get("me", unread.id)
        assert await store.files(unread.id) == []
        assert len(await content(videos, read)) == result.size
        assert await store.size("0123/speech-000.48k")
        await asyncio.to_thread(videos._ledger.use, read.id, -1.0)
        cleaner._grace = -2.0  # S3 counts whole seconds
        await cleaner.expire()
        await cleaner.sweep()
        with pytest.raises(NotFoundError):
            await videos.get("me", read.id)
        assert await store.files() == []


async def test_files_of_unfinished_jobs_are_never_cleaned(
    opened: Any, wait: Any, inference: Any
) -> None:
    inference.delay = 0.05
    async with opened() as videos:
        videos._cleaner._grace = -2.0
        job = await videos.create("me", Order(text=TEXT))
        while not (await videos.get("me", job.id)).expires:
            await videos._cleaner.sweep()
            await asyncio.sleep(0.01)
        assert (await wait(videos, job)).status == "succeeded"
        await videos._cleaner.sweep()
        assert (await videos.captions("me", job.id)).startswith(b"WEBVTT")


async def test_fragments_of_a_killed_process_are_removed(opened: Any, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    async with opened(video_store=str(folder)) as videos:
        old, young = folder / "ab" / "video.mp4#1", folder / "ab" / "video.mp4#2"
        old.parent.mkdir()
        for fragment in (old, young):
            fragment.write_bytes(b"half a vid")
        os.utime(old, (0, 0))
        await videos._cleaner.sweep()
        assert young.exists() and not old.exists()
