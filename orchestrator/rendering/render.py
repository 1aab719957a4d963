"""From speech and an avatar to frames: batches through Triton, several on their way, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from orchestrator.rendering.composite import composite
from orchestrator.rendering.persist import persist
from orchestrator.rendering.tasks import end
from orchestrator.rendering.timings import StageTimes
from orchestrator.speech.features import SpeechFeatures, speech_features
from orchestrator.speech.windows import Alignment

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar
    from orchestrator.inference import Inference

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]
F16 = npt.NDArray[np.float16]

IN_FLIGHT: Final = 2
"""Batches at Triton at a time: one computes while the next one travels."""

FADE_FRAMES: Final = 3
"""Idle frames after speech over which the last mouth gives way to the avatar's own."""

SMALL_BATCHES: Final = 4
"""Requests at the beginning of an utterance in which a frame waits for few others, where nobody
says which frames are needed soon."""


@dataclass(frozen=True)
class RenderOptions:
    """How to render.

    Attributes:
        fps: frames a second of the video, 8 to 49.
        batch: frames in one request to Triton.
        alignment: which Whisper steps a frame reads, design.md section 6.
        timeout: seconds that one request may take.
        first_batch: frames in requests for frames that are needed soon, so that an utterance
            begins to show soon and goes on; None: as in the others.
    """

    fps: int = 25
    batch: int = 8
    alignment: Alignment = "centred"
    timeout: float = 30.0
    first_batch: int | None = None


@dataclass(frozen=True)
class Chunk:
    """Consecutive frames of a video.

    Attributes:
        frames: each U8[H,W,3] BGR.
        last_face: U8[256,256,3] BGR, the mouth of the last frame; None: it is an idle one.
        late: how many of them show an older mouth, or none, because theirs came too late.
    """

    frames: list[U8]
    last_face: U8 | None
    late: int = 0


