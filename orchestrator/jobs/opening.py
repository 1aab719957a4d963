"""Put the video jobs together: database, store, worker, workflows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dbos import error as dbos_error
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import SetupError
from orchestrator.jobs.cleaner import Cleaner
from orchestrator.jobs.database import connect, sqlite_url
from orchestrator.jobs.engine import Engine
from orchestrator.jobs.keeper import Keeper
from orchestrator.jobs.leases import Leases
from orchestrator.jobs.ledger import Ledger
from orchestrator.jobs.pipeline import Pipeline
from orchestrator.jobs.store import open_store
from orchestrator.jobs.videos import VideoJobs
from orchestrator.jobs.worker import worker_id
from orchestrator.jobs.workflow import VideoWork
from orchestrator.rendering.tasks import end
from orchestrator.replies.responder import Responder
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.rendering.renderer import Renderer

LOG: Final = logging.getLogger("musetalk.jobs")

_APPEAR_SECONDS: Final = 60.0
_APPEAR_EVERY: Final = 0.5


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
