"""From landmarks to MuseTalk's face box, steady over time (musetalk_v15.md section 2)."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from orchestrator.avatars.landmarks import OVAL, Landmarks

F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]

NOSE_BRIDGE: Final = (195, 5)
"""Mesh points whose middle is point 29 of the 68: points 27 to 30 lie evenly between the root
(mesh 168) and the tip (mesh 4), so 29 is two thirds of the way down."""
EXTRA_MARGIN: Final = 10
"""Pixels added below the chin (v1.5)."""
_SMOOTHING: Final = 1.5
"""Sigma in frames at 25 fps; detection noise is from frame to frame, heads move slower."""


def face_box(landmarks: Landmarks) -> F64:
    """MuseTalk's box of one face, F64[4] x0, y0, x1, y1, before margin and clipping.

    The middle row is the nose bridge, the bottom the chin, the top as far above the bridge;
    left and right are the outline's extremes.
    """
    outline = landmarks.points[list(OVAL)].astype(np.float64)
    centre = float(landmarks.points[list(NOSE_BRIDGE), 1].mean())
    bottom = float(outline[:, 1].max())
    top = max(0.0, 2 * centre - bottom)
    return np.array([outline[:, 0].min(), top, outline[:, 0].max(), bottom])


def smooth(boxes: F64) -> F64:
    """Boxes F64[n,4] without the noise of the landmarks; the ends are kept in place."""
    if len(boxes) < 3:
        return boxes
    radius = max(1, round(3 * _SMOOTHING))
    padded = np.pad(boxes, ((radius, radius), (0, 0)), mode="reflect", reflect_type="odd")
    kernel = cv2.getGaussianKernel(2 * radius + 1, _SMOOTHING)[:, 0]
    return np.stack([np.convolve(padded[:, k], kernel, "valid") for k in range(4)], axis=1)


def fill_gaps(boxes: F64, found: npt.NDArray[np.bool_]) -> F64:
    """Boxes of frames without a face, between those of their neighbours.

    Args:
        boxes: F64[n,4]; rows where ``found`` is false are ignored.
        found: bool[n], at least one true.
    """
    rows, known = np.arange(len(boxes)), np.flatnonzero(found)
    return np.stack([np.interp(rows, known, boxes[known, k]) for k in range(4)], axis=1)


def final_boxes(boxes: F64, width: int, height: int) -> I32:
    """Whole pixels, margin below the chin, inside the frame: I32[n,4]."""
    result = np.rint(boxes).astype(np.int32)
    result[:, 3] += EXTRA_MARGIN
    result[:, 0::2] = np.clip(result[:, 0::2], 0, width)
    result[:, 1::2] = np.clip(result[:, 1::2], 0, height)
    return result
