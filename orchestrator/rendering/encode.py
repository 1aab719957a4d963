"""Frames and speech to one MP4 (H.264 + AAC) that appears whole or not at all.

The video is encoded while it is rendered; the sound is kept as samples beside it. When both are
complete, one pass over them encodes the sound, cuts it to the length of the video, and writes the
index first (``+faststart``). Everything happens in a hidden folder beside the output, which is
renamed into place at the very end.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.errors import MuseTalkError, SetupError, UsageError
from orchestrator.rendering.colour import even, to_i420
from orchestrator.rendering.presets import OFFLINE, VideoPreset, video_arguments
from orchestrator.rendering.provenance import Provenance
from orchestrator.rendering.tasks import end, within
from orchestrator.speech.ffmpeg import ffmpeg_path, file_url, last_words, run_ffmpeg

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]

AUDIO_RATE: Final = 48_000
"""Samples a second of the sound in the file, mono."""

_WRITE_TIMEOUT: Final = 60.0
_FINISH_TIMEOUT: Final = 300.0
_STDERR_KEPT: Final = 4096


@dataclass(frozen=True)
class Mp4Info:
    """What was written.

    Attributes:
        frames: number of video frames.
        seconds: length of the video.
        size: bytes of the file.
    """

    frames: int
    seconds: float
    size: int


class Mp4Writer:
    """Write one MP4; use as ``async with``, and call ``finish`` when all is handed over.

    Leaving the block without ``finish``, by an error or by cancelling, ends ffmpeg and removes
    everything that was written.

    Args:
        output: the file to write; replaced if it is there.
        width: of the frames; an odd one becomes the next even one in the file.
        height: likewise.
        fps: frames a second.
        provenance: goes into the file's metadata.
        preset: encoder settings.
        silent: write the pictures only, as a piece of a video that is joined later.
    """

    def __init__(
        self,
        output: Path,
        *,
        width: int,
        height: int,
        fps: int,
        provenance: Provenance,
        preset: VideoPreset = OFFLINE,
        silent: bool = False,
    ) -> None:
        self._silent = silent
        self._output = output
        self._size = (even(width), even(height))
        self._shape = (height, width, 3)
        self._fps = fps
        self._provenance = provenance
        self._preset = preset
        self._frames = 0
        self._folder: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._pipe: int | None = None
        self._errors: asyncio.Task[bytes] | None = None
        self._cleaning: asyncio.Task[None] | None = None
        # One thread of its own: a slow encoder then holds up nobody else's work.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mp4")

    async def __aenter__(self) -> Mp4Writer:
        """Start the encoder.

        Raises:
            UsageError: the output cannot be written there.
            SetupError: ffmpeg cannot be started.
        """
        try:
            self._folder = await asyncio.to_thread(_working_folder, self._output)
            await self._start(self._folder)
        except BaseException:
            await self._abort()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End ffmpeg and remove what is left of the work."""
        await self._abort()

    async def write(self, frames: Sequence[U8]) -> None:
        """Encode frames, in order; returns when ffmpeg has taken them.

        Args:
            frames: each U8[H,W,3] BGR.

        Raises:
            SetupError: ffmpeg ended or takes no more; the message says why.
        """
        for frame in frames:
            if frame.shape != self._shape:
                raise ValueError(f"frame {frame.shape} in a video of {self._shape}")
        await self._in_thread(_write_frames, self._require_pipe(), frames)
        self._frames += len(frames)

    async def write_audio(self, pcm: I16) -> None:
        """Append sound: I16[S] mono at ``AUDIO_RATE``.

        Raises:
            SetupError: the disk is full.
        """
        await self._in_thread(_append, self._path("audio.pcm"), pcm)

    async def finish(self) -> Mp4Info:
        """Close the streams, write the index, publish the file.

        The sound, if any, is padded with silence, or cut, to the length of the video.

        Raises:
            SetupError: ffmpeg failed or the disk is full; no file is left then.
        """
        if not self._frames:
            raise ValueError("a video without frames")
        await self._close_video()
        seconds = self._frames / self._fps
        if self._silent:
            size = await asyncio.to_thread(_publish, self._path("video.mp4"), self._output)
            return Mp4Info(self._frames, seconds, size)
        await self._in_thread(_fit, self._path("audio.pcm"), round(seconds * AUDIO_RATE))
        whole = self._path("whole.mp4")
        await self._mux(whole)
        size = await asyncio.to_thread(_publish, whole, self._output)
        return Mp4Info(self._frames, seconds, size)

    def _path(self, name: str) -> Path:
        if self._folder is None:
            raise RuntimeError("Mp4Writer is used outside its async with block")
        return self._folder / name

    def _require_pipe(self) -> int:
        if self._pipe is None:
            raise RuntimeError("the video is already closed")
        return self._pipe

    async def _start(self, folder: Path) -> None:
        read_end, self._pipe = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                ffmpeg_path(),
                *("-hide_banner", "-loglevel", "error", "-nostdin", "-y"),
                *("-protocol_whitelist", "pipe,file"),
                *video_arguments(*self._size, self._fps, self._preset),
                *("-f", "mp4", file_url(folder / "video.mp4")),
                stdin=read_end,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise SetupError(
                f"ffmpeg cannot be started: {error.strerror}", remedy="run musetalk doctor"
            ) from error
        finally:
            os.close(read_end)
        assert self._process.stderr is not None
        self._errors = asyncio.create_task(_tail(self._process.stderr))

    async def _in_thread(self, function: Callable[..., None], *arguments: object) -> None:
        """Run one blocking step in the writer's thread, and tell why it failed."""
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(self._thread, functools.partial(function, *arguments))
        # After a cancel nobody waits for the write, which then fails when ffmpeg is ended.
        writing.add_done_callback(lambda done: done.cancelled() or done.exception())
        done, _ = await asyncio.wait({writing}, timeout=_WRITE_TIMEOUT)
        if not done:
            raise SetupError(
                f"the video encoder took nothing for {_WRITE_TIMEOUT:.0f} s",
                remedy="is the disk full or the machine overloaded?",
            )
        try:
            writing.result()
        except OSError as error:
            raise await self._failure(error) from error

    async def _close_video(self) -> None:
        """End of the frames: let ffmpeg write out what it holds."""
        os.close(self._require_pipe())
        self._pipe = None
        assert self._process is not None
        try:
            status = await within(self._process.wait(), _FINISH_TIMEOUT)
        except TimeoutError as error:
            raise SetupError("the video encoder does not end") from error
        if status:
            raise await self._failure(None)

    async def _mux(self, whole: Path) -> None:
        tags = [
            argument
            for key, value in self._provenance.tags().items()
            for argument in ("-metadata", f"{key}={value}")
        ]
        video, audio = self._path("video.mp4"), self._path("audio.pcm")
        try:
            await run_ffmpeg(
                [
                    *("-i", file_url(video)),
                    *("-f", "s16le", "-ar", str(AUDIO_RATE), "-ac", "1", "-i", file_url(audio)),
                    *("-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", "-b:a", "96k"),
                    *("-movflags", "+faststart", *tags, "-f", "mp4", file_url(whole)),
                ],
                None,
                timeout=_FINISH_TIMEOUT,
            )
        except MuseTalkError as error:
            raise SetupError(
                f"the video could not be written: {error.message}",
                remedy=_remedy(error.message, self._output),
            ) from error

    async def _failure(self, error: OSError | None) -> MuseTalkError:
        """The reason why the encoder failed, as its last words give it."""
        assert self._process is not None and self._errors is not None
        if not isinstance(error, BrokenPipeError) and self._process.returncode is None:
            self._process.kill()
        words = (await self._errors).decode(errors="replace").strip()
        status = await self._process.wait()
        reason = last_words(words) or f"ffmpeg ended with status {status}"
        if error is not None and not isinstance(error, BrokenPipeError):
            reason = error.strerror or type(error).__name__
        return SetupError(
            f"the video could not be encoded: {reason}",
            remedy=_remedy(f"{words} {reason}", self._output),
        )

    async def _abort(self) -> None:
        """End the encoder and remove the folder, also when this is cancelled itself."""
        self._cleaning = asyncio.create_task(self._clean_up())
        await asyncio.shield(self._cleaning)

    async def _clean_up(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._errors is not None:
            await end(self._errors)
        # Without ffmpeg at the other end a blocked write fails, so this does not wait long; the
        # pipe must stay open until then, or its number might already be somebody else's file.
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


def _working_folder(output: Path) -> Path:
    if output.is_dir():
        raise UsageError(f"{output} is a folder", remedy="name a file to write")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror}") from error


def _write_frames(pipe: int, frames: Sequence[U8]) -> None:
    for frame in frames:
        view = memoryview(to_i420(frame).data).cast("B")
        while view:
            view = view[os.write(pipe, view) :]


def _append(path: Path, pcm: I16) -> None:
    with path.open("ab") as file:
        file.write(np.ascontiguousarray(pcm, dtype="<i2").data)


def _fit(path: Path, samples: int) -> None:
    with path.open("ab") as file:
        file.truncate(samples * 2)


def _publish(whole: Path, output: Path) -> int:
    """Make the file durable, then visible under its name."""
    with whole.open("rb+") as file:
        os.fsync(file.fileno())
    size = whole.stat().st_size
    whole.replace(output)
    return size


async def _tail(stream: asyncio.StreamReader) -> bytes:
    """Read a stream to its end and keep the last words."""
    kept = b""
    while piece := await stream.read(_STDERR_KEPT):
        kept = (kept + piece)[-_STDERR_KEPT:]
    return kept


def _remedy(words: str, output: Path) -> str:
    if "No space left" in words:
        return f"free some space where {output} goes"
    return ""
