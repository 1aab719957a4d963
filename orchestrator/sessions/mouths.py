"""Mouths of live speech: each batch by the moment it is shown, and fewer of them under overload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from orchestrator.errors import DeadlineError, MuseTalkError, ServerDiedError
from orchestrator.inference.protocol import F32
from orchestrator.inference.schedule import Scheduler
from orchestrator.rendering.render import Overdue
from orchestrator.rendering.tasks import end

if TYPE_CHECKING:
    from orchestrator.inference import Inference
    from orchestrator.sessions.times import TurnTimes

U8 = npt.NDArray[np.uint8]
F16 = npt.NDArray[np.float16]

GIVE_UP_SECONDS: Final = 10.0
"""A turn ends when the model has not answered for so long."""

_LITTLE_SLACK: Final = 0.2
_MUCH_SLACK: Final = 0.6
_GIVEN_UP_TOGETHER: Final = 2
"""Frames: as many as share a mouth at half rate."""

_LONGEST_BATCH: Final = 0.5
_WATCH_SECONDS: Final = 0.05
_RETRY_SECONDS: Final = 0.1
_LEAST_SECONDS: Final = 0.1
"""Deadline of a request at least: a moment that is this close may still move."""


class Pace:
    """New pictures on every frame of the grid, or on every second one when time is short.

    Args:
        least: the step that the session's profile asks for: 1 or 2.
    """

    def __init__(self, least: int) -> None:
        self.step = least
        self.batch_seconds = 0.0
        """What a small batch usually takes."""
        self._least = least

    @property
    def reduced(self) -> bool:
        """Whether there are fewer new pictures than the profile asks for."""
        return self.step > self._least

    def took(self, seconds: float) -> None:
        """A small batch took so long."""
        weight = 0.5 if self.batch_seconds else 1.0
        self.batch_seconds += weight * (min(seconds, _LONGEST_BATCH) - self.batch_seconds)

    def answered(self, slack: float) -> None:
        """A batch was there ``slack`` seconds before it had to be."""
        if slack < _LITTLE_SLACK:
            self.late()
        elif slack > _MUCH_SLACK:
            self.step = self._least

    def late(self) -> None:
        """A batch did not come in time, or hardly."""
        self.step = 2


class LiveInference:
    """Triton as one session sees it: in its turn, tried again as long as that makes sense.

    Args:
        inference: Triton.
        scheduler: orders the requests of all sessions.
        owner: the session.
        pace: every frame or every second one.
        times: of the turn.
        timeout: seconds that one request may take.
    """

    def __init__(
        self,
        inference: Inference,
        scheduler: Scheduler,
        owner: Hashable,
        pace: Pace,
        times: TurnTimes,
        timeout: float,
    ) -> None:
        self._inference = inference
        self._scheduler = scheduler
        self._owner = owner
        self._pace = pace
        self._times = times
        self._timeout = timeout
        self._answered = asyncio.get_running_loop().time()

    async def encode_speech(self, mel: F32, steps: int, *, timeout: float | None = None) -> F16:
        """See ``Inference``."""

        async def call() -> F16:
            return await self._inference.encode_speech(mel, steps, timeout=self._timeout)

        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            try:
                return await self._scheduler.run(
                    call, model="whisper_encoder", owner=self._owner, deadline=began
                )
            except MuseTalkError as error:
                if not _passing(error) or clock() - began > GIVE_UP_SECONDS:
                    raise
                self._times.retries += 1
                await asyncio.sleep(_RETRY_SECONDS)

    async def lipsync(
        self, latents: F16, audio: F16, due: Callable[[int], float | None], overdue: Overdue
    ) -> U8 | None:
        """Make mouths by moments that may still move.

        Args:
            latents: F16[n,8,32,32].
            audio: F16[n,50,384].
            due: says by when a frame of the batch is needed; None: it may take its time.
            overdue: is told of frames whose moment has passed.

        Returns:
            U8[m,256,256,3], m = n, or ceil(n/2) under overload; None when the moment of the
            last one has passed.

        Raises:
            MuseTalkError: the model failed, or has not answered for ``GIVE_UP_SECONDS``.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        deadline: float | None = None
        step, frames = self._pace.step, len(latents)
        if self._pace.reduced:
            self._times.reduced += frames

        def following() -> float | None:
            return due(overdue.frames)

        task = asyncio.create_task(self._lipsync(latents[::step], audio[::step], following))
        try:
            while overdue.frames < frames and not task.done():
                deadline = following()
                left = _WATCH_SECONDS if deadline is None else deadline - clock()
                if left <= 0:
                    overdue.give_up(min(_GIVEN_UP_TOGETHER, frames - overdue.frames))
                else:
                    await asyncio.wait({task}, timeout=min(left, _WATCH_SECONDS))
            if task.done():
                faces = task.result()
                self._answered = clock()
                if overdue.frames:
                    self._pace.late()
                elif deadline is None:
                    self._pace.took(self._answered - began)
                else:
                    self._pace.answered(deadline - self._answered)
                return faces
        finally:
            await end(task)
        self._pace.late()
        silent_since = max(self._answered, began - GIVE_UP_SECONDS)
        if clock() - silent_since > GIVE_UP_SECONDS:
            raise DeadlineError(
                f"the model has not answered for {GIVE_UP_SECONDS:.0f} s",
                remedy="try again; if it stays so, look at Triton's log and load",
            )
        return None

    async def _lipsync(self, latents: F16, audio: F16, due: Callable[[], float | None]) -> U8:
        clock = asyncio.get_running_loop().time
        began = clock()
        asked = self._times.elapsed

        async def call() -> U8:
            self._times.note("queue", asked)
            deadline = due()
            seconds = self._timeout
            if deadline is not None:
                seconds = min(max(deadline - clock(), _LEAST_SECONDS), seconds)
            with self._times.measure("inference"):
                return await self._inference.lipsync(latents, audio, timeout=seconds)

        while True:
            deadline = due()
            try:
                return await self._scheduler.run(
                    call,
                    model="lipsync",
                    owner=self._owner,
                    deadline=began if deadline is None else deadline,
                )
            except MuseTalkError as error:
                if not _passing(error) or clock() - began > GIVE_UP_SECONDS:
                    raise
                self._times.retries += 1
                await asyncio.sleep(_RETRY_SECONDS)
                asked = self._times.elapsed


def _passing(error: MuseTalkError) -> bool:
    """Whether the same request may work a moment later."""
    return error.retryable and not isinstance(error, ServerDiedError)
