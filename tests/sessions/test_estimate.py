from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UnavailableError
from orchestrator.sessions.estimate import lipsync_rate, talkers


class Triton:
    """Computes one batch at a time, as long as it is told."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._engine = asyncio.Lock()
        self.waiting = self.most_waiting = 0

    async def lipsync(self, latents: Any, audio: Any, *, timeout: Any = None) -> Any:
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        async with self._engine:
            await asyncio.sleep(self._seconds)
        self.waiting -= 1
        return np.zeros((len(latents), 256, 256, 3), np.uint8)


async def test_the_rate_of_full_batches_with_one_always_waiting() -> None:
    triton: Any = Triton(0.1)
    rate = await lipsync_rate(triton, 8, timeout=5.0)
    assert 20 < rate <= 80
    assert triton.most_waiting == 2 and triton.waiting == 0


async def test_a_failing_triton_says_so_and_leaves_nothing_running() -> None:
    class Gone(Triton):
        async def lipsync(self, latents: Any, audio: Any, *, timeout: Any = None) -> Any:
            raise UnavailableError("gone")

    triton: Any = Gone(0.0)
    with pytest.raises(UnavailableError):
        await lipsync_rate(triton, 8, timeout=5.0)
    assert len(asyncio.all_tasks()) == 1


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.booleans())
def test_a_quicker_machine_lets_no_fewer_talk(one: float, other: float, here: bool) -> None:
    slow, quick = sorted((one, other))
    assert 1.0 <= talkers(slow, here=here) <= talkers(quick, here=here) <= max(1.0, quick / 25)
    assert talkers(quick, here=True) <= talkers(quick, here=False)


@pytest.mark.parametrize(("frames_per_second", "carried"), [(58.0, 1.0), (112.0, 2.0)])
def test_the_machines_that_it_was_measured_on(frames_per_second: float, carried: float) -> None:
    assert talkers(frames_per_second, here=True) == carried
