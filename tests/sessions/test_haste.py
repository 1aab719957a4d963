from __future__ import annotations

import pytest

from orchestrator.inference.schedule import Scheduler
from orchestrator.sessions.haste import Haste


async def test_a_turn_hurries_once() -> None:
    scheduler = Scheduler()
    haste, other = Haste(scheduler), Haste(scheduler)
    haste.begin()
    haste.begin()
    assert other.others
    haste.end()
    haste.begin()
    assert not other.others


@pytest.mark.parametrize("begun", [False, True])
async def test_a_turn_that_ends_keeps_nobody(begun: bool) -> None:
    scheduler = Scheduler()
    haste = Haste(scheduler)
    if begun:
        haste.begin()
    haste.end()
    haste.end()
    assert not scheduler.hurried
