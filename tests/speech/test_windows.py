from __future__ import annotations

import json
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.speech.windows import frame_count, gather, step_count, windows

GOLDEN = Path(__file__).parents[1] / "golden" / "audio_windows.json"
CASES = json.loads(GOLDEN.read_text())["cases"]

all_fps = st.integers(8, 49)
lengths = st.integers(0, 16000 * 90)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['fps']}-{case['samples']}")
def test_upstream_is_golden(case) -> None:
    samples, fps = case["samples"], case["fps"]
    found = windows(step_count(samples), samples, fps, "upstream")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, case["steps"])


@given(lengths, all_fps)
def test_centred_is_what_the_design_says(samples: int, fps: int) -> None:
    total = step_count(samples)
    found = windows(total, samples, fps)
    assert found.shape == (frame_count(samples, fps), 10)
    for frame in {0, 1, len(found) // 2, len(found) - 1} & set(range(len(found))):
        start = floor(Fraction(50 * frame, fps)) - 4
        wanted = [step if 0 <= step < total else -1 for step in range(start, start + 10)]
        assert found[frame].tolist() == wanted


@given(lengths, all_fps, st.sampled_from(["centred", "upstream"]))
def test_properties(samples: int, fps: int, alignment) -> None:
    total = step_count(samples)
    found = windows(total, samples, fps, alignment)
    assert len(found) == floor(Fraction(samples, 16000) * fps)
    assert found.size == 0 or (found.min() >= -1 and found.max() < max(total, 1))
    steps = found.astype(np.int64)
    within = (steps[:, 1:] >= 0) & (steps[:, :-1] >= 0)
    assert (np.diff(steps, axis=1)[within] == 1).all()  # consecutive inside a window
    firsts = [row[row >= 0][0] for row in steps if (row >= 0).any()]
    assert (np.diff(firsts) >= 0).all()  # never back in time
    if len(found) and alignment == "centred":
        assert (steps >= 0).any(axis=1).all()  # every frame hears something


@given(
    st.integers(1280, 16000 * 60), st.sampled_from([f for f in range(25, 50) if f not in (29, 31)])
)
def test_alignments_agree_from_25_fps(samples: int, fps: int) -> None:
    total = step_count(samples)
    np.testing.assert_array_equal(
        windows(total, samples, fps), windows(total, samples, fps, "upstream")
    )


@pytest.mark.parametrize(("fps", "first"), [(29, 145), (31, None)])
def test_where_upstreams_rounding_shows(fps: int, first: int | None) -> None:
    """Documented in the module: single frames one step earlier."""
    samples = 16000 * 3600
    total = step_count(samples)
    behind = (windows(total, samples, fps) - windows(total, samples, fps, "upstream"))[:, 5]
    frames = np.flatnonzero(behind)
    assert len(frames) and set(behind[frames]) == {1}
    if first is not None:
        assert frames[0] == first


@pytest.mark.parametrize(("fps", "late_ms"), [(24, 40), (17, 40), (15, 80), (12, 120), (8, 200)])
def test_upstream_reads_earlier_below_25_fps(fps: int, late_ms: int) -> None:
    total = step_count(160_000)
    difference = windows(total, 160_000, fps) - windows(total, 160_000, fps, "upstream")
    middle = difference[len(difference) // 3 : len(difference) // 2]
    assert set(middle.ravel().tolist()) == {late_ms // 20}


@given(lengths, st.sampled_from([10, 20, 24]))
def test_half_the_rate_is_every_second_frame(samples: int, fps: int) -> None:
    """Stepping down under overload keeps the lips: the same grid, every second frame."""
    total = step_count(samples)
    fine, coarse = windows(total, samples, 2 * fps), windows(total, samples, fps)
    np.testing.assert_array_equal(fine[: 2 * len(coarse) : 2], coarse)


@given(st.integers(0, 10**9), all_fps)
@settings(max_examples=300)
def test_frame_count_is_exact(samples: int, fps: int) -> None:
    assert frame_count(samples, fps) == floor(Fraction(samples, 16000) * fps)


def test_frame_count_where_floats_lose_a_frame() -> None:
    assert floor(129_920 / 16000 * 25) == 202
    assert frame_count(129_920, 25) == 203


@pytest.mark.parametrize("fps", [-1, 0, 7, 50, 60])
def test_fps_outside_the_range(fps: int) -> None:
    with pytest.raises(UsageError, match="8 to 49"):
        windows(10, 16000, fps)


def test_gather_token_order() -> None:
    """Token = 5*step + layer; -1 is zeros."""
    steps, layers = np.meshgrid(np.arange(20), np.arange(5), indexing="ij")
    hidden = np.repeat((steps * 5 + layers + 1)[..., None], 384, axis=2).astype(np.float16)
    rows = np.array([[-1, -1, 0, 1, 2, 3, 4, 5, 6, 7], [12, 13, 14, 15, 16, 17, 18, 19, -1, -1]])
    audio = gather(hidden, rows.astype(np.int32))
    assert audio.shape == (2, 50, 384) and audio.dtype == np.float16
    assert audio[0, :, 0].tolist() == [0] * 10 + list(range(1, 41))
    assert audio[1, :, 383].tolist() == list(range(61, 101)) + [0] * 10
