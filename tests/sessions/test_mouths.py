"""The mouths of one batch against the moments of its frames."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from orchestrator.inference.schedule import Scheduler
from orchestrator.rendering.render import Overdue
from orchestrator.sessions.mouths import LiveInference, Pace
from orchestrator.sessions.times import TurnTimes


class Slow:
    """Triton that answers after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def lipsync(self, latents: Any, audio: Any, *, timeout: Any = None) -> Any:
        await asyncio.sleep(self.seconds)
        return np.zeros((len(latents), 256, 256, 3), np.uint8)


async def ask(seconds: float, due: float | None, frames: int = 8) -> tuple[Any, Overdue, Pace]:
    """One batch that takes ``seconds`` and whose first frame is due in ``due``."""
    loop = asyncio.get_running_loop()
    began, pace, overdue = loop.time(), Pace(1), Overdue()
    inference: Any = Slow(seconds)
    live = LiveInference(inference, Scheduler(), "me", pace, TurnTimes(), 30.0)
    latents, audio = np.zeros((frames, 8, 32, 32), np.float16), np.zeros((frames, 50, 384))
    made = await live.lipsync(
        latents,
        audio.astype(np.float16),
        lambda frame: None if due is None else began + due + frame / 25,
        overdue,
    )
    return made, overdue, pace


async def test_in_time() -> None:
    made, overdue, pace = await ask(0.01, 5.0)
    assert len(made) == 8 and overdue.frames == 0 and pace.step == 1


async def test_without_a_moment_it_may_take_its_time() -> None:
    made, overdue, pace = await ask(0.2, None)
    assert len(made) == 8 and overdue.frames == 0
    assert pace.batch_seconds == pytest.approx(0.2, abs=0.15)


async def test_only_frames_whose_moment_passed_are_given_up() -> None:
    made, overdue, pace = await ask(0.5, 0.1, frames=50)
    assert len(made) == 50
    assert overdue.frames % 2 == 0 and 4 <= overdue.frames < 50
    assert pace.step == 2


async def test_what_comes_after_its_last_frame_is_not_waited_for() -> None:
    began = asyncio.get_running_loop().time()
    made, overdue, pace = await ask(30.0, 0.0)
    assert made is None and overdue.frames == 8 and pace.step == 2
    assert asyncio.get_running_loop().time() - began < 10


def test_half_rate_until_frames_are_early_again() -> None:
    pace = Pace(1)
    pace.answered(0.05)
    assert pace.step == 2 and pace.reduced
    pace.answered(0.3)
    assert pace.reduced
    pace.answered(1.0)
    assert pace.step == 1 and not pace.reduced
    economy = Pace(2)
    economy.answered(1.0)
    assert economy.step == 2 and not economy.reduced
