"""Fragmented MP4 with one H.264 and one AAC track: the init segment, and a fragment of samples.

Box layouts: ISO/IEC 14496-12 (file format), -15 (AVC), -14 (AAC). Both tracks count time in
samples of the sound, so that a frame and a packet are whole numbers of the same tick.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TICKS: Final = 48_000
"""Ticks a second of both tracks: samples of the sound."""

PACKET_TICKS: Final = 1024
"""Length of an AAC packet."""

VIDEO_TRACK: Final = 1
AUDIO_TRACK: Final = 2

_AAC_CONFIG: Final = bytes.fromhex("1188")
"""AudioSpecificConfig: AAC-LC, 48 kHz, mono, 1024 samples a packet."""

_MATRIX: Final = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_KEY: Final = 0x0200_0000
"""Sample flags: depends on no other sample."""
_NOT_KEY: Final = 0x0101_0000
"""Sample flags: depends on others, no point to start at."""


@dataclass(frozen=True)
class Frame:
    """One coded picture.

    Attributes:
        data: its NAL units, each after its length in four bytes.
        ticks: how long it shows.
        key: whether it is an IDR picture.
    """

    data: bytes
    ticks: int
    key: bool


def codecs(avc_config: bytes) -> str:
    """MIME type with the ``codecs`` parameter (RFC 6381) that a browser asks for.

    Args:
        avc_config: AVCDecoderConfigurationRecord.
    """
    return f'video/mp4; codecs="avc1.{avc_config[1:4].hex().upper()}, mp4a.40.2"'


def init_segment(avc_config: bytes, width: int, height: int, comment: str) -> bytes:
    """``ftyp`` and ``moov``.

    Args:
        avc_config: AVCDecoderConfigurationRecord, with SPS and PPS.
        width: of the video, even.
        height: likewise.
        comment: metadata for people, in the place where iTunes put it.
    """
    movie = _full(
        b"mvhd",
        struct.pack(">4I", 0, 0, TICKS, 0)
        + struct.pack(">IH10x", 1 << 16, 1 << 8)
        + _MATRIX
        + bytes(24)
        + struct.pack(">I", AUDIO_TRACK + 1),
    )
    video = _track(
        VIDEO_TRACK, b"vide", _full(b"vmhd", bytes(8), flags=1), _avc1(avc_config, width, height),
        width=width, height=height,
    )  # fmt: skip
    audio = _track(AUDIO_TRACK, b"soun", _full(b"smhd", bytes(4)), _mp4a())
    extends = _box(
        b"mvex",
        _full(b"trex", struct.pack(">5I", VIDEO_TRACK, 1, 0, 0, _NOT_KEY)),
        _full(b"trex", struct.pack(">5I", AUDIO_TRACK, 1, PACKET_TICKS, 0, _KEY)),
    )
    brands = _box(b"ftyp", b"iso6", struct.pack(">I", 1), b"iso6mp41")
    return brands + _box(b"moov", movie, video, audio, extends, _udta(comment))


def fragment(
    sequence: int,
    video_start: int,
    video: Sequence[Frame],
    audio_start: int,
    audio: Sequence[bytes],
) -> bytes:
    """``moof`` and ``mdat`` of consecutive samples.

    Args:
        sequence: number of the fragment, counted up from 1.
        video_start: ticks at which the first frame shows.
        video: at least one frame.
        audio_start: ticks at which the first packet sounds.
        audio: AAC packets, maybe none.
    """
    head = _full(b"mfhd", struct.pack(">I", sequence))
    frames = b"".join(frame.data for frame in video)
    entries = b"".join(
        struct.pack(">3I", frame.ticks, len(frame.data), _KEY if frame.key else _NOT_KEY)
        for frame in video
    )
    sizes = struct.pack(f">{len(audio)}I", *map(len, audio))

    def moof(data: int) -> bytes:
        """The box, where the media begins ``data`` bytes after it begins itself."""
        runs = [_run(VIDEO_TRACK, video_start, 0x701, len(video), data, entries)]
        if audio:
            start = data + len(frames)
            runs.append(_run(AUDIO_TRACK, audio_start, 0x201, len(audio), start, sizes))
        return _box(b"moof", head, *runs)

    media = _box(b"mdat", frames, *audio)
    return moof(len(moof(0)) + 8) + media


def _run(track: int, start: int, fields: int, count: int, data: int, entries: bytes) -> bytes:
    return _box(
        b"traf",
        _full(b"tfhd", struct.pack(">I", track), flags=0x02_0000),  # offsets count from moof
        _full(b"tfdt", struct.pack(">Q", start), version=1),
        _full(b"trun", struct.pack(">Ii", count, data) + entries, flags=fields),
    )


def _track(
    track: int, handler: bytes, header: bytes, entry: bytes, *, width: int = 0, height: int = 0
) -> bytes:
    shown = 1 | 2  # enabled, in the movie
    volume = 1 << 8 if handler == b"soun" else 0
    return _box(
        b"trak",
        _full(
            b"tkhd",
            struct.pack(">5I8x", 0, 0, track, 0, 0)
            + struct.pack(">4H", 0, 0, volume, 0)
            + _MATRIX
            + struct.pack(">2I", width << 16, height << 16),
            flags=shown,
        ),
        _box(
            b"mdia",
            _full(b"mdhd", struct.pack(">4I2H", 0, 0, TICKS, 0, 0x55C4, 0)),  # language: und
            _full(b"hdlr", bytes(4) + handler + bytes(12) + b"MuseTalk\0"),
            _box(
                b"minf",
                header,
                _box(
                    b"dinf",
                    _full(b"dref", struct.pack(">I", 1) + _full(b"url ", b"", flags=1)),
                ),
                _box(
                    b"stbl",
                    _full(b"stsd", struct.pack(">I", 1) + entry),
                    _full(b"stts", bytes(4)),
                    _full(b"stsc", bytes(4)),
                    _full(b"stsz", bytes(8)),
                    _full(b"stco", bytes(4)),
                ),
            ),
        ),
    )


def _avc1(avc_config: bytes, width: int, height: int) -> bytes:
    return _box(
        b"avc1",
        struct.pack(">6xH16x2H", 1, width, height)
        + struct.pack(">2I4xH32xHh", 72 << 16, 72 << 16, 1, 24, -1),
        _box(b"avcC", avc_config),
        _box(b"pasp", struct.pack(">2I", 1, 1)),
    )


def _mp4a() -> bytes:
    decoder = struct.pack(">BBBHII", 0x40, 0x15, 0, 0, 0, 0) + _descriptor(5, _AAC_CONFIG)
    stream = struct.pack(">HB", 0, 0) + _descriptor(4, decoder) + _descriptor(6, b"\x02")
    return _box(
        b"mp4a",
        struct.pack(">6xH8x2H4xI", 1, 1, 16, TICKS << 16),
        _full(b"esds", _descriptor(3, stream)),
    )


def _udta(comment: str) -> bytes:
    text = struct.pack(">2I", 1, 0) + comment.encode()  # UTF-8
    handler = _full(b"hdlr", bytes(4) + b"mdirappl" + bytes(9))
    items = _box(b"ilst", _box(b"\xa9cmt", _box(b"data", text)))
    return _box(b"udta", _full(b"meta", handler + items))


def _descriptor(tag: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes((tag, len(content))) + content


def _full(kind: bytes, content: bytes, *, version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), content)


def _box(kind: bytes, *content: bytes) -> bytes:
    return b"".join((struct.pack(">I", 8 + sum(map(len, content))), kind, *content))
