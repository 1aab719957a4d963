from __future__ import annotations

import asyncio

import psutil
import pytest

from orchestrator.heap import give_back
from orchestrator.rendering.tasks import end


def resident() -> int:
    return psutil.Process().memory_info().rss


async def test_what_is_free_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.heap._EVERY_SECONDS", 0.01)
    pieces = [bytes(range(256)) * 256 for _ in range(2000)]  # 128 MB, too small to be mapped alone
    pinned = pieces[::100]  # in use, all over the heap: what lies between cannot go by itself
    del pieces[:]
    before = resident()
    task = asyncio.create_task(give_back())
    for _ in range(100):
        await asyncio.sleep(0.02)
        if resident() < before - 100e6:
            break
    await end(task)
    assert resident() < before - 100e6
    assert len(pinned) == 20
