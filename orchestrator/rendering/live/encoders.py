"""H.264 and AAC from ffmpeg processes that hold nothing back and are ended by killing them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.errors import SetupError
from orchestrator.processes import gone
from orchestrator.rendering.colour import even, to_i420
from orchestrator.rendering.live.fmp4 import PACKET_TICKS, TICKS
from orchestrator.rendering.live.streams import AdtsReader, FlvReader, Picture
from orchestrator.rendering.presets import LIVE, VideoPreset, video_arguments
from orchestrator.rendering.tasks import end, within
from orchestrator.speech.ffmpeg import ffmpeg_path, last_words

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]

_TIMEOUT: Final = 15.0
"""Seconds without progress after which an encoder counts as stuck."""
_LAST_WORDS_SECONDS: Final = 1.0
_CHUNK: Final = 1 << 18
_PIPE_BYTES: Final = 1 << 20
"""Room in the pipe to the video encoder: most of a 1280x720 frame, so that it works meanwhile."""
_STDERR_KEPT: Final = 4096
_AT_ONCE: Final = ("-probesize", "32", "-analyzeduration", "0")
"""Options of an input that is not looked at ahead. ("nobuffer" would lose its first frame.)"""
_PCM_RATE: Final = 4000
"""Sample rate that the PCM reader is told. It reads a tenth of a second at a time, so that 48 kHz
would come in steps of 85 ms; ``asetrate`` puts the true rate back."""
_LOOK_AHEAD: Final = 1
"""Packets that the AAC encoder holds: to choose windows it listens one ahead."""


class _Encoder:
    """A running ffmpeg."""

    def __init__(self, process: asyncio.subprocess.Process, what: str) -> None:
        assert process.stdout is not None and process.stderr is not None
        self._process = process
        self._stdout = process.stdout
        self._what = what
        self._killed = False
        self._log = asyncio.create_task(_tail(process.stderr))

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def kill(self) -> None:
        """End the process now; ``close`` is still needed."""
        # Once: a second signal would find it dead, and take its status away from asyncio.
        if not self._killed and self._process.returncode is None:
            self._killed = True
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """End the process and wait until it is gone, also when this is cancelled."""
        self.kill()
        closing = asyncio.create_task(self._clean_up())
        await asyncio.shield(closing)

    async def _clean_up(self) -> None:
        await gone(self._process, self._stdout)
        await end(self._log)

    async def _read(self) -> bytes:
        data = await self._stdout.read(_CHUNK)
        if not data:
            raise await self._failure()
        return data

    async def _failure(self) -> SetupError:
        """Why the process ended."""
        with contextlib.suppress(TimeoutError):
            await within(asyncio.shield(self._log), _LAST_WORDS_SECONDS)
            await within(self._process.wait(), _LAST_WORDS_SECONDS)
        self.kill()
        status = await gone(self._process, self._stdout)
        words = self._log.result() if self._log.done() and not self._log.cancelled() else b""
        reason = last_words(words.decode(errors="replace"))
        if not reason and status < 0:
            reason = f"ffmpeg was ended by {signal.Signals(-status).name}"
        return SetupError(
            f"the {self._what} could not be encoded: {reason or f'ffmpeg gave {status}'}",
            remedy="is the machine short of memory?" if status == -signal.SIGKILL else "",
        )

    def _stuck(self) -> SetupError:
        return SetupError(
            f"the {self._what} encoder did nothing for {_TIMEOUT:.0f} s",
            remedy="is the machine overloaded?",
        )


class H264Encoder(_Encoder):
    """Frames to H.264, each of them at once.

    The first frame is an IDR picture; so is every ``distance``-th after it.
    """

    @classmethod
    async def start(
        cls,
        width: int,
        height: int,
        fps: int,
        *,
        distance: int | None = None,
        preset: VideoPreset = LIVE,
    ) -> H264Encoder:
        """Start the process.

        Args:
            width: of the frames; an odd one becomes the next even one.
            height: likewise.
            fps: frames a second, for the encoder's choice of quality.
            distance: frames from one IDR picture to the next; two seconds by default.
            preset: encoder settings.

        Raises:
            SetupError: ffmpeg cannot be started.
        """
        try:
            read_end, write_end = os.pipe()
        except OSError as error:
            raise SetupError(
                f"the video encoder cannot be started: {error.strerror}",
                remedy="are too many files open? raise the limit, or lower MUSETALK_MAX_SESSIONS",
            ) from error
        try:
            # A smaller pipe is slower, nothing else: users may have little pipe memory left.
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            process = await _spawn(
                [
                    *_AT_ONCE,
                    *video_arguments(even(width), even(height), fps, preset),
                    *("-fps_mode", "passthrough"),
                    *(() if distance is None else ("-g", str(distance))),
                    *("-flvflags", "no_duration_filesize+no_metadata+no_sequence_end"),
                    *("-flush_packets", "1", "-f", "flv", "pipe:1"),
                ],
                read_end,
            )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        return cls(process, write_end)

    def __init__(self, process: asyncio.subprocess.Process, pipe: int) -> None:
        super().__init__(process, "video")
        self._pipe: int | None = pipe
        self._reader = FlvReader()
        # One thread of its own: a slow encoder then holds up nobody else's work.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="h264")

    @property
    def config(self) -> bytes:
        """AVCDecoderConfigurationRecord, after the first frame."""
        return self._reader.config

    async def encode(self, frames: Sequence[U8]) -> list[Picture]:
        """Encode frames; returns when all of them are coded.

        After an error or a cancel the encoder can only be closed.

        Args:
            frames: each U8[H,W,3] BGR.

        Returns:
            One picture a frame.

        Raises:
            SetupError: the process ended or is stuck.
        """
        if self._pipe is None:
            raise RuntimeError("the encoder is closed")
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(self._thread, _write_frames, self._pipe, list(frames))
        # A write that fails, also after a cancel, is told by the end of the output.
        writing.add_done_callback(lambda done: done.cancelled() or done.exception())
        pictures: list[Picture] = []
        try:
            while len(pictures) < len(frames):
                pictures += self._reader.feed(await within(self._read(), _TIMEOUT))
        except TimeoutError as error:
            raise self._stuck() from error
        except BaseException:
            self.kill()
            raise
        await writing
        return pictures

    async def _clean_up(self) -> None:
        await super()._clean_up()
        # Without ffmpeg at the other end a blocked write fails, so this does not wait long; the
        # pipe must stay open until then, or its number might already be somebody else's file.
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


class AacEncoder(_Encoder):
    """Sound to AAC-LC, 48 kHz mono.

    Packet *m* codes the samples from (m-1)*1024 to (m+1)*1024 of what was fed; a decoder gets
    the first half of them out when it also has packet *m*-1.
    """

    @classmethod
    async def start(cls) -> AacEncoder:
        """Start the process.

        Raises:
            SetupError: ffmpeg cannot be started.
        """
        process = await _spawn(
            [
                *_AT_ONCE,
                *("-f", "s16le", "-ar", str(_PCM_RATE), "-ac", "1", "-i", "pipe:0"),
                *("-af", f"asetrate={TICKS}", "-c:a", "aac", "-b:a", "96k"),
                *("-flush_packets", "1", "-f", "adts", "pipe:1"),
            ],
            asyncio.subprocess.PIPE,
        )
        return cls(process)

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__(process, "sound")
        assert process.stdin is not None
        self._stdin = process.stdin
        self._reader = AdtsReader()
        self._fed = 0
        self._packets = 0

    async def encode(self, pcm: I16) -> list[bytes]:
        """Feed sound; returns all packets that the sound so far makes.

        After an error or a cancel the encoder can only be closed.

        Args:
            pcm: I16[S] at 48 kHz.

        Raises:
            SetupError: the process ended or is stuck.
        """
        self._fed += len(pcm)
        expected = self._fed // PACKET_TICKS - _LOOK_AHEAD
        packets: list[bytes] = []
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the output tells why
            self._stdin.write(np.ascontiguousarray(pcm, dtype="<i2").tobytes())
        try:
            while self._packets + len(packets) < expected:
                packets += self._reader.feed(await within(self._read(), _TIMEOUT))
        except TimeoutError as error:
            raise self._stuck() from error
        self._packets += len(packets)
        return packets

    async def _clean_up(self) -> None:
        self._stdin.close()
        await super()._clean_up()


async def _spawn(arguments: Sequence[str], stdin: int) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            ffmpeg_path(),
            *("-hide_banner", "-loglevel", "error", "-nostdin", "-nostats"),
            *("-protocol_whitelist", "pipe", "-filter_threads", "1"),
            *arguments,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise SetupError(
            f"ffmpeg cannot be started: {error.strerror}", remedy="run musetalk doctor"
        ) from error


def _write_frames(pipe: int, frames: Sequence[U8]) -> None:
    for frame in frames:
        view = memoryview(to_i420(frame).data).cast("B")
        while view:
            view = view[os.write(pipe, view) :]


async def _tail(stream: asyncio.StreamReader) -> bytes:
    """Read a stream to its end and keep the last words."""
    kept = b""
    while piece := await stream.read(_STDERR_KEPT):
        kept = (kept + piece)[-_STDERR_KEPT:]
    return kept
