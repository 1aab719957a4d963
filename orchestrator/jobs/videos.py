"""Video jobs for the rest of the system: create, follow, cancel, delete, read."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, ParamSpec, TypeVar

from dbos import error as dbos_error
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import (
    ConflictError,
    DatabaseError,
    NotFoundError,
    OverloadedError,
    SetupError,
    UsageError,
)
from orchestrator.jobs.cleaner import Cleaner
from orchestrator.jobs.database import connect, sqlite_url
from orchestrator.jobs.engine import Engine
from orchestrator.jobs.keeper import Keeper
from orchestrator.jobs.leases import Leases
from orchestrator.jobs.ledger import FINISHED, Job, Ledger, Removed, Request, Result
from orchestrator.jobs.pipeline import Pipeline, samples_bytes, speech_paths
from orchestrator.jobs.store import FileStore, open_store
from orchestrator.jobs.worker import worker_id
from orchestrator.jobs.workflow import VideoWork
from orchestrator.rendering.script import read_recording, read_text
from orchestrator.rendering.tasks import end, within
from orchestrator.replies.responder import Responder
from orchestrator.sessions.profiles import find_profile
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.rendering.renderer import Renderer

P = ParamSpec("P")
T = TypeVar("T")

LOG: Final = logging.getLogger("musetalk.jobs")

MAX_KEY: Final = 200
"""Characters of an idempotency key."""

_ID: Final = re.compile(r"[0-9a-f]{32}")
_ANSWER_SECONDS: Final = 15.0
_READING_SECONDS: Final = 60.0
_APPEAR_SECONDS: Final = 60.0
_APPEAR_EVERY: Final = 0.5


@dataclass(frozen=True)
class Order:
    """What a client asks for.

    Attributes:
        text: to be said; or
        message: to be answered by the language model; or
        audio: an encoded recording. Exactly one of the three.
        avatar: who speaks; None: the default avatar.
        fps: frames a second; None: those of the profile.
        profile: name of a profile; None: ``quality``.
    """

    text: str | None = None
    message: str | None = None
    audio: bytes | None = None
    avatar: str | None = None
    fps: int | None = None
    profile: str | None = None


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
        kind = _check(order, self._settings)
        fingerprint = _fingerprint(order)
        known = await _ask(self._ledger.with_key, owner, idempotency_key)
        if known is not None:
            return _same(known, fingerprint)
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
        )
        job = Job(identity, owner, request, fingerprint, idempotency_key)
        recorded = await _ask(self._ledger.add, job)
        if recorded.id != identity:  # the same key came twice at the same time
            await self._cleaner.discard([Removed(identity, identity)])
            return _same(recorded, fingerprint)
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
        for_model, for_ear = speech_paths(identity, 0)
        sound = samples_bytes(recording.sound)
        await self._store.put(for_model, samples_bytes(recording.pcm))
        await self._store.put(for_ear, sound)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(sound).hexdigest())
        return len(recording.pcm), digest


@asynccontextmanager
async def open_videos(
    settings: Settings,
    renderer: Renderer,
    responder: Responder,
    ended: Callable[[str], None],
    counted: Callable[[str, float], Awaitable[None]],
) -> AsyncIterator[VideoJobs]:
    """Make videos, and go on with those that an earlier run left unfinished.

    Leaving the block stops the work; what is unfinished waits for the next start, or goes on in
    another worker.

    Args:
        settings: of the process.
        renderer: speaks and renders.
        responder: answers messages.
        ended: told how each job ended: ``ok`` or the code of the error.
        counted: told the owner and the seconds of each new video, once.

    Raises:
        SetupError: the database or the store cannot be used.
    """
    folder = settings.cache_dir / "videos"
    await asyncio.to_thread(_make_folder, folder)
    url = (
        settings.database_url.get_secret_value()
        if settings.database_url is not None
        else sqlite_url(folder / "jobs.sqlite")
    )
    store = open_store(settings.video_store or str(folder / "files"))
    await store.check()
    database = await asyncio.to_thread(connect, url)
    try:
        with worker_id(folder, settings.worker_id) as worker:
            ledger = Ledger(database, settings.video_retention)
            pipeline = Pipeline(settings, renderer, responder, ledger, store)
            work = VideoWork(
                pipeline,
                ledger,
                concurrency=settings.max_videos,
                ended=ended,
                counted=counted,
            )
            engine = Engine(url, worker=worker, concurrency=settings.max_videos, work=work)
            cleaner = Cleaner(ledger, store, engine)
            keeper = Keeper(engine, ledger, Leases(database), cleaner, settings.worker_timeout)
            await _appear(keeper, worker)
            keeping: asyncio.Task[None] | None = None
            try:
                await asyncio.to_thread(_start, engine)
                keeping = asyncio.create_task(keeper.run())
                LOG.info("videos are made by worker %s, kept in %s", worker, store.name)
                yield VideoJobs(settings, renderer, ledger, store, engine, cleaner)
            finally:
                if keeping is not None:
                    await end(keeping)
                await asyncio.to_thread(engine.stop)
                await engine.wait_stopped()
                await pipeline.close()
                await asyncio.to_thread(keeper.disappear)
    finally:
        await asyncio.to_thread(database.dispose)


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


async def _appear(keeper: Keeper, worker: str) -> None:
    deadline = time.monotonic() + _APPEAR_SECONDS
    while not await asyncio.to_thread(keeper.appear):
        if time.monotonic() > deadline:
            raise SetupError(
                f"another process already makes videos as worker {worker}",
                remedy="give each its own MUSETALK_WORKER_ID",
            )
        await asyncio.sleep(_APPEAR_EVERY)


def _start(engine: Engine) -> None:
    try:
        engine.start()
    except (SQLAlchemyError, dbos_error.DBOSException) as error:
        reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise SetupError(
            f"the workflow engine cannot use the database: {reason}",
            remedy="check MUSETALK_DATABASE_URL; its user must be allowed to create tables",
        ) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"{folder} cannot be made: {error.strerror}", remedy="set MUSETALK_CACHE_DIR"
        ) from error


def _check(order: Order, settings: Settings) -> Literal["text", "message", "audio"]:
    """Which kind of order it is.

    Raises:
        UsageError: it is of none, of several, or has nothing to say.
    """
    kinds: dict[Literal["text", "message", "audio"], object] = {
        "text": order.text,
        "message": order.message,
        "audio": order.audio,
    }
    given = [kind for kind, value in kinds.items() if value is not None]
    if len(given) != 1:
        raise UsageError("a video is made from one of text, message and audio")
    words = order.text if order.text is not None else order.message
    if words is not None:
        read_text(words, settings)
    return given[0]


def _fingerprint(order: Order) -> str:
    audio = hashlib.sha256(order.audio).hexdigest() if order.audio is not None else None
    parts = [order.text, order.message, audio, order.avatar, order.fps, order.profile]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _same(job: Job, fingerprint: str) -> Job:
    if job.fingerprint != fingerprint:
        raise ConflictError(
            "this idempotency key was used for another video",
            remedy="use a new key for each new video",
        )
    return job
