"""The comparison with a real server: it is met by a server like the model, and by no other."""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loadtests import simulation_check
from loadtests.simulation import ServiceTime
from loadtests.simulation_check import COMPARED, LARGEST, Comparison, between, compare, real

Compared = Callable[["Server", int, int, bool], Comparison]
MODEL = ServiceTime(0.02, 0.02, "test")


class Server:
    """Batches what waits, as Triton does, and takes the time it is told to."""

    def __init__(self, time: ServiceTime) -> None:
        self._time = time
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def lipsync(self, latents: Any, audio: Any, timeout: float) -> Any:
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((len(latents), done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve())
        await done
        return np.zeros(len(latents))

    async def _serve(self) -> None:
        await asyncio.sleep(1e-6)
        while self._waiting:
            size, done = self._waiting.popleft()
            batch = [done]
            while self._waiting and self._fits(size):
                more, done = self._waiting.popleft()
                size += more
                batch.append(done)
            await asyncio.sleep(self._time(size))
            for done in batch:
                done.set_result(None)
            await asyncio.sleep(1e-6)  # they ask for more

    def _fits(self, size: int) -> bool:
        return size + self._waiting[0][0] <= LARGEST


class Clock(selectors.DefaultSelector):
    """Time that passes only while everybody sleeps, and then at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return super().select(0)

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Compared:
    def run(server: Server, talkers: int, chunk: int, paced: bool) -> Comparison:
        clock = Clock()
        loop = asyncio.SelectorEventLoop(clock)
        monkeypatch.setattr(simulation_check, "time", clock)
        monkeypatch.setattr(loop, "time", clock.perf_counter)

        async def work() -> Comparison:
            seen = await real(
                server,  # type: ignore[arg-type]
                talkers,
                chunk,
                paced=paced,
                seconds=60.0,
            )
            found = compare(MODEL, talkers, chunk, paced=paced, seconds=60.0, seen=seen)
            await asyncio.sleep(1)  # its last batch
            return found

        try:
            return loop.run_until_complete(work())
        finally:
            loop.close()

    return run


@pytest.mark.parametrize(("talkers", "chunk", "paced"), COMPARED)
def test_a_server_like_the_model_is_within_the_bounds(
    talkers: int, chunk: int, paced: bool, compared: Compared
) -> None:
    found = compared(Server(MODEL), talkers, chunk, paced)
    assert found.met, (found.rate_ratio, found.p95_ratio)
    assert found.rate_ratio == pytest.approx(1, abs=0.05)


def test_a_server_that_is_slower_than_measured_is_found(compared: Compared) -> None:
    found = compared(Server(ServiceTime(0.02, 0.03, "test")), 2, 8, False)
    assert not found.met


class Single(Server):
    """Computes each request by itself."""

    def _fits(self, size: int) -> bool:
        return False


def test_a_server_that_does_not_batch_is_found_by_small_requests_only(compared: Compared) -> None:
    assert compared(Single(MODEL), 8, 8, False).met
    assert not compared(Single(MODEL), 8, 2, False).met


def test_a_pace_that_drifts_counts_half_each() -> None:
    slow = ServiceTime(0.04, 0.03, "measured", 1.5, (1.0, 1.2))
    found = between(ServiceTime(0.02, 0.02, "measured", 1.1, (0.9, 1.0)), slow)
    assert found.spread == (0.9, 1.0, 1.0, 1.2)
    assert (found(8), found.overlap) == pytest.approx((0.03 + 8 * 0.025, 1.3))


@pytest.mark.parametrize(
    ("rate", "p95", "met"),
    [(100, 1.0, True), (87, 1.25, True), (84, 1.0, False), (116, 1.0, False), (100, 1.4, False)],
)
def test_bounds(rate: float, p95: float, met: bool) -> None:
    assert Comparison(1, 8, True, rate, 100.0, p95, 1.0).met is met
