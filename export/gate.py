"""The accuracy gate: how far a served model may be from PyTorch in float32, and why.

Float tensors are judged by relative L2 error, which does not depend on the scale that a
checkpoint's weights give them; faces by levels of 255, which is what a viewer sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEVELS_FAR = 8
"""A pixel further off than this many levels counts as far."""

LABELS_DIFFERING = 0.001
"""Share of pixels whose class may change: always fp32, only ties flip (measured 2e-6)."""


@dataclass(frozen=True)
class Limits:
    """What one precision may cost.

    Attributes:
        relative: L2 norm of the error over that of the reference, float tensors.
        mean_levels: mean difference of faces.
        far: share of face values more than ``LEVELS_FAR`` levels off.
        chain_mean_levels: the same at the end of the whole chain, where errors add up.
        chain_far: share of far values there.
    """

    relative: float
    mean_levels: float
    far: float
    chain_mean_levels: float
    chain_far: float


LIMITS: dict[str, Limits] = {
    # Rounding of float16 between the models (5e-4 relative) and a different order of sums.
    "fp32": Limits(0.003, 0.1, 0.0005, 0.5, 0.005),
    # bf16 keeps 8 bits, 0.4 % an operation. Random weights amplify more than trained ones, and
    # small networks more than large ones; measured (UNet, decoder, chain): full size 1.5 %,
    # 0.4 levels, 1.0 levels with 1.9 % far; small 2.9 %, 0.5 levels, 3.3 levels with 9.6 % far.
    "bf16": Limits(0.04, 1.5, 0.01, 4.0, 0.12),
    # 11 bits, norms and softmax in float32; measured on random weights: 0.11 % and 0.04 levels
    # in each network of both sizes.
    "fp16": Limits(0.01, 0.5, 0.002, 1.5, 0.03),
}


@dataclass(frozen=True)
class Result:
    """One model, or the chain, compared.

    Attributes:
        name: of the model, ``chain`` for all of them one after the other.
        mean: mean absolute difference, in the unit of the output.
        maximum: largest absolute difference.
        relative: relative L2 error.
        far: share of values more than 8 levels off; 0 for float tensors.
        limit: the limits in words.
        passed: the verdict.
    """

    name: str
    mean: float
    maximum: float
    relative: float
    far: float
    limit: str
    passed: bool


def compare(
    name: str, reference: npt.NDArray[Any], served: npt.NDArray[Any], limits: Limits
) -> Result:
    """Judge one output.

    Args:
        name: of the model; ``chain`` takes the limits of the chain.
        reference: what PyTorch computed in float32.
        served: what the server answered, the same shape and dtype.
        limits: of the precision that was served.
    """
    expected = reference.astype(np.float64)
    error = np.abs(served.astype(np.float64) - expected)
    norm = float(np.linalg.norm(expected))
    relative = float(np.linalg.norm(error)) / norm if norm else float(error.max())
    finite = bool(np.isfinite(error).all())
    mean, maximum = float(error.mean()), float(error.max())
    far = 0.0
    if reference.dtype == np.uint8:
        mean_limit, far_limit = limits.mean_levels, limits.far
        if name == "chain":
            mean_limit, far_limit = limits.chain_mean_levels, limits.chain_far
        far = float((error > LEVELS_FAR).mean())
        words = f"mean {mean_limit:g}, far {far_limit:.2%}"
        passed = mean <= mean_limit and far <= far_limit
        # A grey face is what a broken decoder shows; a mean error alone could miss it.
        passed = passed and float(served.std()) >= 0.5 * float(reference.std())
    else:
        words = f"relative {limits.relative:g}"
        passed = relative <= limits.relative
    return Result(name, mean, maximum, relative, far, words, passed and finite)
