"""How many avatars can talk at the same time on this machine: a search over live sessions.

Each talker is a viewer that asks for one pair of sentences after the other. A number of talkers is
carried when 99 % of their frames were there in time, 95 % of their turns showed a first frame
within 1.5 s and no turn failed; the largest is found by bisection and then held for longer.
``MUSETALK_MAX_TALKERS`` takes the answer. With ``--viewers N`` there is no search: N viewers are
joined, of whom one speaks at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from loadtests.figures import Turn
from loadtests.machine import cpu_name
from loadtests.service import UNLIMITED, serving
from loadtests.simulation import percentile
from loadtests.turns import BREAKS, Speaker
from loadtests.viewer import Viewer
from orchestrator.errors import MuseTalkError

ON_TIME = 0.99
FIRST_FRAME = 1.5


@dataclass(frozen=True)
class Trial:
    """What a number of talkers got.

    Attributes:
        viewers: joined.
        talkers: at the same time.
        seconds: of the trial.
        frames: of speech that were shown.
        on_time: share of them that were there in time.
        reduced: share of them that came at half rate, because time was short.
        first_frame_p95: seconds from the request until the player showed it.
        failed: turns that failed, or in which another viewer's words were said.
        stalls: seconds that players had nothing to show, all together.
        own_cpu: cores that the viewers themselves used.
        problem: the first thing that failed.
    """

    viewers: int
    talkers: int
    seconds: float
    frames: int
    on_time: float
    reduced: float
    first_frame_p95: float
    failed: int
    stalls: float
    own_cpu: float
    problem: str = ""

    def record(self) -> dict[str, Any]:
        """For JSON, which has no infinity."""
        shown = math.isfinite(self.first_frame_p95)
        return {**asdict(self), "first_frame_p95": self.first_frame_p95 if shown else None}

    @property
    def carried(self) -> bool:
        """Whether the objective is met."""
        in_time = self.on_time >= ON_TIME and self.first_frame_p95 <= FIRST_FRAME
        return in_time and not self.failed


@asynccontextmanager
async def _viewers(url: str, count: int) -> AsyncIterator[list[Viewer]]:
    async with AsyncExitStack() as stack:
        viewers = [Viewer(url) for _ in range(count)]
        for viewer in viewers:
            await stack.enter_async_context(viewer)
        yield viewers


async def _talk(speaker: Speaker, until: float, floor: asyncio.Semaphore) -> list[Turn]:
    found = []
    while time.monotonic() < until:
        async with floor:
            if time.monotonic() >= until:
                break  # it waited for the others until the end
            try:
                found.append(await speaker.turn("say"))
            except BREAKS as error:
                failed = Turn(time.time(), speaker.number, "live", "say", error=repr(error))
                return [*found, failed]
        await asyncio.sleep(speaker.rng.uniform(0.1, 0.5))
    return found


async def trial(url: str, talkers: int, seconds: float, viewers: int | None = None) -> Trial:
    """Let a number of avatars talk for a while.

    Args:
        url: of the service.
        talkers: at the same time.
        seconds: after which no new turn begins.
        viewers: joined, who take turns in talking; None: as many as talkers.
    """
    process = psutil.Process()
    joined = viewers or talkers
    floor = asyncio.Semaphore(talkers)
    try:
        async with _viewers(url, joined) as every:
            spent, began = sum(process.cpu_times()[:2]), time.monotonic()
            until = began + seconds
            found = await asyncio.gather(
                *(
                    _talk(Speaker(i, viewer, random.Random(i)), until, floor)
                    for i, viewer in enumerate(every)
                )
            )
            lasted = time.monotonic() - began
            stalls = sum(viewer.stalls for viewer in every)
            own = (sum(process.cpu_times()[:2]) - spent) / lasted
    except BREAKS as error:  # so many cannot even come and go
        problem = f"a viewer could not join or leave: {error!r}"
        return Trial(joined, talkers, 0.0, 0, 0.0, 0.0, math.inf, joined, 0.0, 0.0, problem)
    turns = [turn for one in found for turn in one]
    foreign = "another viewer's words were said"
    problems = [turn.error or foreign for turn in turns if turn.error or turn.marker is False]
    frames, late = sum(turn.frames for turn in turns), sum(turn.late for turn in turns)
    shown = [turn.figures["first_frame"] for turn in turns if not turn.error]
    return Trial(
        joined,
        talkers,
        lasted,
        frames,
        1 - late / frames if frames else 0.0,
        sum(turn.reduced for turn in turns) / frames if frames else 0.0,
        percentile(shown, 0.95) if shown else math.inf,
        len(problems),
        stalls,
        own,
        problems[0] if problems else "",
    )


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
        low, high = high, min(high * 2, most + 1)
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

    async def against(url: str) -> list[Trial]:
        if given.viewers:
            return [await trial(url, 1, given.soak, given.viewers)]
        return await search(url, given.seconds, given.soak, given.most)

    if given.url:
        return await against(given.url)
    async with serving(None, given.cache, **UNLIMITED) as url:
        return await against(url)


def main() -> int:
    """Search, print one line, write everything; 1 when not even one talker is carried."""
    parser = argparse.ArgumentParser(description="How many avatars can talk at the same time")
    parser.add_argument("--url", help="of a service with MUSETALK_MAX_TALKERS=1000")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each trial")
    parser.add_argument("--soak", type=float, default=120.0, help="seconds of the last one")
    parser.add_argument("--most", type=int, default=64, help="never try more talkers")
    parser.add_argument(
        "--viewers", type=int, help="no search: that many viewers, one of whom speaks at a time"
    )
    parser.add_argument("--cache", type=Path, default=Path("out/capacity_cache"))
    parser.add_argument("--output", type=Path, default=Path("out/capacity.json"))
    given = parser.parse_args()
    try:
        found = asyncio.run(measure(given))
    except (MuseTalkError, TimeoutError) as error:
        Console(stderr=True).print(f"capacity: {error}", highlight=False)
        return 1
    console = Console()
    for one in found:
        console.print(
            f"{one.talkers} of {one.viewers} talk, {one.seconds:.0f} s: {one.on_time:.2%} on time, "
            f"{one.reduced:.1%} at half rate, "
            f"p95 first frame {one.first_frame_p95:.2f} s, {one.failed} failed, "
            f"stalls {one.stalls:.1f} s, "
            f"viewers themselves {one.own_cpu:.2f} cores"
        )
        if one.problem:
            console.print(f"  the first that failed: {one.problem}", markup=False)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps([one.record() for one in found], indent=2) + "\n")
    last = found[-1]
    if not last.carried:
        who = f"{last.viewers} viewers with one who" if given.viewers else "one talker who"
        console.print(f"not carried: {who} speaks")
        return 1
    idle = f" beside {last.viewers - last.talkers} idle ones" if given.viewers else ""
    console.print(
        f"{last.talkers} streams{idle} at 25 fps, p95 first frame {last.first_frame_p95:.2f} s, "
        f"{last.on_time:.2%} of frames on time for {last.seconds:.0f} s, "
        f"{last.reduced:.1%} at half rate, "
        f"on {psutil.cpu_count()} cores of {cpu_name()}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
