"""Durable workflows: what is finished of a job stays finished, whatever becomes of the process.

DBOS writes the result of each step of a workflow to the database. After a crash the workflow
is called again, and gets the results of the finished steps from there. It runs its workflows in
a thread and an event loop of its own; the work of a step is done in ours, where Triton's client
and the voice live.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from dbos import DBOS, DBOSConfig, Serializer, StepOptions
from dbos import error as dbos_error

from orchestrator.errors import MuseTalkError
from orchestrator.rendering.tasks import end

LOG: Final = logging.getLogger("musetalk.jobs")

T = TypeVar("T")

VERSION: Final = 1
"""Of the sequence of steps: raised when an unfinished job could not go on under the old one."""

_NAME: Final = "video"
_QUEUE: Final = "videos"
_POLL_SECONDS: Final = 0.5
_ATTEMPTS: Final = 3
_RETRY_SECONDS: Final = 2.0
_WAITING: Final = ["ENQUEUED", "DELAYED", "PENDING"]
_ERROR: Final = "$error"


@dataclass(frozen=True)
class Run:
    """A workflow of a job.

    Attributes:
        id: of the workflow.
        job: id of the job.
        version: of the steps it was begun with.
        executor: the worker that runs it; None: nobody yet.
        over: whether it has ended.
    """

    id: str
    job: str
    version: int
    executor: str | None
    over: bool


class JsonSerializer(Serializer):
    """Plain JSON in the database; errors as their code and words."""

    def name(self) -> str:
        """What the database calls this format."""
        return "musetalk_json"

    def serialize(self, data: Any) -> str:
        """To JSON."""
        return json.dumps(data, default=_describe)

    def deserialize(self, serialized_data: str) -> Any:
        """From JSON."""
        return json.loads(serialized_data, object_hook=_revive)


class Steps:
    """Runs the steps of one workflow.

    Args:
        there: runs a coroutine in our event loop.
    """

    def __init__(self, there: Callable[[Awaitable[Any]], Awaitable[Any]]) -> None:
        self._there = there

    async def run(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do a step, or get what it returned before.

        Args:
            name: of the step, the same each time.
            work: does it; what it returns is written to the database as JSON. It is tried again
                where its error says that this may help.

        Raises:
            MuseTalkError: what the work raised.
        """

        async def step() -> T:
            result: T = await self._there(work())
            return result

        options: StepOptions = {
            "name": name,
            "preemptible": True,
            "retries_allowed": True,
            "max_attempts": _ATTEMPTS,
            "interval_seconds": _RETRY_SECONDS,
            "should_retry": _may_pass,
        }
        try:
            return await DBOS.run_step_async(options, step)
        except dbos_error.DBOSMaxStepRetriesExceeded as error:
            raise error.errors[-1] from error


