"""Video jobs for the rest of the system: create, follow, cancel, delete, read."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from orchestrator.errors import (
    ConflictError,
    DatabaseError,
    NotFoundError,
    OverloadedError,
    UsageError,
)
from orchestrator.jobs.cleaner import Cleaner
from orchestrator.jobs.engine import Engine
from orchestrator.jobs.job import FINISHED, Job, Removed, Request, Result
from orchestrator.jobs.ledger import Ledger
from orchestrator.jobs.order import MAX_KEY, Order, check, fingerprint
from orchestrator.jobs.speech import SpeechFiles, samples_bytes
from orchestrator.jobs.store import FileStore
from orchestrator.rendering.script import read_recording
from orchestrator.rendering.tasks import within
from orchestrator.sessions.profiles import find_profile
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.rendering.renderer import Renderer

P = ParamSpec("P")
T = TypeVar("T")

_ID: Final = re.compile(r"[0-9a-f]{32}")
_ANSWER_SECONDS: Final = 15.0
_READING_SECONDS: Final = 60.0


class VideoJobs:
    """The video jobs of all workers that share a database.

    Args:
        settings: of the process.
        renderer: knows the avatars.
        ledger: the jobs.
        store: their files.
        engine: their workflows.
        cleaner: deletes.
    """

    def __init__(
        self,
        settings: Settings,
        renderer: Renderer,
        ledger: Ledger,
        store: FileStore,
        engine: Engine,
        cleaner: Cleaner,
    ) -> None:
        self._settings = settings
        self._renderer = renderer
        self._ledger = ledger
        self._store = store
        self._engine = engine
        self._cleaner = cleaner

    async def create(
        self,
        owner: str,
        order: Order,
        idempotency_key: str | None = None,
        *,
        limit: int | None = None,
    ) -> Job:
        """Queue a job; or, of a key that was used before, the job that it created.

        Args:
            owner: whose job it is.
            order: what to make.
            idempotency_key: of the client, at most ``MAX_KEY`` characters.
            limit: unfinished jobs that the owner may have; None: any number.

        Raises:
            UsageError: the order cannot be carried out.
            ConflictError: the key was used for another order.
            OverloadedError: too many jobs wait.
        """
        if idempotency_key is not None and not 0 < len(idempotency_key) <= MAX_KEY:
            raise UsageError(f"an idempotency key has 1 to {MAX_KEY} characters")
        kind = check(order, self._settings)
        digest_of_order = fingerprint(order)
        known = await _ask(self._ledger.with_key, owner, idempotency_key)
        if known is not None:
            return _same(known, digest_of_order)
        if await _ask(self._ledger.count_unfinished) >= self._settings.max_videos_queued:
            raise OverloadedError("too many videos wait to be made", remedy="try again later")
        if limit is not None and await self.count_unfinished(owner) >= limit:
            raise OverloadedError(
                f"this key has {limit} unfinished videos already", remedy="wait for one to finish"
            )
        profile = find_profile(order.profile)
        avatar = await self._renderer.avatar(order.avatar)
        default = self._settings.fps if order.profile is None else int(profile.fps)
        identity = secrets.token_hex(16)
        samples, digest = 0, ""
        if order.audio is not None:
            samples, digest = await self._keep_recording(identity, order.audio)
        request = Request(
            kind=kind,
            avatar=avatar.name,
            fps=order.fps or default,
            profile=profile.name,
            text=order.text or order.message or "",
            samples=samples,
            digest=digest,
            language=order.language,
        )
        job = Job(identity, owner, request, digest_of_order, idempotency_key)
        recorded = await _ask(self._ledger.add, job)
        if recorded.id != identity:  # the same key came twice at the same time
            await self._cleaner.discard([Removed(identity, identity)])
            return _same(recorded, digest_of_order)
        # From here on the leader queues it, should this process not come to that.
        with contextlib.suppress(DatabaseError):
            await _ask(self._engine.enqueue, identity)
        return job

    async def get(self, owner: str, identity: str) -> Job:
        """A job of an owner.

        Raises:
            NotFoundError: the owner has no such job.
        """
        job = None
        if _ID.fullmatch(identity):
            job = await _ask(self._ledger.get, identity)
        if job is None or job.owner != owner:
            raise NotFoundError(
                "there is no such video",
                remedy=f"videos are deleted {self._settings.video_retention:.0f} s after their end",
            )
        return job

    async def page(self, owner: str, limit: int, before: str | None = None) -> list[Job]:
        """Jobs of an owner, the newest first.

        Args:
            owner: whose.
            limit: how many at most.
            before: id of one; only older ones.

        Raises:
            NotFoundError: ``before`` is no job of the owner.
        """
        last = await self.get(owner, before) if before is not None else None
        return await _ask(self._ledger.of_owner, owner, limit, last)

    async def count_unfinished(self, owner: str) -> int:
        """How many jobs of an owner wait or are under way."""
        return await _ask(self._ledger.count_unfinished, owner)

    async def cancel(self, owner: str, identity: str) -> Job:
        """Stop a job; one that is over stays as it is.

        Raises:
            NotFoundError: the owner has no such job.
        """
        job = await self.get(owner, identity)
        if await _ask(self._ledger.cancel, job.id):
            await _ask(self._engine.cancel, job.id)
        return await self.get(owner, identity)

    async def delete(self, owner: str, identity: str) -> None:
        """Stop a job and delete all there is of it.

        Raises:
            NotFoundError: the owner has no such job.
        """
        job = await self.cancel(owner, identity)
        await self._cleaner.discard(await _ask(self._ledger.remove, job.id))

    async def result(self, owner: str, identity: str) -> Result:
        """The result of a job; its files are kept for a minute at least.

        Raises:
            NotFoundError: the owner has no such job.
            ConflictError: the job has no result, or not yet.
        """
        job = await self.get(owner, identity)
        if job.result is None:
            raise ConflictError(
                f"the video is {job.status}",
                remedy="ask again when its status is succeeded"
                if job.status not in FINISHED
                else "create it again",
            )
        await _ask(self._ledger.use, job.id, _READING_SECONDS)
        return job.result

    async def content(
        self, identity: str, path: str, start: int, stop: int
    ) -> AsyncIterator[bytes]:
        """A part of a file of a job, which is not deleted while somebody reads it.

        Args:
            identity: of the job.
            path: of the file.
            start: first byte.
            stop: after the last byte.

        Returns:
            Its pieces.

        Raises:
            NotFoundError: the file is gone.
        """
        pieces = await self._store.stream(path, start, stop)

        async def kept() -> AsyncIterator[bytes]:
            renewed = time.monotonic()
            async for piece in pieces:
                if time.monotonic() - renewed > _READING_SECONDS / 2:
                    renewed = time.monotonic()
                    await _ask(self._ledger.use, identity, _READING_SECONDS)
                yield piece

        return kept()

    async def captions(self, owner: str, identity: str) -> bytes:
        """The captions of a finished job, as WebVTT.

        Raises:
            NotFoundError: no such job, or one of recorded speech, whose words nobody knows.
            ConflictError: the job has no result, or not yet.
        """
        result = await self.result(owner, identity)
        if result.captions is None:
            raise NotFoundError("a video of recorded speech has no captions")
        return await self._store.read(result.captions)

    async def _keep_recording(self, identity: str, audio: bytes) -> tuple[int, str]:
        recording = await read_recording(audio, self._settings)
        await SpeechFiles(self._store, identity).write(0, recording.pcm, recording.sound)
        sound = samples_bytes(recording.sound)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(sound).hexdigest())
        return len(recording.pcm), digest


async def _ask(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Ask the database in a thread, and not for ever.

    Raises:
        DatabaseError: it does not answer.
    """
    try:
        return await within(asyncio.to_thread(function, *args, **kwargs), _ANSWER_SECONDS)
    except TimeoutError as error:
        raise DatabaseError(
            "the database of the video jobs does not answer", remedy="try again in a moment"
        ) from error


def _same(job: Job, digest: str) -> Job:
    if job.fingerprint != digest:
        raise ConflictError(
            "this idempotency key was used for another video",
            remedy="use a new key for each new video",
        )
    return job
