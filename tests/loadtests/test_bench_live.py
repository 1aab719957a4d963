"""The rows of live sessions: what they are made of, and all of them once from a real service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loadtests.bench_live import cost_against_load, first_frame, profiles, steps
from loadtests.loopback_llm import loopback_llm
from loadtests.service import UNLIMITED, serving
from orchestrator.sessions.profiles import PROFILES


def test_the_steps_to_a_first_frame_are_all_of_its_time() -> None:
    stages = {
        "llm": {"start": 0.1, "duration": 2.0, "busy": 1.0},
        "tts": {"start": 0.6, "duration": 2.0, "busy": 1.0},
        "inference": {"start": 0.8, "duration": 2.0, "busy": 1.0},
        "encoding": {"start": 1.0, "duration": 2.0, "busy": 1.0},
        "compositing": {"start": 0.9, "duration": 2.0, "busy": 1.0},
    }
    found = steps({"first_frame": 1.1, "stages": stages}, 1.3)
    assert list(found) == [
        *("request", "llm", "tts", "inference", "compositing", "encoding", "to the player"),
    ]
    assert sum(found.values()) == pytest.approx(1.3)
    assert found["llm"] == pytest.approx(0.5)
    assert found["to the player"] == pytest.approx(0.2)


@pytest.mark.triton
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_one_service_tells_profiles_first_frame_and_cost(
    tmp_path: Path, portraits_ready: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = portraits_ready(tmp_path / "cache")
    plot = tmp_path / "out" / "bench.png"
    # Speech takes its time; the rows are the same for short words.
    monkeypatch.setattr("loadtests.turns.SENTENCES", ("Yes, of course.", "So it is."))
    async with loopback_llm() as llm, serving(llm, cache, **UNLIMITED) as url:
        llm.reply = lambda _: "That is so, and it was so before."
        rows = await profiles(url, turns=1)
        way = await first_frame(url, turns=1)
        loads = await cost_against_load(url, plot, seconds=0.5, most=2)
    assert [row.name.split(":")[0] for row in rows] == [f"profile {name}" for name in PROFILES]
    # Less than a tenth of a core would mean that somebody's processor time is not seen.
    assert all(row.value is not None and row.value > 0.1 for row in (*rows, *loads))
    total, *parts = way
    assert total.value is not None
    assert sum(row.value or 0 for row in parts) == pytest.approx(total.value * 1000)
    assert {row.name.rpartition(" ")[2] for row in parts} >= {"llm", "tts", "inference", "player"}
    assert loads[0].details["talkers"] == 1
    assert plot.stat().st_size > 5_000
