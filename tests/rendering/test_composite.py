from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.avatars.masks import BlendMask, blend_mask
from orchestrator.rendering.composite import composite

U8 = npt.NDArray[np.uint8]


@pytest.mark.parametrize("index", range(4))
def test_golden_composites(
    index: int, golden_chain: dict[str, U8], golden_blend: dict[str, U8]
) -> None:
    frame = golden_chain["frames"][index]
    mask = blend_mask(
        golden_blend[f"mask_jaw_{index}"],
        tuple(int(v) for v in golden_blend["crop_squares"][index]),
        *frame.shape[1::-1],
    )
    result = composite(frame, golden_chain["faces"][index], golden_chain["boxes"][index], mask)
    difference = np.abs(result.astype(int) - golden_blend["composites"][index])
    assert difference.max() <= 1
    assert (result != frame).any()


@pytest.mark.parametrize("index", range(4))
def test_nothing_outside_the_mask_changes(
    index: int, golden_chain: dict[str, U8], golden_blend: dict[str, U8]
) -> None:
    frame = golden_chain["frames"][index]
    mask = blend_mask(
        golden_blend[f"mask_jaw_{index}"],
        tuple(int(v) for v in golden_blend["crop_squares"][index]),
        *frame.shape[1::-1],
    )
    result = composite(frame, golden_chain["faces"][index], golden_chain["boxes"][index], mask)
    weight = np.zeros(frame.shape[:2], np.uint8)
    weight[mask.y0 : mask.y1, mask.x0 : mask.x1] = mask.alpha
    assert np.array_equal(result[weight == 0], frame[weight == 0])


@settings(max_examples=60, deadline=None)
@given(
    box=st.tuples(
        st.integers(-20, 50), st.integers(-20, 50), st.integers(1, 60), st.integers(1, 60)
    ),
    corner=st.tuples(st.integers(0, 50), st.integers(0, 40)),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_box_and_mask_blend_as_pil_does(
    box: tuple[int, int, int, int], corner: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    """Against a slow formula in exact integers: round((m*new + (255-m)*old)/255)."""
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 256, (48, 64, 3), np.uint8)
    face = np.full((256, 256, 3), rng.integers(0, 256, 3), np.uint8)
    x0, y0 = corner
    x1, y1 = min(x0 + size[0], 64), min(y0 + size[1], 48)
    mask = BlendMask(x0, y0, rng.integers(0, 256, (y1 - y0, x1 - x0), np.uint8))
    bx0, by0, bw, bh = box
    result = composite(frame, face, (bx0, by0, bx0 + bw, by0 + bh), mask)
    for y, x in np.ndindex(48, 64):
        inside = x0 <= x < x1 and y0 <= y < y1 and bx0 <= x < bx0 + bw and by0 <= y < by0 + bh
        weight = int(mask.alpha[y - y0, x - x0]) if inside else 0
        for channel in range(3):
            total = weight * int(face[0, 0, channel]) + (255 - weight) * int(frame[y, x, channel])
            assert result[y, x, channel] == (2 * total + 255) // 510


def test_the_frame_is_left_alone_unless_it_is_the_output() -> None:
    frame = np.zeros((32, 32, 3), np.uint8)
    face = np.full((256, 256, 3), 200, np.uint8)
    mask = BlendMask(8, 8, np.full((16, 16), 255, np.uint8))
    result = composite(frame, face, (8, 8, 24, 24), mask)
    assert not frame.any() and (result[8:24, 8:24] == 200).all()
    assert composite(frame, face, (8, 8, 24, 24), mask, out=frame) is frame
    assert np.array_equal(frame, result)


def test_strength_fades_between_face_and_frame() -> None:
    frame = np.full((32, 32, 3), 100, np.uint8)
    face = np.full((256, 256, 3), 200, np.uint8)
    mask = BlendMask(0, 0, np.full((32, 32), 255, np.uint8))
    levels = [
        int(composite(frame, face, (0, 0, 32, 32), mask, strength=s)[5, 5, 0])
        for s in (0.0, 0.25, 0.5, 1.0)
    ]
    assert levels == [100, 125, 150, 200]
