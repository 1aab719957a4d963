"""Viewers of live sessions in a process of their own, told on standard input what to do.

Lines in: ``{"start": N}``, ``{"stop": N}``; end of file ends. Lines out: a ``Turn`` each,
``{"ended": N}`` when a viewer has left. Locust's own process cannot hold them: gevent replaces
the sockets, threads and selectors there that asyncio stands on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from typing import Final

from loadtests.figures import Turn
from loadtests.turns import BREAKS, REQUESTS, Speaker, refusal
from loadtests.viewer import Viewer

_RETRY_SECONDS: Final = 1.0


class Viewers:
    """All viewers of a load test.

    Args:
        url: of the service.
        think: least and most seconds between a turn and the next.
        speaking: viewers that may be in a turn at the same time; 0: all.
    """

    def __init__(self, url: str, think: tuple[float, float], speaking: int) -> None:
        self._url = url
        self._think = think
        self._floor = asyncio.Semaphore(speaking or 1_000_000)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def start(self, number: int) -> None:
        """A viewer comes."""
        task = asyncio.create_task(self._view(number))
        task.add_done_callback(lambda done: _unforeseen(number, done))
        self._tasks[number] = task

    async def stop(self, number: int) -> None:
        """A viewer leaves, in the middle of a sentence if need be."""
        task = self._tasks.pop(number, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        say({"ended": number})

    async def close(self) -> None:
        """All leave."""
        await asyncio.gather(*(self.stop(number) for number in list(self._tasks)))

    async def _view(self, number: int) -> None:
        """Join, take turns, and come back after a failure that leaves no session to go on with."""
        rng = random.Random(number)
        while True:
            try:
                async with Viewer(self._url) as viewer:
                    await self._turns(Speaker(number, viewer, rng))
            except BREAKS as error:
                await _failed(number, "join", error)

    async def _turns(self, speaker: Speaker) -> None:
        number = speaker.number
        while True:
            await asyncio.sleep(speaker.rng.uniform(*self._think))
            request = REQUESTS[number % len(REQUESTS)]
            number += 1
            try:
                async with self._floor:
                    say_turn(await speaker.turn(request))
            except BREAKS as error:
                await _failed(speaker.number, request, error)
                if refusal(error) is None:
                    return


def _unforeseen(number: int, task: asyncio.Task[None]) -> None:
    """A viewer that broke for a reason of its own has failed too."""
    if not task.cancelled() and (error := task.exception()) is not None:
        say_turn(Turn(time.time(), number, "live", "viewer", error=repr(error)))


async def _failed(number: int, request: str, error: Exception) -> None:
    told = refusal(error)
    words = f"{type(error).__name__}: {error}"
    say_turn(
        Turn(time.time(), number, "live", request, error=words, refused=told is not None),
    )
    await asyncio.sleep(float(told["retry_after"]) if told else _RETRY_SECONDS)


def say(data: dict[str, int]) -> None:
    """One line to whoever started this process."""
    print(json.dumps(data), flush=True)  # noqa: T201 -- the protocol


def say_turn(turn: Turn) -> None:
    """One turn to whoever started this process."""
    print(turn.line(), flush=True)  # noqa: T201 -- the protocol


async def run(viewers: Viewers) -> None:
    """Obey standard input until it ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    stopping: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        told = json.loads(line)
        if "start" in told:
            viewers.start(told["start"])
        else:
            task = asyncio.create_task(viewers.stop(told["stop"]))
            stopping.add(task)
            task.add_done_callback(stopping.discard)
    await viewers.close()
    await asyncio.gather(*stopping)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Viewers for loadtests/users/live.py")
    parser.add_argument("--url", required=True)
    parser.add_argument("--think", type=float, nargs=2, default=(0.5, 2.0))
    parser.add_argument("--speaking", type=int, default=0)
    given = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        viewers = Viewers(given.url, tuple(given.think), given.speaking)
        asyncio.run(run(viewers))


if __name__ == "__main__":
    main()
