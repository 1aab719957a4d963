from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.speech.resample import Resampler, resample

RATES = [8000, 16000, 22050, 24000, 44100, 48000]
rates = st.sampled_from(RATES)


def sine(hertz: float, rate: int, samples: int) -> np.ndarray:
    return (12000 * np.sin(2 * np.pi * hertz * np.arange(samples) / rate)).astype(np.int16)


@pytest.mark.parametrize("source", [22050, 24000])
@pytest.mark.parametrize("target", [16000, 48000])
@pytest.mark.parametrize("hertz", [100, 1000, 5000])
def test_a_tone_stays_where_it_is(source: int, target: int, hertz: int) -> None:
    found = resample(sine(hertz, source, source), source, target)
    assert len(found) == target
    wanted = sine(hertz, target, target)
    inner = slice(1000, -1000)
    noise = (found[inner].astype(float) - wanted[inner]).std()
    assert noise < 1.5  # of 12000, about 80 dB down: no delay, no gain


@pytest.mark.parametrize("source", [22050, 24000, 48000])
def test_no_aliases(source: int) -> None:
    found = resample(sine(9200, source, source), source, 16000)
    assert np.abs(found[1000:-1000]).max() <= 3


@settings(max_examples=60, deadline=None)
@given(rates, rates, st.lists(st.integers(0, 4000), max_size=12), st.integers(0, 2**32 - 1))
def test_no_seams(source: int, target: int, cuts: list[int], seed: int) -> None:
    pcm = np.random.default_rng(seed).integers(-32768, 32767, sum(cuts)).astype(np.int16)
    resampler = Resampler(source, target)
    parts, start = [], 0
    for cut in cuts:
        parts.append(resampler.push(pcm[start : start + cut]))
        start += cut
    parts.append(resampler.finish())
    streamed = np.concatenate(parts)
    whole = resample(pcm, source, target)
    assert len(whole) == len(streamed) == -(-len(pcm) * target // source)
    assert np.abs(streamed.astype(int) - whole).max(initial=0) <= 1


def test_little_is_held_back() -> None:
    resampler = Resampler(24000, 16000)
    assert len(resampler.push(np.zeros(2400, np.int16))) >= 1600 - 64


def test_loud_edges_do_not_wrap() -> None:
    square = np.where(np.arange(24000) // 60 % 2, 32767, -32768).astype(np.int16)
    found = resample(square, 24000, 16000).astype(int)
    wanted = np.where((np.arange(16000) * 1.5).astype(int) // 60 % 2, 1, -1)[1000:-1000]
    assert (np.sign(found[1000:-1000]) == wanted).mean() > 0.97


def test_same_rate_is_untouched() -> None:
    pcm = sine(440, 16000, 1234)
    np.testing.assert_array_equal(resample(pcm, 16000, 16000), pcm)
