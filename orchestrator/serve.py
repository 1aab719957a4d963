"""Body of ``musetalk serve``: the HTTP service and Triton under one signal handler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Final

import uvicorn

from orchestrator.api import live
from orchestrator.api.admission import Admission
from orchestrator.api.http import Service, create_app
from orchestrator.api.keys import KeyFile, keys_path
from orchestrator.api.rpc.server import serve_rpc
from orchestrator.errors import MuseTalkError
from orchestrator.jobs.opening import open_videos
from orchestrator.jobs.videos import VideoJobs
from orchestrator.leftovers import remove_leftovers
from orchestrator.listening import check_loopback, listen
from orchestrator.logs import setup_logging
from orchestrator.rendering.library import open_library
from orchestrator.rendering.renderer import Renderer, open_renderer
from orchestrator.rendering.tasks import end
from orchestrator.replies.responder import responder
from orchestrator.sessions.opening import open_sessions
from orchestrator.settings import Settings
from orchestrator.telemetry import Telemetry
from orchestrator.tracing import setup_tracing, stop_tracing

LOG: Final = logging.getLogger("musetalk.serve")

_POLL_SECONDS: Final = 0.1
_CONNECTIONS: Final = 128


def serve(settings: Settings) -> int:
    """Run until SIGTERM or Ctrl-C.

    The port is open, and ``/healthz`` answers, while Triton still starts; ``/readyz`` says when
    work can come. At the end running requests get ``drain_seconds``, then Triton is stopped.

    Args:
        settings: of the process.

    Returns:
        0 after a signal.

    Raises:
        UsageError: the host is not loopback, and there are no API keys.
        SetupError: the port is taken, or traces are asked for and cannot be made.
        MuseTalkError: Triton could not be started; the message says why.
    """
    check_loopback(settings.host, keys=bool(KeyFile(keys_path(settings)).keys()))
    setup_logging(settings)
    setup_tracing(settings)
    remove_leftovers()
    try:
        asyncio.run(_serve(settings))
    finally:
        stop_tracing()
    return 0


class _Server(uvicorn.Server):
    """uvicorn that leaves the signals to ``_serve``, which stops more than the web server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle no signals."""
        yield


async def _serve(settings: Settings) -> None:
    telemetry = Telemetry()
    service = Service(settings, telemetry, Admission(settings.max_renders, telemetry))
    config = uvicorn.Config(
        live.attach(service, create_app(service)),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        ws_max_size=live.MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # media is compressed already
        timeout_graceful_shutdown=round(settings.drain_seconds),
    )
    server = _Server(config)
    listener = listen(settings.host, settings.port)
    address = "http://{}:{}".format(*listener.getsockname()[:2])
    LOG.info("listening on %s; Triton and the default avatar are being made ready", address)
    drained = asyncio.Event()
    web = asyncio.create_task(server.serve(sockets=[listener]))
    work = asyncio.create_task(_hold_renderer(service, address, drained))
    with _signals(server) as signalled:
        stopping = asyncio.create_task(signalled.wait())
        try:
            await asyncio.wait({web, work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            LOG.info("stopping")
            stopping.cancel()
            if signalled.is_set():
                await _drain(service, server)
            server.should_exit = True
            await asyncio.gather(web, stopping, return_exceptions=True)
            if service.renderer is None:
                work.cancel()
            drained.set()
            (outcome,) = await asyncio.gather(work, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome


async def _drain(service: Service, server: _Server) -> None:
    """Let turns end before connections are closed; a second signal ends the wait."""
    service.draining = True
    if service.sessions is None:
        return
    turns = asyncio.create_task(service.sessions.drain(service.settings.drain_seconds))
    while not turns.done() and not server.force_exit:
        await asyncio.wait({turns}, timeout=_POLL_SECONDS)
    await end(turns)


@contextlib.asynccontextmanager
async def _open_videos(service: Service, renderer: Renderer) -> AsyncIterator[VideoJobs]:
    """Make videos in the background, with a language model of their own."""
    answers = responder(service.settings)
    try:
        async with open_videos(
            service.settings,
            renderer,
            answers,
            lambda result: service.telemetry.videos.labels(result).inc(),
            service.access.count_seconds,
        ) as videos:
            yield videos
    finally:
        await answers.close()


@contextlib.asynccontextmanager
async def _open_rpc(service: Service) -> AsyncIterator[None]:
    """Serve gRPC too, where the settings give it a port."""
    settings = service.settings
    if settings.grpc_port is None:
        yield
        return
    async with serve_rpc(service, settings.host, settings.grpc_port) as port:
        LOG.info("gRPC on %s:%d", settings.host, port)
        yield


async def _hold_renderer(service: Service, address: str, drained: asyncio.Event) -> None:
    """Keep Triton running for the service until its last request is answered."""
    settings = service.settings
    async with (
        open_renderer(settings) as renderer,
        open_library(settings, renderer) as library,
        open_sessions(settings, renderer, service.telemetry) as sessions,
        _open_videos(service, renderer) as videos,
        _open_rpc(service),
    ):
        service.telemetry.watch(renderer.inference)
        try:
            await renderer.warm_up()
            await sessions.warm_up()
        except MuseTalkError as error:
            LOG.warning("the first video may be late or fail: %s", error)
        service.renderer, service.library = renderer, library
        service.sessions, service.videos = sessions, videos
        LOG.info("ready: open %s in a browser", address)
        await drained.wait()


@contextlib.contextmanager
def _signals(server: uvicorn.Server) -> Iterator[asyncio.Event]:
    """An event that SIGTERM and Ctrl-C set; the second signal ends running requests at once."""
    event = asyncio.Event()

    def stop() -> None:
        server.force_exit = event.is_set()
        event.set()

    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield event
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
