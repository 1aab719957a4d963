"""A prepared portrait, kept compact in memory and shared by all sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.avatars.decoded import DECODED, FrameReader
from orchestrator.avatars.masks import BlendMask
from orchestrator.avatars.media import FPS

U8 = npt.NDArray[np.uint8]
F16 = npt.NDArray[np.float16]
I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Avatar:
    """Frames, boxes, masks and latents of one portrait; one of each for every frame.

    Attributes:
        id: stable name of content and settings.
        name: what users call it.
        width: of the frames.
        height: of the frames.
        jpegs: the frames.
        latents: F16[N,8,32,32], masked and reference latents.
        boxes: I32[N,4] x0, y0, x1, y1 of the face, margin included.
        squares: I32[N,4] blend squares; may leave the frame.
        masks: where each face is blended.
        metadata: consent, source, notes, weights that made the latents.
        fps: the frames' own rate.
    """

    id: str
    name: str
    width: int
    height: int
    jpegs: tuple[bytes, ...]
    latents: F16
    boxes: I32
    squares: I32
    masks: tuple[BlendMask, ...]
    metadata: dict[str, Any]
    fps: int = FPS
    _decoded: FrameReader = field(
        default_factory=DECODED.reader, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Refuse parts that are not one a frame."""
        counts = {len(self.jpegs), len(self.latents), len(self.boxes)}
        counts |= {len(self.squares), len(self.masks)}
        if len(counts) != 1 or 0 in counts:
            raise ValueError(f"avatar {self.name}: parts of different lengths {sorted(counts)}")

    def __len__(self) -> int:
        return len(self.jpegs)

    def frame(self, index: int) -> U8:
        """Frame U8[H,W,3] BGR, shared and read-only."""
        return self._decoded.get(index, self.jpegs[index])

    def cycle_index(self, frame: int) -> int:
        """Which frame shows at position ``frame`` of the endless forward-and-back cycle.

        MuseTalk's cycle: the list, then the list reversed, so both end frames repeat.
        """
        position = frame % (2 * len(self))
        return position if position < len(self) else 2 * len(self) - 1 - position
