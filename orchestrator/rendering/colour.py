"""BGR to the planar YUV that H.264 stores, and the tags that let a player undo it."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

COLOUR_TAGS: Final = (
    "setparams=colorspace=smpte170m:color_primaries=bt709:color_trc=bt709:range=tv"
    ":chroma_location=center"
)
"""ffmpeg filter that says what ``to_i420`` makes: BT.601 matrix, limited range, chroma centred."""

_LIMITED_CHROMA: Final = 224 / 255
"""Range of chroma in video, as a part of the full range that OpenCV's YCrCb uses."""


def even(length: int) -> int:
    """The next even number: 4:2:0 video has no odd sizes."""
    return length + (length & 1)


def to_i420(frame: U8, out: U8 | None = None) -> U8:
    """Convert one frame to I420 (BT.601, limited range).

    OpenCV's own conversion reads the colour of one pixel in four, which makes the edges of lips
    flicker; here the four are averaged (0.6 ms more at 1280x720).

    Args:
        frame: U8[H,W,3] BGR; an odd side is continued by its last row or column.
        out: U8[even(H)*3/2, even(W)] to write to; a new one by default.

    Returns:
        U8[even(H)*3/2, even(W)]: the planes Y, U, V one after the other.
    """
    height, width = frame.shape[:2]
    if height & 1 or width & 1:
        frame = np.asarray(
            cv2.copyMakeBorder(frame, 0, height & 1, 0, width & 1, cv2.BORDER_REPLICATE),
            dtype=np.uint8,
        )
        height, width = frame.shape[:2]
    planes = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420, dst=out), dtype=np.uint8)
    half = cv2.resize(frame, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    limited = cv2.convertScaleAbs(
        cv2.cvtColor(half, cv2.COLOR_BGR2YCrCb),
        alpha=_LIMITED_CHROMA,
        beta=128 * (1 - _LIMITED_CHROMA),
    )
    quarter = (height // 2) * (width // 2)
    chroma = planes[height:].reshape(-1)
    chroma[:quarter] = limited[:, :, 2].reshape(-1)
    chroma[quarter:] = limited[:, :, 1].reshape(-1)
    return planes
