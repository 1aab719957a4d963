"""A drawn head turned away, and videos that are small as files and enormous when decoded."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.avatars.media import encode
from orchestrator.avatars.prepare import prepare_avatar
from orchestrator.avatars.tracking import track
from orchestrator.avatars.uploads import judge
from orchestrator.errors import AvatarError, MediaError
from orchestrator.rendering.gallery import PORTRAITS
from orchestrator.settings import Settings
from orchestrator.speech.ffmpeg import file_url, run_ffmpeg
from tests.avatars.conftest import MeanEncoder

U8 = npt.NDArray[np.uint8]
HEAD = (640, 346)
RADII = (150, 205)


async def drawn(name: str) -> U8:
    """First frame of a drawn portrait, U8[720,1280,3] BGR."""
    clip = file_url(PORTRAITS / f"{name}.mp4")
    arguments = ["-i", clip, "-frames:v", "1", "-c:v", "png", "-f", "image2pipe", "pipe:1"]
    png = await run_ffmpeg(arguments, timeout=30)
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def turned(frame: U8, degrees: float) -> U8:
    """The drawn head as the front of a solid ellipsoid with a nose, seen from an angle."""
    (cx, cy), (rx, ry) = HEAD, RADII
    y, x = np.mgrid[-1 : 1 : complex(0, 8 * ry), -1 : 1 : complex(0, 8 * rx)]
    inside = x * x + y * y < 1
    x, y = x[inside], y[inside]
    nose = 0.35 * np.exp(-((x / 0.13) ** 2) - ((y - 0.12) / 0.2) ** 2)
    depth = np.sqrt(1 - x * x - y * y) + nose
    rows = (cy + y * ry).astype(int)
    colours = frame[rows, (cx + x * rx).astype(int)]
    angle = np.radians(degrees)
    columns = (cx + rx * (x * np.cos(angle) + depth * np.sin(angle))).astype(int)
    near = np.argsort(depth * np.cos(angle) - x * np.sin(angle))  # what is nearer comes last
    picture = np.full_like(frame, frame[20, 20])
    hair = [int(value) for value in frame[cy - ry + 20, cx]]
    cv2.ellipse(picture, HEAD, RADII, 0, 0, 360, hair, -1)
    picture[rows[near], columns[near]] = colours[near]
    return picture


@pytest.mark.parametrize("name", ["amara", "henrik", "mei"])
async def test_a_head_in_profile_is_refused_as_turned_away(name: str) -> None:
    frame = await drawn(name)
    assert len(track([encode(turned(frame, 0))]).boxes) == 1  # the same head from the front
    for degrees in (45, -45, 80):
        with pytest.raises(AvatarError, match="turned away") as caught:
            track([encode(turned(frame, degrees))])
        assert "from the front" in (caught.value.remedy or "")


async def _bomb(folder: Path, kind: str) -> Path:
    """A small file: one plain frame of 9000x9000, or a day of plain frames at 2 a second."""
    path = folder / f"{kind}.mkv"
    size, rate, seconds = ("9000x9000", 1, 1) if kind == "pixels" else ("16x16", 2, 86_400)
    plain = f"color=c=gray:s={size}:r={rate}:d={seconds}"
    codec = (
        ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p"]
        if kind == "pixels"
        else ["-c:v", "mpeg4", "-g", "600"]
    )
    arguments = ["-f", "lavfi", "-i", plain, *codec, f"file:{path}"]
    await run_ffmpeg(
        [*arguments[:2], "-protocol_whitelist", "file,pipe", *arguments[2:]], timeout=60
    )
    return path


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", ["pixels", "frames"])
async def test_a_decompression_bomb_is_refused_in_seconds_and_leaves_nothing(
    kind: str, tmp_path: Path, settings: Settings
) -> None:
    bomb = await _bomb(tmp_path, kind)
    assert bomb.stat().st_size < 6_000_000 < settings.max_avatar_bytes
    encoder = MeanEncoder()
    before = time.monotonic()
    with pytest.raises(MediaError):
        await judge(bomb, "video/x-matroska", settings)
    with pytest.raises(MediaError, match=r"longer than|cannot|no picture or video") as caught:
        await prepare_avatar(
            bomb,
            inference=encoder,  # type: ignore[arg-type]
            settings=settings,
            name="bomb",
            consent="nobody is shown",
        )
    assert time.monotonic() - before < 30  # 81 megapixels or a day of video take far longer
    assert "\n" not in str(caught.value) and encoder.crops <= 1  # the probe of the weights
    assert _files(tmp_path) == [bomb]
