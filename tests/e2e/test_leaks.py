"""Viewers come and go; nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import psutil
import pytest

CYCLES = int(os.environ.get("MUSETALK_TEST_CYCLES", "40"))
INTERRUPTED = int(os.environ.get("MUSETALK_TEST_INTERRUPTED", "20"))


def held() -> dict[str, int]:
    """What this process holds."""
    gc.collect()
    process = psutil.Process()
    return {
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "children": len(process.children(recursive=True)),
        "threads": process.num_threads(),
        "memory": process.memory_info().rss,
    }


async def settled(before: dict[str, int]) -> dict[str, int]:
    """What is held when connections that were closed are really gone, and memory given back."""
    await asyncio.sleep(2)
    for _ in range(50):
        after = held()
        if all(after[name] <= before[name] for name in ("tasks", "descriptors", "children")):
            break
        await asyncio.sleep(0.1)
    return after


async def come_and_go(stage, number: int) -> None:
    """Some leave politely, some hang up, some in the middle of a sentence."""
    viewer = stage.viewer()
    await viewer.connect()
    if number % 3:
        await viewer.until(lambda: viewer.media[1:])
    if number % 2:
        await viewer.begin("say", {"text": "Hello there, I am a picture."})
    if number % 5 == 0:
        await viewer.disconnect()
    else:
        await viewer.call("leave")
        await viewer.disconnect()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free memory is given back every half second; for a stage that is made after it."""
    monkeypatch.setattr("orchestrator.heap._EVERY_SECONDS", 0.5)


@pytest.mark.slow
async def test_joining_and_leaving_leaves_nothing(
    often: None, stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.sessions.registry.RESUME_SECONDS", 0.5)
    for number in range(10):  # what is made once: clips, pools
        await come_and_go(stage, number)
    await asyncio.sleep(2)
    before = held()
    for number in range(0, CYCLES, 4):
        await asyncio.gather(*(come_and_go(stage, number + extra) for extra in range(4)))
    after = await settled(before)
    print(f"{CYCLES} cycles:", before, after)  # noqa: T201 -- the measurement
    assert stage.sessions.count == 0
    for name in ("tasks", "descriptors", "children"):
        assert after[name] <= before[name] + 1, (name, before, after)
    assert after["threads"] <= before["threads"] + 8
    # Ten viewers one after the other touched less than four at once do; nothing grows with them.
    assert after["memory"] - before["memory"] < 20e6 + 5e3 * CYCLES


@pytest.mark.slow
async def test_interrupted_turns_leave_nothing(stage) -> None:
    stage.llm.reply = lambda _: "word " * 60
    stage.llm.tokens_per_second = 30
    async with stage.viewer() as viewer:
        for number in range(-5, INTERRUPTED):
            if number == 0:
                await asyncio.sleep(1.5)
                before = held()
            await viewer.begin("ask", {"text": "What?"})
            await asyncio.sleep(0.05 * (number % 8))
            assert (await viewer.call("interrupt"))["ok"]
            await viewer.until(lambda: stage.llm.active == 0, timeout=1)
            assert stage.model.running == stage.voice.running == 0
        after = await settled(before)
        print(f"{INTERRUPTED} interruptions:", before, after)  # noqa: T201
        for name in ("tasks", "descriptors", "children"):
            assert after[name] <= before[name] + 1, (name, before, after)
        assert after["memory"] - before["memory"] < 20e6 + 20e3 * INTERRUPTED
        turn = await viewer.begin("say", {"text": "Still here."})
        await viewer.idle_again(turn)
    assert not viewer.problems
