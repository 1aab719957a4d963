"""A viewer of live sessions, as a Locust user.

The viewers themselves run in one child process on asyncio (``loadtests.live_viewers``). asyncio
inside a gevent process has no sound way: gevent's threads share one native thread, which can run
one event loop only, and a native thread would still find gevent's sockets and selectors in the
modules it imports. A process has its own; it also shows apart what the viewers cost.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from itertools import count
from typing import Any, ClassVar

import gevent  # type: ignore[import-untyped]
import gevent.lock  # type: ignore[import-untyped]
import gevent.queue  # type: ignore[import-untyped]
import gevent.subprocess  # type: ignore[import-untyped]
from locust import User, task

from loadtests.figures import Turn
from loadtests.users.record import RECORD

_LEAVE_SECONDS = 20.0


class ViewerProcess:
    """The child process; lines from it go to the users they are about."""

    def __init__(self) -> None:
        options = ["--url", os.environ["MUSETALK_LOAD_URL"]]
        options += ["--think", *os.environ.get("MUSETALK_LOAD_THINK", "0.5 2.0").split()]
        options += ["--speaking", os.environ.get("MUSETALK_LOAD_SPEAKING", "0")]
        self._process = gevent.subprocess.Popen(
            [sys.executable, "-m", "loadtests.live_viewers", *options],
            stdin=gevent.subprocess.PIPE,
            stdout=gevent.subprocess.PIPE,
        )
        self._queues: dict[int, Any] = {}
        self._reading = gevent.spawn(self._read)

    def start(self, number: int) -> Any:
        """A viewer comes; the queue of what it reports."""
        self._queues[number] = gevent.queue.Queue()
        self._tell({"start": number})
        return self._queues[number]

    def stop(self, number: int) -> None:
        """A viewer leaves; ``{"ended": number}`` follows."""
        self._tell({"stop": number})

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_LEAVE_SECONDS)
        except gevent.subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reading.kill()

    def _tell(self, told: dict[str, int]) -> None:
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        for line in self._process.stdout:
            data = json.loads(line)
            number = data["ended"] if "ended" in data else data["user"]
            self._queues[number].put(data)


class LiveUser(User):
    """One viewer: says, asks, speaks its tone, interrupts, thinks in between."""

    numbers: ClassVar = count()
    process: ClassVar[ViewerProcess | None] = None
    starting: ClassVar[Any] = gevent.lock.BoundedSemaphore(1)

    def on_start(self) -> None:
        """Join."""
        self.number = next(self.numbers)
        # Starting it lets other users run: without the lock each of them would start one too,
        # and ``--speaking`` counts within one process.
        with self.starting:
            if LiveUser.process is None:
                LiveUser.process = ViewerProcess()
        self.viewers = LiveUser.process
        self.reports = self.viewers.start(self.number)

    def on_stop(self) -> None:
        """Leave, and take what is reported until then."""
        with contextlib.suppress(OSError, gevent.queue.Empty):
            self.viewers.stop(self.number)
            while "ended" not in (data := self.reports.get(timeout=_LEAVE_SECONDS)):
                RECORD.add(self.environment, Turn(**data))

    @task
    def report(self) -> None:
        """The next turn that the viewer took."""
        RECORD.add(self.environment, Turn(**self.reports.get()))
