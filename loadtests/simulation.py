"""How many GPUs a crowd of viewers needs: a discrete-event model of the whole system (SimPy).

Two scales, because a day of chunks would be a hundred million events:

- **minutes, chunk by chunk** (``crowd``): talkers ask for chunks of frames, at most ``AHEAD``
  seconds before they are shown; each GPU batches what waits, first come first served, up to the
  model's largest batch. It gives the latency of a chunk and the share of frames in time, hence
  the talkers one GPU carries (``capacity``), and what the loss of a node does.
- **a day, turn by turn** (``day``): viewers come and go by the hour, are spoken to a part of the
  time, and each turn needs a place on a GPU; an autoscaler adds and removes GPUs late.

A batch of b frames takes ``fixed + b * per_frame`` seconds. Both are measured (``make bench``;
``loadtests.simulation_check`` compares model and server) or computed from the work of a frame
and the rate of a GPU, and then marked as computed: nobody has measured them.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import deque
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import simpy
from rich.console import Console
from rich.table import Table

from loadtests.pace import late_frames

FPS = 25
AHEAD = 1.5
"""Seconds that live rendering may be ahead of what is shown (design.md, section 6)."""
ON_TIME = 0.99
SEEDS = (0, 1, 2)
"""Runs that an answer holds for together: the luck of one must not decide what is bought."""

Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class ServiceTime:
    """Seconds that one GPU needs for a batch of frames."""

    fixed: float
    per_frame: float
    source: str
    overlap: float = 1.0
    """How much faster it gets when more waits: the UNet of one batch beside the decoder of
    another (measured: frames/s of several clients over one)."""
    spread: tuple[float, ...] = (1.0,)
    """What batches took over what they usually take, each as likely as the others."""

    def __call__(self, frames: int, *, more: bool = False) -> float:
        """Seconds of a batch of ``frames``; ``more`` work waits behind it."""
        return (self.fixed + frames * self.per_frame) / (self.overlap if more else 1.0)


def computed(gflop: float, tflops: float, efficiency: float = 0.4) -> ServiceTime:
    """A GPU nobody has measured: the work of a frame over a part of the peak rate.

    Args:
        gflop: of one frame (800 with the full decoder, 213 with the fast one).
        tflops: dense FP16 peak of the GPU, from its data sheet.
        efficiency: share of the peak that convolutions of this size reach.
    """
    return ServiceTime(0.002, gflop / (tflops * 1000 * efficiency), "computed")


@dataclass(frozen=True)
class Talk:
    """How avatars talk and listen; seconds."""

    turn: float = 8.0
    share: float = 0.4
    first_chunk: int = 4
    chunk: int = 8

    def length(self, rng: random.Random) -> float:
        """Of one turn: log-normal around ``turn``, never under a second."""
        spread = 0.5
        return max(1.0, rng.lognormvariate(math.log(self.turn) - spread**2 / 2, spread))

    def pause(self, rng: random.Random) -> float:
        """Until the next turn, so that turns fill ``share`` of the time."""
        return rng.expovariate(self.share / (self.turn * (1 - self.share)))


@dataclass
class Request:
    """One chunk on its way through a GPU."""

    frames: int
    sent: float
    done: simpy.Event


class Gpu:
    """One model instance with Triton's batcher: whole requests, in order, up to ``largest``."""

    def __init__(
        self, env: simpy.Environment, time: ServiceTime, largest: int, rng: random.Random
    ) -> None:
        self.env, self.time, self.largest = env, time, largest
        self.queue: deque[Request] = deque()
        self.alive = True
        self.frames = 0
        self.batches = 0
        self._rng = rng
        self._wake = env.event()
        env.process(self._run())

    def send(self, request: Request) -> None:
        """Queue a chunk."""
        self.queue.append(request)
        if not self._wake.triggered:
            self._wake.succeed()

    def lose(self) -> list[Request]:
        """The node is gone: what waited comes back, what ran is never answered by it."""
        self.alive = False
        back = list(self.queue)
        self.queue.clear()
        return back

    def _run(self) -> Process:
        while True:
            if not self.queue:
                self._wake = self.env.event()
                yield self._wake
            batch = [self.queue.popleft()]
            size = batch[0].frames
            while self.queue and size + self.queue[0].frames <= self.largest:
                size += self.queue[0].frames
                batch.append(self.queue.popleft())
            usual = self.time(size, more=bool(self.queue))
            yield self.env.timeout(usual * self._rng.choice(self.time.spread))
            if not self.alive:
                for request in batch:
                    request.done.succeed(False)
                return
            self.frames += size
            self.batches += 1
            for request in batch:
                request.done.succeed(True)


