"""Jobs while they run: limits, progress, cancelling, stopping at any moment and going on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import (
    UsageError,
)
from orchestrator.jobs import workflow
from orchestrator.jobs.order import Order
from orchestrator.jobs.store import FileStore

TEXT = " ".join(f"This is the sentence with the number {n} of a text." for n in range(10))


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        await asyncio.sleep(0.02)


async def test_time_limit(
    opened: Any, wait: Any, inference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = workflow.TimeLimit()
    assert limit.seconds == 120
    limit.expect(1.0)
    assert limit.seconds == 120
    limit.expect(1000.0)
    assert 5000 <= limit.seconds < 5001
    monkeypatch.setattr(workflow, "MIN_LIMIT", 0.6)
    monkeypatch.setattr(workflow, "_PATIENCE", 0.0)
    inference.delay = 60.0
    async with opened() as videos:
        failed = await wait(videos, await videos.create("me", Order(text="Hello.")))
        assert failed.error.code == "time_limit"
        assert not inference.running


async def test_progress_moves_and_never_back(opened: Any, inference: Any) -> None:
    inference.delay = 0.05
    seen: list[tuple[str, float]] = []
    async with opened() as videos:
        job = await videos.create("me", Order(message="Tell me more and more and more."))
        while not (now := await videos.get("me", job.id)).expires:
            seen.append((now.stage, now.progress))
            await asyncio.sleep(0.02)
    values = [progress for _, progress in seen]
    assert values == sorted(values) and len(set(values)) > 4
    stages = list(dict.fromkeys(stage for stage, _ in seen))
    assert stages == [s for s in ("queued", "llm", "tts", "render", "publish") if s in stages]
    assert {"queued", "render"} <= set(stages)


async def test_cancel_while_it_renders(opened: Any, wait: Any, inference: Any) -> None:
    inference.delay = 60.0
    async with opened() as videos:
        running = await videos.create("me", Order(text="Hello there."))
        waiting = await videos.create("me", Order(text="Hello here."))
        await until(lambda: inference.running)
        assert (await videos.cancel("me", waiting.id)).status == "cancelled"
        assert (await videos.cancel("me", running.id)).status == "cancelled"
        await until(lambda: not inference.running)
        inference.delay = 0.0
        # The place is free for the next one; the cancelled ones do not come back.
        done = await wait(videos, await videos.create("me", Order(text="Something else.")))
        assert done.status == "succeeded"
        assert (await videos.cancel("me", done.id)).status == "succeeded"
        assert (await videos.get("me", running.id)).status == "cancelled"
        assert (await videos.get("me", waiting.id)).status == "cancelled"


async def test_jobs_at_a_time_are_bounded(opened: Any, wait: Any, inference: Any) -> None:
    inference.delay = 0.1
    most = 0
    async with opened(max_videos=2) as videos:
        jobs = [await videos.create("me", Order(text=f"Number {n}, please.")) for n in range(5)]
        states = [""]
        while any(state not in ("succeeded", "failed") for state in states):
            states = [(await videos.get("me", job.id)).status for job in jobs]
            most = max(most, states.count("running"))
            await asyncio.sleep(0.02)
    assert states == ["succeeded"] * 5 and most == 2


async def test_one_key_at_the_same_time_is_one_job(opened: Any) -> None:
    async with opened() as videos:
        order = Order(text="Hello.")
        jobs = await asyncio.gather(*(videos.create("me", order, "key") for _ in range(5)))
        assert len({job.id for job in jobs}) == 1
        assert len(await videos.page("me", 10)) == 1
        assert (await videos.create("you", order, "key")).id != jobs[0].id
        with pytest.raises(UsageError):
            await videos.create("me", order, "")


async def test_stop_and_start_go_on(opened: Any, wait: Any, voice: Any, inference: Any) -> None:
    inference.delay = 60.0
    async with opened() as videos:
        job = await videos.create("me", Order(text=TEXT))
        await until(lambda: inference.running)
        assert (await videos.get("me", job.id)).status == "running"
    assert not inference.running
    spoken = list(voice.texts)
    assert len(spoken) == 10
    inference.delay = 0.0
    async with opened() as videos:
        done = await wait(videos, job)
        assert done.status == "succeeded" and voice.texts == spoken


@pytest.mark.parametrize("write", [0, 2, 5, 6])  # reply, sound, piece, result
async def test_stopped_at_each_write(
    opened: Any, wait: Any, voice: Any, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    """Whatever file a worker was writing when it ended, the next one goes on from there."""
    put, count = FileStore.put, 0
    reached = asyncio.Event()

    async def stuck(self: FileStore, path: str, content: bytes | Path) -> None:
        nonlocal count
        count += 1
        if count == write + 1:
            reached.set()
            await asyncio.Event().wait()
        await put(self, path, content)

    async with opened() as videos:
        monkeypatch.setattr(FileStore, "put", stuck)
        job = await videos.create("me", Order(text="Hello there. How are you?"))
        await asyncio.wait_for(reached.wait(), 20)
    monkeypatch.setattr(FileStore, "put", put)
    async with opened() as videos:
        assert (await wait(videos, job)).status == "succeeded"
    repeated = {2: ["Hello there."]}
    assert sorted(voice.texts) == sorted(["Hello there.", "How are you?", *repeated.get(write, [])])
