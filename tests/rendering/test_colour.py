from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.rendering.colour import even, to_i420


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_a_colour_comes_back(colour: tuple[int, int, int]) -> None:
    frame = np.full((4, 4, 3), colour, np.uint8)
    back = cv2.cvtColor(to_i420(frame), cv2.COLOR_YUV2BGR_I420)
    assert np.abs(back.astype(int) - frame).max() <= 3


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_size(width: int, height: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    planes = to_i420(frame)
    assert planes.shape == (even(height) * 3 // 2, even(width))
    grey = planes[:height, :width].astype(float)
    expected = 16 + frame.astype(float) @ (0.0979, 0.5041, 0.2568)
    assert np.abs(grey - expected).max() <= 1


def test_chroma_is_the_mean_of_four() -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0, 0] = (0, 0, 255)
    u, v = (int(value) for value in to_i420(frame)[2])
    assert abs(v - (128 + (240 - 128) / 4)) <= 1
    assert abs(u - (128 + (90 - 128) / 4)) <= 1


def test_writes_where_it_is_told() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    out = np.empty((12, 6), np.uint8)
    assert to_i420(frame, out) is out
    assert np.array_equal(out, to_i420(frame))
