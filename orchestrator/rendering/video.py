"""Utterances and an avatar to one MP4 file."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from orchestrator.errors import MediaError
from orchestrator.rendering.encode import AUDIO_RATE, Mp4Info, Mp4Writer
from orchestrator.rendering.prefetch import prefetch
from orchestrator.rendering.presets import OFFLINE, VideoPreset
from orchestrator.rendering.provenance import Provenance
from orchestrator.rendering.render import RenderOptions, idle_frames, render_speech
from orchestrator.rendering.script import Utterance
from orchestrator.rendering.timings import StageTimes

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar
    from orchestrator.inference import Inference

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]

Progress = Callable[[float, int], None]
"""Called with the part that is done, 0 to 1, and the number of frames so far."""


@dataclass(frozen=True)
class Piece:
    """What the encoder gets next: frames, and the sound that starts with them.

    Attributes:
        frames: each U8[H,W,3] BGR.
        sound: I16[S] mono at ``AUDIO_RATE``; empty but at the start of an utterance or pause.
        share: part of the whole video that these frames are.
    """

    frames: list[U8]
    sound: I16
    share: float


async def speak_to_file(
    avatar: Avatar,
    utterances: AsyncGenerator[Utterance, None],
    output: Path,
    *,
    inference: Inference,
    options: RenderOptions,
    provenance: Provenance,
    times: StageTimes,
    progress: Progress | None = None,
    preset: VideoPreset = OFFLINE,
    piece_from: int | None = None,
) -> Mp4Info:
    """Render utterances one after the other into a file.

    Speech synthesis, rendering and encoding overlap, each at most a few items ahead of the next.
    Cancelling stops all of them and leaves no file.

    Args:
        avatar: who speaks.
        utterances: what is said; closed in any case.
        output: the MP4 to write.
        inference: Triton.
        options: frame rate, batch and so on.
        provenance: for the file's metadata.
        times: gets the time of each stage.
        progress: told after each batch.
        preset: settings of the H.264 encoder.
        piece_from: first frame of a piece, without sound, of a longer video; None: a whole one.

    Returns:
        Frames, length and size of the file.

    Raises:
        MuseTalkError: any stage failed; no file is left then.
    """
    start = time.perf_counter()
    pieces = prefetch(speech_pieces(avatar, utterances, inference, options, times, piece_from or 0))
    done = 0.0
    async with (
        aclosing(pieces),
        Mp4Writer(
            output,
            width=avatar.width,
            height=avatar.height,
            fps=options.fps,
            provenance=provenance,
            preset=preset,
            silent=piece_from is not None,
        ) as writer,
    ):
        async for piece in pieces:
            with times.measure("encode"):
                if piece_from is None:
                    await writer.write_audio(piece.sound)
                await writer.write(piece.frames)
            done += piece.share
            if progress is not None:
                progress(min(round(done, 6), 1.0), times.frames)
        if not times.frames:
            raise MediaError("the speech is shorter than one frame of video")
        with times.measure("finish"):
            info = await writer.finish()
    times.wall += time.perf_counter() - start
    times.media += info.seconds
    return info


async def speech_pieces(
    avatar: Avatar,
    utterances: AsyncGenerator[Utterance, None],
    inference: Inference,
    options: RenderOptions,
    times: StageTimes,
    position: int,
) -> AsyncGenerator[Piece, None]:
    """Frames and sound of all utterances, on one grid of frames.

    Each utterance starts on a frame. The frames of the grid that its speech does not fill to the
    end, and those of its pause, show the avatar idle, over silence.

    Args:
        avatar: who speaks.
        utterances: what is said.
        inference: Triton.
        options: frame rate, batch and so on.
        times: gets the time of each stage.
        position: index in the video of the first frame.

    Yields:
        The pieces in order; the whole sound of an utterance or pause with its first frames.

    Raises:
        MuseTalkError: any stage failed.
    """
    ahead = prefetch(utterances, 1)
    async with aclosing(ahead):
        async for utterance in ahead:
            spoken = utterance.spoken_frames(options.fps)
            pause = utterance.pause_frames(options.fps)
            share = utterance.share / max(1, spoken + pause)
            sound = fill(utterance.sound, position, position + spoken + pause, options.fps)
            last_face: U8 | None = None
            if spoken:
                speech = render_speech(
                    avatar,
                    utterance.pcm,
                    inference=inference,
                    options=options,
                    times=times,
                    first_frame=position,
                    part=(part.first, part.end) if (part := utterance.part) else None,
                )
                async with aclosing(speech):
                    async for chunk in speech:
                        yield Piece(chunk.frames, sound, share * len(chunk.frames))
                        sound = sound[:0]
                        last_face = chunk.last_face
            position += spoken
            async for frames in idle_frames(
                avatar,
                pause,
                options=options,
                times=times,
                first_frame=position,
                last_face=last_face,
            ):
                yield Piece(frames, sound, share * len(frames))
                sound = sound[:0]
            position += pause


def fill(sound: I16, first: int, end: int, fps: int) -> I16:
    """Bring sound to exactly the length of the frames from ``first`` to before ``end``.

    The grid in samples is rounded from the start of the video, so that no error adds up.

    Args:
        sound: I16[S] mono at ``AUDIO_RATE``, from the moment of frame ``first``.
        first: index in the video.
        end: index in the video.
        fps: frames a second.
    """
    length = round(end * AUDIO_RATE / fps) - round(first * AUDIO_RATE / fps)
    if len(sound) >= length:
        return sound[:length]
    return np.concatenate([sound, np.zeros(length - len(sound), np.int16)])
