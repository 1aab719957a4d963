"""Idle video, encoded once per avatar and shown to everybody.

The avatar's forward-and-back cycle is cut into short pieces that each begin with an IDR picture.
Whoever leaves the idle video somewhere and comes back somewhere else needs pictures from there to
the next piece: those are encoded when they are asked for, and kept as well.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from orchestrator.errors import SetupError
from orchestrator.rendering.colour import even
from orchestrator.rendering.live.encoders import AacEncoder, H264Encoder
from orchestrator.rendering.live.fmp4 import PACKET_TICKS, TICKS, Frame
from orchestrator.rendering.render import source_index
from orchestrator.rendering.tasks import end

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar

U8 = npt.NDArray[np.uint8]

_log = logging.getLogger(__name__)

PIECE_SECONDS: Final = 0.6
"""Length of a piece: how much idle video is made at a time."""

_AHEAD: Final = 5
"""Pieces encoded before the clip is used, and without a pause."""

_ENTRIES_KEPT: Final = 64
_CLIPS_KEPT: Final = 16
_SETTLED: Final = 6
"""Packets after which an encoder that hears silence only repeats itself."""


class IdleClip:
    """Coded pictures of an avatar that is silent; shared by all sessions with that avatar.

    Made by ``idle_clip``.

    Attributes:
        fps: frames a second.
        cycle: frames after which it begins again.
        width: of the video, even.
        height: likewise.
        config: AVCDecoderConfigurationRecord.
        silence: AAC packet of silence.
    """

    def __init__(self, avatar: Avatar, fps: int) -> None:
        if TICKS % fps:
            raise ValueError(f"a frame at {fps} fps is not a whole number of samples")
        self.fps = fps
        self.width, self.height = even(avatar.width), even(avatar.height)
        self.config = b""
        self.silence = b""
        self._ticks = TICKS // fps
        self._piece = max(1, round(PIECE_SECONDS * fps))
        whole = 2 * len(avatar) * fps
        period = whole // math.gcd(whole, avatar.fps)
        self.cycle = period * -(-self._piece // period)
        self._pieces: list[list[Frame]] = []
        self._entries: OrderedDict[int, list[Frame]] = OrderedDict()
        self._filling: asyncio.Task[None] | None = None

    @property
    def complete(self) -> bool:
        """Whether all of the cycle is encoded."""
        return len(self._pieces) * self._piece >= self.cycle

    @property
    def is_filling(self) -> bool:
        """Whether the rest is being encoded, in this event loop."""
        task = self._filling
        return (
            task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()
        )

    def run(self, frame: int) -> list[Frame]:
        """Pictures from a frame of the endless cycle to the end of its piece.

        The first is an IDR picture. Inside a piece where nobody called ``enter`` they are the
        piece's first ones: the avatar then moves a little off its path, once.
        """
        position = frame % self.cycle
        number, offset = divmod(position, self._piece)
        left = self._piece_end(position) - position
        if offset and position in self._entries:
            self._entries.move_to_end(position)
            return self._entries[position]
        # Beyond what is encoded so far: only a viewer faster than the encoder gets there.
        piece = self._pieces[number % len(self._pieces)]
        return piece[:left]

    def can_enter(self, frame: int) -> bool:
        """Whether ``run`` has exactly the pictures from there."""
        position = frame % self.cycle
        return position % self._piece == 0 or position in self._entries

    async def frames_to_piece(self, avatar: Avatar, frame: int) -> list[U8]:
        """Frames of the cycle from there to the beginning of a piece; none if one begins there.

        Args:
            avatar: whose idle video this is; it is not kept here, its frames take much memory.
            frame: of the endless cycle.

        Returns:
            Each U8[H,W,3] BGR.
        """
        position = frame % self.cycle
        if position % self._piece == 0:
            return []
        return await self._source(avatar, position, self._piece_end(position))

    async def enter(self, avatar: Avatar, frame: int, encoder: H264Encoder) -> None:
        """Encode the pictures from a frame to the next piece.

        Args:
            avatar: whose idle video this is.
            frame: of the endless cycle.
            encoder: a new one; its owner closes it.

        Raises:
            SetupError: the encoder failed.
        """
        position = frame % self.cycle
        pictures = await self._encode(encoder, avatar, position, self._piece_end(position))
        self._entries[position] = pictures
        while len(self._entries) > _ENTRIES_KEPT:
            self._entries.popitem(last=False)

    async def begin(self, avatar: Avatar) -> None:
        """Encode the first pieces, and the others while they are shown.

        Args:
            avatar: whose idle video this is.

        Raises:
            SetupError: an encoder failed.
        """
        self.silence = await _silence()
        encoder = await self._encoder()
        try:
            for _ in range(_AHEAD):
                await self._next_piece(encoder, avatar)
            self.config = encoder.config
        except BaseException:
            await encoder.close()
            raise
        self._filling = asyncio.create_task(self._fill(encoder, avatar), name="idle clip")

    async def finish(self) -> None:
        """Wait until all of the cycle is encoded."""
        if self._filling is not None:
            await asyncio.shield(self._filling)

    async def close(self) -> None:
        """Stop encoding; what there is can still be shown."""
        if self._filling is not None:
            await end(self._filling)

    async def _encoder(self) -> H264Encoder:
        return await H264Encoder.start(self.width, self.height, self.fps, distance=self._piece)

    async def _next_piece(self, encoder: H264Encoder, avatar: Avatar) -> None:
        start = len(self._pieces) * self._piece
        if start < self.cycle:
            stop = min(start + self._piece, self.cycle)
            self._pieces.append(await self._encode(encoder, avatar, start, stop))

    async def _fill(self, encoder: H264Encoder, avatar: Avatar) -> None:
        """Encode the rest, with a fifth of a core: the first turn is often asked for meanwhile."""
        try:
            while not self.complete:
                began = time.monotonic()
                await self._next_piece(encoder, avatar)
                took = time.monotonic() - began
                await asyncio.sleep(min(4 * took, PIECE_SECONDS / 2))  # ahead of who watches it
        except SetupError as error:
            _log.warning("idle video of %s stays short: %s", avatar.name, error)
        finally:
            await encoder.close()

    def _piece_end(self, position: int) -> int:
        return min(position - position % self._piece + self._piece, self.cycle)

    async def _source(self, avatar: Avatar, start: int, stop: int) -> list[U8]:
        indices = [source_index(avatar, place, self.fps) for place in range(start, stop)]
        return await asyncio.to_thread(lambda: [avatar.frame(index) for index in indices])

    async def _encode(
        self, encoder: H264Encoder, avatar: Avatar, start: int, stop: int
    ) -> list[Frame]:
        pictures = await encoder.encode(await self._source(avatar, start, stop))
        return [Frame(picture.data, self._ticks, picture.key) for picture in pictures]


_clips: OrderedDict[tuple[str, int], IdleClip] = OrderedDict()
_begun: dict[tuple[str, int], asyncio.Task[IdleClip]] = {}


async def idle_clip(avatar: Avatar, fps: int = 25) -> IdleClip:
    """The idle video of an avatar: encoded by the first who asks, then kept in memory.

    Args:
        avatar: who is idle.
        fps: frames a second, a divisor of 48000.

    Raises:
        SetupError: ffmpeg failed.
    """
    key = (avatar.id, fps)
    if (clip := _clips.get(key)) is not None and (clip.complete or clip.is_filling):
        _clips.move_to_end(key)
        return clip
    task = _begun.get(key)
    if task is None or task.get_loop() is not asyncio.get_running_loop():
        task = asyncio.create_task(_make(avatar, fps))
        _begun[key] = task
        task.add_done_callback(lambda done: _finished(key, done))
    return await asyncio.shield(task)  # others may wait for it as well


async def _make(avatar: Avatar, fps: int) -> IdleClip:
    clip = IdleClip(avatar, fps)
    await clip.begin(avatar)
    return clip


def forget_idle_clip(avatar_id: str) -> None:
    """Keep the idle video of an avatar that was deleted no longer in memory."""
    for key in [key for key in _clips if key[0] == avatar_id]:
        del _clips[key]


def _finished(key: tuple[str, int], task: asyncio.Task[IdleClip]) -> None:
    if _begun.get(key) is task:
        del _begun[key]
    if not task.cancelled() and task.exception() is None:
        _clips[key] = task.result()
        while len(_clips) > _CLIPS_KEPT:
            _clips.popitem(last=False)


async def _silence() -> bytes:
    encoder = await AacEncoder.start()
    try:
        packets = await encoder.encode(np.zeros(2 * _SETTLED * PACKET_TICKS, np.int16))
    finally:
        await encoder.close()
    if len(set(packets[_SETTLED:])) != 1:
        raise SetupError("the sound encoder codes silence in different ways")
    return packets[-1]
