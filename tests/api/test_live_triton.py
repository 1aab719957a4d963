"""Live sessions over a real Triton and the real voice, whose parts are killed in mid-sentence."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import uvicorn

from loadtests.loopback_llm import Exchange, LoopbackLlm, loopback_llm
from loadtests.viewer import Viewer
from orchestrator.api import live
from orchestrator.api.admission import Admission
from orchestrator.api.http import Service, create_app
from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.masks import BlendMask
from orchestrator.avatars.media import encode
from orchestrator.rendering.renderer import Renderer, open_renderer
from orchestrator.sessions.registry import open_sessions
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
async def running(cache: Path) -> AsyncIterator[tuple[str, Renderer, LoopbackLlm]]:
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
            service.sessions = sessions
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
                yield "http://127.0.0.1:{1}".format(*listener.getsockname()), renderer, llm
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
    async with running(tmp_path) as (url, renderer, llm):
        await an_interruption_ends_the_work(url, llm, renderer)
        await whatever_dies_the_session_lives(url, llm)
