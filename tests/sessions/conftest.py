"""A session whose media, model and voice are small fakes; time is real, sentences are short."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.avatars.masks import BlendMask
from orchestrator.errors import NotFoundError
from orchestrator.inference.schedule import Scheduler
from orchestrator.replies.responder import Message
from orchestrator.sessions.conversation import Conversation, MemoryConversations, hash_token
from orchestrator.sessions.profiles import find_profile
from orchestrator.sessions.registry import Sessions
from orchestrator.sessions.session import Session
from orchestrator.sessions.shared import Shared
from orchestrator.sessions.talkers import Talkers
from orchestrator.settings import Settings
from orchestrator.speech.tts import SpeechChunk
from orchestrator.telemetry import Telemetry

U8 = npt.NDArray[np.uint8]
F16 = npt.NDArray[np.float16]
I16 = npt.NDArray[np.int16]


@dataclass(frozen=True)
class FakeFragment:
    data: bytes
    start: float
    duration: float
    kind: str
    keyframe: bool = True
    frames: int = 0


class FakeMedia:
    """A timeline of fragments whose data is their number; speech comes out piece by piece."""

    mime = "video/mp4"
    init = b"init"

    def __init__(self, fps: int = 25) -> None:
        self.fps = fps
        self.end = 0.0
        self.frames: list[U8] = []
        self.sound: list[I16] = []
        self.cuts: list[float] = []
        self.turns = 0
        self.closed = False
        self.fail: Exception | None = None

    def _fragment(self, kind: str, frames: int) -> FakeFragment:
        fragment = FakeFragment(b"x", self.end, frames / self.fps, kind, True, frames)
        self.end = round((self.end + frames / self.fps) * self.fps) / self.fps
        return fragment

    def prepare(self) -> None:
        pass

    def idle(self) -> FakeFragment:
        return self._fragment("idle", math.ceil(self.fps / 2))

    async def begin_turn(self) -> None:
        self.turns += 1

    async def speech(
        self, frames: Sequence[U8], sound: I16, last: bool = False
    ) -> list[FakeFragment]:
        if self.fail is not None:
            raise self.fail
        assert len(sound) == len(frames) * 48000 // self.fps
        self.frames += frames
        self.sound.append(sound)
        return [self._fragment("speech", len(frames))]

    async def end_turn(self) -> list[FakeFragment]:
        return []

    async def cut(self, at: float) -> float:
        self.cuts.append(at)
        self.end = math.ceil(at * self.fps - 1e-6) / self.fps
        return self.end

    async def close(self) -> None:
        self.closed = True


class FakeClient:
    """Gets everything; plays in real time by confirming at once."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.messages: list[Any] = []
        self.confirms = True
        self.gone = False

    def emit(self, event: str, payload: dict[str, Any]) -> None:
        self.events.append((event, payload))

    def media(self, message: Any) -> None:
        self.messages.append(message)
        self.events.append(("media", {"kind": message.kind, "start": message.start}))
        if self.confirms and self.session is not None:
            asyncio.get_running_loop().call_soon(self.session.confirm, message.sequence)

    def hang_up(self) -> None:
        self.gone = True

    def of(self, event: str) -> list[dict[str, Any]]:
        return [payload for name, payload in self.events if name == event]

    async def until(self, condition: Callable[[], Any], seconds: float = 10) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while not condition():
            assert asyncio.get_running_loop().time() < end, [
                event for event in self.events if event[0] != "media"
            ]
            await asyncio.sleep(0.01)

    async def until_state(self, state: str, times: int = 1) -> None:
        def reached() -> bool:
            return [event["state"] for event in self.of("state")].count(state) >= times

        await self.until(reached)


class FakeVoice:
    """Speaks 60 ms for each character; each sample is the length of the text."""

    name = "fake"

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.running = 0
        self.delay = 0.0
        self.error: Exception | None = None

    async def synthesize(
        self, text: str, *, language: str | None = None
    ) -> AsyncGenerator[SpeechChunk, None]:
        self.texts.append(text)
        self.running += 1
        try:
            await asyncio.sleep(self.delay)
            if self.error is not None:
                raise self.error
            yield SpeechChunk(np.full(960 * len(text), 100 + len(text), np.int16), 16000)
        finally:
            self.running -= 1

    async def close(self) -> None:
        pass


