"""Regions drawn from landmarks: room for an open jaw, and cheeks that are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.avatars.known import known_track
from orchestrator.avatars.landmarks import LIPS, OVAL
from orchestrator.avatars.masks import Box, blend_square, region, square_mask
from orchestrator.avatars.regions import landmark_labels

PORTRAITS = Path(__file__).parents[2] / "orchestrator" / "avatars" / "portraits"


def portrait(name: str) -> tuple[np.ndarray, np.ndarray, Box, np.ndarray]:
    """Outline of the face, lips, blend square, and the mask of the square: of frame 0."""
    found = known_track(json.loads((PORTRAITS / f"{name}.json").read_text())["sha256"])
    assert found is not None
    points = found.landmarks[0].points
    x0, y0, x1, y1 = (int(value) for value in found.boxes[0])
    square = blend_square((x0, y0, x1, y1))
    mask = square_mask(
        region(landmark_labels(found.landmarks[0], square)), (x0, y0, x1, y1), square
    )
    return points[list(OVAL)], points[list(LIPS)], square, mask


@pytest.mark.parametrize("name", ["amara", "henrik", "mei"])
def test_the_jaw_beside_the_chin_is_generated_and_the_cheeks_are_not(name: str) -> None:
    oval, lips, square, mask = portrait(name)
    at = np.rint(oval).astype(int) - square[:2]
    weights = mask[at[:, 1], at[:, 0]]
    chin, mouth = oval[:, 1].max(), lips[:, 1].mean()
    beside = np.abs(oval[:, 0] - oval[:, 0].mean()) > 0.12 * np.ptp(oval[:, 0])
    jaw = beside & (oval[:, 1] > chin - 0.35 * (chin - mouth))
    assert jaw.sum() >= 4
    assert weights[jaw].min() > 225, "the jaw as it is drawn does not show through the open one"
    cheeks = oval[:, 1] < mouth - 10
    assert weights[cheeks].max() < 128
