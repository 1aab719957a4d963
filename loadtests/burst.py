"""A burst of full batches at once: the batcher must not stall between them."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.inference import TritonClient
from orchestrator.inference.protocol import Array

BATCHES = 20
ALONE = 5


@dataclass(frozen=True)
class Burst:
    """What a burst took."""

    batches: int
    seconds: float
    """From the first request to the last answer."""
    alone_seconds: float
    """One batch with the server to itself, median."""

    @property
    def ratio(self) -> float:
        """Against batches sent one after the other: 1 is ideal, below 1 they overlap."""
        return self.seconds / (self.batches * self.alone_seconds)


async def burst(
    client: TritonClient,
    model: str,
    inputs: Mapping[str, Array],
    *,
    batches: int = BATCHES,
    timeout: float = 600.0,
) -> Burst:
    """Time full batches sent one by one, then many at once.

    Args:
        client: a Triton whose models are warm.
        model: the model to call.
        inputs: one full batch.
        batches: how many to send at once.
        timeout: deadline of each request in seconds.

    Returns:
        The times.

    Raises:
        InferenceError: a request failed.
    """
    alone = []
    for _ in range(ALONE):
        start = time.perf_counter()
        await client.infer(model, inputs, timeout=timeout)
        alone.append(time.perf_counter() - start)
    start = time.perf_counter()
    await asyncio.gather(*(client.infer(model, inputs, timeout=timeout) for _ in range(batches)))
    return Burst(batches, time.perf_counter() - start, statistics.median(alone))