@dataclass
class Seen:
    """What the viewers of ``crowd`` saw."""

    frames: int = 0
    late: int = 0
    turns: int = 0
    waits: list[float] = field(default_factory=list)
    """Seconds from the request of each chunk to its frames."""
    starts: list[float] = field(default_factory=list)
    """Seconds from the request of each turn's first chunk to its frames."""
    mean_batch: float = 0.0
    frames_a_second: float = 0.0

    @property
    def on_time(self) -> float:
        """Share of the frames that were there when they had to be shown."""
        return 1 - self.late / self.frames if self.frames else 1.0


def chance(seed: int, viewer: int) -> random.Random:
    """What a viewer's turns depend on, whoever serves them: the same in each comparison."""
    return random.Random(f"{seed} {viewer}")


def percentile(values: list[float], share: float) -> float:
    """The value that ``share`` of them do not exceed; NaN without values."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


class Crowd:
    """Viewers and GPUs, chunk by chunk."""

    def __init__(self, env: simpy.Environment, gpus: list[Gpu], talk: Talk, paced: bool) -> None:
        self.env, self.gpus, self.talk, self.paced = env, gpus, talk, paced
        self.seen = Seen()
        self._turns = count()

    def viewer(self, rng: random.Random) -> Process:
        """Listen, be spoken to, and so on."""
        if self.paced:
            yield self.env.timeout(rng.uniform(0, self.talk.turn / self.talk.share))
        while True:
            yield from self._turn(self.talk.length(rng))
            if self.talk.share < 1:
                yield self.env.timeout(self.talk.pause(rng))

    def _send(self, frames: int) -> Request:
        """To the next GPU in turn, as round-robin over replicas does."""
        request = Request(frames, self.env.now, self.env.event())
        alive = [gpu for gpu in self.gpus if gpu.alive]
        alive[next(self._turns) % len(alive)].send(request)
        return request

    def _turn(self, length: float) -> Process:
        total = round(length * FPS)
        self.seen.turns += 1
        asked, shown_from = 0, math.nan
        while asked < total:
            frames = min(self.talk.chunk if asked else self.talk.first_chunk, total - asked)
            if self.paced and asked:
                ahead = shown_from + asked / FPS - self.env.now
                if ahead > AHEAD:
                    yield self.env.timeout(ahead - AHEAD)
            began = self.env.now
            request = self._send(frames)
            while not (yield request.done):
                request = self._send(frames)  # its node was lost
            self.seen.waits.append(self.env.now - began)
            if not asked:
                shown_from = self.env.now
                self.seen.starts.append(self.env.now - began)
            # Frames that come too late are replaced on screen; the others keep their time.
            behind = self.env.now - (shown_from + asked / FPS)
            self.seen.late += min(frames, late_frames(behind, FPS))
            self.seen.frames += frames
            asked += frames
        if self.paced:
            yield self.env.timeout(max(0.0, shown_from + total / FPS - self.env.now))


def crowd(
    viewers: int,
    gpus: int,
    time: ServiceTime,
    *,
    talk: Talk = Talk(),
    largest: int = 8,
    seconds: float = 120.0,
    seed: int = 0,
    paced: bool = True,
    lost_at: float | None = None,
) -> Seen:
    """Minutes of a crowd, chunk by chunk.

    Args:
        viewers: with an open session, all the time.
        gpus: that share the work.
        time: of a batch on one of them.
        talk: lengths of turns and pauses; ``share=1`` are talkers that never listen.
        largest: batch that the model takes, in frames.
        seconds: to simulate.
        seed: of all chance.
        paced: as live; False asks for the next chunk at once, as an offline render does.
        lost_at: when one GPU goes for good.

    Returns:
        What was seen.

    Raises:
        ValueError: the only GPU is to be lost.
    """
    if lost_at is not None and gpus < 2:
        raise ValueError("with the only GPU lost there is nothing to simulate")
    env = simpy.Environment()
    park = [Gpu(env, time, largest, chance(seed, -1 - number)) for number in range(gpus)]
    group = Crowd(env, park, talk, paced)
    for number in range(viewers):
        env.process(group.viewer(chance(seed, number)))

    def lose(after: float) -> Process:
        yield env.timeout(after)
        for request in park[0].lose():
            request.done.succeed(False)

    if lost_at is not None:
        env.process(lose(lost_at))
    env.run(seconds)
    batches = sum(gpu.batches for gpu in park)
    group.seen.mean_batch = sum(gpu.frames for gpu in park) / batches if batches else 0.0
    group.seen.frames_a_second = sum(gpu.frames for gpu in park) / seconds
    return group.seen


def carried(viewers: int, gpus: int, time: ServiceTime, **options: Any) -> bool:
    """Whether the objective that depends on the GPU is met, frames on time, over all ``SEEDS``.

    Args:
        viewers: of ``crowd``, and so are the other arguments.
        gpus: that share the work.
        time: of a batch.
        options: of ``crowd``, but no seed.
    """
    runs = [crowd(viewers, gpus, time, seed=seed, **options) for seed in SEEDS]
    late, frames = sum(run.late for run in runs), sum(run.frames for run in runs)
    return late <= (1 - ON_TIME) * frames


def capacity(time: ServiceTime, *, largest: int = 8, seconds: float = 60.0) -> int:
    """Talkers that one GPU carries with 99 % of the frames on time; they never listen."""
    talk = Talk(turn=20.0, share=1.0)

    def one_carries(talkers: int) -> bool:
        return carried(talkers, 1, time, talk=talk, largest=largest, seconds=seconds)

    low, high = 0, 1
    while one_carries(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one_carries(middle) else (low, middle)
    return low


def gpus_needed(
    viewers: int, time: ServiceTime, *, talk: Talk = Talk(), seconds: float = 90
) -> int:
    """The fewest GPUs with which ``viewers`` get 99 % of their frames on time."""

    def serve(gpus: int) -> bool:
        return carried(viewers, gpus, time, talk=talk, seconds=seconds)

    # Fewer than the work itself takes are never enough.
    low = max(0, math.floor(viewers * talk.share * FPS * time(8) / 8) - 1)
    high = max(1, low + low // 4 + 1)
    while not serve(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if serve(middle) else (middle, high)
    return high


HOURS = (4, 3, 2, 2, 2, 3, 6, 12, 30, 55, 70, 75, 65, 70, 80, 85, 80, 75, 85, 100, 95, 60, 25, 10)
"""Viewers at each hour of the day, per cent of the peak: made up, office and evening."""


@dataclass(frozen=True)
class Scaling:
    """The autoscaler of the Tritons (``k8s/components/keda``); seconds.

    It looks at the queue before them; here talkers stand for that, which begin to queue when they
    are more than a part of what the GPUs carry.
    """

    per_gpu: int
    """Talkers a GPU is planned for."""
    target: float = 0.75
    poll: float = 15.0
    up: int = 2
    up_period: float = 60.0
    """No more than ``up`` replicas are ordered in that time, and ``down`` taken away in theirs."""
    down: int = 1
    down_period: float = 300.0
    start: float = 240.0
    """From the decision to a ready replica: node, image, engines, warm-up."""
    calm: float = 600.0
    """Scale down only to what was enough during all of this time."""
    least: int = 1


@dataclass
class Day:
    """What a day brought."""

    turns: int = 0
    waited: list[float] = field(default_factory=list)
    """Seconds that turns waited for a place; 0 for nearly all."""
    gpu_hours: float = 0.0
    most_gpus: int = 0

    @property
    def delayed(self) -> float:
        """Share of the turns that waited at all."""
        return sum(wait > 0 for wait in self.waited) / len(self.waited) if self.waited else 0.0


class Recent:
    """Numbers of the last ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._numbers: deque[tuple[float, int]] = deque()

    def add(self, now: float, number: int) -> None:
        """One more."""
        self._numbers.append((now, number))

    def since(self, now: float) -> list[int]:
        """Those that are not older."""
        while self._numbers and self._numbers[0][0] <= now - self._seconds:
            self._numbers.popleft()
        return [number for _, number in self._numbers]


