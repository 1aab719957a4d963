"""What a browser's player holds of a received stream, as one MP4.

``SourceBuffer.remove`` and overlapping appends drop single samples, not fragments; this does the
same to fragments of ``orchestrator.rendering.live``. A fragment of which nothing was dropped stays
as it was received, byte for byte.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from orchestrator.rendering.live.fmp4 import PACKET_TICKS, TICKS, VIDEO_TRACK, Frame, fragment

_RUN_FIELDS: Final = {0x701: 3, 0x201: 1}


@dataclass
class Track:
    """Samples of one track in one fragment.

    Attributes:
        start: ticks of the first.
        samples: ticks, bytes and key flag of each.
    """

    start: int = 0
    samples: list[tuple[int, bytes, bool]] = field(default_factory=list)

    def keep_before(self, moment: int) -> bool:
        """Drop samples that begin at a moment or later; whether there were any."""
        kept, at = 0, self.start
        for ticks, _, _ in self.samples:
            if at >= moment:
                break
            kept, at = kept + 1, at + ticks
        dropped = kept < len(self.samples)
        del self.samples[kept:]
        return dropped


@dataclass
class Held:
    """A fragment in the player."""

    data: bytes
    video: Track
    audio: Track
    whole: bool = True

    def bytes(self, number: int) -> bytes:
        """As it was received, or what is left of it, which has pictures."""
        if self.whole:
            return self.data
        frames = [Frame(data, ticks, key) for ticks, data, key in self.video.samples]
        packets = [data for _, data, _ in self.audio.samples]
        return fragment(number, self.video.start, frames, self.audio.start, packets)


class Player:
    """Collects what is appended, forgets what is removed."""

    def __init__(self) -> None:
        self.init = b""
        self.held: list[Held] = []

    def append(self, data: bytes) -> None:
        """A fragment; what it overlaps is replaced."""
        new = parse(data)
        for old in self.held:
            changed = old.video.keep_before(new.video.start)
            if new.audio.samples:
                # An old packet that reaches into the new ones by less than half stays.
                changed |= old.audio.keep_before(new.audio.start - PACKET_TICKS // 2)
            old.whole &= not changed
        self.held.append(new)

    def remove_from(self, seconds: float) -> None:
        """All that begins at a position or later is dropped."""
        moment = round(seconds * TICKS)
        for old in self.held:
            changed = old.video.keep_before(moment)
            changed |= old.audio.keep_before(moment)
            old.whole &= not changed

    def stream(self) -> bytes:
        """One MP4."""
        kept: list[Held] = []
        for held in self.held:
            if held.video.samples:
                kept.append(held)
            elif held.audio.samples and kept:
                # Sound lags behind the pictures: a fragment can lose all of these alone.
                before = kept[-1]
                if not before.audio.samples:
                    before.audio.start = held.audio.start
                before.audio.samples += held.audio.samples
                before.whole = False
        return self.init + b"".join(held.bytes(number) for number, held in enumerate(kept, 1))


def parse(data: bytes) -> Held:
    """Read a fragment of one ``moof`` and one ``mdat``.

    Raises:
        ValueError: it is something else.
    """
    (moof,) = (body for kind, body in boxes(data) if kind == b"moof")
    video, audio = Track(), Track()
    for kind, traf in boxes(moof):
        if kind != b"traf":
            continue
        parts = dict(boxes(traf))
        track = struct.unpack_from(">I", parts[b"tfhd"], 4)[0]
        into = video if track == VIDEO_TRACK else audio
        into.start = struct.unpack_from(">Q", parts[b"tfdt"], 4)[0]
        flags, count, offset = struct.unpack_from(">IIi", parts[b"trun"])
        width = _RUN_FIELDS[flags & 0xFFFFFF]
        for index in range(count):
            entry = struct.unpack_from(f">{width}I", parts[b"trun"], 12 + 4 * width * index)
            ticks, size, key = entry if width == 3 else (PACKET_TICKS, entry[0], 0)
            into.samples.append((ticks, data[offset : offset + size], not key & 0x10000))
            offset += size
    return Held(data, video, audio)


def boxes(data: bytes) -> Sequence[tuple[bytes, bytes]]:
    """Kind and content of each box, one level deep.

    Raises:
        ValueError: a box does not fit.
    """
    found, at = [], 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8 or at + size > len(data):
            raise ValueError(f"a box of {size} bytes with {len(data) - at} left")
        found.append((kind, data[at + 8 : at + size]))
        at += size
    return found
