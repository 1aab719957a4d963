"""Keeps jobs going whatever happens to workers: heartbeat, leader, hand-over, clean-up."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Final

from orchestrator.errors import MuseTalkError
from orchestrator.jobs.cleaner import Cleaner
from orchestrator.jobs.engine import VERSION, Engine, Run
from orchestrator.jobs.leases import Leases
from orchestrator.jobs.ledger import Ledger

LOG: Final = logging.getLogger("musetalk.jobs")

_LEADER: Final = "leader"
_TAKEOVER_SECONDS: Final = 30.0
_SETTLED_SECONDS: Final = 10.0
_EXPIRE_SECONDS: Final = 15.0
_SWEEP_SECONDS: Final = 600.0


def worker_lease(worker: str) -> str:
    """Name of the lease by which a worker shows that it lives."""
    return f"worker {worker}"


class Keeper:
    """Renews this worker's lease; and, while it leads, looks after all jobs.

    Args:
        engine: the workflows.
        ledger: the jobs.
        leases: who lives, who leads.
        cleaner: deletes what is over.
        timeout: seconds without a sign after which a worker counts as gone.
    """

    def __init__(
        self, engine: Engine, ledger: Ledger, leases: Leases, cleaner: Cleaner, timeout: float
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._leases = leases
        self._cleaner = cleaner
        self._timeout = timeout
        self._expired = -math.inf
        self._swept = -math.inf

    def appear(self) -> bool:
        """Take this worker's lease, before its engine starts.

        False while another worker is busy taking over what an earlier run of this one left.
        """
        worker = self._engine.worker
        return self._leases.take(worker_lease(worker), worker, self._timeout)

    def disappear(self) -> None:
        """Give back the leases, after the engine has stopped: others need not wait."""
        worker = self._engine.worker
        self._leases.give_back(worker_lease(worker), worker)
        self._leases.give_back(_LEADER, worker)

    async def run(self) -> None:
        """Do all this until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.appear)
                lead = await asyncio.to_thread(
                    self._leases.take, _LEADER, self._engine.worker, self._timeout
                )
                if lead:
                    await asyncio.to_thread(self.look_after)
                    await self._clean()
            except MuseTalkError as error:
                LOG.warning("video jobs cannot be looked after now: %s", error)
            except Exception:
                # Whatever it was, the next time may go well; without a heartbeat others would
                # take over jobs that this worker still does.
                LOG.exception("unforeseen error while looking after video jobs")
            await asyncio.sleep(self._timeout / 4)

    def look_after(self) -> None:
        """Hand over the jobs of vanished workers; queue what never came into the queue."""
        waiting = self._engine.waiting()
        vanished = self._vanished(waiting)
        for worker in vanished:
            # While the lease is ours, a restart of that worker waits.
            if self._leases.take(worker_lease(worker), self._engine.worker, _TAKEOVER_SECONDS):
                self._hand_over([run for run in self._engine.waiting() if run.executor == worker])
                self._leases.give_back(worker_lease(worker), self._engine.worker)
        # This process runs our version only: an older run under its name is nobody's.
        free = (None, self._engine.worker)
        self._renew([run for run in waiting if run.version < VERSION and run.executor in free])
        self._queue_forgotten({run.job for run in waiting})

    def _vanished(self, waiting: list[Run]) -> set[str]:
        workers = {run.executor for run in waiting if run.executor is not None}
        return workers - {self._engine.worker}

    def _hand_over(self, runs: list[Run]) -> None:
        if runs:
            LOG.warning("worker %s has vanished: %d jobs go on", runs[0].executor, len(runs))
        self._engine.hand_over([run for run in runs if run.version == VERSION])
        self._renew([run for run in runs if run.version < VERSION])

    def _renew(self, runs: list[Run]) -> None:
        for run in runs:
            self._engine.renew(run)

    def _queue_forgotten(self, known: set[str]) -> None:
        """Jobs whose creator died between noting and queueing them; or whose engine gave up."""
        before = time.time() - _SETTLED_SECONDS
        for job in self._ledger.unfinished():
            if job.id in known or job.updated > before:
                continue
            if self._engine.is_over(job.id):
                self._ledger.fail(job.id, MuseTalkError("the video could not be made"))
            else:
                self._engine.enqueue(job.id)

    async def _clean(self) -> None:
        moment = time.monotonic()
        if moment - self._expired >= _EXPIRE_SECONDS:
            self._expired = moment
            await self._cleaner.expire()
        if moment - self._swept >= _SWEEP_SECONDS:
            self._swept = moment
            await self._cleaner.sweep()
