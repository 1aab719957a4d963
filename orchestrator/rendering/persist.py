"""Requests that are made again when the server was restarting."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from orchestrator.errors import MuseTalkError, ServerDiedError
from orchestrator.rendering.timings import StageTimes

if TYPE_CHECKING:
    from orchestrator.inference import Inference

T = TypeVar("T")

_ATTEMPTS: Final = 3
_RECOVERY_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.25


async def persist(call: Callable[[], Awaitable[T]], inference: Inference, times: StageTimes) -> T:
    """Call, and call again while trying again helps: the server may be restarting.

    Raises:
        MuseTalkError: the last error, when it is not retryable, after ``_ATTEMPTS`` calls, when
            the server is not back after ``_RECOVERY_SECONDS``, or was given up.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return await call()
        except MuseTalkError as error:
            given_up = isinstance(error, ServerDiedError)
            if given_up or not error.retryable or not await _ready_again(inference):
                raise
            times.retries += 1
            await asyncio.sleep(random.uniform(0, 0.2 * 2**attempt))
    return await call()


async def _ready_again(inference: Inference) -> bool:
    """Wait for a server that has its model ready, for a bounded time.

    Raises:
        MuseTalkError: the server was given up, or says something that waiting does not change.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + _RECOVERY_SECONDS
    while loop.time() < end:
        try:
            if await inference.has_model("lipsync"):
                return True
        except MuseTalkError as error:
            if isinstance(error, ServerDiedError) or not error.retryable:
                raise
        await asyncio.sleep(_POLL_SECONDS)
    return False
