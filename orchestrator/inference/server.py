"""The embedded tritonserver: started on loopback, watched, stopped without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import psutil

from orchestrator.errors import MuseTalkError, RepositoryError, ServerDiedError, SetupError
from orchestrator.inference.client import TritonClient
from orchestrator.inference.distribution import Distribution, find_distribution
from orchestrator.inference.model_processes import first_dead, model_processes
from orchestrator.inference.ports import LOOPBACK, Ports, listens
from orchestrator.inference.scratch import Scratch, cannot_write, create_scratch
from orchestrator.inference.triton_log import LogLine, LogReader

DRAIN_SECONDS = 10
"""How long a stopping server lets requests under way finish."""
KILL_SECONDS = DRAIN_SECONDS + 5.0
START_ATTEMPTS = 5
"""Tries with new ports when a free one was taken between choosing it and binding it."""
POLL_SECONDS = 0.05
WATCH_SECONDS = 1.0
UNHEARD_SECONDS = 5.0
"""How long a loading server may take to hear of a model that is ready: it takes milliseconds."""
CRASHES = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}
"""How a program ends by a fault of its own."""
LINE_LIMIT = 1 << 20

_log = logging.getLogger("musetalk.triton")


class _CrashedError(ServerDiedError):
    """A fault of the server's own, which need not come again."""