class Engine:
    """The workflows of this process.

    Args:
        url: of the database.
        worker: id of this worker, the same after a restart.
        concurrency: workflows that run here at a time.
        work: does a job, in steps; is called again after a crash.
    """

    def __init__(
        self,
        url: str,
        *,
        worker: str,
        concurrency: int,
        work: Callable[[str, Steps], Awaitable[None]],
    ) -> None:
        self.worker = worker
        self._url = url
        self._concurrency = concurrency
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Future[Any]] = set()

    def start(self) -> None:
        """Begin to work, with what this worker left unfinished; call it in a thread."""
        # DBOS logs to a handler of its own unless it finds one.
        log = logging.getLogger("dbos")
        if not log.handlers:
            log.addHandler(logging.NullHandler())
        log.propagate = True
        work, there = self._work, self._there

        # A job that ends the process each time is given up by the work itself.
        @DBOS.workflow(name=_NAME, max_recovery_attempts=None)
        async def video(job: str) -> None:
            await work(job, Steps(there))

        config: DBOSConfig = {
            "name": "musetalk",
            "system_database_url": self._url,
            "executor_id": self.worker,
            "application_version": str(VERSION),
            "serializer": JsonSerializer(),
            "log_level": "ERROR",
            # Nobody sends notifications; but stopping waits for the thread that listens.
            "notification_listener_polling_interval_sec": 0.2,
        }
        DBOS(config=config)
        DBOS.launch()
        DBOS.register_queue(
            _QUEUE,
            worker_concurrency=self._concurrency,
            polling_interval_sec=_POLL_SECONDS,
            on_conflict="always_update",
        )

    def stop(self) -> None:
        """Leave what runs to the next start, or to another worker; call it in a thread."""
        DBOS.destroy(destroy_registry=True)

    async def wait_stopped(self) -> None:
        """Wait until the work of all steps has ended, in our event loop."""
        await end(*self._tasks)

    def enqueue(self, job: str) -> None:
        """Put a job into the queue; once is enough, twice does no harm."""
        DBOS.enqueue_workflow_with_options(
            {
                "workflow_name": _NAME,
                "queue_name": _QUEUE,
                "workflow_id": _workflow_id(job),
                "app_version": str(VERSION),
            },
            job,
        )

    def cancel(self, job: str) -> None:
        """Stop a job's workflow, wherever it runs; its step is cancelled within some 2 s."""
        DBOS.cancel_workflows([run.id for run in self._runs([job])])

    def forget(self, jobs: list[str]) -> None:
        """Delete what the database has of workflows, their results and errors."""
        DBOS.delete_workflows([run.id for run in self._runs(jobs)])

    def waiting(self) -> list[Run]:
        """Workflows that are queued or under way."""
        found = DBOS.list_workflows(
            status=_WAITING, name=_NAME, load_input=False, load_output=False
        )
        return [_run(status) for status in found]

    def is_over(self, job: str) -> bool:
        """Whether the workflow of a job has ended, however it did."""
        return any(run.over and run.version == VERSION for run in self._runs([job]))

    def hand_over(self, runs: list[Run]) -> None:
        """Queue workflows again whose worker has vanished."""
        if runs:
            DBOS.resume_workflows([run.id for run in runs], queue_name=_QUEUE)

    def renew(self, run: Run) -> None:
        """Replace a workflow of an older version by one of ours; files of its steps remain."""
        DBOS.cancel_workflows([run.id])
        self.enqueue(run.job)

    def _runs(self, jobs: list[str]) -> list[Run]:
        if not jobs:
            return []
        prefixes: list[str] = [f"{job}." for job in jobs]
        found = DBOS.list_workflows(
            workflow_id_prefix=prefixes, load_input=False, load_output=False
        )
        return [_run(status) for status in found]

    async def _there(self, work: Awaitable[T]) -> T:
        """Await in our event loop what DBOS's loop waits for; cancelling reaches it."""

        async def tracked() -> T:
            task = asyncio.ensure_future(work)
            self._tasks.add(task)
            try:
                return await task
            finally:
                self._tasks.discard(task)
                await end(task)

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(tracked(), self._loop))


def _workflow_id(job: str) -> str:
    return f"{job}.{VERSION}"


def _run(status: Any) -> Run:
    job, _, version = status.workflow_id.rpartition(".")
    queued = status.status != "PENDING"
    return Run(
        id=status.workflow_id,
        job=job,
        version=int(version),
        executor=None if queued else status.executor_id,
        over=status.status not in _WAITING,
    )


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, MuseTalkError) and error.retryable


def _describe(value: Any) -> Any:
    """An error as plain values."""
    if isinstance(value, dbos_error.DBOSMaxStepRetriesExceeded):
        value = value.errors[-1]
    if isinstance(value, MuseTalkError):
        return {_ERROR: [value.code, value.message, value.remedy]}
    if isinstance(value, BaseException):
        return {_ERROR: [MuseTalkError.code, f"{type(value).__name__}: {value}", ""]}
    raise TypeError(f"{type(value).__name__} cannot be kept in the database")


def _revive(value: dict[str, Any]) -> Any:
    if _ERROR not in value:
        return value
    code, message, remedy = value[_ERROR]
    return _kinds().get(code, MuseTalkError)(message, remedy=remedy)


def _kinds() -> dict[str, type[MuseTalkError]]:
    """Our errors by their codes."""
    kinds: dict[str, type[MuseTalkError]] = {}
    pending: list[type[MuseTalkError]] = [MuseTalkError]
    while pending:
        kind = pending.pop()
        kinds.setdefault(kind.code, kind)
        pending += kind.__subclasses__()
    return kinds
