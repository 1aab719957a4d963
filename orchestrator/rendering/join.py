"""Pieces of a video to the whole one: the pictures as they are, the sound encoded in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from orchestrator.errors import MuseTalkError, SetupError
from orchestrator.rendering.encode import AUDIO_RATE
from orchestrator.rendering.provenance import Provenance
from orchestrator.speech.ffmpeg import file_url, run_ffmpeg

_TIMEOUT: Final = 300.0


async def join(
    pieces: Sequence[Path], sound: Path, output: Path, *, provenance: Provenance
) -> None:
    """Join pieces of one video.

    Args:
        pieces: MP4 files in one folder with plain names, without sound (a sound track would
            shift the pictures), of the same size and frame rate; each begins with a key frame.
        sound: I16 samples, mono at ``AUDIO_RATE``, as long as all pieces together.
        output: the MP4 to write.
        provenance: for its metadata.

    Raises:
        SetupError: ffmpeg failed or the disk is full.
    """
    script = output.with_suffix(".txt")
    lines = ["ffconcat version 1.0", *(f"file {piece.name}" for piece in pieces)]
    await asyncio.to_thread(script.write_text, "\n".join(lines) + "\n")
    tags = [
        argument
        for key, value in provenance.tags().items()
        for argument in ("-metadata", f"{key}={value}")
    ]
    try:
        await run_ffmpeg(
            [
                *("-f", "concat", "-i", file_url(script)),
                *("-f", "s16le", "-ar", str(AUDIO_RATE), "-ac", "1", "-i", file_url(sound)),
                *("-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", "-b:a", "96k"),
                *("-movflags", "+faststart", *tags, "-f", "mp4", file_url(output)),
            ],
            None,
            timeout=_TIMEOUT,
        )
    except MuseTalkError as error:
        raise SetupError(
            f"the pieces of the video could not be joined: {error.message}",
            remedy="is the disk full?",
        ) from error
