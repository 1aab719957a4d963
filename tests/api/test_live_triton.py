"""A real Triton and the real voice: readers vanish, and their parts are killed in mid-sentence."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import uvicorn

from loadtests.loopback_llm import Exchange, LoopbackLlm, loopback_llm
from loadtests.viewer import Viewer
from orchestrator.api import live
from orchestrator.api.admission import Admission
from orchestrator.api.http import Service, create_app
from orchestrator.api.musetalk.v1 import musetalk_pb2 as pb
from orchestrator.api.musetalk.v1 import musetalk_pb2_grpc as rpc
from orchestrator.api.rpc.server import serve_rpc
from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.masks import BlendMask
from orchestrator.avatars.media import encode
from orchestrator.rendering.renderer import Renderer, open_renderer
from orchestrator.sessions.opening import open_sessions
from orchestrator.settings import Settings
from orchestrator.telemetry import Telemetry

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.timeout(600)]

TEXT = "This is a sentence of some length, which somebody tries to stop in the middle of it."


def small_avatar() -> Avatar:
    jpeg = encode(np.full((96, 128, 3), 90, np.uint8))
    box = np.array([[32, 16, 96, 80]] * 5, np.int32)
    return Avatar(
        id="small",
        name="small",
        width=128,
        height=96,
        jpegs=(jpeg,) * 5,
        latents=np.zeros((5, 8, 32, 32), np.float16),
        boxes=box,
        squares=box,
        masks=(BlendMask(36, 30, np.full((50, 56), 255, np.uint8)),) * 5,
        metadata={},
    )


@asynccontextmanager
async def running(cache: Path) -> AsyncIterator[tuple[str, Service, LoopbackLlm]]:
    async with loopback_llm() as llm:
        settings = Settings(_env_file=None, cache_dir=cache, llm_base_url=llm.url, max_talkers=2.0)
        telemetry = Telemetry()
        service = Service(settings, telemetry, Admission(1, telemetry))
        async with (
            open_renderer(settings) as renderer,
            open_sessions(settings, renderer, telemetry) as sessions,
        ):
            avatar = small_avatar()

            async def only_one(name: str | None, progress: object = None) -> Avatar:
                return avatar

            renderer.avatar = only_one  # type: ignore[method-assign]

            async def usable(owner: str, identity: str | None) -> str:
                return avatar.name

            library: Any = SimpleNamespace(usable=usable)
            service.sessions, service.renderer, service.library = sessions, renderer, library
            listener = socket.create_server(("127.0.0.1", 0))
            server = uvicorn.Server(
                uvicorn.Config(
                    live.attach(service, create_app(service)),
                    log_config=None,
                    ws_per_message_deflate=False,
                )
            )
            serving = asyncio.create_task(server._serve([listener]))
            try:
                yield "http://127.0.0.1:{1}".format(*listener.getsockname()), service, llm
            finally:
                server.should_exit = True
                await serving


def process_of(name: str) -> psutil.Process:
    """The youngest of ours: other tests of this run may have one too."""

    def matches(process: psutil.Process) -> bool:
        try:
            words = [process.name(), *process.cmdline()]
        except psutil.Error:
            return False
        return process.status() != psutil.STATUS_ZOMBIE and any(name in word for word in words)

    children = psutil.Process().children(recursive=True)
    return max(filter(matches, children), key=psutil.Process.create_time)


async def speaking(viewer: Viewer, turn: str) -> None:
    await viewer.until(
        lambda: any(s == {"state": "speaking", "turn": turn} for s in viewer.of("state"))
    )


async def still_works(viewer: Viewer, seconds: float) -> None:
    """The session speaks again, at once or as soon as what was killed is back."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        turn = await viewer.begin("say", {"text": "Still here."})
        report = await viewer.performance(turn)
        await viewer.idle_again(turn)
        if not viewer.of("error", turn) and report["frames"] > report["frames_late"]:
            return
        assert loop.time() < end, viewer.of("error", turn)


