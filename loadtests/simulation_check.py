"""The simulation against the real thing: talkers that ask a real Triton as the model's do."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.bench_triton import Inputs, request_seconds, throughput
from loadtests.simulation import AHEAD, FPS, ServiceTime, Talk, chance, crowd, percentile
from orchestrator.errors import MuseTalkError
from orchestrator.inference import EmbeddedTriton, TritonClient
from orchestrator.settings import settings

THROUGHPUT_WITHIN = 0.15
LATENCY_WITHIN = 0.30
LARGEST = 8
SEED = 0
TALKER = Talk(turn=6.0, share=1.0)
"""Who never listens; only the frames of its requests differ."""
COMPARED = (
    *((1, 8, True), (2, 8, True), (3, 8, True)),
    *((2, 8, False), (8, 8, False), (4, 4, False), (8, 2, False)),
)
"""Talkers, frames of a request, paced. What a full server makes of full batches is known from
``measure_service``; what it makes of smaller requests, and how long those that are paced wait for
each other, only the model says."""


@dataclass(frozen=True)
class Comparison:
    """One number of talkers and frames a request, simulated and real."""

    talkers: int
    chunk: int
    paced: bool
    simulated_rate: float
    real_rate: float
    simulated_p95: float
    real_p95: float

    @property
    def rate_ratio(self) -> float:
        """Frames a second, simulated over real."""
        return self.simulated_rate / self.real_rate

    @property
    def p95_ratio(self) -> float:
        """Seconds of a chunk at the 95th percentile, simulated over real."""
        return self.simulated_p95 / self.real_p95

    @property
    def met(self) -> bool:
        """Throughput within 15 %, latency within 30 %."""
        return (
            abs(self.rate_ratio - 1) <= THROUGHPUT_WITHIN
            and abs(self.p95_ratio - 1) <= LATENCY_WITHIN
        )


async def measure_service(client: TritonClient, runs: int = 20) -> ServiceTime:
    """Fit ``fixed + b * per_frame`` to batches of 1 to 8 frames, one at a time and overlapping.

    Args:
        client: a warm server with nobody else on it.
        runs: of each size; the median counts, and for the largest how far they spread as well.
    """
    sizes = (1, 2, 4, 8)
    every = [await request_seconds(client, size, runs) for size in sizes]
    per_frame, fixed = np.polyfit(sizes, np.median(every, axis=1), 1)
    alone = ServiceTime(max(0.0, float(fixed)), float(per_frame), "measured")
    spread = tuple(seconds / alone(LARGEST) for seconds in every[-1])
    many = await throughput(client, clients=3, batch=LARGEST, seconds=5.0)
    usual = LARGEST / (alone(LARGEST) * float(np.mean(spread)))
    return replace(alone, overlap=many / usual, spread=spread)


def between(before: ServiceTime, after: ServiceTime) -> ServiceTime:
    """The mean of two measurements: what ran between them was on a machine whose pace drifts."""
    return ServiceTime(
        (before.fixed + after.fixed) / 2,
        (before.per_frame + after.per_frame) / 2,
        "measured",
        (before.overlap + after.overlap) / 2,
        before.spread + after.spread,
    )


async def talk(
    client: TritonClient,
    number: int,
    given: Talk,
    end: float,
    paced: bool,
    waits: list[float],
) -> int:
    """One talker until ``end``, as ``Crowd.viewer`` with ``share=1``; frames that it got."""
    got = 0
    rng = chance(SEED, number)
    inputs = Inputs.random(LARGEST, number)
    await asyncio.sleep(rng.uniform(0, given.turn / given.share) if paced else 0)
    while time.perf_counter() < end:
        total, asked, shown_from = round(given.length(rng) * FPS), 0, 0.0
        while asked < total and time.perf_counter() < end:
            frames = min(given.chunk if asked else given.first_chunk, total - asked)
            if paced and asked:
                ahead = shown_from + asked / FPS - time.perf_counter()
                await asyncio.sleep(max(0.0, ahead - AHEAD))
            began = time.perf_counter()
            await client.lipsync(inputs.latents[:frames], inputs.audio[:frames], timeout=60)
            waits.append(time.perf_counter() - began)
            shown_from = shown_from if asked else time.perf_counter()
            asked += frames
            got += frames
        if paced:
            left = shown_from + asked / FPS - time.perf_counter()
            await asyncio.sleep(min(max(0.0, left), max(0.0, end - time.perf_counter())))
    return got


async def real(
    client: TritonClient, talkers: int, chunk: int, *, paced: bool, seconds: float
) -> tuple[float, list[float]]:
    """Let talkers ask a server for a while.

    Args:
        client: of the server.
        talkers: that never listen.
        chunk: frames of their requests.
        paced: as live, or as fast as it goes.
        seconds: for which they ask.

    Returns:
        Frames a second, and the seconds that each chunk took.
    """
    given = replace(TALKER, chunk=chunk)
    waits: list[float] = []
    began = time.perf_counter()
    frames = await asyncio.gather(
        *(talk(client, number, given, began + seconds, paced, waits) for number in range(talkers))
    )
    return sum(frames) / (time.perf_counter() - began), waits


def compare(
    service: ServiceTime,
    talkers: int,
    chunk: int,
    *,
    paced: bool,
    seconds: float,
    seen: tuple[float, list[float]],
) -> Comparison:
    """Hold the model's crowd against what was seen of the real one.

    Args:
        service: times of the real server.
        talkers: as in ``real``, and so are those that follow.
        chunk: likewise.
        paced: likewise.
        seconds: likewise.
        seen: what ``real`` gave.
    """
    simulated = crowd(
        *(talkers, 1, service),
        talk=replace(TALKER, chunk=chunk),
        largest=LARGEST,
        seconds=seconds,
        seed=SEED,
        paced=paced,
    )
    rate, waits = seen
    return Comparison(
        talkers,
        chunk,
        paced,
        simulated.frames_a_second,
        rate,
        percentile(simulated.waits, 0.95),
        percentile(waits, 0.95),
    )


async def check(repository: Path, seconds: float) -> list[Comparison]:
    """Compare at the pace of live speech, and at full load with and without requests to batch.

    The server's times are measured before and after each crowd: a machine's pace drifts.

    Args:
        repository: to serve.
        seconds: of each comparison.
    """
    async with (
        EmbeddedTriton(repository) as server,
        TritonClient(server.grpc_address, default_timeout=60) as client,
    ):
        found = []
        before = await measure_service(client)
        for talkers, chunk, paced in COMPARED:
            seen = await real(client, talkers, chunk, paced=paced, seconds=seconds)
            after = await measure_service(client)
            service = between(before, after)
            Console().print(
                f"measured: {service.fixed * 1e3:.1f} ms a batch + {service.per_frame * 1e3:.1f}"
                f" ms a frame, {service.overlap:.2f} times as fast with more waiting"
            )
            found.append(compare(service, talkers, chunk, paced=paced, seconds=seconds, seen=seen))
            before = after
        return found


def main() -> int:
    """Print the comparison; 1 when the model is too far off."""
    parser = argparse.ArgumentParser(description="The simulation against a real Triton")
    parser.add_argument("--repository", type=Path, default=settings().repository)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--output", type=Path, default=Path("out/simulation_check.json"))
    given = parser.parse_args()
    try:
        found = asyncio.run(check(given.repository, given.seconds))
    except MuseTalkError as error:
        Console(stderr=True).print(f"simulation_check: {error}", highlight=False)
        return 1
    table = Table(
        *("talkers", "chunk", "paced", "frames/s model", "real", "p95 model", "real", "verdict")
    )
    for row in found:
        table.add_row(
            str(row.talkers),
            str(row.chunk),
            "yes" if row.paced else "no",
            f"{row.simulated_rate:.1f}",
            f"{row.real_rate:.1f}",
            f"{row.simulated_p95 * 1e3:.0f} ms",
            f"{row.real_p95 * 1e3:.0f} ms",
            "ok" if row.met else "off",
        )
    Console().print(table)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps([row.__dict__ for row in found], indent=2) + "\n")
    return 0 if all(row.met for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
