"""Where a generated face is blended into its frame (musetalk_v15.md section 2, "Blend mask").

A square around the face box is parsed into classes; skin is grown towards the jaw, cheeks are
kept back, nose left out; the result is limited to the lower half of the square inside the box
and blurred. MuseTalk's real-time path (blur factor 0.1) is the one reproduced.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

U8 = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
MaskMode = Literal["jaw", "raw", "neck"]

PARSE_SIZE: Final = 512
"""Side of the square as the parsing network sees it."""

SKIN, NOSE, MOUTH, UPPER_LIP, LOWER_LIP, NECK = 1, 10, 11, 12, 13, 14
CHEEK_WIDTH: Final = 90
"""Distance of the cheek zones from the middle, in pixels of ``PARSE_SIZE``."""
_EXPAND: Final = 1.5
_UPPER_BOUNDARY: Final = 0.5
_BLUR: Final = 0.1
_CHEEKS: Final = (35, 3)
"""Size of the ellipse by which cheeks are kept back, twice."""


@dataclass(frozen=True)
class BlendMask:
    """The part of a mask that is not zero, in frame coordinates.

    Attributes:
        x0: left column in the frame.
        y0: top row in the frame.
        alpha: weights U8[h,w]; 255 takes the generated face, 0 the frame.
    """

    x0: int
    y0: int
    alpha: U8

    @property
    def x1(self) -> int:
        """One past the right column."""
        return self.x0 + int(self.alpha.shape[1])

    @property
    def y1(self) -> int:
        """One past the bottom row."""
        return self.y0 + int(self.alpha.shape[0])


def blend_square(box: Box) -> Box:
    """Square around a face box; may leave the frame.

    Centre by integer division of the corners, half side int((max(w, h) // 2) * 1.5).
    """
    x0, y0, x1, y1 = box
    centre_x, centre_y = (x0 + x1) // 2, (y0 + y1) // 2
    half = int((max(x1 - x0, y1 - y0) // 2) * _EXPAND)
    return centre_x - half, centre_y - half, centre_x + half, centre_y + half


@cache
def _jaw_kernel() -> U8:
    """33x33: nothing above, a triangle that widens to 21, then a bar; it grows downwards."""
    kernel = np.zeros((33, 33), np.uint8)
    for row in range(10, 33):
        half = min(row - 10, 10)
        kernel[row, 16 - half : 17 + half] = 1
    return kernel


def _around(picture: U8, reach: int) -> tuple[slice, slice]:
    """Rows and columns that are not zero, and ``reach`` more: a filter changes nothing outside."""
    x, y, width, height = cv2.boundingRect(picture)
    rows = slice(max(0, y - reach), y + height + reach)
    return rows, slice(max(0, x - reach), x + width + reach)


def _where(labels: U8, *classes: int) -> U8:
    """255 where a label is one of some classes, else 0."""
    table = np.zeros(256, np.uint8)
    table[list(classes)] = 255
    return np.asarray(cv2.LUT(labels, table), dtype=np.uint8)


def region(labels: U8, mode: MaskMode = "jaw") -> U8:
    """Pixels that may be replaced, by class.

    Args:
        labels: face parsing classes U8[512,512].
        mode: ``jaw`` (v1.5), ``raw`` (v1) or ``neck``.

    Returns:
        U8[512,512], 0 or 255.
    """
    lips = [MOUTH, UPPER_LIP, LOWER_LIP]
    if mode != "jaw":
        return _where(labels, SKIN, *lips, *([NECK] if mode == "neck" else []))
    skin = _where(labels, SKIN)
    around = _around(skin, _jaw_kernel().shape[0] // 2 + 2 * (_CHEEKS[0] // 2) + 1)
    grown = cv2.dilate(skin[around], _jaw_kernel(), iterations=1)
    shrunk = cv2.erode(grown, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, _CHEEKS), iterations=2)
    columns = np.arange(PARSE_SIZE)[around[1]]
    middle = PARSE_SIZE // 2
    # cv2's rectangles include their last column.
    cheeks = (columns <= middle - CHEEK_WIDTH) | (columns >= middle + CHEEK_WIDTH)
    face = np.where(cheeks[None, :], shrunk, grown).astype(np.uint8)
    face &= ~_where(labels[around], NOSE)
    chosen = _where(labels, *lips)
    chosen[around] |= face
    return chosen


def square_mask(hard: U8, box: Box, square: Box) -> U8:
    """Fit a region to its square: limit it to the box and the lower half, and blur it.

    Args:
        hard: U8[512,512], 0 or 255.
        box: of the face, in frame coordinates.
        square: from ``blend_square``.

    Returns:
        U8[side,side], the mask of the whole square.
    """
    side = square[2] - square[0]
    # PIL's bicubic for 8-bit pictures, as upstream resizes; cv2's gives other edges.
    resized = np.asarray(Image.fromarray(hard).resize((side, side)), dtype=np.uint8)
    mask = np.zeros((side, side), np.uint8)
    x0, y0 = box[0] - square[0], box[1] - square[1]
    x1, y1 = box[2] - square[0], box[3] - square[1]
    y0 = max(y0, int(side * _UPPER_BOUNDARY))
    mask[y0:y1, x0:x1] = resized[y0:y1, x0:x1]
    kernel = int(_BLUR * side // 2 * 2) + 1
    around = _around(mask, kernel // 2 + 1)
    mask[around] = cv2.GaussianBlur(mask[around], (kernel, kernel), 0)
    return mask


def blend_mask(mask: U8, square: Box, width: int, height: int) -> BlendMask:
    """Keep what is not zero and inside the frame.

    Args:
        mask: U8[side,side] of the whole square.
        square: where it lies in the frame.
        width: of the frame.
        height: of the frame.
    """
    left, top = max(0, -square[0]), max(0, -square[1])
    right = max(left, min(mask.shape[1], width - square[0]))
    bottom = max(top, min(mask.shape[0], height - square[1]))
    inside = mask[top:bottom, left:right]
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return BlendMask(max(0, square[0]), max(0, square[1]), np.zeros((0, 0), np.uint8))
    tight = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return BlendMask(
        square[0] + left + int(columns[0]),
        square[1] + top + int(rows[0]),
        np.ascontiguousarray(tight),
    )
