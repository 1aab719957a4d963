"""An avatar that costs little, and a player that keeps what a viewer's browser would."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.rendering.live import Fragment, LiveMedia, fmp4, idle_clip
from orchestrator.speech.ffmpeg import ffmpeg_path
from tests.rendering.live.viewer import Viewer, ffmpegs

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]

CODE = 8
"""Side of the squares that say a frame's number, one bit each."""


class Portrait:
    """Soft noise that drifts; a row of squares says the index of the frame in black and white."""

    name = "Ada"

    def __init__(
        self, frames: int = 20, *, fps: int = 25, width: int = 320, height: int = 176
    ) -> None:
        self.id = f"{name_of(frames, fps)}-{width}x{height}"
        self.count, self.fps, self.width, self.height = frames, fps, width, height
        noise = np.random.default_rng(7).integers(0, 256, (height, width + frames, 3))
        self.soft = cv2.GaussianBlur(noise.astype(np.uint8), (0, 0), 3)

    def __len__(self) -> int:
        return self.count

    def frame(self, index: int) -> U8:
        return marked(self.soft[:, index : index + self.width], index)

    def cycle_index(self, index: int) -> int:
        place = index % (2 * self.count)
        return place if place < self.count else 2 * self.count - 1 - place


def name_of(frames: int, fps: int) -> str:
    return f"{frames}at{fps}"


def marked(picture: U8, number: int) -> U8:
    """A copy with ``number`` (10 bits) in its first row of squares."""
    frame = picture.copy()
    for bit in range(10):
        frame[:CODE, bit * CODE : (bit + 1) * CODE] = 255 * (number >> bit & 1)
    return frame


def number_of(frame: U8) -> int:
    return sum(
        (int(frame[2 : CODE - 2, bit * CODE + 2 : (bit + 1) * CODE - 2].mean()) > 127) << bit
        for bit in range(10)
    )


@dataclass
class Sample:
    start: int
    ticks: int
    data: bytes
    key: bool


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        assert 8 <= size <= len(data) - at
        yield kind, data[at + 8 : at + size]
        at += size


def samples_of(data: bytes) -> dict[int, list[Sample]]:
    """Samples of a fragment by track; offsets and sizes must fit."""
    (kind, moof), (second, _) = boxes(data)
    assert (kind, second) == (b"moof", b"mdat")
    tracks: dict[int, list[Sample]] = {}
    end = len(moof) + 16
    for name, traf in boxes(moof):
        if name != b"traf":
            assert name == b"mfhd"
            continue
        parts = dict(boxes(traf))
        flags, track = struct.unpack(">2I", parts[b"tfhd"])
        assert flags == 0x020000
        version, start = struct.unpack(">IQ", parts[b"tfdt"])
        assert version == 1 << 24
        fields, count, offset = struct.unpack_from(">2Ii", parts[b"trun"])
        assert offset == end
        samples = tracks.setdefault(track, [])
        at = 12
        for _ in range(count):
            ticks, mark = 1024, 0x02000000
            if fields & 0x100:
                (ticks,) = struct.unpack_from(">I", parts[b"trun"], at)
                at += 4
            (size,) = struct.unpack_from(">I", parts[b"trun"], at)
            at += 4
            if fields & 0x400:
                (mark,) = struct.unpack_from(">I", parts[b"trun"], at)
                at += 4
            samples.append(Sample(start, ticks, data[end : end + size], mark == 0x02000000))
            start, end = start + ticks, end + size
    assert end == len(data)
    return tracks


