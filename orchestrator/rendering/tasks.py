"""Deadlines and cancelling that lose nothing.

``asyncio.wait_for`` before Python 3.12 swallows a cancel that comes in the same moment as the
result: what was to be stopped then runs on. ``asyncio.wait`` does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_AGAIN_SECONDS: Final = 2.0


async def within(awaitable: Awaitable[T], seconds: float) -> T:
    """Await with a deadline; what is late is cancelled.

    Args:
        awaitable: what to wait for.
        seconds: for how long.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise TimeoutError
        return task.result()
    finally:
        await end(task)


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they are over.

    Asks again every two seconds, for the sake of libraries in which a cancel gets lost.
    """
    waiting = {task for task in tasks if not task.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen: asyncio need not complain that nobody asked