class Overdue:
    """First frames of a batch that cannot wait for their mouths any longer.

    Attributes:
        frames: how many of them there are by now.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._more = asyncio.Event()

    def give_up(self, frames: int) -> None:
        """So many more frames are shown without their mouths; an even number, or the rest."""
        self.frames += frames
        self._more.set()

    async def more(self) -> None:
        """Wait until there are more of them than at the last call."""
        await self._more.wait()
        self._more.clear()


class Faces(Protocol):
    """Makes the mouths of one utterance; several batches may be on their way."""

    async def __call__(self, first: int, latents: F16, audio: F16, overdue: Overdue) -> U8 | None:
        """Make the mouths of one batch.

        Args:
            first: index in the utterance of the batch's first frame.
            latents: F16[n,8,32,32].
            audio: F16[n,50,384].
            overdue: is told of frames whose moment passes meanwhile.

        Returns:
            U8[m,256,256,3] BGR, m = n, or ceil(n/2) where each is shown for two frames; None:
            all of them were given up.
        """
        ...


async def render_speech(
    avatar: Avatar,
    pcm: I16,
    *,
    inference: Inference,
    options: RenderOptions,
    times: StageTimes,
    first_frame: int = 0,
    part: tuple[int, int] | None = None,
) -> AsyncGenerator[Chunk, None]:
    """Render one utterance.

    Args:
        avatar: who speaks.
        pcm: I16[S] mono at 16 kHz.
        inference: Triton.
        options: frame rate, batch and so on.
        times: gets the time of each stage added.
        first_frame: index in the video of the first frame that is rendered, so that the
            avatar's motion continues from one utterance to the next.
        part: the frames to render, from the first to before the second; None: all.

    Yields:
        The frames in order, ``options.batch`` at a time; floor(S/16000*fps) in all.

    Raises:
        MediaError: the speech is shorter than one frame.
        InferenceError: Triton failed, also after trying again where that helps.
    """
    with times.measure("features"):
        audio = await persist(
            lambda: speech_features(inference, pcm, options.fps, options.alignment),
            inference,
            times,
        )
        if part is not None:
            audio = audio.part(*part)

    async def patient(first: int, latents: F16, audio: F16, overdue: Overdue) -> U8:
        return await persist(
            lambda: inference.lipsync(latents, audio, timeout=options.timeout), inference, times
        )

    chunks = render_frames(
        avatar, audio, faces=patient, options=options, times=times, first_frame=first_frame
    )
    async with aclosing(chunks):
        async for chunk in chunks:
            yield chunk


async def render_frames(
    avatar: Avatar,
    audio: SpeechFeatures,
    *,
    faces: Faces,
    options: RenderOptions,
    times: StageTimes,
    first_frame: int = 0,
    last_face: U8 | None = None,
    needed_soon: Callable[[int], bool] | None = None,
) -> AsyncGenerator[Chunk, None]:
    """Render an utterance whose features are known; live and offline.

    Args:
        avatar: who speaks.
        audio: the input of each frame.
        faces: makes the mouths.
        options: frame rate, batches.
        times: gets the time of each stage added.
        first_frame: index in the video of the utterance's first frame.
        last_face: the mouth shown before it, for frames that come too late.
        needed_soon: whether that holds for a frame of the utterance; None: for those of its first
            ``SMALL_BATCHES`` requests.

    Yields:
        The frames in order, a batch at a time, or what of it is overdue and the rest.
    """
    waiting: deque[tuple[list[int], Overdue, asyncio.Task[U8 | None]]] = deque()
    small = options.first_batch or options.batch
    is_needed = needed_soon or (lambda frame: frame < SMALL_BATCHES * small)
    sent = 0

    def send_next() -> None:
        nonlocal sent
        if sent == len(audio):
            return
        batch = slice(sent, min(sent + (small if is_needed(sent) else options.batch), len(audio)))
        indices = [
            source_index(avatar, first_frame + frame, options.fps)
            for frame in range(batch.start, batch.stop)
        ]
        overdue = Overdue()
        request = faces(batch.start, avatar.latents[indices], audio[batch], overdue)
        waiting.append((indices, overdue, asyncio.ensure_future(request)))
        sent = batch.stop

    async def without_mouths(indices: list[int]) -> Chunk:
        with times.measure("composite"):
            strengths = [1.0] * len(indices)
            frames = await asyncio.to_thread(_fade_all, avatar, indices, last_face, strengths)
        times.idle += len(frames)
        return Chunk(frames, last_face, len(frames))

    try:
        for _ in range(IN_FLIGHT):
            send_next()
        while waiting:
            indices, overdue, task = waiting.popleft()
            given_up = 0
            try:
                while not task.done():
                    with times.measure("lipsync"):
                        await _either(task, overdue)
                    if not task.done() and overdue.frames > given_up:
                        until = overdue.frames
                        yield await without_mouths(indices[given_up:until])
                        given_up = until
                made = task.result()
            finally:
                await end(task)
            send_next()
            if given_up == len(indices):
                continue
            if made is None:
                yield await without_mouths(indices[given_up:])
                continue
            with times.measure("composite"):
                step = 1 if len(made) == len(indices) else 2
                shown = made[given_up // step :]
                frames = await asyncio.to_thread(
                    _composite_all, avatar, indices[given_up:], shown, step
                )
                last_face = made[-1]
            times.generated += len(frames)
            yield Chunk(frames, last_face)
    finally:
        await end(*(task for _, _, task in waiting))


async def _either(task: asyncio.Task[U8 | None], overdue: Overdue) -> None:
    """Wait until the batch is there, or more of it is overdue."""
    more = asyncio.ensure_future(overdue.more())
    try:
        await asyncio.wait({task, more}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(more)


async def idle_frames(
    avatar: Avatar,
    count: int,
    *,
    options: RenderOptions,
    times: StageTimes,
    first_frame: int,
    last_face: U8 | None = None,
) -> AsyncGenerator[list[U8], None]:
    """The avatar without the model, for pauses.

    Args:
        avatar: who is silent.
        count: number of frames.
        options: frame rate and batch.
        times: gets the time added.
        first_frame: index in the video of the first of them.
        last_face: the mouth shown before; it fades over the first ``FADE_FRAMES`` frames.

    Yields:
        Up to ``options.batch`` frames at a time, each U8[H,W,3] BGR.
    """
    for start in range(0, count, options.batch):
        offsets = range(start, min(start + options.batch, count))
        indices = [source_index(avatar, first_frame + offset, options.fps) for offset in offsets]
        strengths = [1 - (offset + 1) / (FADE_FRAMES + 1) for offset in offsets]
        with times.measure("composite"):
            frames = await asyncio.to_thread(_fade_all, avatar, indices, last_face, strengths)
        times.idle += len(frames)
        yield frames


def source_index(avatar: Avatar, frame: int, fps: int) -> int:
    """Which frame of the avatar the video shows at ``frame``: its motion keeps its own speed."""
    return avatar.cycle_index(frame * avatar.fps // fps)


def _composite_all(avatar: Avatar, indices: Sequence[int], faces: U8, step: int) -> list[U8]:
    shown = [
        composite(avatar.frame(index), face, avatar.boxes[index], avatar.masks[index])
        for index, face in zip(indices[::step], faces, strict=True)
    ]
    return [shown[number // step] for number in range(len(indices))]


def _fade_all(
    avatar: Avatar, indices: Sequence[int], face: U8 | None, strengths: Sequence[float]
) -> list[U8]:
    return [
        composite(
            avatar.frame(index), face, avatar.boxes[index], avatar.masks[index], strength=strength
        )
        if face is not None and strength > 0
        else avatar.frame(index)
        for index, strength in zip(indices, strengths, strict=True)
    ]
