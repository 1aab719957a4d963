"""Put a generated face back into its frame: resize, then blend where the mask is not zero.

Formulas: MuseTalk v1.5 ``get_image_blending`` (musetalk_v15.md section 4): the face is resized
bilinearly to the box and pasted; the blend square is then pasted through the blurred mask with
PIL's 8-bit rounding. Outside the box the pasted square equals the frame, so only the part of the
mask inside the box changes anything; all other work is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from orchestrator.avatars.masks import BlendMask

U8 = npt.NDArray[np.uint8]

_TILE_ELEMENTS: Final = 128 * 1024
"""Values blended at a time: the uint16 temporaries then stay in the processor's cache."""


def composite(
    frame: U8,
    face: U8,
    box: Sequence[int] | npt.NDArray[np.integer],
    mask: BlendMask,
    *,
    strength: float = 1.0,
    out: U8 | None = None,
) -> U8:
    """Blend a generated face into a frame.

    Args:
        frame: U8[H,W,3] BGR; not modified unless it is also ``out``.
        face: U8[256,256,3] BGR, as the ``lipsync`` model returns it.
        box: x0, y0, x1, y1 of the face in the frame, in pixels; may leave the frame.
        mask: where to blend, in frame coordinates.
        strength: 0 to 1, scales the mask; below 1 only to fade between mouth and idle frame.
        out: U8[H,W,3] contiguous array to write to; a new one by default.

    Returns:
        U8[H,W,3] BGR: ``out``.
    """
    result: U8
    if out is None:
        result = frame.copy()
    else:
        result = out
        if result is not frame:
            np.copyto(result, frame)
    bx0, by0, bx1, by1 = (int(value) for value in box)
    height, width = frame.shape[:2]
    x0, y0 = max(bx0, mask.x0, 0), max(by0, mask.y0, 0)
    x1, y1 = min(bx1, mask.x1, width), min(by1, mask.y1, height)
    if x0 >= x1 or y0 >= y1 or strength <= 0:
        return result
    resized = np.asarray(
        cv2.resize(face, (bx1 - bx0, by1 - by0), interpolation=cv2.INTER_LINEAR), dtype=np.uint8
    )
    alpha = mask.alpha[y0 - mask.y0 : y1 - mask.y0, x0 - mask.x0 : x1 - mask.x0]
    if strength < 1:
        alpha = np.asarray(cv2.convertScaleAbs(alpha, alpha=strength), dtype=np.uint8)
    rows = max(1, _TILE_ELEMENTS // ((x1 - x0) * 3))
    for top in range(y0, y1, rows):
        bottom = min(top + rows, y1)
        region = result[top:bottom, x0:x1]
        new = resized[top - by0 : bottom - by0, x0 - bx0 : x1 - bx0]
        _blend(region, new, alpha[top - y0 : bottom - y0])
    return result


def _blend(region: U8, new: U8, alpha: U8) -> None:
    """Blend in place: (a*new + (255-a)*old)/255, rounded the way PIL does it.

    With t = a*new + (255-a)*old + 128, PIL's ``DIV255`` is (t + (t >> 8)) >> 8, which is
    t/255 rounded to the nearest; neither step leaves 16 bits.

    Args:
        region: U8[h,w,3], old values in, blended values out.
        new: U8[h,w,3].
        alpha: U8[h,w].
    """
    weight = np.ascontiguousarray(cv2.merge([alpha, alpha, alpha]))
    total = np.multiply(new, weight, dtype=np.uint16)
    np.invert(weight, out=weight)
    total += np.multiply(region, weight, dtype=np.uint16)
    total += np.uint16(128)
    total += total >> np.uint16(8)
    total >>= np.uint16(8)
    region[...] = total
