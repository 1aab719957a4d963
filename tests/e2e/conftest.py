"""A running service: real sockets, sessions and media; the model and the voice are arithmetic.

The picture shows what the sound does: where a sound is loud the face is white. So the received
media alone tells whether they belong together.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import uvicorn

from loadtests.loopback_llm import LoopbackLlm, loopback_llm
from loadtests.viewer import Viewer
from orchestrator.api import live
from orchestrator.api.admission import Admission
from orchestrator.api.http import Service, create_app
from orchestrator.avatars.masks import BlendMask
from orchestrator.errors import SpeechError, UnavailableError
from orchestrator.inference.schedule import Scheduler
from orchestrator.sessions.opening import open_sessions
from orchestrator.sessions.registry import Sessions
from orchestrator.settings import Settings
from orchestrator.speech.fallback import FallbackSynthesizer
from orchestrator.speech.tts import SpeechChunk
from orchestrator.telemetry import Telemetry

U8 = npt.NDArray[np.uint8]
F16 = npt.NDArray[np.float16]
I16 = npt.NDArray[np.int16]

LOUD = 0.5
"""Log-mel that a full-scale click exceeds, and quiet noise does not."""


class LoudnessModel:
    """Makes a white face where the sound is loud, else a black one."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.running = 0
        self.dead = False
        self.refused = 0

    async def encode_speech(
        self, mel: npt.NDArray[np.float32], steps: int, *, timeout: float | None = None
    ) -> F16:
        self._check()
        loudness = mel.max(0)[: 2 * steps].reshape(steps, 2).max(1)
        hidden = np.zeros((steps, 5, 384), np.float16)
        hidden[:] = loudness[:, None, None] > LOUD
        return hidden

    async def lipsync(self, latents: F16, audio: F16, *, timeout: float | None = None) -> U8:
        self.running += 1
        try:
            await asyncio.sleep(self.delay)
            self._check()
        finally:
            self.running -= 1
        # Steps 4 and 5 of the ten, of five rows each, are those of the frame itself.
        white = audio[:, 20:30, 0].max(1) > 0.5
        faces = np.zeros((len(latents), 256, 256, 3), np.uint8)
        faces[white] = 255
        return faces

    def _check(self) -> None:
        if self.dead:
            self.refused += 1
            raise UnavailableError("killed")


class SignalVoice:
    """Speaks what a test puts there, whatever the text; else a hum of 50 ms a letter."""

    name = "signal"

    def __init__(self) -> None:
        self.sounds: dict[str, I16] = {}
        self.running = 0
        self.broken = False

    async def synthesize(
        self, text: str, *, language: str | None = None
    ) -> AsyncGenerator[SpeechChunk, None]:
        self.running += 1
        try:
            await asyncio.sleep(0.02)
            if self.broken:
                raise SpeechError("out of order")
            yield SpeechChunk(self.sounds.get(text, hum(0.05 * len(text))), 16_000)
        finally:
            self.running -= 1

    async def close(self) -> None:
        pass


def hum(seconds: float, frequency: float = 200.0, level: float = 0.2) -> I16:
    moments = np.arange(int(seconds * 16_000)) / 16_000
    return (level * 32_000 * np.sin(2 * np.pi * frequency * moments)).astype(np.int16)


class GreyAvatar:
    """A grey picture of 96x64 with a face in its middle."""

    id = name = "grey"
    fps = 25
    width, height = 96, 64

    def __init__(self) -> None:
        self.latents = np.zeros((5, 8, 32, 32), np.float16)
        self.boxes = np.tile(np.array([32, 16, 64, 48], np.int32), (5, 1))
        self.masks = [BlendMask(36, 20, np.full((24, 24), 255, np.uint8))] * 5
        self._frame = np.full((64, 96, 3), 90, np.uint8)
        self._frame.setflags(write=False)

    def __len__(self) -> int:
        return 5

    def frame(self, index: int) -> U8:
        return self._frame.view()

    def cycle_index(self, index: int) -> int:
        place = index % 10
        return place if place < 5 else 9 - place


class StageRenderer:
    """What sessions ask of a renderer."""

    def __init__(self, inference: Any = None) -> None:
        self.inference = inference or LoudnessModel()
        self.scheduler = Scheduler()
        self.voice = FallbackSynthesizer(SignalVoice(), SignalVoice())
        self._avatar = GreyAvatar()

    async def avatar(self, name: str | None, progress: object = None) -> GreyAvatar:
        return self._avatar


class Stage:
    """The running service and what it is made of."""

    def __init__(self, url: str, llm: LoopbackLlm, service: Service, renderer: Any) -> None:
        self.url, self.llm, self.service = url, llm, service
        self.model: LoudnessModel = renderer.inference
        self.voice: SignalVoice = renderer.voice._primary
        self.second_voice: SignalVoice = renderer.voice._secondary

    @property
    def sessions(self) -> Sessions:
        assert self.service.sessions is not None
        return self.service.sessions

    def metric(self, name: str) -> float:
        """Value of one series."""
        for line in self.service.telemetry.render().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def viewer(self, **options: Any) -> Viewer:
        return Viewer(self.url, options)


@asynccontextmanager
async def running_stage(inference: Any = None, **options: Any) -> AsyncIterator[Stage]:
    async with loopback_llm() as llm:
        settings = Settings(llm_base_url=llm.url, _env_file=None, **options)
        telemetry = Telemetry()
        service = Service(settings, telemetry, Admission(1, telemetry))
        renderer: Any = StageRenderer(inference)
        async with open_sessions(settings, renderer, telemetry) as sessions:
            service.sessions = sessions
            listener = socket.create_server(("127.0.0.1", 0))
            server = uvicorn.Server(
                uvicorn.Config(
                    live.attach(service, create_app(service)),
                    log_config=None,
                    access_log=False,
                    ws_max_size=live.MAX_MESSAGE_BYTES,
                    ws_per_message_deflate=False,
                )
            )
            serving = asyncio.create_task(server._serve([listener]))
            try:
                url = "http://127.0.0.1:{1}".format(*listener.getsockname())
                yield Stage(url, llm, service, renderer)
            finally:
                server.should_exit = True
                await serving


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running_stage(max_talkers=12.0) as made:
        yield made


@pytest.fixture
def stage_over() -> Callable[..., AbstractAsyncContextManager[Stage]]:
    """Makes a stage over another model than the arithmetic one."""
    return running_stage


@pytest.fixture
def make_hum() -> Callable[..., I16]:
    return hum
