from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.avatars.masks import (
    BlendMask,
    MaskMode,
    blend_mask,
    blend_square,
    region,
    square_mask,
)

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("mode", ["jaw", "raw", "neck"])
def test_masks_are_musetalks(index: int, mode: MaskMode) -> None:
    with np.load(GOLDEN / "chain.npz") as chain, np.load(GOLDEN / "blend.npz") as golden:
        box = tuple(int(value) for value in chain["boxes"][index])
        square = blend_square(box)
        assert list(square) == golden["crop_squares"][index].tolist()
        mask = square_mask(region(golden["labels"][index], mode), box, square)
        expected = golden[f"mask_{mode}_{index}"].astype(int)
    assert mask.shape == expected.shape
    assert np.abs(mask.astype(int) - expected).max() <= 1
    assert mask.max() > 200


@given(
    x=st.integers(-50, 90), y=st.integers(-50, 90), side=st.integers(1, 60), seed=st.integers(0, 99)
)
def test_the_compact_mask_says_the_same_as_the_whole(x: int, y: int, side: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.where(rng.random((side, side)) < 0.2, rng.integers(1, 256, (side, side)), 0)
    width, height = 80, 70
    whole = np.zeros((300, 300), np.uint8)
    whole[y + 100 : y + 100 + side, x + 100 : x + 100 + side] = mask
    expected = whole[100 : 100 + height, 100 : 100 + width]
    compact = blend_mask(mask.astype(np.uint8), (x, y, x + side, y + side), width, height)
    rebuilt = np.zeros((height, width), np.uint8)
    rebuilt[compact.y0 : compact.y1, compact.x0 : compact.x1] = compact.alpha
    np.testing.assert_array_equal(rebuilt, expected)


def test_a_mask_knows_its_far_corner() -> None:
    mask = BlendMask(3, 5, np.zeros((7, 11), np.uint8))
    assert (mask.x1, mask.y1) == (14, 12)
