"""A contact sheet: what preparation found, to be looked at."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from orchestrator.avatars.avatar import Avatar

U8 = npt.NDArray[np.uint8]

_TILES: Final = 6
_COLUMNS: Final = 3
_WIDTH: Final = 420
"""Of each of several frames."""
_ALONE: Final = 960
_BOX: Final = (80, 220, 80)
_MASK: Final = np.array((60, 80, 235), np.float32)


def contact_sheet(avatar: Avatar) -> U8:
    """Frames spread over the avatar, the face box drawn, the mask tinted: U8[H,W,3] BGR."""
    count = min(_TILES, len(avatar))
    indices = np.linspace(0, len(avatar) - 1, count).astype(int)
    width = _WIDTH if count > 1 else _ALONE
    height = round(width * avatar.height / avatar.width)
    tiles = []
    for index in indices:
        picture = avatar.frame(int(index)).copy()
        mask = avatar.masks[index]
        part = picture[mask.y0 : mask.y1, mask.x0 : mask.x1]
        weight = mask.alpha[:, :, None].astype(np.float32) / 255 * 0.5
        part[...] = (part * (1 - weight) + _MASK * weight).astype(np.uint8)
        tile = np.asarray(
            cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8
        )
        # Drawn at the size that is shown: a line of the frame would fade when it is made smaller.
        x0, y0, x1, y1 = (round(int(value) * width / avatar.width) for value in avatar.boxes[index])
        cv2.rectangle(tile, (x0, y0), (x1 - 1, y1 - 1), _BOX, 2)
        tiles.append(tile)
    columns = min(_COLUMNS, count)
    while len(tiles) % columns:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    return np.asarray(np.vstack(rows), dtype=np.uint8)
