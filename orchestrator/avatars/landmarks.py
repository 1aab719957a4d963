"""468 face landmarks: MediaPipe's face mesh, run by OpenVINO, and what MuseTalk needs of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from orchestrator.avatars.detection import Detection, run_model

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_INPUT: Final = 192
_ROI: Final = 1.5
"""Side of the region around a face, as a multiple of the face's longer side."""
_PASSES: Final = 2
"""The second pass looks at a region placed by the first one's landmarks: steadier."""

EYE_OUTER_LEFT, EYE_OUTER_RIGHT = 33, 263
NOSE_TIP, CHEEK_LEFT, CHEEK_RIGHT = 1, 234, 454
OVAL: Final = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""Outline of the face, clockwise from the forehead."""
LIPS: Final = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
)
"""Outer edge of the lips."""
NOSE: Final = (
    *(168, 193, 245, 128, 114, 217, 209, 129, 98, 97),
    *(2, 326, 327, 358, 429, 437, 343, 357, 465, 417),
)
"""Outline of the nose, from the bridge round the wings."""


@dataclass(frozen=True)
class Landmarks:
    """One face.

    Attributes:
        points: F32[468,2] in pixels of the frame.
        presence: how sure the network is that this is a face, 0 to 1.
    """

    points: F32
    presence: float

    @property
    def turn(self) -> float:
        """How far the head is turned: 0 to the camera, towards -1 or 1 in profile.

        The nose tip's place between the cheeks, along the line of the eyes.
        """
        axis = self.points[EYE_OUTER_RIGHT] - self.points[EYE_OUTER_LEFT]
        axis = axis / (np.linalg.norm(axis) + 1e-6)
        left, nose, right = (
            float(self.points[index] @ axis) for index in (CHEEK_LEFT, NOSE_TIP, CHEEK_RIGHT)
        )
        return 2 * (nose - left) / (right - left + 1e-6) - 1


def _crop(frame: U8, centre: F32, side: float, angle: float) -> tuple[F32, F32]:
    """Region of a frame turned upright, F32[192,192,3] RGB 0..1, and the way back F32[2,3]."""
    scale = side / _INPUT
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    half = _INPUT / 2
    back = np.array(
        [
            [cosine, -sine, centre[0] - half * cosine + half * sine],
            [sine, cosine, centre[1] - half * sine - half * cosine],
        ],
        np.float32,
    )
    # Shrink first when the region is much larger than the input: bilinear alone would alias.
    picture = cv2.warpAffine(
        frame,
        back,
        (_INPUT, _INPUT),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return (picture[:, :, ::-1] / 255.0).astype(np.float32), back


def _mesh(frame: U8, centre: F32, side: float, angle: float) -> Landmarks:
    picture, back = _crop(frame, centre, side, angle)
    results = run_model("face_landmark", {"input_1": picture[None]})
    points = results["conv2d_21"].reshape(468, 3)[:, :2]
    logit = float(np.clip(results["conv2d_31"].ravel()[0], -50, 50))
    in_frame = points @ back[:, :2].T + back[:, 2]
    return Landmarks(in_frame.astype(np.float32), 1 / (1 + math.exp(-logit)))


def _angle(left: F32, right: F32) -> float:
    return math.atan2(float(right[1] - left[1]), float(right[0] - left[0]))


def find_landmarks(frame: U8, detection: Detection) -> Landmarks:
    """Landmarks of a detected face.

    Args:
        frame: U8[H,W,3] BGR.
        detection: where the face is.
    """
    x0, y0, x1, y1 = detection.box
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2], np.float32)
    side = max(x1 - x0, y1 - y0) * _ROI
    angle = _angle(*detection.eyes)
    largest = max(frame.shape[:2])
    shrink = max(1.0, side / (2 * _INPUT))
    small = frame
    if shrink > 1.0:
        size = (round(frame.shape[1] / shrink), round(frame.shape[0] / shrink))
        small = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        shrink = largest / max(small.shape[:2])
    found = _mesh(small, centre / shrink, side / shrink, angle)
    for _ in range(_PASSES - 1):
        low, high = found.points.min(0), found.points.max(0)
        angle = _angle(found.points[EYE_OUTER_LEFT], found.points[EYE_OUTER_RIGHT])
        found = _mesh(small, (low + high) / 2, float((high - low).max()) * _ROI, angle)
    return Landmarks(found.points * np.float32(shrink), found.presence)
