"""The service on a real socket, with a renderer that needs no Triton."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
import uvicorn

from orchestrator.api import live
from orchestrator.api.admission import Admission
from orchestrator.api.http import Service, create_app
from orchestrator.api.rpc.server import serve_rpc
from orchestrator.jobs.opening import open_videos
from orchestrator.rendering.library import open_library
from orchestrator.replies.embedded import EmbeddedResponder
from orchestrator.sessions.opening import open_sessions
from orchestrator.settings import Settings
from orchestrator.telemetry import Telemetry

FAKES = Path(__file__).parent.parent / "jobs" / "fakes.py"


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    name = "musetalk_job_fakes"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, FAKES)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@dataclass
class Running:
    """A service that answers on a port."""

    url: str
    service: Service
    inference: Any
    voice: Any


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start_service(fakes: ModuleType, tmp_path: Path) -> Start:
    """Starts services; arguments are settings, ``delay`` seconds a batch."""

    @asynccontextmanager
    async def start(delay: float = 0.0, **values: Any) -> AsyncIterator[Running]:
        given = {"cache_dir": tmp_path / "cache", "max_talkers": 2.0, "_env_file": None, **values}
        settings = Settings(**given)
        inference, voice = fakes.FakeInference(delay), fakes.FakeVoice()
        renderer = fakes.fake_renderer(settings, inference=inference, voice=voice)
        telemetry = Telemetry()
        service = Service(settings, telemetry, Admission(2, telemetry), renderer)
        listener = socket.create_server(("127.0.0.1", 0))
        # What the kernel takes for a client that does not read; it would grow to megabytes.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        server = uvicorn.Server(
            uvicorn.Config(create_app(service), log_config=None, access_log=False)
        )
        async with (
            open_library(settings, renderer) as service.library,
            open_videos(
                settings,
                renderer,
                EmbeddedResponder(),
                lambda result: None,
                service.access.count_seconds,
            ) as service.videos,
        ):
            serving = asyncio.create_task(server._serve([listener]))
            try:
                url = "http://127.0.0.1:{1}".format(*listener.getsockname())
                yield Running(url, service, inference, voice)
            finally:
                server.should_exit = True
                await serving

    return start


OpenDoors = Callable[[Service], AbstractAsyncContextManager[tuple[str, Any]]]


@pytest.fixture
def open_doors() -> OpenDoors:
    """Adds live sessions to a service: an address for HTTP with Socket.IO, a channel for gRPC."""

    @asynccontextmanager
    async def opened(service: Service) -> AsyncIterator[tuple[str, Any]]:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            live.attach(service, create_app(service)),
            log_config=None,
            ws_max_size=live.MAX_MESSAGE_BYTES,
            timeout_graceful_shutdown=10,
        )
        server = uvicorn.Server(config)
        async with (
            open_sessions(service.settings, service.renderer, service.telemetry) as sessions,
            serve_rpc(service, "127.0.0.1", 0) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            service.sessions = sessions
            serving = asyncio.create_task(server._serve([listener]))
            try:
                yield "http://127.0.0.1:{1}".format(*listener.getsockname()), channel
            finally:
                server.should_exit = True
                await serving

    return opened
