"""How many avatars can talk at the same time on this machine: a search over live sessions.

Each talker is a viewer that asks for one sentence after the other. A number of talkers is carried
when 99 % of their frames were there in time and 95 % of their turns showed a first frame within
1.5 s; the largest is found by bisection and then held for longer. ``MUSETALK_MAX_TALKERS`` takes
the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console

from loadtests.machine import cpu_name
from loadtests.service import serving
from loadtests.simulation import percentile
from loadtests.viewer import Viewer

ON_TIME = 0.99
FIRST_FRAME = 1.5
SENTENCES = (
    "The train to the coast leaves every hour, and the last one is rarely full.",
    "Please bring a warm jacket, because the evenings are still cold in the hills.",
    "My favourite part of the city is the old market behind the station.",
    "We have three rooms left, two of them with a view over the river.",
    "If you like music, there is a small concert in the park on Sunday.",
)


@dataclass(frozen=True)
class Trial:
    """What a number of talkers got.

    Attributes:
        talkers: at the same time.
        seconds: of the trial.
        frames: of speech that were shown.
        on_time: share of them that were there in time.
        first_frame_p95: seconds from the request.
        stalls: seconds that players had nothing to show, all together.
        own_cpu: cores that the viewers themselves used.
    """

    talkers: int
    seconds: float
    frames: int
    on_time: float
    first_frame_p95: float
    stalls: float
    own_cpu: float

    @property
    def carried(self) -> bool:
        """Whether the objective is met."""
        return self.on_time >= ON_TIME and self.first_frame_p95 <= FIRST_FRAME


@asynccontextmanager
async def _viewers(url: str, count: int) -> AsyncIterator[list[Viewer]]:
    async with AsyncExitStack() as stack:
        viewers = [Viewer(url) for _ in range(count)]
        for viewer in viewers:
            await stack.enter_async_context(viewer)
        yield viewers


async def _talk(viewer: Viewer, rng: random.Random, until: float) -> list[dict[str, float]]:
    found = []
    while time.monotonic() < until:
        turn = await viewer.begin("say", {"text": " ".join(rng.sample(SENTENCES, 2))})
        found.append(await viewer.performance(turn, timeout=120))
        await viewer.idle_again(turn)
        await asyncio.sleep(rng.uniform(0.1, 0.5))
    return found


async def trial(url: str, talkers: int, seconds: float) -> Trial:
    """Let a number of avatars talk for a while.

    Args:
        url: of the service.
        talkers: at the same time.
        seconds: after which no new turn begins.
    """
    process = psutil.Process()
    async with _viewers(url, talkers) as viewers:
        spent, began = sum(process.cpu_times()[:2]), time.monotonic()
        until = began + seconds
        turns = await asyncio.gather(
            *(_talk(viewer, random.Random(i), until) for i, viewer in enumerate(viewers))
        )
        lasted = time.monotonic() - began
        stalls = sum(viewer.stalls for viewer in viewers)
        own = (sum(process.cpu_times()[:2]) - spent) / lasted
    every = [turn for one in turns for turn in one]
    frames = sum(int(turn["frames"]) for turn in every)
    late = sum(int(turn["frames_late"]) for turn in every)
    first = percentile([float(turn["first_frame"]) for turn in every], 0.95)
    return Trial(talkers, lasted, frames, 1 - late / max(1, frames), first, stalls, own)


async def search(url: str, seconds: float, soak: float, most: int) -> list[Trial]:
    """Find the largest number that is carried, and hold it for longer.

    Args:
        url: of a service that refuses nobody.
        seconds: of each trial.
        soak: seconds of the last one; a number that does not last is lowered by one.
        most: never try more.

    Returns:
        All trials; the last one is the answer.
    """
    found: list[Trial] = []
    low, high = 0, 1
    while high <= most:
        found.append(await trial(url, high, seconds))
        if not found[-1].carried:
            break
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        found.append(await trial(url, middle, seconds))
        low, high = (middle, high) if found[-1].carried else (low, middle)
    while low:
        found.append(await trial(url, low, soak))
        if found[-1].carried:
            break
        low -= 1
    return found


async def measure(given: argparse.Namespace) -> list[Trial]:
    """Against a running service, or one that is started without a limit."""
    if given.url:
        return await search(given.url, given.seconds, given.soak, given.most)
    os.environ |= {"MUSETALK_MAX_TALKERS": "1000", "MUSETALK_MAX_SESSIONS": "1000"}
    async with serving(None, given.cache) as url:
        return await search(url, given.seconds, given.soak, given.most)


def main() -> int:
    """Search, print one line, write everything; 1 when not even one talker is carried."""
    parser = argparse.ArgumentParser(description="How many avatars can talk at the same time")
    parser.add_argument("--url", help="of a service with MUSETALK_MAX_TALKERS=1000")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each trial")
    parser.add_argument("--soak", type=float, default=120.0, help="seconds of the last one")
    parser.add_argument("--most", type=int, default=64)
    parser.add_argument("--cache", type=Path, default=Path("out/capacity_cache"))
    parser.add_argument("--output", type=Path, default=Path("out/capacity.json"))
    given = parser.parse_args()
    found = asyncio.run(measure(given))
    console = Console()
    for one in found:
        console.print(
            f"{one.talkers} talkers, {one.seconds:.0f} s: {one.on_time:.2%} on time, "
            f"p95 first frame {one.first_frame_p95:.2f} s, stalls {one.stalls:.1f} s, "
            f"viewers themselves {one.own_cpu:.2f} cores"
        )
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
    last = found[-1]
    if not last.carried:
        console.print("not even one talker is carried")
        return 1
    console.print(
        f"{last.talkers} streams at 25 fps, p95 first frame {last.first_frame_p95:.2f} s, "
        f"{last.on_time:.2%} of frames on time for {last.seconds:.0f} s, "
        f"on {psutil.cpu_count()} cores of {cpu_name()}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
