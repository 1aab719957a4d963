"""One way to inference for the whole service: the operator's Triton, or an embedded one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from orchestrator.errors import MuseTalkError, ServerDiedError, UnavailableError
from orchestrator.inference.client import TritonClient
from orchestrator.inference.protocol import Inference
from orchestrator.inference.server import EmbeddedTriton
from orchestrator.inference.triton_log import LogLine
from orchestrator.settings import Settings, settings

MAX_RESTARTS = 3
"""Restarts within the window; more than that is not bad luck."""
RESTART_WINDOW = 600.0
RESTART_PAUSE = 1.0

_log = logging.getLogger("musetalk.inference")


@contextlib.asynccontextmanager
async def connect(settings: Settings, *, brief: bool = False) -> AsyncIterator[Inference]:
    """Give a client of the Triton that the settings name, or of an embedded one.

    An embedded server that dies, or whose memory may be spoilt, is started again on the same
    ports: calls fail with UnavailableError meanwhile, and with ServerDiedError when it was given
    up.

    Args:
        settings: ``triton``, ``repository``, ``triton_start_timeout``, ``inference_timeout``.
        brief: for one piece of work: an embedded server is ready sooner and a little slower.

    Yields:
        The client, ready to use.

    Raises:
        UnavailableError: nobody answers at the address of the settings.
        SetupError: this machine cannot run the embedded server.
        RepositoryError: a model cannot be loaded.
        ServerDiedError: the embedded server did not start.
    """
    if settings.triton is not None:
        token = settings.triton_token
        async with TritonClient(
            settings.triton,
            default_timeout=settings.inference_timeout,
            tls_ca=settings.triton_tls_ca,
            token=token.get_secret_value() if token else None,
        ) as client:
            if not await client.ready():
                raise UnavailableError(
                    f"Triton at {settings.triton} is not ready",
                    remedy="check the address and that server's log",
                )
            yield client
        return
    supervisor = Supervisor(
        settings.repository,
        start_timeout=settings.triton_start_timeout,
        brief=brief,
        traces=settings.otel_triton_endpoint,
    )
    async with (
        supervisor,
        TritonClient(
            supervisor.server.grpc_address,
            default_timeout=settings.inference_timeout,
            why_down=lambda: supervisor.given_up,
            on_stall=lambda model: supervisor.server.condemn(
                f"the process of model {model} stood still: is the machine overloaded, or was it "
                "suspended?"
            ),
        ) as client,
    ):
        yield client


class Supervisor:
    """Keeps one embedded server running, within reason."""

    def __init__(
        self,
        repository: Path,
        *,
        start_timeout: float,
        brief: bool = False,
        traces: str | None = None,
    ) -> None:
        """Describe the server.

        Args:
            repository: folder of models.
            start_timeout: seconds until all models must be loaded.
            brief: ready sooner, and a little slower.
            traces: OTLP/HTTP address for its spans.
        """
        self.server = EmbeddedTriton(
            repository, start_timeout=start_timeout, brief=brief, traces=traces
        )
        self.restarts = 0
        """How often the server was started again."""
        self.given_up: MuseTalkError | None = None
        """Why it is not started again any more."""
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Supervisor:
        """Start the server; raises what :meth:`EmbeddedTriton.start` raises."""
        await self.server.start()
        self._watch = asyncio.create_task(self._keep_running(), name="triton-supervisor")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the server for good."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await asyncio.shield(self.server.stop())

    async def _keep_running(self) -> None:
        """Start the server again each time it dies, until it dies too often."""
        deaths: deque[float] = deque(maxlen=MAX_RESTARTS + 1)
        cause = await self._until_death(start=False)
        while True:
            deaths.append(time.monotonic())
            recent = [moment for moment in deaths if deaths[-1] - moment < RESTART_WINDOW]
            if len(recent) > MAX_RESTARTS:
                self.given_up = ServerDiedError(
                    f"the embedded tritonserver died {len(recent)} times "
                    f"in {RESTART_WINDOW / 60:.0f} minutes: {cause}",
                    remedy="see its log, then restart the service",
                )
                _log.critical("%s", self.given_up)
                return
            _log.error("%s; starting it again", cause)
            self.restarts += 1
            await self.server.stop()
            await asyncio.sleep(RESTART_PAUSE)
            cause = await self._until_death(start=True)

    async def _until_death(self, *, start: bool) -> MuseTalkError:
        """Wait for the server's death, or for its failure to start, and return the cause."""
        try:
            if start:
                await self.server.restart()
                _log.warning("tritonserver runs again at %s", self.server.grpc_address)
            await self.server.wait()
        except MuseTalkError as cause:
            return cause


def run_triton(repository: Path, grpc_port: int, http_port: int, metrics_port: int) -> int:
    """Run an embedded server until Ctrl-C or SIGTERM: the body of ``musetalk triton``.

    Prints the addresses when every model is ready; the server's log goes to standard error.

    Args:
        repository: folder of models.
        grpc_port: 0 takes a free one.
        http_port: 0 takes a free one.
        metrics_port: 0 takes a free one.

    Returns:
        Exit status 0 after a requested stop.

    Raises:
        SetupError: the machine lacks something, or a port is taken.
        RepositoryError: a model cannot be loaded.
        ServerDiedError: the server ended by itself.
    """
    server = EmbeddedTriton(
        repository,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        start_timeout=settings().triton_start_timeout,
        log=_to_stderr,
    )
    asyncio.run(_serve_until_signal(server))
    return 0


async def _serve_until_signal(server: EmbeddedTriton) -> None:
    """Start, report, wait for a signal or a death, stop."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    stop = asyncio.create_task(asked.wait())
    run = asyncio.create_task(_serve(server))
    try:
        await asyncio.wait({stop, run}, return_when=asyncio.FIRST_COMPLETED)
        if run.done():
            run.result()
    finally:
        for task in (stop, run):
            task.cancel()
        await asyncio.gather(stop, run, return_exceptions=True)


async def _serve(server: EmbeddedTriton) -> None:
    """Start the server, say where it is, and wait for its end."""
    async with server:
        print(  # noqa: T201 -- the command's own output
            f"Triton is ready: gRPC {server.grpc_address}, HTTP http://{server.http_address}, "
            f"metrics http://{server.metrics_address}/metrics",
            flush=True,
        )
        await server.wait()


def _to_stderr(line: LogLine) -> None:
    """Pass the server's log on, as long as somebody reads it."""
    with contextlib.suppress(OSError):
        print(line.text, file=sys.stderr, flush=True)  # noqa: T201 -- the command's own output
