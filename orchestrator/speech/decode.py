"""Any sound file, or video with sound, to 16 kHz mono samples; bad ones refused in one line.

What comes in may be hostile. ffmpeg may only open the file itself (a pipe where there is no
file), and only containers of the list below: playlists and descriptions that name other files
(HLS, DASH, concat, SDP, image sequences) are not on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import ffmpeg
import numpy as np
import numpy.typing as npt
from ffmpeg.options.format import decoder_format_context

from orchestrator.errors import MediaError
from orchestrator.leftovers import PREFIX
from orchestrator.speech import SAMPLE_RATE
from orchestrator.speech.ffmpeg import Finished, execute, file_url

I16 = npt.NDArray[np.int16]

CONTAINERS: Final = (
    "aac,ac3,ac4,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gxf,iff,"
    "ircam,loas,matroska,mlp,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,osq,qcp,"
    "qoa,rm,rso,shn,sox,tak,truehd,tta,voc,w64,wav,wsd,wtv,wv,xwma"
)
"""Demuxers that a file may be read with: containers of sound and video, self-contained."""

_STARTUP_SECONDS: Final = 30.0
_SLOWEST: Final = 5.0
"""Seconds of sound that even a busy machine decodes in a second; measured: over 200."""

_HEAD: Final = 16
_ISO_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
_CUT_OFF: Final = re.compile(r"^\[.*(partial file|File ended prematurely)", re.MULTILINE)
_DURATION: Final = re.compile(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
_DOUBTFUL: Final = "detected only with low score"
_BROKEN: Final = "Error submitting packet to decoder"
_NOT_MEDIA: Final = ("moov atom not found", "Invalid data found", "Format not on whitelist")
_MISSING_SHARE: Final = 0.1
_MISSING_SECONDS: Final = 0.5
_CUT_OFF_REMEDY: Final = "upload or copy it again"
_FORMAT_REMEDY: Final = "use WAV, MP3, FLAC, Ogg, M4A, MP4 or WebM"


async def decode_audio(
    source: Path | bytes,
    *,
    max_seconds: float,
    max_bytes: int,
    rate: int = SAMPLE_RATE,
) -> I16:
    """Decode the first sound track of a file; gaps in it become silence.

    Args:
        source: a file, or its content.
        max_seconds: longer sound is refused, without decoding all of it.
        max_bytes: a larger file is refused.
        rate: samples a second wanted.

    Returns:
        I16[S] mono, S > 0, ``pcm_s16le`` scale.

    Raises:
        MediaError: the file is missing, too large or too long, not sound or video, has no sound
            track or an empty one, is cut off or broken.
        SetupError: there is no ffmpeg.
    """
    head = await asyncio.to_thread(_inspect, source, max_bytes)
    timeout = _STARTUP_SECONDS + max_seconds / _SLOWEST
    seekable = isinstance(source, Path) or _needs_seeking(head)
    with await asyncio.to_thread(_spooled, source if seekable else None) as path:
        url = "pipe:0" if path is None else file_url(path)
        command = _command(url, rate, max_seconds)
        try:
            finished = await execute(
                command,
                source if isinstance(source, bytes) and path is None else None,
                timeout=timeout,
                max_output=int((max_seconds + 2) * rate) * 2,
                loglevel="info",
            )
        except MediaError as error:
            raise _explain(error) from error
    pcm = np.frombuffer(finished.stdout[: len(finished.stdout) // 2 * 2], "<i2").astype(np.int16)
    if len(pcm) > max_seconds * rate:
        raise MediaError(
            f"the audio is longer than {max_seconds:g} s",
            remedy="cut it, or raise MUSETALK_MAX_AUDIO_SECONDS",
        )
    _check(finished, head, source, len(pcm) / rate)
    return pcm


def _inspect(source: Path | bytes, max_bytes: int) -> bytes:
    """Check the size of a file before anything reads it, and return its first bytes."""
    if isinstance(source, bytes):
        size, head = len(source), source[:_HEAD]
    else:
        try:
            if not source.is_file():
                raise MediaError(f"{source} is {'not a file' if source.exists() else 'not there'}")
            size = source.stat().st_size
            with source.open("rb") as file:
                head = file.read(_HEAD)
        except OSError as error:
            raise MediaError(f"{source} cannot be read: {error.strerror}") from error
    if not size:
        raise MediaError("the audio file is empty")
    if size > max_bytes:
        raise MediaError(
            f"the audio file has {size / 1e6:.0f} MB, the limit is {max_bytes / 1e6:.0f} MB",
            remedy="compress or cut it, or raise MUSETALK_MAX_AUDIO_BYTES",
        )
    return head


def _needs_seeking(head: bytes) -> bool:
    """Whether a pipe would lose something: an MP4's index, or an MP3's length, at the end."""
    mp3 = head[:3] == b"ID3" or (head[0] == 0xFF and head[1:2] >= b"\xe0")
    return mp3 or head[4:8] in _ISO_BOXES


def _spooled(source: Path | bytes | None) -> contextlib.AbstractContextManager[Path | None]:
    """A file that ffmpeg can seek in, for as long as the context lasts."""
    if isinstance(source, bytes):
        return _temporary(source)
    return contextlib.nullcontext(source)


@contextmanager
def _temporary(data: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix=PREFIX) as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


def _command(url: str, rate: int, max_seconds: float) -> list[str]:
    protocols = "pipe" if url.startswith("pipe:") else "file"
    restricted = decoder_format_context(protocol_whitelist=protocols, format_whitelist=CONTAINERS)
    output = (
        ffmpeg.input(url, format_options=restricted)
        .audio_stream(0)
        .output(
            filename="pipe:1",
            f="s16le",
            acodec="pcm_s16le",
            ar=rate,
            ac=1,
            # Recordings of calls leave silence out; without this the lips would run ahead.
            af="aresample=async=1",
            t=max_seconds + 1,
        )
    )
    return output.compile()[1:]


def _explain(error: MediaError) -> MediaError:
    """What ffmpeg's last words mean to the person who sent the file."""
    words = error.message
    if "matches no streams" in words or "does not contain any stream" in words:
        return MediaError("the file has no sound track")
    if any(known in words for known in _NOT_MEDIA):
        return MediaError(
            "the file is not sound or video that can be read, or it is cut off",
            remedy=_FORMAT_REMEDY,
        )
    if "did not finish" in words:
        return MediaError("decoding the audio took too long", remedy="convert it to WAV first")
    return MediaError(f"the audio cannot be decoded: {words}", remedy=_FORMAT_REMEDY)