async def an_interruption_ends_the_work(url: str, llm: LoopbackLlm, renderer: Renderer) -> None:
    llm.reply = lambda message: 20 * TEXT
    async with Viewer(url) as viewer:
        turn = await viewer.begin("ask", {"text": "Hello?"})
        await speaking(viewer, turn)
        await asyncio.sleep(1)
        inference: Any = renderer.inference
        before = viewer.position
        assert (await viewer.call("interrupt"))["ok"]
        assert viewer.of("flush")[-1]["from_pts"] - before < 0.5
        rows = (await inference.statistics("unet")).rows
        assert sum(renderer.scheduler.running().values()) == 0
        await asyncio.sleep(3)
        assert llm.active == 0
        # What Triton computed at that moment it ends: two batches of eight.
        assert (await inference.statistics("unet")).rows <= rows + 16
        assert viewer.media[-1].kind == "idle"


async def the_work_ends(service: Service, leave: Any) -> None:
    """After ``leave`` Triton ends what it has begun, within two seconds, and gets no more."""
    renderer = service.require_renderer()
    inference: Any = renderer.inference
    rows = (await inference.statistics("unet")).rows
    leave()
    left = time.monotonic()
    while service.admission._taken or sum(renderer.scheduler.running().values()):
        assert time.monotonic() - left < 2, "the work goes on without its reader"
        await asyncio.sleep(0.02)
    await asyncio.sleep(max(0.0, left + 2 - time.monotonic()))
    ended = (await inference.statistics("unet")).rows
    assert ended <= rows + 32
    await asyncio.sleep(1)
    assert (await inference.statistics("unet")).rows == ended


async def a_vanished_reader_ends_the_work(url: str, service: Service) -> None:
    long = " ".join([TEXT] * 12)
    # Over HTTP: the socket is cut without a word.
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    body = json.dumps({"text": long, "stream": True}).encode()
    head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    writer.write(f"POST /v1/speak HTTP/1.1\r\n{head}\r\n\r\n".encode() + body)
    assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    assert await asyncio.wait_for(reader.read(10), 60)
    await the_work_ends(service, writer.transport.abort)
    # Over gRPC: the connection is closed under the call.
    async with serve_rpc(service, "127.0.0.1", 0) as port:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        call = rpc.MuseTalkStub(channel).Speak(pb.SpeakRequest(text=long))  # type: ignore[no-untyped-call]
        assert (await asyncio.wait_for(call.read(), 60)).fragment.data
        closing: list[Any] = []
        await the_work_ends(service, lambda: closing.append(asyncio.create_task(channel.close())))
        await asyncio.gather(*closing)


async def whatever_dies_the_session_lives(url: str, llm: LoopbackLlm) -> None:
    llm.reply = lambda message: TEXT
    async with Viewer(url) as viewer:
        # A conversation that works.
        turn = await viewer.begin("ask", {"text": "Hello?"})
        report = await viewer.performance(turn)
        assert report["first_token"] <= report["first_audio"] <= report["first_frame"]
        await viewer.idle_again(turn)
        said = [line for line in viewer.of("transcript", turn) if line["role"] == "avatar"]
        assert " ".join(line["text"] for line in said) == TEXT

        # The language model.
        async def hang_up(exchange: Exchange) -> None:
            await exchange.start()
            await exchange.token("Well, I would say ")
            exchange.writer.transport.abort()

        llm.answer = hang_up
        turn = await viewer.begin("ask", {"text": "Again?"})
        await viewer.idle_again(turn)
        (error,) = viewer.of("error", turn)
        assert error["message"] and error["code"] == "llm"
        llm.answer = None
        await still_works(viewer, 10)

        # Triton, the voice, the encoders.
        turn = await viewer.begin("say", {"text": TEXT})
        await speaking(viewer, turn)
        process_of("tritonserver").kill()
        await viewer.idle_again(turn, 90)
        await still_works(viewer, 90)
        turn = await viewer.begin("say", {"text": TEXT})
        process_of("piper_worker").kill()
        await viewer.idle_again(turn)
        await still_works(viewer, 20)
        turn = await viewer.begin("say", {"text": TEXT})
        await speaking(viewer, turn)
        process_of("libx264").kill()
        await viewer.idle_again(turn)
        await still_works(viewer, 20)
        assert viewer.problems == []


async def test_a_session_outlives_interruptions_and_deaths(tmp_path: Path) -> None:
    """One server for both: its start takes longer than the rest."""
    async with running(tmp_path) as (url, service, llm):
        await an_interruption_ends_the_work(url, llm, service.require_renderer())
        await a_vanished_reader_ends_the_work(url, service)
        await whatever_dies_the_session_lives(url, llm)
