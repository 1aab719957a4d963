"""How many avatars may talk at a time, where nobody has measured it: an estimate at the start."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

import numpy as np

from orchestrator.inference.schedule import PER_OWNER
from orchestrator.rendering.tasks import end

if TYPE_CHECKING:
    from orchestrator.inference import Inference

LEAST: Final = 1.0
"""Talkers that are always let in."""

_FPS: Final = 25
_SECONDS: Final = 1.0

_SHARE_HERE: Final = 0.5
"""Of the frames that Triton makes with nothing else to do, what live speech may take where the same
processors also speak, composite and encode. Two machines of two cores: of 58 frames a second one
talker was carried with 99 % of the frames in time and not two, of 112 two and not three."""

_SHARE_ELSEWHERE: Final = 0.7
"""The same where Triton has processors of its own: the rest is for speech features and bursts. Not
measured."""


def talkers(frames_per_second: float, *, here: bool) -> float:
    """Talkers of 25 pictures a second, in halves; at least one.

    Args:
        frames_per_second: that Triton's ``lipsync`` makes in full batches.
        here: Triton computes on this machine's processors.
    """
    share = _SHARE_HERE if here else _SHARE_ELSEWHERE
    return max(LEAST, math.floor(2 * share * frames_per_second / _FPS) / 2)


async def lipsync_rate(inference: Inference, batch: int, *, timeout: float) -> float:
    """Frames a second of ``lipsync``, as live sessions ask for them, in about a second.

    Args:
        inference: Triton, warm.
        batch: frames in one request.
        timeout: seconds that one request may take.

    Raises:
        InferenceError: Triton failed.
    """
    latents = np.zeros((batch, 8, 32, 32), np.float16)
    audio = np.zeros((batch, 50, 384), np.float16)
    began = time.perf_counter()
    made = 0

    async def ask() -> None:
        nonlocal made
        while time.perf_counter() - began < _SECONDS:
            await inference.lipsync(latents, audio, timeout=timeout)
            made += batch

    asked = [asyncio.create_task(ask()) for _ in range(PER_OWNER)]
    try:
        await asyncio.gather(*asked)
    finally:
        await end(*asked)
    return made / (time.perf_counter() - began)