class EmbeddedTriton:
    """One tritonserver process, with its Python stubs, owned by a keeper process.

    Use as ``async with``. The addresses are known, and the server is ready, inside.
    """

    def __init__(
        self,
        repository: Path,
        *,
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        start_timeout: float = 300.0,
        brief: bool = False,
        log: Callable[[LogLine], None] | None = None,
        traces: str | None = None,
    ) -> None:
        """Describe a server; nothing starts yet.

        Args:
            repository: folder of models.
            grpc_port: 0 takes a free one.
            http_port: 0 takes a free one.
            metrics_port: 0 takes a free one.
            start_timeout: seconds until all models must be loaded.
            brief: for a minute's work: ready two seconds sooner, a tenth slower afterwards.
            log: gets each line of the server's log; default: the logger ``musetalk.triton``.
            traces: OTLP/HTTP address to which the spans of traced requests go.
        """
        self.repository = repository
        self._wanted = Ports(grpc_port, http_port, metrics_port)
        self._ports = self._wanted
        self._start_timeout = start_timeout
        self._brief = brief
        self._log = log or _to_logging
        self._traces = traces
        self._reader = LogReader()
        self._keeper: asyncio.subprocess.Process | None = None
        self._scratch: Scratch | None = None
        self._pump: asyncio.Task[None] | None = None
        self._pid: int | None = None
        self._models: dict[str, psutil.Process] = {}
        self._drains = False
        self._condemned = asyncio.Event()
        self._reason = ""

    @property
    def grpc_address(self) -> str:
        """``host:port`` of gRPC."""
        return f"{LOOPBACK}:{self._ports.grpc}"

    @property
    def http_address(self) -> str:
        """``host:port`` of HTTP."""
        return f"{LOOPBACK}:{self._ports.http}"

    @property
    def metrics_address(self) -> str:
        """``host:port`` of the metrics, under ``/metrics``."""
        return f"{LOOPBACK}:{self._ports.metrics}"

    @property
    def pid(self) -> int | None:
        """Process id of tritonserver while it runs."""
        return self._pid

    async def start(self) -> None:
        """Start the server and wait until every model is ready.

        A server that crashes on its way, or waits for nothing, is started a second time: its
        Python backend does both when the machine stands still in the wrong moment.

        Raises:
            SetupError: the machine lacks something, or a port that was asked for is taken.
            RepositoryError: a model cannot be loaded.
            ServerDiedError: the server ended, or was not ready in time.
        """
        distribution = await asyncio.to_thread(find_distribution)
        check_repository(self.repository)
        crashed = False
        for attempt in range(1, START_ATTEMPTS + 1):
            self._ports = self._wanted.resolve()
            try:
                await self._launch(distribution)
                await self._until_ready()
            except BaseException as error:
                await asyncio.shield(self.stop())
                again = not crashed and attempt < START_ATTEMPTS
                if isinstance(error, _CrashedError) and again:
                    crashed = True
                    _log.warning("starting tritonserver again: %s", error.message)
                    continue
                if not isinstance(error, ServerDiedError) or not _port_taken(error):
                    raise
                if attempt == START_ATTEMPTS or not self._wanted.chosen_freely:
                    raise SetupError(
                        f"tritonserver found a port taken: {error}", remedy="try again"
                    ) from error
            else:
                return

    async def restart(self) -> None:
        """Start again on the ports it had, so that clients find it; raises as :meth:`start`."""
        self._wanted = self._ports
        await self.start()

    def condemn(self, reason: str) -> None:
        """Let :meth:`wait` find the server dead, though it still answers.

        Args:
            reason: why what it answers from now on is not to be trusted.
        """
        self._reason = reason
        self._condemned.set()

    async def wait(self) -> NoReturn:
        """Wait until the server, or the process of one of its models, ends by itself.

        One that was condemned counts as ended.

        Raises:
            ServerDiedError: always; the message says why.
        """
        keeper, pump = self._keeper, self._pump
        if keeper is None or pump is None:
            raise ServerDiedError("tritonserver is not running")
        ended = asyncio.create_task(keeper.wait())
        condemned = asyncio.create_task(self._condemned.wait())
        try:
            while not ended.done():
                await asyncio.wait(
                    {ended, condemned},
                    timeout=WATCH_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if condemned.done() and not ended.done():
                    self._drains = False
                    raise ServerDiedError(self._reason)
                dead = first_dead(self._models)
                if dead is not None and not ended.done():
                    # A server that ends takes its models with it: let it tell its own reason.
                    await asyncio.wait({ended}, timeout=WATCH_SECONDS)
                    if not ended.done():
                        self._drains = False
                        raise ServerDiedError(
                            f"the process of model {dead} ended, perhaps for lack of memory"
                        )
            # What the server wrote last is the reason; a stub may hold the pipe a moment longer.
            await asyncio.wait({pump}, timeout=2.0)
            raise self._death(ended.result())
        finally:
            ended.cancel()
            condemned.cancel()

    async def stop(self) -> None:
        """Let requests under way finish, then end the server and all that belongs to it.

        A server that is still loading or has lost a model is ended at once: it would first
        wait for its models.
        """
        keeper, pump, scratch = self._keeper, self._pump, self._scratch
        self._keeper = self._pump = self._scratch = self._pid = None
        if keeper is not None:
            assert keeper.stdin is not None
            if not self._drains:
                keeper.stdin.write(b"kill")
            keeper.stdin.close()
            try:
                await asyncio.wait_for(keeper.wait(), KILL_SECONDS + 5.0)
            except asyncio.TimeoutError:
                keeper.kill()
                await keeper.wait()
        if pump is not None:
            await asyncio.wait({pump}, timeout=2.0)
            pump.cancel()
        if scratch is not None:
            scratch.remove()

    async def __aenter__(self) -> EmbeddedTriton:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, even when the task is being cancelled."""
        await asyncio.shield(self.stop())

    async def _launch(self, distribution: Distribution) -> None:
        """Start the keeper, and through it the server."""
        self._reader = LogReader()
        self._models, self._drains = {}, False
        self._condemned = asyncio.Event()
        self._scratch = scratch = create_scratch()
        try:
            backends = distribution.lay_out_backends(scratch.folder)
        except OSError as error:
            raise cannot_write(error) from error
        plan = {
            "command": distribution.command(
                name=scratch.name,
                repository=self.repository.resolve(),
                backends=backends,
                ports=self._ports,
                start_timeout=self._start_timeout,
                drain=DRAIN_SECONDS,
                traces=self._traces,
            ),
            "environment": distribution.environment(brief=self._brief),
            "scratch": str(scratch.folder),
            "shm_prefix": scratch.name,
            "grace": KILL_SECONDS,
        }
        try:
            self._keeper = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-S", str(Path(__file__).with_name("keeper.py"))),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(scratch.lock_fd,),
                limit=LINE_LIMIT,
            )
        except OSError as error:
            raise ServerDiedError(f"tritonserver cannot be started: {error.strerror}") from error
        scratch.release()
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(json.dumps(plan).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._keeper.stdin.drain()
        self._pump = asyncio.create_task(self._pump_log(self._keeper), name="triton-log")

    async def _pump_log(self, keeper: asyncio.subprocess.Process) -> None:
        """Read the log until its end, so that the server never blocks on a full pipe."""
        assert keeper.stdout is not None
        while True:
            try:
                raw = await keeper.stdout.readline()
            except ValueError:
                continue  # a line beyond the limit: asyncio has dropped it
            if not raw:
                return
            line = self._reader.read(raw.decode(errors="replace").rstrip("\n"))
            if self._pid is None and line is not None and line.text.startswith("keeper: pid "):
                self._pid = int(line.text.rpartition(" ")[2])
            elif line is not None:
                self._log(line)

    def _failure(self, reason: str) -> MuseTalkError:
        """Why a model does not load: what it is, or what it gets here."""
        if "shared memory" in reason:
            return SetupError(
                "Triton needs shared memory, and /dev/shm has none left",
                remedy="free some of it, or in a container give it more (--shm-size 256m)",
            )
        return RepositoryError(reason, remedy=f"rebuild {self.repository}")

    async def _until_ready(self) -> None:
        """Poll until this very server is ready on all ports.

        Another server may have taken the port that was free: the name tells them apart.
        """
        assert self._keeper is not None and self._scratch is not None
        deadline = time.monotonic() + self._start_timeout
        died = asyncio.create_task(self.wait())
        client = TritonClient(self.grpc_address)
        try:
            while True:
                await asyncio.wait({died}, timeout=POLL_SECONDS)
                if self._reader.model_failure:
                    # No need to wait for the other models: the server will end for this one.
                    raise self._failure(self._reader.model_failure)
                if died.done():
                    died.result()
                if model := self._reader.unheard(UNHEARD_SECONDS):
                    raise _CrashedError(
                        f"tritonserver does not hear that model {model} is ready: did the "
                        "machine stand still?",
                        remedy="try again",
                    )
                if time.monotonic() > deadline:
                    raise ServerDiedError(
                        f"tritonserver was not ready after {self._start_timeout:.0f} s",
                        remedy="a slow machine needs a longer MUSETALK_TRITON_START_TIMEOUT",
                    )
                if (
                    await listens(self._ports.metrics)
                    and await listens(self._ports.http)
                    and await _is_ready(client, self._scratch.name)
                    and self._pid is not None
                ):
                    self._models = await asyncio.to_thread(model_processes, self._pid)
                    self._drains = True
                    return
        finally:
            died.cancel()
            await asyncio.gather(died, return_exceptions=True)
            await client.close()

    def _death(self, status: int) -> ServerDiedError:
        """Why the server ended, in one line."""
        if status > 128:
            with contextlib.suppress(ValueError):
                number = signal.Signals(status - 128)
                hint = ", perhaps for lack of memory" if number == signal.SIGKILL else ""
                kind = _CrashedError if number in CRASHES else ServerDiedError
                return kind(f"tritonserver was killed by {number.name}{hint}")
        reason = self._reader.reason() or "it said nothing"
        return ServerDiedError(f"tritonserver ended with status {status}: {reason}")


def check_repository(repository: Path) -> None:
    """Refuse what is not a model repository before a server is started for it.

    Args:
        repository: the folder.

    Raises:
        RepositoryError: there is no such folder, or no model in it.
    """
    remedy = "build one with: musetalk export build"
    if not repository.is_dir():
        raise RepositoryError(f"model repository {repository} is not a folder", remedy=remedy)
    if not any(repository.glob("*/config.pbtxt")):
        raise RepositoryError(f"model repository {repository} holds no model", remedy=remedy)


def _port_taken(error: MuseTalkError) -> bool:
    """Whether the server ended because one of its ports was in use."""
    low = str(error).lower()
    return "already in use" in low or "address already" in low or "unable to bind" in low


async def _is_ready(client: TritonClient, name: str) -> bool:
    """Whether the server of that name is ready."""
    try:
        return await client.server_name() == name and await client.ready()
    except MuseTalkError:
        return False


def _to_logging(line: LogLine) -> None:
    """Default destination of the server's log."""
    _log.log(line.level, "%s", line.text)
