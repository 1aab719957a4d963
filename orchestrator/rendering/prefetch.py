"""A stage that works ahead of the next one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final, TypeVar

from orchestrator.rendering.tasks import end

T = TypeVar("T")

AHEAD: Final = 2
"""Finished batches that wait for the encoder; then the renderer waits for it."""


async def prefetch(source: AsyncGenerator[T, None], depth: int = AHEAD) -> AsyncGenerator[T, None]:
    """Let a stage work ahead of the next one, by at most ``depth`` items.

    Args:
        source: an async generator; it is closed when this one ends, however that is.
        depth: items that may wait.

    Yields:
        The items of ``source``, in order; its error, after the items before it.
    """
    queue: asyncio.Queue[tuple[T] | BaseException | None] = asyncio.Queue(depth)

    async def pump() -> None:
        try:
            async for item in source:
                await queue.put((item,))
            await queue.put(None)
        except Exception as error:  # noqa: BLE001 -- raised again on the other side
            await queue.put(error)

    task = asyncio.create_task(pump())
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        await end(task)
        await source.aclose()
