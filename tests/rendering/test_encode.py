from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import psutil
import pytest

from orchestrator.errors import SetupError, UsageError
from orchestrator.rendering.encode import AUDIO_RATE, Mp4Writer
from orchestrator.rendering.presets import LIVE, OFFLINE, VideoPreset
from orchestrator.rendering.provenance import DIGITAL_SOURCE_TYPE, Provenance
from orchestrator.speech.ffmpeg import ffmpeg_path

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]

PROVENANCE = Provenance("MuseTalk v1.5", "w-123", "Ada", "piper joe")


@dataclass
class Decoded:
    frames: list[U8]
    pts: list[Fraction]
    sound: I16
    sound_seconds: float
    video_seconds: float
    metadata: dict[str, str]


def decode(path: Path) -> Decoded:
    """Everything in a file, by other software than wrote it; fails on any decoding error."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.name == "h264" and audio.codec_context.name == "aac"
        assert video.codec_context.pix_fmt == "yuv420p"
        metadata = dict(container.metadata)
        durations = [float(s.duration * s.time_base) for s in (video, audio)]
        frames, pts, sound = [], [], []
        for frame in container.decode(video):
            frames.append(frame.to_ndarray(format="bgr24"))
            pts.append(frame.pts * frame.time_base)
        container.seek(0)
        for block in container.decode(audio):
            sound.append(block.to_ndarray()[0])
    return Decoded(frames, pts, np.concatenate(sound), durations[1], durations[0], metadata)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def size(path: Path) -> int:
    return path.stat().st_size


def numbered(index: int, width: int = 64, height: int = 48) -> U8:
    """A frame whose grey says its number."""
    return np.full((height, width, 3), 20 + 6 * index, np.uint8)


def tone(seconds: float) -> I16:
    t = np.arange(round(seconds * AUDIO_RATE)) / AUDIO_RATE
    return (8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)


async def write(
    path: Path, frames: list[U8], sound: I16, fps: int = 25, preset: VideoPreset = OFFLINE
) -> None:
    height, width = frames[0].shape[:2]
    async with Mp4Writer(
        path, width=width, height=height, fps=fps, provenance=PROVENANCE, preset=preset
    ) as writer:
        await writer.write_audio(sound)
        for start in range(0, len(frames), 8):
            await writer.write(frames[start : start + 8])
        info = await writer.finish()
    assert info.frames == len(frames)
    assert info.size == size(path)


@pytest.mark.parametrize("preset", [OFFLINE, LIVE], ids=lambda preset: preset.name)
@pytest.mark.parametrize(("fps", "count"), [(25, 1), (25, 30), (8, 9), (49, 37), (15, 2)])
async def test_every_frame_in_its_place_and_sound_as_long(
    tmp_path: Path, preset: VideoPreset, fps: int, count: int
) -> None:
    path = tmp_path / "out.mp4"
    await write(path, [numbered(i) for i in range(count)], tone(count / fps), fps, preset)
    decoded = decode(path)
    assert decoded.pts == [Fraction(i, fps) for i in range(count)]
    for index, frame in enumerate(decoded.frames):
        assert abs(int(np.median(frame)) - (20 + 6 * index)) <= 2
    assert abs(decoded.video_seconds - count / fps) < 0.001
    assert abs(decoded.sound_seconds - decoded.video_seconds) < 1 / fps


@pytest.mark.parametrize("sound_seconds", [0.0, 0.3, 1.7])
async def test_sound_is_padded_or_cut_to_the_video(tmp_path: Path, sound_seconds: float) -> None:
    path = tmp_path / "out.mp4"
    await write(path, [numbered(i) for i in range(25)], tone(sound_seconds))
    decoded = decode(path)
    assert abs(decoded.sound_seconds - 1.0) < 1 / 25
    loud = np.abs(decoded.sound) > 0.05
    end = np.flatnonzero(loud)[-1] / AUDIO_RATE if loud.any() else 0.0
    assert abs(end - min(sound_seconds, 1.0)) < 0.05


async def test_sound_starts_with_the_first_frame(tmp_path: Path) -> None:
    sound = np.zeros(AUDIO_RATE, np.int16)
    sound[AUDIO_RATE // 2 :] = tone(0.5)
    path = tmp_path / "out.mp4"
    await write(path, [numbered(i) for i in range(25)], sound)
    start = np.flatnonzero(np.abs(decode(path).sound) > 0.1)[0] / AUDIO_RATE
    assert abs(start - 0.5) < 0.01


@pytest.mark.parametrize(("width", "height"), [(65, 47), (64, 47), (65, 48)])
async def test_odd_sizes_lose_nothing(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "out.mp4"
    frame = numbered(3, width, height)
    frame[-1, :] = 220
    frame[:, -1] = 220
    await write(path, [frame] * 5, tone(0.2))
    decoded = decode(path).frames[0]
    assert decoded.shape == (height + height % 2, width + width % 2, 3)
    assert decoded[height - 1, width // 2].mean() > 190
    assert decoded[height // 2, width - 1].mean() > 190


async def test_colours_do_not_shift(tmp_path: Path) -> None:
    colours = [(30, 40, 200), (200, 60, 30), (60, 180, 70), (150, 170, 220), (255, 255, 255)]
    frame = np.zeros((64, 320, 3), np.uint8)
    for index, colour in enumerate(colours):
        frame[:, index * 64 : (index + 1) * 64] = colour
    path = tmp_path / "out.mp4"
    await write(path, [frame] * 3, tone(0.12))
    decoded = decode(path).frames[1]
    for index, colour in enumerate(colours):
        middle = decoded[24:40, index * 64 + 24 : index * 64 + 40].reshape(-1, 3).mean(0)
        assert np.abs(middle - colour).max() <= 3


async def test_file_says_how_its_colours_are_stored(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    await write(path, [numbered(0)], tone(0.04))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert context.colorspace == 6  # SMPTE 170M, the BT.601 matrix
        assert context.color_primaries == 1 and context.color_trc == 1
        assert context.color_range == 1  # limited
    assert b"colr" in path.read_bytes()


async def test_index_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    await write(path, [numbered(i) for i in range(10)], tone(0.4))
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


async def test_file_says_who_made_it(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    await write(path, [numbered(0)], tone(0.04))
    metadata = decode(path).metadata
    assert metadata["comment"].startswith("Made by AI")
    assert all(word in metadata["comment"] for word in ("MuseTalk v1.5", "w-123", "Ada", "joe"))
    record = json.loads(metadata["description"])
    assert record["ai_generated"] is True
    assert record["digital_source_type"] == DIGITAL_SOURCE_TYPE
    assert record["weights"] == "w-123"
    assert metadata["artist"].startswith("musetalk-serving")


async def test_an_error_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        async with Mp4Writer(path, width=64, height=48, fps=25, provenance=PROVENANCE) as writer:
            await writer.write([numbered(0)] * 10)
            raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out.mp4"]


async def test_cancelling_ends_ffmpeg_and_leaves_nothing(tmp_path: Path) -> None:
    started = asyncio.Event()
    noise = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)

    async def endless() -> None:
        async with Mp4Writer(
            tmp_path / "out.mp4", width=1920, height=1080, fps=25, provenance=PROVENANCE
        ) as writer:
            while True:
                await writer.write([noise] * 8)
                started.set()

    task = asyncio.create_task(endless())
    await asyncio.wait_for(started.wait(), 30)
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    assert names(tmp_path) == []
    children = psutil.Process().children(recursive=True)
    assert not [child for child in children if "ffmpeg" in child.name()]


async def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files stands in for the disk: ffmpeg's write fails likewise."""
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    script = tmp_path / "ffmpeg"
    script.write_text(f"#!/bin/sh\ntrap '' XFSZ\nulimit -f 64\nexec {ffmpeg_path()} \"$@\"\n")
    script.chmod(0o755)
    monkeypatch.setattr("orchestrator.rendering.encode.ffmpeg_path", lambda: str(script))
    folder = tmp_path / "results"
    with pytest.raises(SetupError, match=r"could not be encoded: .*(large|space|write|writing)"):
        async with Mp4Writer(
            folder / "out.mp4", width=640, height=480, fps=25, provenance=PROVENANCE
        ) as writer:
            for _ in range(20):
                await writer.write([noise] * 8)
            await writer.finish()
    assert names(folder) == []


async def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "out.mp4"):
        with pytest.raises(UsageError):
            async with Mp4Writer(path, width=64, height=48, fps=25, provenance=PROVENANCE):
                pass


async def test_no_descriptor_is_left(tmp_path: Path) -> None:
    await write(tmp_path / "a.mp4", [numbered(0)], tone(0.04))
    before = len(names(Path("/proc/self/fd")))
    for index in range(3):
        await write(tmp_path / f"{index}.mp4", [numbered(0)], tone(0.04))
    assert len(names(Path("/proc/self/fd"))) <= before + 1
