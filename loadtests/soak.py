"""Whether a long run stays the same: memory and descriptors of each role, sound against picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from loadtests.figures import Turn, Verdict
from loadtests.sampling import Sample

GROWTH: Final = 0.02
"""The last quarter's mean over the second quarter's, less one."""
LITTLE_MEMORY: Final = 4 << 20
LITTLE_FILES: Final = 2
"""Growth that is none, whatever its share: an allocator's page sizes, one more connection."""
DRIFT: Final = 0.02
"""Seconds between the medians of the two quarters: half a frame at 25 fps."""
MINUTE: Final = 60.0


def per_minute(samples: Sequence[Sample]) -> list[tuple[float, dict[str, tuple[float, float]]]]:
    """Means of memory (bytes) and descriptors of each role, minute by minute since the start.

    Children come and go between samples: the mean of a minute is what can be compared.
    """
    rows: dict[int, list[Sample]] = {}
    for sample in samples:
        rows.setdefault(int((sample.at - samples[0].at) // MINUTE), []).append(sample)
    return [
        (
            minute * MINUTE,
            {
                role: (
                    statistics.fmean(one.usage[role].memory for one in part if role in one.usage),
                    statistics.fmean(
                        one.usage[role].descriptors for one in part if role in one.usage
                    ),
                )
                for role in sorted({name for one in part for name in one.usage})
            },
        )
        for minute, part in sorted(rows.items())
    ]


def flat(samples: Sequence[Sample]) -> list[Verdict]:
    """Hold each role's last quarter against its second.

    Args:
        samples: of the whole run under load, in order.
    """
    if len(samples) < 8:
        return [Verdict("flat memory", f"{len(samples)} samples", "at least 8", False)]
    start, length = samples[0].at, samples[-1].at - samples[0].at
    second = [one for one in samples if length / 4 <= one.at - start < length / 2]
    last = [one for one in samples if one.at - start >= length * 3 / 4]
    verdicts = []
    for role in sorted(samples[-1].usage):
        for what, little in (("memory", LITTLE_MEMORY), ("descriptors", LITTLE_FILES)):
            before, after = (
                statistics.fmean(
                    getattr(one.usage[role], what) if role in one.usage else 0 for one in part
                )
                for part in (second, last)
            )
            unit, size = ("MB", 1e6) if what == "memory" else ("", 1.0)
            growth = after / before - 1 if before else 0.0
            verdicts.append(
                Verdict(
                    f"{what} of {role}: last quarter against the second",
                    f"{before / size:.1f} to {after / size:.1f} {unit} ({growth:+.1%})",
                    f"<= {GROWTH:+.0%}",
                    growth <= GROWTH or after - before <= little,
                )
            )
    return verdicts


def drift(turns: Sequence[Turn]) -> list[Verdict]:
    """Hold the received sound's place against the pictures', last quarter against the second.

    Args:
        turns: of the run, in the order of their ends.
    """
    told = [turn for turn in turns if "sound_offset" in turn.figures]
    if len(told) < 4:
        return [Verdict("drift of sound against picture", f"{len(told)} turns", ">= 4", False)]
    start, length = told[0].at, told[-1].at - told[0].at
    second = [t.figures["sound_offset"] for t in told if length / 4 <= t.at - start <= length / 2]
    last = [t.figures["sound_offset"] for t in told if t.at - start >= length * 3 / 4]
    if not second:
        return [Verdict("drift of sound against picture", "no turn to compare", "one", False)]
    moved = statistics.median(last) - statistics.median(second)
    return [
        Verdict(
            "drift of sound against picture, last quarter against the second",
            f"{moved * 1000:+.1f} ms (sound {statistics.median(last) * 1000:+.0f} ms)",
            f"<= {DRIFT * 1000:.0f} ms",
            abs(moved) <= DRIFT,
        )
    ]
