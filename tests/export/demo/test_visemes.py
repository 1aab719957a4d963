# ruff: noqa: RUF001 - IPA letters look like others
from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from export.demo.texts import sentence
from export.demo.visemes import Phone, closures, mouth_track, parse_flite, split


def test_flite_times_become_ipa_and_silence_is_left_out():
    phones = parse_flite("pau:0.184 dh:0.246 ax:0.279 b:0.348 ow:0.483 pau:0.6")
    assert [p.symbol for p in phones] == ["ð", "ə", "b", "oʊ"]
    assert (phones[0].start, phones[0].end) == (0.184, 0.246)


def test_diphthongs_are_split_and_marks_merged():
    sounds = split([Phone(0.1, 0.2, "ˈ"), Phone(0.2, 0.4, "aɪ"), Phone(0.4, 0.5, "ː")])
    assert [s.symbol for s in sounds] == ["a", "ɪ"]
    assert sounds[0].start == 0.1
    assert sounds[-1].end == 0.5


def test_lips_close_for_m_and_open_for_a():
    phones = [Phone(0.4, 0.6, "a"), Phone(0.6, 0.7, "m"), Phone(0.7, 0.9, "a")]
    track = mouth_track(phones, 50)
    assert closures(phones) == [16]
    assert track[16, 0] < 0.30
    assert track[12, 0] > 0.7
    assert track[40, 0] == 0


@given(
    st.lists(
        st.tuples(st.floats(0, 2), st.floats(0.01, 0.3), st.sampled_from("aimbfuswl")), max_size=30
    )
)
def test_tracks_stay_in_range(items):
    phones = [Phone(a, a + d, s) for a, d, s in sorted(items)]
    track = mouth_track(phones, 60)
    assert track.shape == (60, 6)
    assert track.min() >= -1e-6
    assert track.max() <= 1 + 1e-6


def test_held_out_sentences_are_never_trained_on():
    rng = np.random.default_rng(0)
    for language in ("en", "fr"):
        train = {sentence(rng, language, False) for _ in range(400)}
        held = {sentence(rng, language, True) for _ in range(400)}
        assert not train & held
