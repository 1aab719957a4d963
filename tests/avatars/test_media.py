"""Pictures and videos as phones and editors write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from orchestrator.avatars import media
from orchestrator.avatars.media import decode, read_frames, read_video, source_digest
from orchestrator.errors import MediaError
from orchestrator.settings import Settings
from orchestrator.speech.ffmpeg import run_ffmpeg

U8 = npt.NDArray[np.uint8]
Film = Callable[..., Any]


def difference(frame: U8, picture: U8) -> float:
    return float(np.abs(frame.astype(int) - picture).mean())


async def test_a_phones_jpeg_with_a_second_picture_in_it(
    photograph: U8, tmp_path: Path, settings: Settings
) -> None:
    path = tmp_path / "phone.jpg"
    image = Image.fromarray(np.ascontiguousarray(photograph[:, :, ::-1]))
    image.save(path, format="MPO", save_all=True, append_images=[image.resize((80, 80))])
    frames = await read_frames(path, settings)
    assert len(frames.jpegs) == 1
    assert difference(decode(frames.jpegs[0]), photograph) < 4


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
async def test_of_an_animation_other_than_gif_the_first_picture_is_taken_and_that_is_said(
    name: str, photograph: U8, tmp_path: Path, settings: Settings
) -> None:
    image = Image.fromarray(np.ascontiguousarray(photograph[:, :, ::-1]))
    path = tmp_path / name
    other = Image.new("RGB", image.size)
    image.save(path, save_all=True, append_images=[other], duration=100, lossless=True)
    frames = await read_frames(path, settings)
    assert difference(decode(frames.jpegs[0]), photograph) < 1.5
    assert frames.notes == ("the first of 2 pictures was taken",)


async def test_sixteen_bit_grey_is_scaled(
    photograph: U8, tmp_path: Path, settings: Settings
) -> None:
    grey = photograph[:, :, 1]
    path = tmp_path / "g.png"
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    frames = await read_frames(path, settings)
    assert difference(decode(frames.jpegs[0])[:, :, 1], grey) < 1.5


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
async def test_colours_survive_the_videos_matrix(
    matrix: str, film: Film, settings: Settings
) -> None:
    bands = np.zeros((240, 320, 3), np.uint8)
    for index, colour in enumerate(((40, 60, 200), (60, 190, 50), (200, 70, 40), (120, 150, 210))):
        bands[:, 80 * index : 80 * (index + 1)] = colour
    source = await film(
        "m.mp4", "-t", "0.2", "-r", "25", "-crf", "5", "-colorspace", matrix,
        "-vf", f"scale=out_color_matrix={matrix}:out_range=tv,format=yuv420p", picture=bands,
    )  # fmt: skip
    frame = decode((await read_frames(source, settings)).jpegs[0])
    for column in (40, 120, 200, 280):
        assert frame[120, column].astype(int) == pytest.approx(bands[120, column], abs=4)


async def test_pixels_become_square(film: Film, settings: Settings) -> None:
    source = await film("s.mp4", "-t", "0.2", "-vf", "setsar=3/2", "-pix_fmt", "yuv420p")
    assert decode((await read_frames(source, settings)).jpegs[0]).shape == (640, 960, 3)


async def test_a_video_filmed_on_its_side_stands_up(
    film: Film, tmp_path: Path, settings: Settings
) -> None:
    wide = await film("w.mp4", "-t", "0.2", "-vf", "crop=640:360", "-pix_fmt", "yuv420p")
    turned = tmp_path / "turned.mp4"
    await run_ffmpeg(
        ["-display_rotation", "90", "-i", f"file:{wide}", "-c", "copy", str(turned)], timeout=30
    )
    assert decode((await read_frames(turned, settings)).jpegs[0]).shape == (640, 360, 3)


async def test_what_would_fill_the_memory_is_refused(
    film: Film, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "_MAX_STORED", 100_000)
    source = await film("b.mp4", "-t", "1", "-pix_fmt", "yuv420p")
    with pytest.raises(MediaError, match="larger than 100000 bytes"):
        await read_frames(source, settings)


def test_a_file_larger_than_allowed_is_not_read(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(bytes(100))
    with pytest.raises(MediaError, match="larger"):
        source_digest(path, settings.model_copy(update={"max_avatar_bytes": 99}))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("index-first.mp4", ("-movflags", "+faststart")),
        ("index-last.mov", ()),
        ("fragments.mp4", ("-movflags", "frag_keyframe+empty_moov")),
        ("clusters.mkv", ()),
        ("web.webm", ("-c:v", "libvpx", "-deadline", "realtime")),
    ],
)
async def test_a_video_that_is_cut_off_is_refused_not_used_in_part(
    name: str, options: tuple[str, ...], film: Film, settings: Settings
) -> None:
    noise = ("-vf", "scale=320:-2,noise=alls=20:allf=t", "-pix_fmt", "yuv420p", "-g", "10")
    whole = await film(name, "-t", "2", "-r", "25", *noise, *options)
    assert len((await read_video(whole, settings)).jpegs) == 50
    for part in (0.5, 0.9):
        cut = whole.with_name(f"cut-{name}")
        cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * part)])
        with pytest.raises(MediaError) as caught:
            await read_video(cut, settings)
        assert "\n" not in str(caught.value)
        if name != "index-last.mov":  # of which nothing can be read
            assert "is cut off after" in str(caught.value)
