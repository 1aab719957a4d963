"""Pictures and videos as a sequence of JPEG frames: bounded in size, upright, at 25 fps."""

from __future__ import annotations

import asyncio
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from orchestrator.errors import MediaError
from orchestrator.settings import Settings
from orchestrator.speech.ffmpeg import file_url, run_ffmpeg

U8 = npt.NDArray[np.uint8]

FPS: Final = 25
LONGEST_SIDE: Final = 1280
_BACKGROUND: Final = (236, 238, 240)
"""Behind transparent pictures."""
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
_DEMUXERS: Final = "mov,matroska,avi,gif,mpegts,ogg,flv,asf,webp_pipe"
_FRAME_BYTES: Final = 2_000_000
"""More than a JPEG of 1280x1280 takes at the best quality."""
_JPEG: Final = (
    cv2.IMWRITE_JPEG_QUALITY,
    97,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)


@dataclass(frozen=True)
class Frames:
    """What was read.

    Attributes:
        jpegs: one JPEG a frame, 4:4:4, all of one size with even sides.
        notes: what was changed, in words for the user.
    """

    jpegs: tuple[bytes, ...]
    notes: tuple[str, ...]


def decode(jpeg: bytes) -> U8:
    """One frame U8[H,W,3] BGR, read-only."""
    frame = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if frame is None:
        raise MediaError("a frame cannot be decoded", remedy="use another file")
    frame.setflags(write=False)
    return np.asarray(frame, dtype=np.uint8)


def encode(frame: U8) -> bytes:
    """One frame U8[H,W,3] BGR as a JPEG that looks the same."""
    done, jpeg = cv2.imencode(".jpg", frame, _JPEG)
    assert done, "cv2 encodes any 8-bit frame"
    return jpeg.tobytes()


def _fit(width: int, height: int) -> tuple[int, int]:
    """Even sides, the longer one at most ``LONGEST_SIDE``."""
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    return max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)


def read_picture(data: bytes, max_pixels: int) -> Frames | None:
    """Read a still picture; None when it is none (a video, or an animation).

    Raises:
        MediaError: a picture that is damaged or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if getattr(image, "n_frames", 1) > 1:
            return None
        width, height = image.size
        if width * height > max_pixels:
            raise MediaError(
                f"the picture is {width}x{height}, more than {max_pixels / 1e6:.0f} megapixels",
                remedy="make it smaller first",
            )
        image.load()
    except UnidentifiedImageError:
        return None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"the picture is damaged: {error}", remedy="use another file") from error
    notes = []
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.new("RGBA", layer.size, (*_BACKGROUND, 255))
        upright.alpha_composite(layer)
        notes.append("the transparent background became plain")
    upright = upright.convert("RGB")
    size = _fit(*upright.size)
    if size != upright.size:
        notes.append(f"resized from {upright.width}x{upright.height} to {size[0]}x{size[1]}")
        upright = upright.resize(size, Image.Resampling.LANCZOS)
    frame = np.asarray(upright, dtype=np.uint8)[:, :, ::-1]
    return Frames((encode(np.ascontiguousarray(frame)),), tuple(notes))


def _split(stream: bytes) -> tuple[bytes, ...]:
    """JPEGs of an ``image2pipe`` stream; inside one, the end marker cannot occur."""
    frames = []
    start = 0
    while (end := stream.find(b"\xff\xd9", start)) >= 0:
        frames.append(stream[start : end + 2])
        start = end + 2
    return tuple(frames)


async def read_video(source: Path, settings: Settings) -> Frames:
    """Read a video or an animation at 25 fps, scaled down to at most 1280 pixels.

    Raises:
        MediaError: no video, damaged, or longer or larger than the settings allow.
    """
    limit = settings.max_avatar_seconds
    most = int(limit * FPS)
    scale = (
        f"fps={FPS},scale=w='min({LONGEST_SIDE},iw)':h='min({LONGEST_SIDE},ih)'"
        ":force_original_aspect_ratio=decrease:force_divisible_by=2:flags=lanczos"
        ",format=yuvj444p"
    )
    arguments = [
        *("-format_whitelist", _DEMUXERS, "-max_pixels", str(settings.max_avatar_pixels)),
        *("-i", file_url(source), "-map", "0:v:0", "-an", "-vf", scale),
        *("-frames:v", str(most + 1), "-c:v", "mjpeg", "-q:v", "2", "-f", "image2pipe", "pipe:1"),
    ]
    try:
        stream = await run_ffmpeg(
            arguments, timeout=60 + 4 * limit, max_output=(most + 1) * _FRAME_BYTES
        )
    except MediaError as error:
        raise MediaError(
            f"{source.name} is no picture or video that can be used: {error.message}",
            remedy="use a JPEG, PNG, WebP, GIF, MP4, MOV, WebM or MKV file",
        ) from error
    jpegs = await asyncio.to_thread(_split, stream)
    if not jpegs:
        raise MediaError(f"{source.name} holds no frame", remedy="use another file")
    if len(jpegs) > most:
        raise MediaError(
            f"{source.name} is longer than {limit:g} s", remedy="cut it, 10 s are plenty"
        )
    return Frames(jpegs, ())


async def read_frames(source: Path, settings: Settings) -> Frames:
    """Read a picture or a video.

    Raises:
        MediaError: it cannot be used; the message says why.
    """

    def check() -> Frames | None:
        if not source.is_file():
            raise MediaError(f"{source}: no such file")
        size = source.stat().st_size
        if size > settings.max_avatar_bytes:
            raise MediaError(f"{source.name} is larger than {settings.max_avatar_bytes >> 20} MB")
        if size == 0:
            raise MediaError(f"{source.name} is empty")
        return read_picture(source.read_bytes(), settings.max_avatar_pixels)

    picture = await asyncio.to_thread(check)
    return picture or await read_video(source, settings)
