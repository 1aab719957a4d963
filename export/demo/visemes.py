# ruff: noqa: RUF001 - IPA letters look like others
"""Phonemes with times to mouths: targets, dominance, and smoothing as coarticulation.

Each phoneme has a target mouth and a weight, its dominance (Cohen and Massaro's idea): lips that
must close do so, an "h" takes the shape of what surrounds it. The track is the weighted mean
under a smooth window of about 140 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
_GRID = 200  # steps a second of the dense track
_WINDOW = 29  # steps of the smoothing window
_SILENCE = (0.0, 0.3, 0.05, 0.0, 0.0, 0.0, 1.2)

# IPA symbols: jaw, wide, round, teeth, tongue, tuck, dominance
_ROWS: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("a ɑ ɒ", (0.95, 0.30, 0.00, 0.15, 0.0, 0.0, 1.0)),
    ("æ", (0.85, 0.60, 0.00, 0.25, 0.0, 0.0, 1.0)),
    ("ʌ ɐ", (0.62, 0.30, 0.00, 0.15, 0.0, 0.0, 1.0)),
    ("ə ᵻ", (0.40, 0.30, 0.05, 0.20, 0.0, 0.0, 0.7)),
    ("ɚ ɜ", (0.40, 0.20, 0.35, 0.20, 0.1, 0.0, 1.0)),
    ("ɛ", (0.62, 0.50, 0.00, 0.20, 0.0, 0.0, 1.0)),
    ("e", (0.50, 0.65, 0.00, 0.35, 0.0, 0.0, 1.0)),
    ("i", (0.25, 0.90, 0.00, 0.55, 0.1, 0.0, 1.0)),
    ("ɪ", (0.35, 0.60, 0.00, 0.35, 0.1, 0.0, 1.0)),
    ("ɔ", (0.70, 0.00, 0.60, 0.10, 0.0, 0.0, 1.0)),
    ("o", (0.50, 0.00, 0.85, 0.00, 0.0, 0.0, 1.0)),
    ("ʊ", (0.32, 0.00, 0.70, 0.10, 0.0, 0.0, 1.0)),
    ("u y", (0.22, 0.00, 1.00, 0.00, 0.0, 0.0, 1.0)),
    ("ø œ", (0.40, 0.00, 0.85, 0.00, 0.0, 0.0, 1.0)),
    ("m b p", (0.00, 0.30, 0.10, 0.00, 0.0, 0.0, 4.0)),
    ("f v", (0.06, 0.35, 0.00, 0.30, 0.0, 1.0, 3.0)),
    ("w ɥ", (0.12, 0.00, 1.00, 0.00, 0.0, 0.0, 2.0)),
    ("ɹ r ʁ ɾ", (0.24, 0.10, 0.45, 0.30, 0.2, 0.0, 1.0)),
    ("l", (0.34, 0.40, 0.00, 0.30, 0.85, 0.0, 0.9)),
    ("t d n ɲ", (0.18, 0.45, 0.00, 0.70, 0.45, 0.0, 1.1)),
    ("s z", (0.12, 0.55, 0.00, 0.95, 0.1, 0.0, 1.3)),
    ("ʃ ʒ", (0.18, 0.00, 0.60, 0.90, 0.1, 0.0, 1.5)),
    ("θ ð", (0.20, 0.40, 0.00, 0.50, 1.0, 0.0, 1.3)),
    ("k ɡ ŋ g x ɫ", (0.30, 0.40, 0.00, 0.25, 0.1, 0.0, 0.7)),
    ("h", (0.40, 0.40, 0.10, 0.20, 0.0, 0.0, 0.25)),
    ("j", (0.22, 0.70, 0.00, 0.50, 0.2, 0.0, 0.8)),
)
TARGETS: dict[str, tuple[float, ...]] = {
    symbol: row for symbols, row in _ROWS for symbol in symbols.split() if len(symbol) == 1
}

# the phone set of flite's American voices, in IPA
_FLITE = dict(
    pair.split(":")
    for pair in [
        "aa:ɑ",
        "ae:æ",
        "ah:ʌ",
        "ao:ɔ",
        "aw:aʊ",
        "ax:ə",
        "axr:ɚ",
        "ay:aɪ",
        "b:b",
        "ch:tʃ",
        "d:d",
        "dh:ð",
        "dx:ɾ",
        "eh:ɛ",
        "el:l",
        "em:m",
        "en:n",
        "er:ɜ",
        "ey:eɪ",
        "f:f",
        "g:ɡ",
        "hh:h",
        "hv:h",
        "ih:ɪ",
        "ix:ɪ",
        "iy:i",
        "jh:dʒ",
        "k:k",
        "l:l",
        "m:m",
        "n:n",
        "nx:n",
        "ng:ŋ",
        "ow:oʊ",
        "oy:ɔɪ",
        "p:p",
        "r:ɹ",
        "s:s",
        "sh:ʃ",
        "t:t",
        "th:θ",
        "uh:ʊ",
        "uw:u",
        "v:v",
        "w:w",
        "y:j",
        "z:z",
        "zh:ʒ",
    ]
)


@dataclass(frozen=True)
class Phone:
    """One phoneme in IPA (may be a diphthong or a mark) from `start` to `end` seconds."""

    start: float
    end: float
    symbol: str


def parse_flite(text: str) -> list[Phone]:
    """Phones from what ``flite -psdur`` prints: ``name:end`` pairs; silences are left out."""
    phones, last = [], 0.0
    for item in text.split():
        name, _, end = item.partition(":")
        try:
            until = float(end)
        except ValueError:
            continue  # flite also prints notes there
        if name in _FLITE:
            phones.append(Phone(last, until, _FLITE[name]))
        last = until
    return phones


def split(phones: Sequence[Phone]) -> list[Phone]:
    """Single sounds: diphthongs in halves, length and stress marks merged into neighbours."""
    out: list[Phone] = []
    pending: float | None = None
    for phone in phones:
        sounds = [c for c in phone.symbol if c in TARGETS]
        if sounds:
            start = phone.start if pending is None else pending
            pending, step = None, (phone.end - start) / len(sounds)
            for i, sound in enumerate(sounds):
                out.append(Phone(start + i * step, start + (i + 1) * step, sound))
        elif "ː" in phone.symbol and out:
            out[-1] = Phone(out[-1].start, phone.end, out[-1].symbol)
        elif any(mark in phone.symbol for mark in "ˈˌ") and pending is None:
            pending = phone.start
    return out


def mouth_track(phones: Sequence[Phone], frames: int, fps: int = 25) -> F32:
    """The mouth of every frame.

    Args:
        phones: with times in seconds; may have gaps, which are silence.
        frames: how many.
        fps: frames a second; frame i shows the mouth at (i + 0.5) / fps.

    Returns:
        F32[frames, 6], the order of `Mouth`.
    """
    steps = int(frames / fps * _GRID) + _WINDOW
    target = np.tile(np.array(_SILENCE), (steps, 1))
    sounds = split(phones)
    for i, sound in enumerate(sounds):
        end = sound.end
        if i + 1 < len(sounds) and 0 < sounds[i + 1].start - end < 0.09:
            end = sounds[i + 1].start  # too short to close the mouth
        a = int(sound.start * _GRID)
        target[a : max(a + 1, int(end * _GRID))] = TARGETS[sound.symbol]
    window = np.hanning(_WINDOW)[1:-1]
    weight = target[:, 6]
    total = np.convolve(weight, window, "same")
    smooth = np.stack(
        [np.convolve(target[:, k] * weight, window, "same") / total for k in range(6)], 1
    )
    at = ((np.arange(frames) + 0.5) / fps * _GRID).astype(int)
    track: F32 = smooth[at].astype(np.float32)
    return track


def closures(phones: Sequence[Phone], fps: int = 25) -> list[int]:
    """The frame in the middle of each m, b and p: the lips must be closed there."""
    return [int((s.start + s.end) / 2 * fps) for s in split(phones) if s.symbol in "mbp"]
