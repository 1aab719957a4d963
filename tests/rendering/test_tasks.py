from __future__ import annotations

import asyncio

import pytest

from orchestrator.rendering.tasks import end, within


async def test_within_gives_the_result_or_the_error() -> None:
    assert await within(asyncio.sleep(0, "done"), 1) == "done"

    async def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await within(fails(), 1)


async def test_within_cancels_what_is_late() -> None:
    ended = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(TimeoutError):
        await within(slow(), 0.01)
    assert ended


async def test_a_cancel_in_the_moment_of_the_result_is_not_lost() -> None:
    """Where ``asyncio.wait_for`` of Python 3.10 and 3.11 goes on as if nothing had been said."""
    result = asyncio.get_running_loop().create_future()
    went_on = []

    async def work() -> None:
        await within(result, 10)
        went_on.append(True)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    result.set_result(None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not went_on


async def test_end_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.rendering.tasks._AGAIN_SECONDS", 0.02)
    lost = []

    async def deaf_once() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            lost.append(True)
        await asyncio.sleep(60)

    task = asyncio.create_task(deaf_once())
    await asyncio.sleep(0)
    await asyncio.wait_for(end(task), 2)
    assert lost and task.cancelled()


async def test_end_takes_errors_for_seen() -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await end(task)
    assert task.done()