def _check(finished: Finished, head: bytes, source: Path | bytes, seconds: float) -> None:
    """Refuse what ffmpeg lets pass: empty, cut off, or noise taken for sound."""
    log = finished.log
    if not seconds:
        raise MediaError("the file contains no sound")
    if _DOUBTFUL in log and _BROKEN in log:
        raise MediaError("the file is not sound or video", remedy=_FORMAT_REMEDY)
    if _CUT_OFF.search(log) or _riff_cut_off(head, source):
        raise MediaError(f"the audio is cut off after {seconds:.1f} s", remedy=_CUT_OFF_REMEDY)
    # Only a file of sound alone tells the length of the sound.
    if match := None if "Video:" in log or "Estimating" in log else _DURATION.search(log):
        hours, minutes, rest = match.groups()
        declared = int(hours) * 3600 + int(minutes) * 60 + float(rest)
        if declared - seconds > max(_MISSING_SECONDS, declared * _MISSING_SHARE):
            raise MediaError(
                f"the audio is cut off after {seconds:.1f} of {declared:.1f} s",
                remedy=_CUT_OFF_REMEDY,
            )


def _riff_cut_off(head: bytes, source: Path | bytes) -> bool:
    """Whether a WAV is shorter than it says; programs that write to pipes say 0 or 2-4 GB."""
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return False
    declared = int.from_bytes(head[4:8], "little") + 8
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    return size + 8 < declared < 0x7FFF_0000
