"""Whisper's log-mel spectrogram in numpy, equal to transformers' WhisperFeatureExtractor.

16 kHz, Hann windows of 400 samples every 160, centred with reflection, 80 mel bands on Slaney's
scale with Slaney's area normalisation, log10 with a floor 8 below the loudest value, (x+4)/4;
each segment is padded with zeros to 30 s (musetalk_v15.md section 1).
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.speech import SAMPLE_RATE
from orchestrator.speech.windows import step_count

I16 = npt.NDArray[np.int16]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

SEGMENT: Final = 30 * SAMPLE_RATE
"""Samples that the encoder sees at a time."""

COLUMNS: Final = 3000
BANDS: Final = 80

_FFT: Final = 400
_HOP: Final = 160
_HALF: Final = _FFT // 2
_POWER_FLOOR: Final = 1e-10
_RANGE: Final = 8.0


def log_mel(pcm: I16) -> F32:
    """The input of the Whisper encoder for up to 30 s of speech.

    Args:
        pcm: I16[S] mono at 16 kHz, 0 <= S <= 480,000.

    Returns:
        F32[80,3000], contiguous.
    """
    if len(pcm) > SEGMENT:
        raise ValueError(f"{len(pcm)} samples are more than a segment of {SEGMENT}")
    # Columns that only see padding are all equal: only those that see speech are computed.
    columns = min(COLUMNS, -(-(len(pcm) + _HALF) // _HOP))
    frames = np.lib.stride_tricks.sliding_window_view(_centred(pcm, columns), _FFT)[::_HOP]
    spectrum = np.fft.rfft(frames * _hann())
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    levels = np.log10(np.maximum(power @ mel_filters(), _POWER_FLOOR))
    quiet = np.log10(_POWER_FLOOR)
    floor = levels.max(initial=quiet) - _RANGE
    mel = np.full((BANDS, COLUMNS), (max(quiet, floor) + 4.0) / 4.0, np.float32)
    mel[:, : len(levels)] = ((np.maximum(levels, floor) + 4.0) / 4.0).T
    return mel


def _centred(pcm: I16, columns: int) -> F64:
    """The samples that ``columns`` windows see, mirrored at both ends of the padded 30 s."""
    seen = np.zeros((max(columns, 1) - 1) * _HOP + _FFT)
    samples = min(len(pcm), len(seen) - _HALF)
    seen[_HALF : _HALF + samples] = pcm[:samples] / 32768.0
    seen[:_HALF] = seen[2 * _HALF : _HALF : -1]
    beyond = len(seen) - _HALF - SEGMENT
    if beyond > 0:
        end = _HALF + SEGMENT
        seen[end:] = seen[end - 2 : end - 2 - beyond : -1]
    return seen


def mel_segments(pcm: I16) -> list[tuple[F32, int]]:
    """Cut speech into the segments of 30 s that the encoder sees one at a time.

    Args:
        pcm: I16[S] mono at 16 kHz.

    Returns:
        For each segment its log-mel F32[80,3000] and how many of the encoder's 1,500 steps are
        speech. What is left at the end under one step (20 ms) has none, and is left out.
    """
    return [(log_mel(pcm[start : start + SEGMENT]), steps) for start, steps in segments(len(pcm))]


def segments(samples: int) -> list[tuple[int, int]]:
    """First sample and number of whole steps of each segment of ``samples`` at 16 kHz."""
    found = [
        (start, step_count(min(SEGMENT, samples - start))) for start in range(0, samples, SEGMENT)
    ]
    return [(start, steps) for start, steps in found if steps]


@cache
def mel_filters() -> F64:
    """Triangular filters, F64[201,80]: linear below 1 kHz, logarithmic above, equal areas."""
    edges = _mel_to_hz(np.linspace(0.0, float(_hz_to_mel(SAMPLE_RATE / 2)), BANDS + 2))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, _HALF + 1)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - low) / (centre - low)
    falling = (high - bins[:, None]) / (high - centre)
    triangles: F64 = np.maximum(0.0, np.minimum(rising, falling))
    filters: F64 = triangles * (2.0 / (high - low))
    filters.setflags(write=False)
    return filters


_LINEAR: Final = 200.0 / 3.0
"""Hz of a mel below 1 kHz."""

_CORNER: Final = 1000.0 / _LINEAR
_RATIO: Final = 6.4 ** (1.0 / 27.0)
"""Frequency ratio of a mel above 1 kHz."""


def _hz_to_mel(hz: float) -> float:
    if hz < 1000.0:
        return hz / _LINEAR
    return _CORNER + float(np.log(hz / 1000.0) / np.log(_RATIO))


def _mel_to_hz(mel: F64) -> F64:
    return np.where(mel < _CORNER, mel * _LINEAR, 1000.0 * _RATIO ** np.maximum(mel - _CORNER, 0.0))


@cache
def _hann() -> F64:
    return np.hanning(_FFT + 1)[:-1]
