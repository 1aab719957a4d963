"""One video job from its request to its result: the sequence of steps, and its time limit."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Final, TypeVar

from orchestrator.errors import MuseTalkError, TimeLimitError
from orchestrator.jobs.engine import Steps
from orchestrator.jobs.job import Job, Result
from orchestrator.jobs.ledger import Ledger
from orchestrator.jobs.pipeline import Pipeline
from orchestrator.jobs.plan import Piece, Span, Speech
from orchestrator.rendering.tasks import within
from orchestrator.replies.sentences import Sentence

LOG: Final = logging.getLogger("musetalk.jobs")

T = TypeVar("T")

MIN_LIMIT: Final = 120.0
"""Seconds that every job may take."""

_PATIENCE: Final = 5.0
"""How many times the expected work a job may take."""

_SECONDS_PER_CHAR: Final = 0.08
"""Speech of slow voices; synthesis is expected to take no longer than speaking."""

_MAX_ATTEMPTS: Final = 50
"""A job during which the process ended this often is not tried again."""


class TimeLimit:
    """How long a worker may be busy with a job; a restart begins anew."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.seconds = MIN_LIMIT

    def expect(self, work: float) -> None:
        """Set the limit from the seconds of work that still lie ahead."""
        done = time.monotonic() - self._start
        self.seconds = max(MIN_LIMIT, _PATIENCE * (done + work))

    async def hold(self, work: Awaitable[T]) -> T:
        """Await within what is left.

        Raises:
            TimeLimitError: it takes longer; the work is cancelled.
        """
        left = self._start + self.seconds - time.monotonic()
        try:
            return await within(work, max(left, 0.0))
        except TimeoutError as error:
            raise TimeLimitError(
                f"the video was not ready after {self.seconds:.0f} s",
                remedy="shorten the text, or let the machine do fewer things at a time",
            ) from error


class VideoWork:
    """Does whole jobs.

    Args:
        pipeline: does the steps.
        ledger: has the jobs.
        concurrency: jobs that share this machine.
        ended: told how each job ended: ``ok`` or the code of the error.
        counted: told the owner and the seconds of each new video, once.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        ledger: Ledger,
        *,
        concurrency: int,
        ended: Callable[[str], None],
        counted: Callable[[str, float], Awaitable[None]],
    ) -> None:
        self._pipeline = pipeline
        self._ledger = ledger
        self._concurrency = concurrency
        self._ended = ended
        self._counted = counted

    async def __call__(self, identity: str, steps: Steps) -> None:
        """Do a job, or what is left of it; its errors end in the ledger."""
        job = await asyncio.to_thread(self._ledger.begin, identity)
        if job is None:
            return  # cancelled or deleted before it began
        try:
            result = await self._make(job, steps)
        except Exception as error:
            if not isinstance(error, MuseTalkError):
                LOG.exception("video %s: unforeseen error", job.id)
                error = MuseTalkError("an unforeseen error; the log has it under the video's id")
            else:
                LOG.warning("video %s failed: %s: %s", job.id, error.code, error)
            if await asyncio.to_thread(self._ledger.fail, job.id, error):
                self._ended(error.code)
        else:
            if result is not None:
                duration = result.duration
                await steps.run("count", lambda: self._counted(job.owner, duration))
            if result is None or await asyncio.to_thread(self._ledger.succeed, job.id, result):
                self._ended("ok")
        await steps.run("tidy", lambda: self._pipeline.tidy(job))

    async def _make(self, job: Job, steps: Steps) -> Result | None:
        """All steps; None when an earlier video answers the request."""
        limit = TimeLimit()
        pipeline = self._pipeline

        async def step(name: str, work: Callable[[], Awaitable[Any]]) -> Any:
            return await steps.run(name, lambda: limit.hold(work()))

        async def script() -> list[list[Any]]:
            return [[one.text, one.pause] for one in await pipeline.script(job)]

        if job.attempts > _MAX_ATTEMPTS:
            raise MuseTalkError(f"the service ended {_MAX_ATTEMPTS} times while it made this")
        sentences = [Sentence(*one) for one in await step("llm", script)]
        speech = sum(len(one.text) for one in sentences) * _SECONDS_PER_CHAR
        limit.expect(speech * (1 + job.request.fps * pipeline.pace) * self._concurrency)
        if await step("cache", lambda: pipeline.cached(job, sentences)):
            return None
        speeches = [Speech(job.request.samples, None)] if job.request.kind == "audio" else []
        for index, sentence in enumerate(sentences):
            samples = await step(
                f"tts {index}",
                partial(pipeline.speak, job, index, sentence, len(sentences)),
            )
            speeches.append(Speech(samples, sentence.pause))

        async def plan() -> list[dict[str, Any]]:
            return [asdict(piece) for piece in pipeline.plan(job, speeches)]

        pieces = [
            Piece(piece["position"], tuple(Span(**span) for span in piece["spans"]))
            for piece in await step("plan", plan)
        ]
        frames = pieces[-1].position + pieces[-1].frames
        limit.expect(frames * pipeline.pace * self._concurrency)
        for number in range(len(pieces)):
            await step(f"render {number}", partial(pipeline.render, job, number, pieces, speeches))

        async def publish() -> dict[str, Any]:
            return asdict(await pipeline.publish(job, pieces, speeches, sentences))

        return Result(**await step("publish", publish))
