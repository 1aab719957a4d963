"""Decoded frames of all avatars of a process, as many as their common budget holds.

An avatar's frames lie in memory as JPEG. Decoding one of 1280x720 takes 3.1 ms (compositing a
mouth 1 ms, encoding 4.4 ms); one that was decoded lately is not decoded again. Ten seconds would
take 690 MB, so of an avatar that is alone in use about a third is kept.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import OrderedDict
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.avatars.media import decode

U8 = npt.NDArray[np.uint8]

DECODED_BYTES: Final = 208 << 20
"""With JPEGs, masks and latents of ten seconds of 1280x720 (26 to 75 MB) it stays below 300 MB."""


class DecodedFrames:
    """The frames used last, whoever's they are; safe to use from several threads.

    Args:
        limit: bytes that they may take; one frame is kept whatever its size.
    """

    def __init__(self, limit: int = DECODED_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._frames: OrderedDict[tuple[int, int], U8] = OrderedDict()
        # Re-entrant: the garbage collector may drop a reader in the midst of these lines.
        self._lock = threading.RLock()
        self._numbers = itertools.count()

    @property
    def size(self) -> int:
        """Bytes that are kept now."""
        return self._size

    def reader(self) -> FrameReader:
        """For one avatar; its frames are dropped when nobody has it any more."""
        number = next(self._numbers)
        reader = FrameReader(self, number)
        weakref.finalize(reader, self._drop, number)
        return reader

    def get(self, number: int, index: int, jpeg: bytes) -> U8:
        """A frame, decoded now or before.

        Args:
            number: of the reader.
            index: of the frame.
            jpeg: what it is decoded from.
        """
        key = (number, index)
        with self._lock:
            frame = self._frames.get(key)
            if frame is not None:
                self._frames.move_to_end(key)
                return frame
        frame = decode(jpeg)
        with self._lock:
            known = self._frames.setdefault(key, frame)
            if known is frame:
                self._size += frame.nbytes
            while self._size > self._limit and len(self._frames) > 1:
                self._size -= self._frames.popitem(last=False)[1].nbytes
        return known

    def _drop(self, number: int) -> None:
        with self._lock:
            for key in [key for key in self._frames if key[0] == number]:
                self._size -= self._frames.pop(key).nbytes


class FrameReader:
    """One avatar's view of the decoded frames."""

    def __init__(self, frames: DecodedFrames, number: int) -> None:
        self._frames = frames
        self._number = number

    def get(self, index: int, jpeg: bytes) -> U8:
        """Frame U8[H,W,3] BGR, shared and read-only."""
        return self._frames.get(self._number, index, jpeg)


DECODED: Final = DecodedFrames()
"""Of this process."""
