"""Whether an uploaded file is a picture or video, and nothing else, judged by its content.

What is refused here never reaches the preparation. What is let through is decoded in a confined
process and encoded again, so that nothing of the file itself is ever handed out.
"""

from __future__ import annotations

import asyncio
import re
import zipfile
from pathlib import Path
from typing import Final, Literal

from orchestrator.avatars.media import DEMUXERS
from orchestrator.avatars.picture_process import read_picture_apart
from orchestrator.errors import MediaError
from orchestrator.settings import Settings
from orchestrator.speech.ffmpeg import execute, file_url

Kind = Literal["image", "video"]

_SIGNATURES: Final[tuple[tuple[re.Pattern[bytes], Kind], ...]] = (
    (re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|BM|II\*\0|MM\0\*", re.S), "image"),
    (re.compile(rb"RIFF.{4}WEBP|GIF8[79]a", re.S), "image"),
    (re.compile(rb".{4}(ftyp|moov|mdat|wide|free|skip)|\x1a\x45\xdf\xa3", re.S), "video"),
    (re.compile(rb"RIFF.{4}AVI |OggS|FLV\x01|\x30\x26\xb2\x75\x8e\x66\xcf\x11", re.S), "video"),
    (re.compile(rb"\x47.{187}\x47", re.S), "video"),
)
_FOREIGN: Final = re.compile(
    rb"<script|<\?php|<html|<svg|<!doctype|Rar!\x1a\x07|7z\xbc\xaf\x27\x1c", re.I
)
"""What has no business in a picture or video, wherever it stands."""

_FOREIGN_AT_START: Final = b"%PDF-"
_HEAD: Final = 1024
_BLOCK: Final = 1 << 20
_OVERLAP: Final = 16
_PROBE_SECONDS: Final = 20.0
_DURATION: Final = re.compile(r"Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
_REMEDY: Final = "use a JPEG, PNG, WebP, GIF, MP4, MOV, WebM or MKV file; 10 s are plenty"


async def judge(source: Path, declared: str, settings: Settings) -> None:
    """Refuse a file that cannot become an avatar, without decoding more than needed.

    Args:
        source: the file.
        declared: type that the client gave it, e.g. ``image/png``; may be empty.
        settings: limits of pixels, duration and size.

    Raises:
        MediaError: it is refused; the message says why.
    """
    kind = await asyncio.to_thread(_kind, source)
    family = declared.partition("/")[0].strip().lower()
    if family not in ("", "application", kind):
        raise MediaError(f"the file is said to be {family[:20]}, but holds {kind}", remedy=_REMEDY)
    await asyncio.to_thread(_refuse_polyglot, source)
    if await read_picture_apart(source, settings.max_avatar_pixels) is None:
        await _probe_video(source, settings)


def _kind(source: Path) -> Kind:
    with source.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise MediaError("the file is empty", remedy=_REMEDY)
    for signature, kind in _SIGNATURES:
        if signature.match(head):
            return kind
    raise MediaError("the file is no picture or video that can be used", remedy=_REMEDY)


def _refuse_polyglot(source: Path) -> None:
    refusal = MediaError(
        "the file is a picture or video and something else at the same time",
        remedy="save it again with a picture or video editor",
    )
    if zipfile.is_zipfile(source):
        raise refusal
    with source.open("rb") as file:
        rest = b""
        first = True
        while block := file.read(_BLOCK):
            if _FOREIGN.search(rest + block) or (first and _FOREIGN_AT_START in block[:_HEAD]):
                raise refusal
            rest, first = block[-_OVERLAP:], False


async def _probe_video(source: Path, settings: Settings) -> None:
    """Decode the first frame, and read how long the rest is said to be."""
    arguments = [
        *("-format_whitelist", DEMUXERS, "-max_pixels", str(settings.max_avatar_pixels)),
        *("-i", file_url(source), "-map", "0:v:0", "-an", "-frames:v", "1", "-f", "null", "pipe:1"),
    ]
    try:
        done = await execute(arguments, timeout=_PROBE_SECONDS, loglevel="info")
    except MediaError as error:
        raise MediaError("the video cannot be decoded", remedy=_REMEDY) from error
    found = _DURATION.search(done.log)
    if found is not None:
        seconds = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
        if seconds > settings.max_avatar_seconds + 1:
            raise MediaError(
                f"the video is longer than {settings.max_avatar_seconds:g} s",
                remedy="cut it, 10 s are plenty",
            )
