"""Take coded pictures and sound out of what ffmpeg writes to a pipe, as soon as they are there.

FLV and ADTS say how long each piece is before it comes. A raw H.264 stream would not: the end of
a picture is known there only when the next one begins, a frame later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from orchestrator.errors import SetupError

_FLV_HEADER: Final = 13
"""Bytes before the first tag."""
_TAG_HEADER: Final = 11
_TAG_TRAILER: Final = 4
_VIDEO_TAG: Final = 9
_AVC_HEADER: Final = 5
"""Frame type and codec, packet type, composition time."""
_AVC: Final = 7
_KEY_FRAME: Final = 1
_ADTS_HEADER: Final = 7


@dataclass(frozen=True)
class Picture:
    """One coded picture.

    Attributes:
        data: its NAL units, each after its length in four bytes.
        key: whether it is an IDR picture.
    """

    data: bytes
    key: bool


class FlvReader:
    """H.264 in FLV.

    Attributes:
        config: AVCDecoderConfigurationRecord; empty until it came.
    """

    def __init__(self) -> None:
        self.config = b""
        self._buffer = bytearray()
        self._begun = False

    def feed(self, data: bytes) -> list[Picture]:
        """Take bytes; return the pictures that they complete.

        Raises:
            SetupError: this is not H.264 in FLV.
        """
        self._buffer += data
        if not self._begun:
            if len(self._buffer) < _FLV_HEADER:
                return []
            if not self._buffer.startswith(b"FLV"):
                raise SetupError("the video encoder writes something else than FLV")
            del self._buffer[:_FLV_HEADER]
            self._begun = True
        pictures = []
        while len(self._buffer) >= _TAG_HEADER:
            size = int.from_bytes(self._buffer[1:4], "big")
            if len(self._buffer) < _TAG_HEADER + size + _TAG_TRAILER:
                break
            kind, body = self._buffer[0], bytes(self._buffer[_TAG_HEADER : _TAG_HEADER + size])
            del self._buffer[: _TAG_HEADER + size + _TAG_TRAILER]
            if kind == _VIDEO_TAG and (picture := self._picture(body)) is not None:
                pictures.append(picture)
        return pictures

    def _picture(self, body: bytes) -> Picture | None:
        if len(body) < _AVC_HEADER or body[0] & 15 != _AVC:
            raise SetupError("the video encoder writes something else than H.264")
        content = body[_AVC_HEADER:]
        if body[1] == 0:
            self.config = content
        return Picture(content, body[0] >> 4 == _KEY_FRAME) if body[1] == 1 else None


class AdtsReader:
    """AAC in ADTS."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return the AAC packets that they complete.

        Raises:
            SetupError: this is not ADTS without checksums.
        """
        self._buffer += data
        packets = []
        while len(self._buffer) >= _ADTS_HEADER:
            head = self._buffer
            if head[0] != 0xFF or head[1] & 0xF7 != 0xF1:
                raise SetupError("the sound encoder writes something else than ADTS")
            size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
            if len(self._buffer) < size:
                break
            packets.append(bytes(self._buffer[_ADTS_HEADER:size]))
            del self._buffer[:size]
        return packets
