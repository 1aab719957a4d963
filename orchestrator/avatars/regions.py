"""Face regions of a blend square: from the parsing network, or drawn from landmarks."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from orchestrator.avatars.landmarks import LIPS, NOSE, OVAL, Landmarks
from orchestrator.avatars.masks import MOUTH, PARSE_SIZE, SKIN, Box
from orchestrator.avatars.masks import NOSE as NOSE_CLASS

U8 = npt.NDArray[np.uint8]

_JAW_ROOM = 44
"""Pixels of ``PARSE_SIZE`` by which the outline of the jaw is drawn wider than it is. An open mouth
widens the jaw; what ``region`` keeps back beside the chin (34 pixels) would show the closed one
through it. Of the demo's portraits the worst hundredth of the pixels there is then 28, 14 and 39
levels off the truth instead of 34, 15 and 56."""

_JAW_FROM = 40
"""Pixels below the mouth, and beside the chin, at which the outline has all of that room."""


def square_picture(frame: U8, square: Box) -> U8:
    """The blend square as the parsing network takes it: U8[512,512,3] RGB, black outside.

    Args:
        frame: U8[H,W,3] BGR.
        square: x0, y0, x1, y1, may leave the frame.
    """
    x0, y0, x1, y1 = square
    height, width = frame.shape[:2]
    picture = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    picture[top - y0 : bottom - y0, left - x0 : right - x0] = frame[top:bottom, left:right, ::-1]
    resized = Image.fromarray(picture).resize((PARSE_SIZE, PARSE_SIZE), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)


def landmark_labels(landmarks: Landmarks, square: Box) -> U8:
    """Classes U8[512,512] of a blend square, drawn from landmarks: skin, nose, mouth.

    Below the mouth the skin is wider than the face, by the room that an opening jaw takes.
    """
    origin = np.array(square[:2], np.float32)
    scale = PARSE_SIZE / (square[2] - square[0])
    oval, nose, lips = (
        (landmarks.points[list(indices)] - origin) * scale for indices in (OVAL, NOSE, LIPS)
    )
    wide = oval.copy()
    below = np.clip((oval[:, 1] - lips[:, 1].mean()) / _JAW_FROM, 0, 1)
    beside = np.clip((oval[:, 0] - oval[:, 0].mean()) / _JAW_FROM, -1, 1)
    wide[:, 0] += _JAW_ROOM * below * beside
    labels = np.zeros((PARSE_SIZE, PARSE_SIZE), np.uint8)
    for outline, label in ((oval, SKIN), (wide, SKIN), (nose, NOSE_CLASS), (lips, MOUTH)):
        cv2.fillPoly(labels, [np.rint(outline).astype(np.int32)], label)
    return labels
