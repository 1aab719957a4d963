from __future__ import annotations

import asyncio

import pytest

from orchestrator import stats
from orchestrator.errors import ModelMissingError, UnavailableError
from orchestrator.inference.protocol import ModelStatistics


class Triton:
    def __init__(self) -> None:
        self.down = False
        self.calls = 0
        self.totals = ModelStatistics(8, 2, 0.5, 1.0, requests=4)

    async def statistics(self, name: str) -> ModelStatistics:
        self.calls += 1
        await asyncio.sleep(0)
        if self.down:
            raise UnavailableError("down")
        if name != "lipsync":
            raise ModelMissingError(name)
        return self.totals


@pytest.fixture
def triton() -> Triton:
    return Triton()


@pytest.fixture
def gathered(triton: Triton, monkeypatch: pytest.MonkeyPatch) -> stats.Stats:
    monkeypatch.setattr(stats, "_FRESH_SECONDS", 0.0)
    return stats.Stats(
        sessions=lambda: {"idle": 2, "speaking": 1, "limit": 8},
        triton=lambda: triton,
        pending=lambda name: 3,
    )


async def test_models_by_the_last_interval(triton: Triton, gathered: stats.Stats) -> None:
    first = await gathered.snapshot()
    assert first["sessions"] == {"idle": 2, "speaking": 1, "limit": 8}
    assert first["triton"]["models"] == {
        "lipsync": {"batch_mean": None, "queue_ms": None, "compute_ms": None, "pending": 3}
    }
    assert 0 <= first["machine"]["cpu_percent"] <= 100 and 0 < first["machine"]["memory"] < 100
    triton.totals = ModelStatistics(32, 6, 0.6, 1.8, requests=12)
    worked = {"batch_mean": 6.0, "queue_ms": 12.5, "compute_ms": 100.0, "pending": 3}
    assert (await gathered.snapshot())["triton"]["models"]["lipsync"] == worked
    # A model that rests keeps what it did last.
    assert (await gathered.snapshot())["triton"]["models"]["lipsync"] == worked


async def test_triton_is_down_or_started_again(triton: Triton, gathered: stats.Stats) -> None:
    await gathered.snapshot()
    triton.down = True
    assert not (await gathered.snapshot())["triton"]["available"]
    triton.down, triton.totals = False, ModelStatistics(1, 1, 0.0, 0.0, requests=1)
    after = await gathered.snapshot()
    assert after["triton"]["available"]
    assert after["triton"]["models"]["lipsync"]["batch_mean"] is None


async def test_many_who_ask_cost_one_question(
    triton: Triton, gathered: stats.Stats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "_FRESH_SECONDS", 60.0)
    await asyncio.gather(*(gathered.snapshot() for _ in range(10)))
    assert triton.calls == len(stats.MODELS)
