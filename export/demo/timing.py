"""Phone times as synthesisers tell them, moved to where their sound is.

Training on clips whose times disagree teaches the lips a mean of all of them, and a truth that is
half a frame late measures lips that are right as wrong. How late times are is heard without any
lips: vowels are loud, fricatives high, and stops a dip (`lateness`).

flite and festival are in time within 10 ms. espeak-ng tells of a stop when it bursts: its closure,
when the lips meet, counts as the sound before. Piper's model tells all of it late, stops most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.demo.visemes import Phone, split

I16 = NDArray[np.int16]
F64 = NDArray[np.float64]

# ruff: noqa: RUF001 - IPA letters look like others
VOWELS, FRICATIVES, STOPS = "aɑɒæʌɐəᵻɚɜɛeiɪɔoʊuyøœ", "szʃʒ", "pbtdkɡg"
_RATE = 16000
_ROW = 80
"""Samples from one row of a spectrum to the next: 5 ms."""
_FURTHEST = 24
"""Rows by which sounds are looked for to either side."""
_SHORTEST = 0.01
"""Seconds that a moved sound lasts at least."""


@dataclass(frozen=True)
class Late:
    """Seconds by which an engine's times come after the sound."""

    sounds: float
    stops: float


LATE = {"piper": Late(0.015, 0.045), "espeak": Late(0.0, 0.035)}


def in_time(engine: str, phones: Sequence[Phone]) -> list[Phone]:
    """Single sounds (`visemes.split`) with the times at which they are heard."""
    sounds, late = split(phones), LATE.get(engine, Late(0.0, 0.0))
    starts = [
        max(0.0, s.start - (late.stops if s.symbol in STOPS else late.sounds)) for s in sounds
    ]
    moved = []
    for i, sound in enumerate(sounds):
        joined = i + 1 < len(sounds) and sounds[i + 1].start - sound.end < _SHORTEST
        end = starts[i + 1] if joined else sound.end - late.sounds
        moved.append(Phone(starts[i], max(starts[i] + _SHORTEST, end), sound.symbol))
    return moved


def _loudness(pcm: I16, low: int, high: int) -> F64:
    """Decibels between two frequencies, one value in 5 ms."""
    size = 512
    padded = np.pad(pcm.astype(np.float64), size // 2)
    parts = np.lib.stride_tricks.sliding_window_view(padded, size)[: len(pcm) : _ROW]
    power = np.square(np.abs(np.fft.rfft(parts * np.hanning(size))))
    of = np.fft.rfftfreq(size, 1 / _RATE)
    found: F64 = 10 * np.log10(power[:, (of >= low) & (of < high)].sum(1) + 1e3)
    return found


def lateness(clips: Sequence[tuple[I16, Sequence[Phone]]]) -> dict[str, float]:
    """Seconds by which vowels, fricatives and stops are told after they are heard.

    Args:
        clips: I16[S] at 16 kHz and the sounds in it, one voice.

    Returns:
        For ``vowels``, ``fricatives``, ``stops`` the shift at which where they are told to be and
        the sound they are known by correlate best: loudness; 4 to 8 kHz over what is below;
        its lack.
    """
    told: dict[str, list[F64]] = {}
    heard: dict[str, list[F64]] = {}
    for pcm, phones in clips:
        loud = _loudness(pcm, 200, 4000)
        high = _loudness(pcm, 4000, 8000) - _loudness(pcm, 200, 2500)
        kinds = (
            ("vowels", VOWELS, loud),
            ("fricatives", FRICATIVES, high),
            ("stops", STOPS, -loud),
        )
        first, last = (int(t * _RATE / _ROW) for t in (phones[0].start, phones[-1].end))
        for name, symbols, sound in kinds:
            where = np.zeros(len(sound))
            for phone in phones:
                if phone.symbol in symbols:
                    where[int(phone.start * _RATE / _ROW) : int(phone.end * _RATE / _ROW)] = 1
            gap = np.zeros(2 * _FURTHEST)
            for rows, into in ((where, told), (sound, heard)):
                part = rows[first:last]
                into.setdefault(name, []).extend((part - part.mean(), gap))
    return {name: _shift(np.concatenate(told[name]), np.concatenate(heard[name])) for name in told}


def _shift(told: F64, heard: F64) -> float:
    """Seconds by which `told` is best moved ahead to lie on `heard`."""
    fits = [float(np.dot(np.roll(told, -k), heard)) for k in range(-_FURTHEST, _FURTHEST + 1)]
    return (int(np.argmax(fits)) - _FURTHEST) * _ROW / _RATE
