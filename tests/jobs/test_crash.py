"""kill -9 of the real service at random moments: every job finishes, nothing is paid twice.

``MUSETALK_CRASHES=20 MUSETALK_CRASH_JOBS=10`` is the full run; by default a smaller one.
"""

from __future__ import annotations

import io
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

CRASHES = int(os.environ.get("MUSETALK_CRASHES", "3"))
JOBS = int(os.environ.get("MUSETALK_CRASH_JOBS", "3"))


def check_repeats(asked: list[Any], kills: list[float]) -> int:
    """Only the last request before a kill may be made again: at most one for each kill."""
    seen: dict[tuple[str, str], Any] = {}
    repeated = 0
    for request in asked:
        key = (request.what, request.text)
        if key in seen:
            repeated += 1
            earlier = seen[key]
            before = [kill for kill in kills if earlier.at <= kill <= request.at]
            assert before, f"{key} was repeated without a crash"
            later = [one for one in asked if earlier.at < one.at <= before[0]]
            assert not later, f"{key} was repeated although {later[0]} came after it"
        seen[key] = request
    assert repeated <= len(kills)
    return repeated


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_at_random_moments(
    tmp_path: Path, jobs_outside: Any, record_testsuite_property: Callable[[str, object], None]
) -> None:
    loopback = jobs_outside.Loopback(delay=0.3)
    worker = jobs_outside.Worker(tmp_path, loopback, FAKE_DELAY="0.1")
    chance = random.Random(6)
    try:
        worker.start()
        worker.wait_ready()
        jobs = [worker.create(message=f"Question number {n}?") for n in range(JOBS)]
        kills = []
        for _ in range(CRASHES):
            # Some fall into the start of the process, most into a job.
            time.sleep(chance.uniform(0.5, 7.0))
            worker.kill()
            kills.append(time.monotonic())
            worker.start()
        worker.wait_ready()
        states = worker.wait_over(jobs, 60 + 15 * JOBS)
        assert [state["status"] for state in states] == ["succeeded"] * JOBS, states
        repeated = check_repeats(loopback.asked, kills)
        assert len({(one.what, one.text) for one in loopback.asked}) == JOBS * 4
        for state in states:
            video = httpx.get(worker.url + state["url"], timeout=20).content
            with av.open(io.BytesIO(video)) as file:
                assert sum(1 for _ in file.decode(video=0)) == state["frames"]
        record_testsuite_property("repeated", f"{repeated} of {len(loopback.asked)} requests")
    finally:
        worker.end()
        loopback.shutdown()