def day(
    peak: int,
    scaling: Scaling,
    *,
    talk: Talk = Talk(),
    hours: tuple[int, ...] = HOURS,
    visit: float = 300.0,
    seed: int = 0,
    lost_at: float | None = None,
) -> Day:
    """A day of traffic, turn by turn, under the autoscaler.

    Args:
        peak: viewers in the busiest hour.
        scaling: of the GPUs.
        talk: lengths of turns and pauses.
        hours: per cent of the peak for each hour.
        visit: seconds that a viewer stays, on average.
        seed: of all chance.
        lost_at: second at which one GPU goes; the autoscaler orders another.

    Returns:
        Waits and cost.
    """
    env = simpy.Environment()
    rng = random.Random(seed)
    found = Day()
    waiting: deque[simpy.Event] = deque()
    state = {"gpus": scaling.least, "ordered": 0, "speaking": 0}

    def wanted() -> int:
        talkers = state["speaking"] + len(waiting)
        return max(scaling.least, math.ceil(talkers / (scaling.per_gpu * scaling.target)))

    def admit() -> None:
        while waiting and state["speaking"] < state["gpus"] * scaling.per_gpu:
            state["speaking"] += 1
            waiting.popleft().succeed()

    def turn() -> Process:
        found.turns += 1
        asked = env.now
        place = env.event()
        waiting.append(place)
        admit()
        yield place
        found.waited.append(env.now - asked)
        yield env.timeout(talk.length(rng))
        state["speaking"] -= 1
        admit()

    def viewer() -> Process:
        leaves = env.now + rng.expovariate(1 / visit)
        while env.now < leaves:
            yield env.process(turn())
            yield env.timeout(talk.pause(rng))

    def arrivals() -> Process:
        fastest = peak / visit
        while True:
            yield env.timeout(rng.expovariate(fastest))
            if rng.random() < hours[int(env.now // 3600) % len(hours)] / 100:
                env.process(viewer())

    def order() -> Process:
        state["ordered"] += 1
        yield env.timeout(scaling.start)
        state["ordered"] -= 1
        state["gpus"] += 1
        admit()

    def autoscaler() -> Process:
        recent = Recent(scaling.calm)
        ups, downs = Recent(scaling.up_period), Recent(scaling.down_period)
        while True:
            now_wanted = wanted()
            recent.add(env.now, now_wanted)
            missing = now_wanted - state["gpus"] - state["ordered"]
            new = max(0, min(missing, scaling.up - sum(ups.since(env.now))))
            ups.add(env.now, new)
            for _ in range(new):
                env.process(order())
            spare = state["gpus"] - max(recent.since(env.now))
            gone = max(0, min(spare, scaling.down - sum(downs.since(env.now))))
            downs.add(env.now, gone)
            state["gpus"] -= gone
            found.most_gpus = max(found.most_gpus, state["gpus"])
            found.gpu_hours += (state["gpus"] + state["ordered"]) * scaling.poll / 3600
            yield env.timeout(scaling.poll)

    def lose(after: float) -> Process:
        yield env.timeout(after)
        state["gpus"] = max(0, state["gpus"] - 1)

    env.process(arrivals())
    env.process(autoscaler())
    if lost_at is not None:
        env.process(lose(lost_at))
    env.run(len(hours) * 3600)
    return found


GPUS = {
    "L4, full decoder": computed(800, 121),
    "L4, fast decoder": computed(213, 121),
    "H100 SXM, full decoder": computed(800, 989),
    "H100 SXM, fast decoder": computed(213, 989),
}
"""Work of a frame: ``export build --plan``. Rates: dense FP16 of NVIDIA's data sheets."""


def answers(viewers: int, peak_day: int) -> list[dict[str, Any]]:
    """The questions of capacity planning, for each kind of GPU.

    Args:
        viewers: spoken to 40 % of the time, for the number of GPUs.
        peak_day: viewers in the busiest hour of the simulated day.
    """
    rows = []
    for name, time in GPUS.items():
        per_gpu = max(1, capacity(time))
        gpus = gpus_needed(viewers, time)
        whole = crowd(viewers, gpus, time, seconds=90)
        lost = crowd(viewers, gpus, time, seconds=90, lost_at=45) if gpus > 1 else None
        traffic = day(peak_day, Scaling(per_gpu, least=2))
        rows.append(
            {
                "gpu": name,
                "service_time": asdict(time),
                "talkers_per_gpu": per_gpu,
                "gpus": gpus,
                "p95_chunk_seconds": percentile(whole.waits, 0.95),
                "on_time": whole.on_time,
                "on_time_when_one_is_lost": lost.on_time if lost else None,
                "day_turns": traffic.turns,
                "day_turns_delayed": traffic.delayed,
                "day_worst_wait_seconds": max(traffic.waited, default=0.0),
                "day_gpu_hours": traffic.gpu_hours,
                "day_most_gpus": traffic.most_gpus,
            }
        )
    return rows


def main() -> None:
    """Print the answers, and write them."""
    parser = argparse.ArgumentParser(description="How many GPUs, and what scaling costs")
    parser.add_argument("--viewers", type=int, default=1000)
    parser.add_argument("--day-viewers", type=int, default=300, help="peak of the simulated day")
    parser.add_argument("--output", type=Path, default=Path("out/simulation.json"))
    given = parser.parse_args()
    rows = answers(given.viewers, given.day_viewers)
    table = Table(title=f"{given.viewers} viewers, spoken to 40 % of the time (computed, no GPU)")
    for heading in ("GPU", "talkers each", "GPUs", "on time", "one lost", "day: turns delayed"):
        table.add_column(heading)
    for row in rows:
        lost = row["on_time_when_one_is_lost"]
        table.add_row(
            row["gpu"],
            str(row["talkers_per_gpu"]),
            str(row["gpus"]),
            f"{row['on_time']:.2%}",
            "-" if lost is None else f"{lost:.2%}",
            f"{row['day_turns_delayed']:.2%}, worst {row['day_worst_wait_seconds']:.0f} s",
        )
    Console().print(table)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
