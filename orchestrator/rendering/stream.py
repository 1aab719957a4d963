"""Utterances and an avatar to a fragmented MP4 that can be watched while it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from orchestrator.errors import MediaError, UsageError
from orchestrator.rendering.encode import AUDIO_RATE
from orchestrator.rendering.live import SOUND_LAG, Fragment, LiveMedia, idle_clip
from orchestrator.rendering.prefetch import prefetch
from orchestrator.rendering.render import RenderOptions
from orchestrator.rendering.script import Utterance
from orchestrator.rendering.tasks import end
from orchestrator.rendering.timings import StageTimes
from orchestrator.rendering.video import speech_pieces

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar
    from orchestrator.inference import Inference

I16 = npt.NDArray[np.int16]

STREAM_FPS: Final = tuple(fps for fps in range(8, 50) if AUDIO_RATE % fps == 0)
"""Frame rates whose frames are whole numbers of samples."""

_LOOK_AHEAD: Final = AUDIO_RATE // 4
"""Sound handed over before its frames, so that no packet waits for what comes next."""


@dataclass(frozen=True)
class StreamPart:
    """What is sent next; all parts in order are one MP4.

    Attributes:
        data: the init segment, or a fragment.
        start: of its pictures, in seconds.
        duration: of its pictures, in seconds; 0 for the init segment.
        mime: type and codecs of the stream.
        speech: whether it shows speech.
    """

    data: bytes
    start: float
    duration: float
    mime: str
    speech: bool


def check_stream_fps(fps: int) -> None:
    """Refuse a frame rate that a stream cannot have.

    Raises:
        UsageError: it is none of ``STREAM_FPS``.
    """
    if fps not in STREAM_FPS:
        raise UsageError(
            f"a stream cannot have {fps} frames a second",
            remedy=f"choose one of {', '.join(map(str, STREAM_FPS))}, or a finished video",
        )


async def speak_to_stream(
    avatar: Avatar,
    utterances: AsyncGenerator[Utterance, None],
    *,
    inference: Inference,
    options: RenderOptions,
    times: StageTimes,
) -> AsyncGenerator[StreamPart, None]:
    """Render utterances one after the other, a fragment at a time.

    Works at most a few batches ahead of whoever takes the parts. Closing the generator ends all
    of it. The stream ends with up to 0.7 s of the silent avatar.

    Args:
        avatar: who speaks.
        utterances: what is said; closed in any case.
        inference: Triton.
        options: frame rate, one of ``STREAM_FPS``, batch and so on.
        times: gets the time of each stage.

    Yields:
        The init segment and the fragments; the former when the first frames are there.

    Raises:
        MuseTalkError: any stage failed.
    """
    pieces = prefetch(speech_pieces(avatar, utterances, inference, options, times, 0))
    clip = asyncio.create_task(idle_clip(avatar, options.fps))
    media: LiveMedia | None = None
    mime, frames, given, waiting = "", 0, 0, np.zeros(0, np.int16)
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if media is None:
                    media = LiveMedia(avatar, await clip)
                    mime = media.mime
                    await media.begin_turn()
                    yield StreamPart(media.init, 0.0, 0.0, mime, False)
                frames += len(piece.frames)
                waiting = np.concatenate([waiting, piece.sound])
                due = frames * AUDIO_RATE // options.fps + _LOOK_AHEAD - given
                sound, waiting = waiting[:due], waiting[due:]
                given += len(sound)
                with times.measure("encode"):
                    fragments = await media.speech(piece.frames, sound)
                for fragment in fragments:
                    yield _part(fragment, mime)
        if media is None:
            raise MediaError("the speech is shorter than one frame of video")
        with times.measure("finish"):
            fragments = await media.end_turn()
            if sum(fragment.duration for fragment in fragments) < SOUND_LAG:
                fragments.append(media.idle())
        for fragment in fragments:
            yield _part(fragment, mime)
    finally:
        await end(clip)
        if media is not None:
            await media.close()


def _part(fragment: Fragment, mime: str) -> StreamPart:
    speech = fragment.kind == "speech"
    return StreamPart(fragment.data, fragment.start, fragment.duration, mime, speech)
