"""Pictures and videos as a sequence of JPEG frames: bounded in size, upright, at 25 fps."""

from __future__ import annotations

import asyncio
import hashlib
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from orchestrator.avatars.picture_process import read_picture_apart
from orchestrator.errors import MediaError
from orchestrator.settings import Settings
from orchestrator.speech.ffmpeg import execute, file_url

U8 = npt.NDArray[np.uint8]

FPS: Final = 25
LONGEST_SIDE: Final = 1280
_BACKGROUND: Final = (236, 238, 240)
"""Behind transparent pictures."""
_FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
DEMUXERS: Final = "mov,matroska,avi,gif,mpegts,ogg,flv,asf"
_CUT_OFF: Final = re.compile(
    r"^\[in#.*(partial file|File ended prematurely|corrupt input packet)", re.MULTILINE
)
"""What ffmpeg's demuxers say of a packet, or of a file, that ends before its announced size."""
_MAX_STORED: Final = 256 << 20
"""Bytes of JPEG that one avatar may keep in memory; 10 s of 1280x720 take about 25 MB."""
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
        jpegs: one JPEG a frame, 4:4:4 of a picture and 4:2:0 of a video, one even size.
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


def read_picture(source: Path, max_pixels: int) -> Frames | None:
    """Read a still picture; None when it is none (a video, or an animation).

    Raises:
        MediaError: a picture that is damaged or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(source, formats=_FORMATS)
        pictures = getattr(image, "n_frames", 1)
        if image.format == "GIF" and pictures > 1:
            return None
        width, height = image.size
        if width * height > max_pixels:
            raise MediaError(
                f"the picture is {width}x{height}, more than {max_pixels / 1e6:.0f} megapixels",
                remedy="make it smaller first",
            )
        image.load()
        upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        return None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"the picture is damaged: {error}", remedy="use another file") from error
    notes = []
    if pictures > 1 and image.format != "MPO":  # phones keep a second view or depth in those
        notes.append(f"the first of {pictures} pictures was taken")
    if upright.mode.startswith("I"):  # 16 bits, which PIL would clip instead of scale
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.new("RGBA", layer.size, (*_BACKGROUND, 255))
        upright.alpha_composite(layer)
        if layer.getchannel("A").getextrema() != (255, 255):
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
    jpegs, log = await _decoded(source, settings, most + 1)
    if _CUT_OFF.search(log):
        raise MediaError(
            f"{source.name} is cut off after {len(jpegs) / FPS:.1f} s",
            remedy="upload or copy it again",
        )
    if not jpegs:
        raise MediaError(f"{source.name} holds no frame", remedy="use another file")
    if len(jpegs) > most:
        raise MediaError(
            f"{source.name} is longer than {limit:g} s", remedy="cut it, 10 s are plenty"
        )
    return Frames(jpegs, ())


async def first_frame(source: Path, settings: Settings) -> bytes:
    """The first frame of a video as a JPEG, as ``read_video`` gives it; raises as that does."""
    jpegs, _ = await _decoded(source, settings, 1)
    if not jpegs:
        raise MediaError(f"{source.name} holds no frame", remedy="use another file")
    return jpegs[0]


async def _decoded(source: Path, settings: Settings, frames: int) -> tuple[tuple[bytes, ...], str]:
    """The first frames of a video as JPEGs, and what ffmpeg said.

    Raises:
        MediaError: no video, or damaged.
    """
    # Square pixels first. JPEG means BT.601 and full range whatever the video was in: without
    # the last conversion the colours of HD video shift.
    scale = (
        f"fps={FPS},scale=w='iw*if(gt(sar,0),sar,1)':h=ih,setsar=1,scale=w='min({LONGEST_SIDE},iw)':h='min({LONGEST_SIDE},ih)'"
        ":force_original_aspect_ratio=decrease:force_divisible_by=2:flags=lanczos"
        ":out_color_matrix=bt601:out_range=full,format=yuvj420p"
    )
    arguments = [
        *("-format_whitelist", DEMUXERS, "-max_pixels", str(settings.max_avatar_pixels)),
        *("-i", file_url(source), "-map", "0:v:0", "-an", "-vf", scale),
        *("-frames:v", str(frames), "-c:v", "mjpeg", "-q:v", "2", "-f", "image2pipe", "pipe:1"),
    ]
    try:
        finished = await execute(
            arguments,
            timeout=60 + 4 * settings.max_avatar_seconds,
            max_output=_MAX_STORED,
            loglevel="warning",
        )
    except MediaError as error:
        raise MediaError(
            f"{source.name} is no picture or video that can be used: {error.message}",
            remedy="use a JPEG, PNG, WebP, GIF, MP4, MOV, WebM or MKV file; 10 s are plenty",
        ) from error
    return await asyncio.to_thread(_split, finished.stdout), finished.log


def source_digest(source: Path, settings: Settings) -> str:
    """SHA-256 of a file that may be read.

    Raises:
        MediaError: it is not there, empty, or too large.
    """
    if not source.is_file():
        raise MediaError(f"{source}: no such file")
    size = source.stat().st_size
    if size > settings.max_avatar_bytes:
        raise MediaError(f"{source.name} is larger than {settings.max_avatar_bytes >> 20} MB")
    if size == 0:
        raise MediaError(f"{source.name} is empty")
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


async def read_frames(source: Path, settings: Settings) -> Frames:
    """Read a picture or a video that ``source_digest`` has accepted.

    Raises:
        MediaError: it cannot be used; the message says why.
    """
    picture = await read_picture_apart(source, settings.max_avatar_pixels)
    return picture or await read_video(source, settings)
