"""Deletes what nobody needs any more, and nothing else."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from orchestrator.jobs.engine import Engine
from orchestrator.jobs.job import Removed
from orchestrator.jobs.ledger import Ledger
from orchestrator.jobs.store import FileStore

GRACE_SECONDS: Final = 600.0
"""Files this young may be of a job that is just being created."""


class Cleaner:
    """Deletes jobs whose time is over, and files that belong to no job.

    A file is needed while its job is unfinished, or while the result of any job names it: a
    repeated request refers to the files of the job that it repeats.

    Args:
        ledger: the jobs.
        store: their files.
        engine: their workflows.
        grace: age in seconds from which a file without a job is deleted.
    """

    def __init__(
        self, ledger: Ledger, store: FileStore, engine: Engine, grace: float = GRACE_SECONDS
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._engine = engine
        self._grace = grace

    async def expire(self) -> None:
        """Delete the jobs whose time is over.

        Raises:
            MuseTalkError: the store does not answer.
        """
        await self.discard(await asyncio.to_thread(self._ledger.remove_expired))

    async def sweep(self) -> None:
        """Delete files without a job, which a process left that was killed.

        Raises:
            MuseTalkError: the store does not answer.
        """
        # The files before the jobs: whoever writes one has his job in the ledger, or is young.
        before = time.time() - self._grace
        old = [file.path for file in await self._store.files() if file.modified < before]
        await self._delete_unneeded(old)
        await self._store.remove_fragments(GRACE_SECONDS)

    async def discard(self, jobs: list[Removed]) -> None:
        """Delete files and workflows of jobs that are no longer in the ledger.

        Raises:
            MuseTalkError: the store does not answer.
        """
        await asyncio.to_thread(self._engine.forget, [job.id for job in jobs])
        for folder in sorted({job.id for job in jobs} | {job.folder for job in jobs}):
            await self._delete_unneeded([file.path for file in await self._store.files(folder)])

    async def _delete_unneeded(self, paths: list[str]) -> None:
        if not paths:
            return
        working, kept = await asyncio.to_thread(self._ledger.needed)
        await self._store.delete(
            [path for path in paths if path not in kept and path.partition("/")[0] not in working]
        )
