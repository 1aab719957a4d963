"""Real pictures and videos through the real detector; only the encoder is a stand-in."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.prepare import prepare_avatar, with_current_latents
from orchestrator.avatars.sheet import contact_sheet
from orchestrator.errors import AvatarError, MediaError, MuseTalkError, UsageError
from orchestrator.settings import Settings
from tests.avatars.conftest import MeanEncoder

U8 = npt.NDArray[np.uint8]
Save = Callable[..., Path]
Film = Callable[..., Any]
ENCODE = ("-t", "1", "-pix_fmt", "yuv420p")


async def prepare(source: Path, encoder: MeanEncoder, settings: Settings) -> Avatar:
    return await prepare_avatar(
        source, inference=encoder, settings=settings, name="ann", consent="a test"
    )


async def test_a_picture(
    photograph: U8, save: Save, encoder: MeanEncoder, settings: Settings
) -> None:
    avatar = await prepare(save(photograph, "a.png"), encoder, settings)
    assert (len(avatar), avatar.width, avatar.height) == (1, 640, 640)
    x0, y0, x1, y1 = avatar.boxes[0].tolist()
    # The eyes of this photograph are at row 126, the mouth at row 180, the chin at about 222.
    assert 215 <= x0 <= 230 and 330 <= x1 <= 345 and 218 <= y1 <= 240 and 60 <= y0 <= 90
    mask = avatar.masks[0]
    assert mask.alpha.max() > 200
    assert (y0 + y1) // 2 - 12 <= mask.y0 and mask.y1 <= y1 + 20
    assert np.abs(avatar.frame(0).astype(int) - photograph).mean() < 1.5
    assert avatar.metadata["consent"] == "a test"
    sheet = contact_sheet(avatar)
    assert sheet.shape == (960, 960, 3), "a single picture is shown larger"
    scale = 960 / 640
    edge = sheet[round((y0 + 20) * scale) : round((y1 - 20) * scale), round(x0 * scale)]
    assert np.all(edge.astype(int)[:, 1] > edge[:, 0] + 100), "the box is drawn in plain green"


async def test_exif_rotation_is_undone(
    photograph: U8, save: Save, encoder: MeanEncoder, settings: Settings
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    lying = np.rot90(photograph).copy()
    rotated = await prepare(save(lying, "r.jpg", exif=exif, quality=95), encoder, settings)
    upright = await prepare(save(photograph, "u.png"), encoder, settings)
    assert np.abs(rotated.boxes - upright.boxes).max() <= 2


async def test_a_transparent_png_gets_a_plain_background(
    photograph: U8, tmp_path: Path, encoder: MeanEncoder, settings: Settings
) -> None:
    alpha = np.zeros(photograph.shape[:2], np.uint8)
    cv2.circle(alpha, (280, 150), 140, 255, -1)
    path = tmp_path / "t.png"
    Image.fromarray(np.dstack([photograph[:, :, ::-1], alpha])).save(path)
    avatar = await prepare(path, encoder, settings)
    assert avatar.frame(0)[600, 600].tolist() == pytest.approx([240, 238, 236], abs=2)
    assert any("transparent" in note for note in avatar.metadata["notes"])


async def test_a_large_picture_is_made_smaller_and_that_is_said(
    photograph: U8, save: Save, encoder: MeanEncoder, settings: Settings
) -> None:
    avatar = await prepare(save(cv2.resize(photograph, (3001, 3001)), "l.jpg"), encoder, settings)
    assert (avatar.width, avatar.height) == (1280, 1280)
    assert any("resized" in note for note in avatar.metadata["notes"])


async def test_two_faces_the_larger_is_taken_and_that_is_said(
    photograph: U8, save: Save, encoder: MeanEncoder, settings: Settings
) -> None:
    small = cv2.resize(photograph, (400, 400))
    wide = np.full((640, 1040, 3), 200, np.uint8)
    wide[:, :640], wide[:400, 640:] = photograph, small
    avatar = await prepare(save(wide, "two.png"), encoder, settings)
    assert avatar.boxes[0][2] < 640
    assert any("several faces" in note for note in avatar.metadata["notes"])


@pytest.mark.parametrize(
    ("name", "options", "frames"),
    [
        ("land.mp4", ("-vf", "scale=720:720,pad=1280:720:280:0", "-r", "60", *ENCODE), 25),
        ("port.mp4", ("-vf", "pad=640:1000:0:180", "-r", "30", *ENCODE), 25),
        ("one.mp4", ("-frames:v", "1", "-pix_fmt", "yuv420p"), 1),
        ("anim.gif", ("-t", "0.6", "-r", "10"), 15),
        ("web.webm", ("-t", "0.4", "-r", "25", "-c:v", "libvpx"), 10),
    ],
)
async def test_videos_come_at_25_fps(
    name: str,
    options: tuple[str, ...],
    frames: int,
    film: Film,
    encoder: MeanEncoder,
    settings: Settings,
) -> None:
    avatar = await prepare(await film(name, *options), encoder, settings)
    assert abs(len(avatar) - frames) <= 1
    assert avatar.width % 2 == avatar.height % 2 == 0
    assert len(avatar.latents) == len(avatar.masks) == len(avatar)
    assert np.abs(np.diff(avatar.boxes, axis=0)).max(initial=0) <= 1


async def test_a_variable_frame_rate_becomes_a_constant_one(
    film: Film, encoder: MeanEncoder, settings: Settings
) -> None:
    # Frames at 0, 0.2, 0.24, ... : setpts makes the first one last longer.
    source = await film(
        "vfr.mp4", "-t", "1", "-vf", "setpts='if(gt(N,0),PTS+0.2/TB,PTS)'",
        "-fps_mode", "vfr", "-pix_fmt", "yuv420p",
    )  # fmt: skip
    avatar = await prepare(source, encoder, settings)
    assert 24 <= len(avatar) <= 31


async def test_frames_without_a_face_are_bridged_or_left_out(
    photograph: U8, film: Film, encoder: MeanEncoder, settings: Settings
) -> None:
    hide = "drawbox=x=150:y=0:w=300:h=300:color=gray:t=fill:enable='between(n,5,9)+gte(n,30)'"
    source = await film("gap.mp4", "-r", "25", "-t", "2", "-vf", hide, "-pix_fmt", "yuv420p")
    avatar = await prepare(source, encoder, settings)
    assert len(avatar) == 30
    notes = " ".join(avatar.metadata["notes"])
    assert "5 frames without a usable face were bridged" in notes
    assert "20 frames without a usable face were left out" in notes


def blank(size: int) -> U8:
    return np.full((size, size, 3), 128, np.uint8)


async def test_no_face(save: Save, encoder: MeanEncoder, settings: Settings) -> None:
    with pytest.raises(AvatarError, match="no face"):
        await prepare(save(blank(500), "n.png"), encoder, settings)


async def test_a_face_that_is_too_small(
    photograph: U8, save: Save, encoder: MeanEncoder, settings: Settings
) -> None:
    with pytest.raises(AvatarError, match=r"too small|no face"):
        await prepare(save(cv2.resize(photograph, (100, 100)), "s.png"), encoder, settings)


async def test_too_many_pixels(save: Save, encoder: MeanEncoder, settings: Settings) -> None:
    with pytest.raises(MediaError, match="8000x8000"):
        await prepare(save(blank(8000), "b.png", compress_level=1), encoder, settings)


async def test_damaged_and_lying_files(
    photograph: U8, save: Save, film: Film, tmp_path: Path, encoder: MeanEncoder, settings: Settings
) -> None:
    picture = save(photograph, "p.jpg").read_bytes()
    video = (await film("v.mp4", *ENCODE)).read_bytes()
    lies = {
        "cut.jpg": picture[: len(picture) // 2],
        "cut.mp4": video[: len(video) // 2],
        "text.mp4": b"hello, I am a video\n" * 50,
        "list.mp4": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "empty.png": b"",
    }
    for name, data in lies.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(MediaError) as caught:
            await prepare(path, encoder, settings)
        assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match="no such file"):
        await prepare(tmp_path / "nothing.png", encoder, settings)
    assert not list(settings.cache_dir.rglob("*.npz"))


async def test_a_long_video_is_refused(
    film: Film, encoder: MeanEncoder, settings: Settings
) -> None:
    source = await film("long.mp4", "-t", "5", "-r", "25", "-pix_fmt", "yuv420p")
    with pytest.raises(MediaError, match="longer than 4 s"):
        await prepare(source, encoder, settings)


async def test_consent_is_asked_for(
    photograph: U8, save: Save, encoder: MeanEncoder, settings: Settings
) -> None:
    with pytest.raises(UsageError, match="agree"):
        await prepare_avatar(
            save(photograph, "c.png"), inference=encoder, settings=settings, name="x", consent=" "
        )


async def test_prepared_once_and_again_for_other_weights(
    photograph: U8, save: Save, settings: Settings
) -> None:
    source, first, second = save(photograph, "a.png"), MeanEncoder(), MeanEncoder(offset=3)
    one = await prepare(source, first, settings)
    used = first.crops
    again = await prepare(source, first, settings)
    assert first.crops == used + 1  # only the probe that names the weights
    np.testing.assert_array_equal(one.latents, again.latents)
    other = await prepare(source, second, settings)
    assert np.abs(other.latents - one.latents).min() > 2


async def test_an_avatar_of_other_weights_gets_their_latents(
    photograph: U8, save: Save, settings: Settings
) -> None:
    old, new = MeanEncoder(), MeanEncoder(offset=5)
    avatar = await prepare(save(photograph, "a.png"), old, settings)
    assert await with_current_latents(avatar, old) is avatar
    renewed = await with_current_latents(avatar, new)
    np.testing.assert_allclose(renewed.latents, avatar.latents + 5, atol=0.2)
    assert renewed.metadata["weights"] != avatar.metadata["weights"]


async def test_parts_can_never_fall_out_of_step(
    photograph: U8, save: Save, encoder: MeanEncoder, settings: Settings
) -> None:
    avatar = await prepare(save(photograph, "a.png"), encoder, settings)
    with pytest.raises(ValueError, match="different lengths"):
        dataclasses.replace(avatar, latents=np.concatenate([avatar.latents] * 2))


async def test_progress_only_rises(film: Film, encoder: MeanEncoder, settings: Settings) -> None:
    told: list[float] = []
    await prepare_avatar(
        await film("v.mp4", *ENCODE),
        inference=encoder,
        settings=settings,
        name="x",
        consent="a test",
        progress=told.append,
    )
    assert told == sorted(told) and told[-1] == 1.0 and len(told) > 10


def test_errors_are_the_projects_own() -> None:
    assert issubclass(AvatarError, MuseTalkError) and not AvatarError.retryable


async def test_a_damaged_cache_is_made_again(
    photograph: U8, save: Save, encoder: MeanEncoder, settings: Settings
) -> None:
    source = save(photograph, "a.png")
    one = await prepare(source, encoder, settings)
    (cached,) = settings.cache_dir.rglob("*.npz")
    cached.write_bytes(b"")
    again = await prepare(source, encoder, settings)
    np.testing.assert_array_equal(again.latents, one.latents)
    assert cached.stat().st_size > 1000


class ParsingEncoder(MeanEncoder):
    """With a parsing network that sees skin everywhere."""

    async def has_model(self, name: str) -> bool:
        return name == "face_parsing"

    async def parse_faces(self, images: U8, *, timeout: float | None = None) -> U8:
        assert images.shape[1:] == (512, 512, 3) and len(images) <= 4
        return np.ones(images.shape[:3], np.uint8)


async def test_masks_of_the_landmarks_are_not_kept_once_there_is_a_parser(
    photograph: U8, save: Save, encoder: MeanEncoder, settings: Settings
) -> None:
    source = save(photograph, "a.png")
    drawn = await prepare(source, encoder, settings)
    parsed = await prepare(source, ParsingEncoder(), settings)
    assert drawn.metadata["masks"] == "landmarks" and parsed.metadata["masks"] == "face parsing"
    assert parsed.masks[0].alpha.sum() > drawn.masks[0].alpha.sum()


async def test_tracking_ends_when_nobody_waits_for_it(
    film: Film, encoder: MeanEncoder, settings: Settings
) -> None:
    source = await film("v.mp4", "-t", "3", "-r", "25", "-pix_fmt", "yuv420p")
    told: list[float] = []
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(part: float) -> None:
        told.append(part)
        loop.call_soon_threadsafe(started.set)

    work = asyncio.create_task(
        prepare_avatar(
            source,
            inference=encoder,
            settings=settings,
            name="x",
            consent="a test",
            progress=tell,
        )
    )
    await asyncio.wait_for(started.wait(), 60)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await asyncio.sleep(1)
    heard = len(told)
    await asyncio.sleep(1)
    assert len(told) == heard < 75
