"""Videos that are small as files and enormous when decoded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.avatars.prepare import prepare_avatar
from orchestrator.avatars.uploads import judge
from orchestrator.errors import MediaError
from orchestrator.settings import Settings
from orchestrator.speech.ffmpeg import run_ffmpeg
from tests.avatars.conftest import MeanEncoder


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
