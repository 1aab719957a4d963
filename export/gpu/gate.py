"""The gate that every engine passes at every size of its profiles, or it is not published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from export.gate import LABELS_DIFFERING
from export.model_config import Model

MEAN = 0.01
"""Largest mean error: of latents as they are, of faces on a scale from 0 to 1."""
MAXIMUM = 0.5
FLAT = 0.5
"""Smallest spread of an output, as a share of the reference's: a broken decoder shows grey."""


@dataclass(frozen=True)
class Check:
    """One model at one batch size.

    Attributes:
        model: its name.
        profile: number of the profile, -1 for the graph itself on the CPU.
        batch: rows.
        mean: mean absolute error.
        maximum: largest absolute error.
        verdict: ``passed``, or what is wrong.
    """

    model: str
    profile: int
    batch: int
    mean: float
    maximum: float
    verdict: str

    @property
    def passed(self) -> bool:
        """Whether it may be served."""
        return self.verdict == "passed"


def judge(
    model: Model,
    reference: npt.NDArray[Any],
    found: npt.NDArray[Any],
    *,
    profile: int,
) -> Check:
    """Compare an output with the float32 graph's.

    Args:
        model: its interface.
        reference: what the float32 graph gives for the same rows.
        found: what is judged.
        profile: number of the profile.
    """
    name, batch = model.name, len(found)

    def verdict(mean: float, maximum: float, words: str) -> Check:
        return Check(name, profile, batch, mean, maximum, words)

    if found.shape != reference.shape or found.dtype != reference.dtype:
        return verdict(
            float("nan"), float("nan"), f"{found.dtype}{list(found.shape)} is another shape or type"
        )
    wanted, made = reference.astype(np.float64), found.astype(np.float64)
    if not np.isfinite(made).all():
        return verdict(float("nan"), float("nan"), "not a number, or infinite")
    if model.outputs[0].name == "labels":
        share = float((wanted != made).mean())
        return verdict(
            share, 1.0 if share else 0.0, "passed" if share <= LABELS_DIFFERING else "other labels"
        )
    if reference.dtype == np.uint8:
        wanted, made = wanted / 255, made / 255
    error = np.abs(wanted - made)
    mean, maximum = float(error.mean()), float(error.max())
    if made.std() < FLAT * wanted.std():
        return verdict(mean, maximum, "flat")
    if mean > MEAN:
        return verdict(mean, maximum, f"mean error over {MEAN:g}")
    if maximum > MAXIMUM:
        return verdict(mean, maximum, f"maximum over {MAXIMUM:g}")
    return verdict(mean, maximum, "passed")


def print_checks(checks: list[Check], console: Console) -> None:
    """One line a check."""
    row = "{:16} {:>8} {:>6} {:>11} {:>11}  {}"
    console.print(row.format("model", "profile", "batch", "mean error", "maximum", "verdict"))
    for check in checks:
        console.print(
            row.format(
                check.model,
                "graph" if check.profile < 0 else check.profile,
                check.batch,
                f"{check.mean:.2g}",
                f"{check.maximum:.2g}",
                check.verdict,
            )
        )
