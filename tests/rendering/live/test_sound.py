from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.rendering.live.sound import FADE, SoundLine

SIZE = 4000
pieces = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(0, 900), st.integers(-32768, 32767)), max_size=8
)


@given(pieces=pieces, forget=st.integers(0, SIZE))
def test_sound_lies_where_it_was_put(pieces: list[tuple[int, int, int]], forget: int) -> None:
    line, expected = SoundLine(), np.zeros(SIZE, np.int64)
    for at, count, level in pieces:
        line.mix(at, np.full(count, level, np.int16))
        part = expected[at : at + count]
        part[:] = np.clip(part + level, -32768, 32767)
    assert (line.read(0, SIZE) == expected).all()
    assert not line.read(-50, 0).any() and not line.read(SIZE, SIZE + 50).any()
    assert line.is_silent(100, 200) == (not expected[100:200].any())
    assert line.end == max((at + count for at, count, _ in pieces if count), default=0)
    line.forget(forget)
    assert (line.read(forget, SIZE) == expected[forget:]).all()


@given(at=st.integers(-500, 6000))
def test_a_fade_keeps_what_was_before_and_leaves_silence_after(at: int) -> None:
    line = SoundLine()
    line.mix(1000, np.full(4000, 10_000, np.int16))
    before = line.read(-500, 8000)
    line.fade(at)
    after = line.read(-500, 8000)
    assert (after[: at + 500] == before[: at + 500]).all()
    assert not after[at + 500 + FADE :].any()


def test_a_fade_makes_no_step() -> None:
    line = SoundLine()
    line.mix(0, np.full(4000, 10_000, np.int16))
    line.fade(2000)
    assert np.abs(np.diff(line.read(0, 4000).astype(int))).max() < 25


def test_a_line_without_sound_is_silent_and_ends_at_zero() -> None:
    line = SoundLine()
    line.mix(500, np.zeros(0, np.int16))
    line.fade(100)
    line.forget(1000)
    assert line.end == 0 and line.is_silent(-10, 10_000)
