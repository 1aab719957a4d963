"""What the processes of a load test use, and what Triton's queue does, second by second."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

_VIEWERS: Final = "loadtests.live_viewers"
_VIEWER_ROLE: Final = "load generator: viewers"
ROLES: Final = {
    "triton": ("tritonserver", "triton_python_backend_stub", "orchestrator.inference"),
    "voice": ("piper",),
    "load generator: Locust": ("locust",),
    _VIEWER_ROLE: (_VIEWERS,),
    "orchestrator": ("orchestrator",),
}
"""Words in a command line; the first role that fits counts. Everything else is ``other``."""
OWN: Final = "load generator: make load"
QUEUED_MODEL: Final = "unet"
"""The first step of the ensemble, where requests wait."""


@dataclass(frozen=True)
class Usage:
    """What the processes of one role use together.

    Attributes:
        cpu: seconds of processor time so far, those that are gone included.
        memory: bytes resident; pages that processes share count for each.
        descriptors: open files.
        processes: how many.
    """

    cpu: float
    memory: int
    descriptors: int
    processes: int


@dataclass(frozen=True)
class Sample:
    """One moment.

    Attributes:
        at: seconds since the epoch.
        usage: by role.
        triton: counters and gauges of ``QUEUED_MODEL``; empty when it could not be asked.
    """

    at: float
    usage: dict[str, Usage]
    triton: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def role(process: psutil.Process) -> str:
    """What a child of ours is."""
    words = " ".join(process.cmdline()) or process.name()
    if "ffmpeg" in process.name():
        parent = process.parent()
        # Viewers decode what they received.
        return "ffmpeg" if parent is None or _VIEWERS not in parent.cmdline() else _VIEWER_ROLE
    return next(
        (name for name, known in ROLES.items() if any(word in words for word in known)), "other"
    )


class Processes:
    """This process and all below it."""

    def __init__(self) -> None:
        self._root = psutil.Process()
        self._roles: dict[psutil.Process, str] = {}
        self._cpu: dict[psutil.Process, float] = {}
        self._ended: dict[str, float] = {}

    def usage(self) -> dict[str, Usage]:
        """What each role uses now."""
        alive = {self._root, *self._root.children(recursive=True)}
        memory: dict[str, int] = {}
        descriptors: dict[str, int] = {}
        count: dict[str, int] = {}
        for process in alive:
            try:
                with process.oneshot():
                    if not process.cmdline():
                        continue  # it is ending, and no longer says what it was
                    # Asked again until it is another program than the one that forked it.
                    name = OWN if process == self._root else role(process)
                    spent, held = sum(process.cpu_times()[:2]), process.memory_info().rss
                    files = process.num_fds()
            except psutil.Error:
                continue  # it has just ended
            self._roles[process], self._cpu[process] = name, spent
            memory[name] = memory.get(name, 0) + held
            descriptors[name] = descriptors.get(name, 0) + files
            count[name] = count.get(name, 0) + 1
        for process in self._roles.keys() - alive:  # there are many in an hour: only their sum
            name = self._roles.pop(process)
            self._ended[name] = self._ended.get(name, 0.0) + self._cpu.pop(process)
        cpu = dict(self._ended)
        for process, name in self._roles.items():
            cpu[name] = cpu.get(name, 0.0) + self._cpu[process]
        return {
            name: Usage(
                cpu[name], memory.get(name, 0), descriptors.get(name, 0), count.get(name, 0)
            )
            for name in cpu
        }


def triton_metrics(text: str) -> dict[str, float]:
    """Counters and gauges of ``QUEUED_MODEL`` in what Triton's ``/metrics`` says."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("model") == QUEUED_MODEL:
                name = sample.name.removesuffix("_total")  # the parser's own addition
                found[name] = found.get(name, 0.0) + sample.value
    return found


def read_samples(path: Path) -> list[Sample]:
    """What a ``Sampler`` wrote to a file, in order."""
    with path.open() as lines:
        return [_sample(json.loads(line)) for line in lines]


def _sample(row: dict[str, Any]) -> Sample:
    usage = {name: Usage(**used) for name, used in row["usage"].items()}
    return Sample(row["at"], usage, row["triton"])


class Sampler:
    """Writes a sample every so often, until it is cancelled; keeps none, a soak judges it too.

    Args:
        output: file of lines.
        metrics: ``host:port`` of Triton's metrics; None: not asked.
        period: seconds.
    """

    def __init__(self, output: Path, metrics: str | None, period: float = 1.0) -> None:
        self._output = output
        self._metrics = metrics
        self._period = period

    async def run(self) -> None:
        """Sample until cancelled."""
        processes = Processes()
        async with httpx.AsyncClient(timeout=2) as http:
            with self._output.open("w") as file:
                while True:
                    usage = await asyncio.to_thread(processes.usage)
                    sample = Sample(time.time(), usage, await self._triton(http))
                    file.write(sample.line() + "\n")
                    file.flush()
                    await asyncio.sleep(self._period)

    async def _triton(self, http: httpx.AsyncClient) -> dict[str, float]:
        if self._metrics is None:
            return {}
        try:
            answer = await http.get(f"http://{self._metrics}/metrics")
        except httpx.HTTPError:
            return {}  # a gap in the plot: the server is starting or overloaded
        return triton_metrics(answer.text)
