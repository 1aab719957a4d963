"""Decoded frames share one budget, and go with their avatar."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from orchestrator.avatars.decoded import DECODED_BYTES, DecodedFrames
from orchestrator.avatars.media import encode
from orchestrator.avatars.prepare import prepare_avatar
from orchestrator.rendering.gallery import PORTRAITS
from orchestrator.settings import Settings
from tests.avatars.conftest import MeanEncoder

U8 = npt.NDArray[np.uint8]

SIDE = 32
FRAME = SIDE * SIDE * 3


def jpegs(count: int) -> list[bytes]:
    """Plain pictures; number n has the level 2n."""
    return [encode(np.full((SIDE, SIDE, 3), 2 * number, np.uint8)) for number in range(count)]


def test_what_was_decoded_lately_is_not_decoded_again() -> None:
    pictures = jpegs(4)
    frames = DecodedFrames(3 * FRAME)
    reader = frames.reader()
    first = [reader.get(index, pictures[index]) for index in range(3)]
    assert reader.get(0, b"never looked at") is first[0]
    assert not first[0].flags.writeable
    reader.get(3, pictures[3])  # number 1 was used the longest ago
    assert frames.size == 3 * FRAME
    assert reader.get(0, b"never looked at") is first[0]
    assert reader.get(1, pictures[1]) is not first[1]


def test_all_avatars_share_the_budget_and_never_a_frame() -> None:
    pictures = jpegs(6)
    frames = DecodedFrames(4 * FRAME)
    one, other = frames.reader(), frames.reader()
    for index in range(3):
        assert np.abs(one.get(index, pictures[index]).astype(int) - 2 * index).max() <= 1
        shifted = other.get(index, pictures[index + 3]).astype(int)
        assert np.abs(shifted - 2 * (index + 3)).max() <= 1
        assert frames.size <= 4 * FRAME
    assert frames.size == 4 * FRAME


def test_the_frames_of_an_avatar_go_with_it() -> None:
    pictures = jpegs(3)
    frames = DecodedFrames(10 * FRAME)
    one, other = frames.reader(), frames.reader()
    for index in range(3):
        one.get(index, pictures[index])
    other.get(0, pictures[0])
    del one
    gc.collect()
    assert frames.size == FRAME


def test_a_frame_that_is_larger_than_the_budget_is_still_read() -> None:
    frames = DecodedFrames(10)
    reader = frames.reader()
    for _ in range(2):
        assert reader.get(0, jpegs(1)[0]).shape == (SIDE, SIDE, 3)


def test_threads_that_read_the_same_frames_count_them_once() -> None:
    pictures = jpegs(16)
    frames = DecodedFrames(8 * FRAME)
    reader = frames.reader()

    def read(seed: int) -> None:
        for index in np.random.default_rng(seed).integers(0, 16, 300):
            level = reader.get(int(index), pictures[index]).astype(int)
            assert np.abs(level - 2 * index).max() <= 1

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(read, seed) for seed in range(8)]:
            done.result()
    assert frames.size == 8 * FRAME


async def test_ten_seconds_of_720p_stay_under_300_mb(settings: Settings) -> None:
    avatar = await prepare_avatar(
        PORTRAITS / "mei.mp4",
        inference=MeanEncoder(),  # type: ignore[arg-type]
        settings=settings.model_copy(update={"max_avatar_seconds": 10.0}),
        name="mei",
        consent="a drawing",
    )
    assert len(avatar) == 250 and (avatar.width, avatar.height) == (1280, 720)
    kept = sum(mask.alpha.nbytes for mask in avatar.masks) + avatar.latents.nbytes
    kept += avatar.boxes.nbytes + avatar.squares.nbytes
    drawn, filmed = sum(map(len, avatar.jpegs)), 60e6
    assert kept + max(drawn, filmed) + DECODED_BYTES < 300e6
