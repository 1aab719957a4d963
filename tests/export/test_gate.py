"""The accuracy gate passes what is close and refuses what a viewer would notice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.gate import LIMITS, compare


def face(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("precision", LIMITS)
def test_equal_outputs_pass(precision: str) -> None:
    states = np.random.default_rng(1).standard_normal((2, 4, 8, 8)).astype(np.float16)
    assert compare("unet", states, states, LIMITS[precision]).passed
    result = compare("chain", face(), face(), LIMITS[precision])
    assert result.passed and result.maximum == 0 and result.relative == 0


@given(st.floats(1e-3, 1e3), st.floats(0, 0.2))
def test_relative_error_does_not_depend_on_scale(scale: float, error: float) -> None:
    states = np.random.default_rng(2).standard_normal(4096) * scale
    result = compare("unet", states, states * (1 + error), LIMITS["bf16"])
    assert result.relative == pytest.approx(error, abs=1e-9)
    assert result.passed == (result.relative <= LIMITS["bf16"].relative)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_not_finite_fails(poison: float) -> None:
    states = np.ones((1, 4), np.float16)
    served = states.copy()
    served[0, 1] = poison
    assert not compare("unet", states, served, LIMITS["bf16"]).passed


def test_grey_face_fails_even_where_the_mean_error_is_small() -> None:
    reference = np.full((1, 64, 64, 3), 128, np.uint8)
    reference[0, 30:33, 30:33] = 140
    grey = np.full_like(reference, 128)
    result = compare("vae_decoder", reference, grey, LIMITS["bf16"])
    assert result.mean < LIMITS["bf16"].mean_levels and not result.passed


def test_few_far_pixels_fail() -> None:
    served = face().astype(int)
    served[:, :8, :8] = (served[:, :8, :8] + 128) % 256
    assert not compare("vae_decoder", face(), served.astype(np.uint8), LIMITS["bf16"]).passed


def test_the_chain_has_limits_of_its_own() -> None:
    limits = LIMITS["fp32"]
    served = face().astype(int)
    served[:, :, :10] += np.where(served[:, :, :10] > 127, -1, 1)
    worse = served.astype(np.uint8)
    assert not compare("vae_decoder", face(), worse, limits).passed
    assert compare("chain", face(), worse, limits).passed
