from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.speech.mel import SEGMENT, log_mel, mel_filters, mel_segments, segments

GOLDEN = Path(__file__).parents[1] / "golden" / "mel.npz"


@pytest.fixture(scope="module")
def whisper():
    transformers = pytest.importorskip("transformers")
    return transformers.WhisperFeatureExtractor()


def test_golden() -> None:
    golden = np.load(GOLDEN)
    mel = log_mel(golden["pcm16"])
    assert mel.shape == tuple(golden["mel_shape"])
    assert mel.dtype == np.float32 and mel.flags.c_contiguous
    np.testing.assert_allclose(mel[:, :320], golden["mel_head"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(mel[:, -1], golden["mel_tail_value"], rtol=0, atol=1e-4)


def test_filters_are_whispers(whisper) -> None:
    np.testing.assert_allclose(mel_filters(), whisper.mel_filters, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "samples",
    [1, 159, 160, 200, 201, 399, 400, 16000, SEGMENT - 201, SEGMENT - 200, SEGMENT - 1, SEGMENT],
)
def test_equals_whispers_extractor(whisper, speechlike, samples: int) -> None:
    """Real transformers code; the ends of the 30 s are where mirrored samples come in."""
    pcm = speechlike(samples)
    wanted = whisper(pcm / np.float32(32768), sampling_rate=16000, return_tensors="np")
    np.testing.assert_allclose(log_mel(pcm), wanted.input_features[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("pcm", [np.zeros(0), np.zeros(16000), np.full(16000, -32768)])
def test_extremes_are_finite(whisper, pcm) -> None:
    pcm = pcm.astype(np.int16)
    heard = pcm / np.float32(32768) if len(pcm) else np.zeros(1, np.float32)
    wanted = whisper(heard, sampling_rate=16000, return_tensors="np").input_features[0]
    np.testing.assert_allclose(log_mel(pcm), wanted, rtol=0, atol=1e-4)


def test_more_than_a_segment_is_refused() -> None:
    with pytest.raises(ValueError, match="480001"):
        log_mel(np.zeros(SEGMENT + 1, np.int16))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 5 * SEGMENT + 12345))
def test_segments_cover_every_whole_step_once(samples: int) -> None:
    found = segments(samples)
    assert sum(steps for _, steps in found) == samples * 50 // 16000
    assert [start for start, _ in found] == [SEGMENT * index for index in range(len(found))]
    assert all(steps == 1500 for _, steps in found[:-1])
    assert all(0 < steps <= 1500 for _, steps in found)


def test_mel_segments(speechlike) -> None:
    pcm = speechlike(SEGMENT + 32_100)
    (first, steps), (second, rest) = mel_segments(pcm)
    assert (steps, rest) == (1500, 100)
    np.testing.assert_array_equal(first, log_mel(pcm[:SEGMENT]))
    np.testing.assert_array_equal(second, log_mel(pcm[SEGMENT:]))
