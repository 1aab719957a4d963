"""Faces to look at: composited beside untouched, at the size they are shown and at twice that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.avatars.avatar import Avatar

U8 = NDArray[np.uint8]
_AMPLIFIED = 8


def _around(avatar: Avatar, index: int) -> tuple[slice, slice]:
    """The mask's surroundings in a frame of the loop."""
    mask = avatar.masks[index]
    height, width = avatar.frame(index).shape[:2]
    more = (mask.y1 - mask.y0) // 10
    rows = slice(max(0, mask.y0 - more), min(height, mask.y1 + more))
    return rows, slice(max(0, mask.x0 - more), min(width, mask.x1 + more))


def border_row(avatar: Avatar, frames: Sequence[U8], columns: int, zoom: int) -> U8:
    """Generated faces, below them the portrait, below that eight times their difference."""
    shown = []
    for i in np.linspace(0, len(frames) - 1, columns + 2).astype(int)[1:-1]:
        index = avatar.cycle_index(int(i))
        part = _around(avatar, index)
        made, real = frames[i][part], avatar.frame(index)[part]
        change = 128 + _AMPLIFIED * (made.astype(np.int16) - real)
        stack = np.vstack([made, real, np.clip(change, 0, 255).astype(np.uint8)])
        shown.append(cv2.resize(stack, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR))
    height = min(len(picture) for picture in shown)
    return np.asarray(np.hstack([picture[:height] for picture in shown]), np.uint8)


def border_sheet(spoken: Mapping[str, tuple[Avatar, Sequence[U8]]], zoom: int) -> U8:
    """One row for each portrait: U8[H,W,3].

    Args:
        spoken: avatar and composited frames by name.
        zoom: 1 or 2; at 2 half as many faces are shown.
    """
    rows = [border_row(avatar, frames, 6 // zoom, zoom) for avatar, frames in spoken.values()]
    width = min(row.shape[1] for row in rows)
    return np.vstack([row[:, :width] for row in rows])
