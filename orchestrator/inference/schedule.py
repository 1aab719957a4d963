"""Order of this process's requests to Triton: earliest deadline first, a bounded number at once.

Triton batches what it is given, but does not know when a frame is shown. A request that waits
here costs nothing to reorder or to cancel; one that was sent is in the server's queue.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

T = TypeVar("T")

IN_FLIGHT: Final = 2
"""Requests at Triton at a time for each model: one computes while the next one travels.

What waits here can still be reordered or cancelled. With 4 on two cores, two talkers had 98.4 and
99.1 % of their frames in time and p95 first frames of 1.1 s; with 2, 100 and 99.3 %, 0.9 s. More
help a Triton with several GPUs, several Tritons, and batches that are put together of many small
requests."""

PER_OWNER: Final = 2
"""Requests of one session at a time for each model: one computes while the next one travels."""

WHENEVER: Final = float("inf")
"""Deadline of work that nobody watches: it takes what live sessions leave."""

SPARE_SECONDS: Final = 0.4
"""While a session hurries, requests wait that are needed later than this."""

LONGEST_HURRY: Final = 1.0
"""Seconds after which a hurry, with a slow voice from elsewhere for instance, stops nobody."""

LULL_SECONDS: Final = 0.4
"""Without a request of a live session for this long, nobody is spoken to."""

LONGEST_LULL: Final = 0.6
"""Seconds that a part of long work gives way to live sessions: it goes on also where somebody is
always spoken to, but most of the time is theirs."""


@dataclass(order=True)
class _Waiting:
    deadline: float
    number: int
    owner: Hashable = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


@dataclass
class _Lane:
    """The requests for one model."""

    waiting: list[_Waiting] = field(default_factory=list)
    running: Counter[Hashable] = field(default_factory=Counter)
    wake: asyncio.TimerHandle | None = None


class Scheduler:
    """Sends requests in the order of their deadlines.

    Args:
        in_flight: requests at a time for each model.
        per_owner: of them, those of one owner.
    """

    def __init__(self, in_flight: int = IN_FLIGHT, per_owner: int = PER_OWNER) -> None:
        self._in_flight = in_flight
        self._per_owner = per_owner
        self._lanes: dict[str, _Lane] = {}
        self._numbers = itertools.count()
        self._hurries: set[object] = set()
        self._live_at = -math.inf

    @property
    def hurried(self) -> bool:
        """Whether a session hurries now."""
        return bool(self._hurries)

    @contextmanager
    def hurry(self) -> Iterator[None]:
        """Keep back what can wait, of all models: a viewer looks at an avatar that says nothing.

        The machine is then free for the voice and the first faces of that turn. Ends by itself
        after ``LONGEST_HURRY``.
        """
        mark = object()
        self._hurries.add(mark)
        timer = asyncio.get_running_loop().call_later(LONGEST_HURRY, self._end_hurry, mark)
        try:
            yield
        finally:
            timer.cancel()
            self._end_hurry(mark)

    def _end_hurry(self, mark: object) -> None:
        self._hurries.discard(mark)
        if not self._hurries:
            for lane in self._lanes.values():
                self._dispatch(lane)

    async def run(
        self,
        call: Callable[[], Awaitable[T]],
        *,
        model: str,
        owner: Hashable,
        deadline: float = WHENEVER,
    ) -> T:
        """Make a request when it is its turn.

        Args:
            call: makes the request.
            model: which model it is for.
            owner: the session.
            deadline: moment on the event loop's clock at which the answer is needed. It only
                orders; the caller gives up by cancelling.

        Returns:
            What ``call`` returns; its errors pass through.
        """
        lane = self._lanes.setdefault(model, _Lane())
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(lane.waiting, _Waiting(deadline, next(self._numbers), owner, turn))
        self._dispatch(lane)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release(lane, owner)
            raise
        try:
            return await call()
        finally:
            self._release(lane, owner)
            if deadline < WHENEVER:
                self._live_at = asyncio.get_running_loop().time()

    async def lull(self) -> None:
        """Wait until nobody has been spoken to for a moment, or ``LONGEST_LULL`` is over."""
        clock = asyncio.get_running_loop().time
        until = clock() + LONGEST_LULL
        while (now := clock()) < min(until, self._live_at + LULL_SECONDS):  # noqa: ASYNC110 -- the clock decides
            await asyncio.sleep(min(until, self._live_at + LULL_SECONDS) - now)

    def waiting(self) -> dict[str, int]:
        """Requests that have not been sent yet, by model."""
        return {
            model: sum(not entry.turn.done() for entry in lane.waiting)
            for model, lane in self._lanes.items()
        }

    def running(self) -> dict[str, int]:
        """Requests that Triton has, by model."""
        return {model: lane.running.total() for model, lane in self._lanes.items()}

    def _release(self, lane: _Lane, owner: Hashable) -> None:
        lane.running[owner] -= 1
        if not lane.running[owner]:
            del lane.running[owner]
        self._dispatch(lane)

    def _dispatch(self, lane: _Lane) -> None:
        passed_over: list[_Waiting] = []
        while lane.waiting and lane.running.total() < self._in_flight:
            entry = heapq.heappop(lane.waiting)
            if entry.turn.done():
                continue  # cancelled while it waited
            if self._hurries and not self._urgent(lane, entry):
                passed_over.append(entry)
                break  # nor is any behind it
            if lane.running[entry.owner] >= self._per_owner:
                passed_over.append(entry)
                continue
            lane.running[entry.owner] += 1
            entry.turn.set_result(None)
        for entry in passed_over:
            heapq.heappush(lane.waiting, entry)

    def _urgent(self, lane: _Lane, entry: _Waiting) -> bool:
        """Whether a request cannot wait; otherwise the lane is looked at again when it cannot."""
        loop = asyncio.get_running_loop()
        spare = entry.deadline - loop.time() - SPARE_SECONDS
        if spare <= 0:
            return True
        if lane.wake is not None:
            lane.wake.cancel()
        lane.wake = loop.call_later(min(spare, LONGEST_HURRY), self._dispatch, lane)
        return False
