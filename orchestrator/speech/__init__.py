"""Speech: any audio or text in, what each video frame hears out."""

from __future__ import annotations

from typing import Final

SAMPLE_RATE: Final = 16_000
"""Samples a second of all speech inside the system, mono signed 16 bit."""
