"""Batch sizes of an engine, cut into TensorRT's optimisation profiles.

Triton forms any batch up to the maximum and never pads, so the profiles together have to cover
every size; narrow ones because wide FP16 profiles of MuseTalk's UNet failed others' gates.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchRange:
    """Sizes that one profile takes.

    Attributes:
        smallest: first size.
        best: the size that it is tuned for.
        largest: last size.
    """

    smallest: int
    best: int
    largest: int

    def sizes(self) -> list[int]:
        """The sizes that the gate tries: both ends and the tuned one."""
        return sorted({self.smallest, self.best, self.largest})

    def __str__(self) -> str:
        """``5-8`` or ``1``."""
        if self.smallest == self.largest:
            return str(self.smallest)
        return f"{self.smallest}-{self.largest}"


def batch_ranges(max_batch: int) -> tuple[BatchRange, ...]:
    """Ranges from 1 to the maximum: a single frame alone, then each about twice the last.

    Each is tuned for its largest size, which is what a busy server forms.

    Raises:
        ValueError: a maximum below 1.
    """
    if max_batch < 1:
        raise ValueError(f"a largest batch of {max_batch}")
    ranges = [BatchRange(1, 1, 1)]
    while (last := ranges[-1].largest) < max_batch:
        end = min(4 if last == 1 else 2 * last, max_batch)
        ranges.append(BatchRange(last + 1, end, end))
    return tuple(ranges)