@dataclass
class FakeModel:
    """Mouths that are as grey as the Whisper step that the frame reads."""

    delay: float = 0.0
    batches: list[int] = field(default_factory=list)
    running: int = 0
    error: Exception | None = None

    async def encode_speech(self, mel: Any, steps: int, *, timeout: float | None = None) -> F16:
        hidden = np.zeros((steps, 5, 384), np.float16)
        hidden[:] = np.arange(1, steps + 1)[:, None, None]
        return hidden

    async def lipsync(self, latents: F16, audio: F16, *, timeout: float | None = None) -> U8:
        self.batches.append(len(latents))
        self.running += 1
        try:
            await asyncio.sleep(self.delay * len(latents))
            if self.error is not None:
                raise self.error
        finally:
            self.running -= 1
        faces = np.empty((len(latents), 256, 256, 3), np.uint8)
        faces[:] = np.minimum(audio[:, 20, 0], 255).astype(np.uint8)[:, None, None, None]
        return faces


class FakeResponder:
    """Answers with the words it was given, one after the other."""

    name = "fake"
    live = True

    def __init__(self) -> None:
        self.words = ["Good", " day", " to", " you."]
        self.pause = 0.0
        self.running = 0
        self.asked: list[tuple[str, tuple[Message, ...]]] = []
        self.error: Exception | None = None

    async def reply(
        self, message: str, history: Sequence[Message], **_: Any
    ) -> AsyncGenerator[str, None]:
        self.asked.append((message, tuple(history)))
        self.running += 1
        try:
            for word in self.words:
                await asyncio.sleep(self.pause)
                yield word
            if self.error is not None:
                raise self.error
        finally:
            self.running -= 1

    async def close(self) -> None:
        pass


class FakeAvatar:
    """Frames of 96x64 whose blue is 10 times their index; the face is a square in the middle."""

    name = "Ada"
    fps = 25
    width, height = 96, 64

    def __init__(self, frames: int = 5) -> None:
        self.count = frames
        self.latents = np.zeros((frames, 8, 32, 32), np.float16)
        self.boxes = np.tile(np.array([32, 16, 64, 48], np.int32), (frames, 1))
        self.masks = [BlendMask(36, 20, np.full((24, 24), 255, np.uint8))] * frames

    def __len__(self) -> int:
        return self.count

    def frame(self, index: int) -> U8:
        frame = np.zeros((self.height, self.width, 3), np.uint8)
        frame[..., 0] = 10 * index
        frame.setflags(write=False)
        return frame

    def cycle_index(self, index: int) -> int:
        place = index % (2 * self.count)
        return place if place < self.count else 2 * self.count - 1 - place


class World:
    """Makes sessions that share one model, voice and responder."""

    def __init__(self) -> None:
        self.settings = Settings(_env_file=None)
        self.voice = FakeVoice()
        self.model = FakeModel()
        self.responder = FakeResponder()
        self.avatar = FakeAvatar()
        self.talkers = Talkers(2)
        self.conversations = MemoryConversations()
        self.telemetry = Telemetry()
        self.scheduler = Scheduler()
        self.medias: list[FakeMedia] = []
        self.sessions: list[Session] = []

    def shared(self) -> Shared:
        model: Any = self.model
        return Shared(
            self.settings,
            model,
            self.scheduler,
            self.voice,
            self.responder,
            self.talkers,
            self.conversations,
            self.telemetry,
        )

    def registry(self) -> Sessions:
        async def avatar(name: str | None) -> Any:
            if name not in (None, "Ada"):
                raise NotFoundError(f"there is no avatar {name!r}")
            return self.avatar

        async def make_media(avatar: Any, profile: Any) -> Any:
            self.medias.append(FakeMedia(profile.grid))
            return self.medias[-1]

        renderer: Any = SimpleNamespace(avatar=avatar)
        return Sessions(renderer, self.shared(), make_media)

    async def join(self, profile: str = "quality") -> tuple[Session, FakeClient, FakeMedia]:
        chosen = find_profile(profile)
        media = FakeMedia(chosen.grid)
        self.medias.append(media)
        number = str(len(self.medias))
        conversation = Conversation(number, hash_token(number), "Ada", profile, "en")
        anything: Any = media
        avatar: Any = self.avatar
        session = Session(conversation, avatar, chosen, anything, self.shared())
        self.sessions.append(session)
        client = FakeClient()
        client.session = session
        await session.attach(client, None)
        session.start_media()
        return session, client, media

    async def close(self) -> None:
        for session in self.sessions:
            await session.close()


@pytest.fixture
def make_client() -> type[FakeClient]:
    return FakeClient


@pytest.fixture
async def world() -> AsyncGenerator[World, None]:
    made = World()
    yield made
    await made.close()