@dataclass
class Player:
    """Keeps samples as a browser's SourceBuffer does: ``flush`` removes those that begin later."""

    init: bytes
    video: list[Sample] = field(default_factory=list)
    audio: list[Sample] = field(default_factory=list)
    frames: int = 0

    def append(self, *fragments: Fragment) -> None:
        for fragment in fragments:
            tracks = samples_of(fragment.data)
            video = tracks[fmp4.VIDEO_TRACK]
            self.video += video
            self.audio += tracks.get(fmp4.AUDIO_TRACK, [])
            assert video[0].key == fragment.keyframe
            assert video[0].start == round(fragment.start * fmp4.TICKS)
            assert sum(sample.ticks for sample in video) == round(fragment.duration * fmp4.TICKS)

    def flush(self, position: float) -> None:
        tick = round(position * fmp4.TICKS)
        self.video = [sample for sample in self.video if sample.start < tick]
        self.audio = [sample for sample in self.audio if sample.start < tick]

    @property
    def end(self) -> int:
        return self.video[-1].start + self.video[-1].ticks

    def check(self) -> None:
        """Both tracks go on without gap or overlap, the sound never far from the pictures."""
        for track in (self.video, self.audio):
            assert track[0].start == 0
            for one, other in itertools.pairwise(track):
                assert one.start + one.ticks == other.start
        assert 0 <= self.end - (self.audio[-1].start + 1024) <= 3 * 1024 + 1920

    def file(self, path: Path) -> Path:
        """What was kept, as an MP4 of one-second fragments."""
        pieces = [self.init]
        audio = list(self.audio)
        for number, at in enumerate(range(0, len(self.video), 25), 1):
            video = self.video[at : at + 25]
            until = video[-1].start + video[-1].ticks if at + 25 < len(self.video) else 1 << 62
            packets = [sample for sample in audio if sample.start < until]
            audio = audio[len(packets) :]
            pieces.append(
                fmp4.fragment(
                    number,
                    video[0].start,
                    [fmp4.Frame(sample.data, sample.ticks, sample.key) for sample in video],
                    packets[0].start if packets else 0,
                    [sample.data for sample in packets],
                )
            )
        path.write_bytes(b"".join(pieces))
        return path


def decoded(path: Path) -> tuple[list[tuple[int, U8]], I16]:
    """All frames with their tick, and the sound from tick 0, by PyAV; time stamps must rise."""
    frames: list[tuple[int, U8]] = []
    sound: list[I16] = []
    with av.open(io.BytesIO(path.read_bytes())) as container:
        last = {0: -1, 1: -1}
        for packet in container.demux():
            if packet.dts is None:
                continue
            assert packet.dts > last[packet.stream_index]
            assert packet.pts == packet.dts
            last[packet.stream_index] = packet.dts
    with av.open(io.BytesIO(path.read_bytes())) as container:
        for frame in container.decode(video=0):
            tick = round(frame.pts * frame.time_base * fmp4.TICKS)
            frames.append((tick, frame.to_ndarray(format="bgr24")))
    with av.open(io.BytesIO(path.read_bytes())) as container:
        place = 0
        for block in container.decode(audio=0):
            assert round(block.pts * block.time_base * fmp4.TICKS) == place
            place += block.samples
            sound.append(np.clip(block.to_ndarray()[0] * 32768, -32768, 32767).astype(np.int16))
    return frames, np.concatenate(sound)


def complaints(path: Path) -> str:
    """What the ffmpeg binary has to say about a file, with every check switched on."""
    done = subprocess.run(
        [ffmpeg_path(), "-v", "warning", "-xerror", "-err_detect", "+crccheck+bitstream+buffer",
         "-i", str(path), "-f", "null", "-"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stderr + (f"status {done.returncode}" if done.returncode else "")


def voice(samples: int, *, seed: int = 1) -> I16:
    """Something like speech: a gliding voice that swells, and some breath."""
    time = np.arange(samples) / fmp4.TICKS
    random = np.random.default_rng(seed)
    pitch = 120 + 40 * np.sin(2 * np.pi * 1.3 * time + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / fmp4.TICKS
    tone = sum(np.sin(k * phase) / k for k in range(1, 16))
    swell = 0.3 + 0.7 * np.abs(np.sin(2 * np.pi * 2.1 * time))
    return np.asarray(4000 * swell * tone + 150 * random.standard_normal(samples), np.int16)


@dataclass
class Tools:
    """The functions above, for tests: they cannot import this file."""

    Portrait = Portrait
    Player = Player
    marked = staticmethod(marked)
    number_of = staticmethod(number_of)
    samples_of = staticmethod(samples_of)
    boxes = staticmethod(boxes)
    decoded = staticmethod(decoded)
    complaints = staticmethod(complaints)
    voice = staticmethod(voice)


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools()


@pytest.fixture
async def viewer(tools: Any) -> AsyncIterator[Viewer]:
    avatar = tools.Portrait()
    clip = await idle_clip(avatar)
    await clip.finish()
    media = LiveMedia(avatar, clip)
    yield Viewer(tools, avatar, media)
    await media.close()
    assert ffmpegs() == 0
