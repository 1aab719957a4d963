"""One session's sound as an endless row of AAC packets, in which no seam can be heard.

A packet codes 2048 samples, the second half of them together with the packet after it. So a
packet may only be sent when both halves are final, and an encoder that takes over must be given
what sounded before: its own packets for that are thrown away, those after it fit the ones that
were sent. Silence always codes to the same packet and needs no encoder.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.rendering.live.encoders import AacEncoder
from orchestrator.rendering.live.fmp4 import PACKET_TICKS, TICKS
from orchestrator.rendering.live.sound import KEPT_SECONDS, SoundLine

I16 = npt.NDArray[np.int16]

_CONTEXT: Final = 8
"""Packets of earlier sound that an encoder is given first, so that its choices are the same."""

_WINDOW: Final = 2
"""Packet lengths that one packet codes."""

_FLUSH: Final = 4
"""Packets of silence that bring out the last packet with sound, and one more."""


class AudioTrack:
    """Packets in the order of the timeline, whose ticks are samples at 48 kHz.

    Args:
        silence: the AAC packet of silence between silences.

    Attributes:
        next: number of the packet to send next; packet *n* begins at tick n*1024.
    """

    def __init__(self, silence: bytes) -> None:
        self.next = 0
        self._silence = silence
        self._line = SoundLine()
        self._ready: deque[bytes] = deque()
        self._encoder: AacEncoder | None = None
        self._fed = 0
        self._skip = 0

    def take(self, until: int) -> list[bytes]:
        """The next packets, as far as they are final and code nothing after ``until``."""
        packets: list[bytes] = []
        while (self.next + _WINDOW) * PACKET_TICKS <= until:
            if self._ready:
                packets.append(self._ready.popleft())
            elif self._encoder is None:
                packets.append(self._silence)
            else:
                break
            self.next += 1
        self._line.forget(until - KEPT_SECONDS * TICKS)
        return packets

    async def begin(self, encoder: AacEncoder, at: int) -> None:
        """Speech comes next.

        Args:
            encoder: a new one; its owner closes it.
            at: tick at which it begins.

        Raises:
            SetupError: the encoder failed.
        """
        self._ready.clear()
        self._encoder = encoder
        self._fed = (self.next - _CONTEXT) * PACKET_TICKS
        self._skip = _CONTEXT + 1
        await self._feed(at)

    async def add(self, at: int, pcm: I16) -> None:
        """Append sound to the speech.

        Args:
            at: tick of its first sample, where the sound before it ended.
            pcm: I16[S].

        Raises:
            SetupError: the encoder failed.
        """
        self._line.mix(at, pcm)
        await self._feed(at + len(pcm))

    async def finish(self, at: int) -> None:
        """The speech is over; after it there is silence.

        Args:
            at: tick up to which there are frames.

        Raises:
            SetupError: the encoder failed.
        """
        await self._feed(max(at, self._line.end) + _FLUSH * PACKET_TICKS)
        self._encoder = None

    def cut(self, at: int) -> bool:
        """End the sound soon after a tick; the packets from there on are sent anew.

        The sound goes on for up to three packets, so that what was sent before stays right, and
        then fades out.

        Args:
            at: tick, maybe before what was sent.

        Returns:
            Whether there is sound that ``resume`` must encode.
        """
        self.next = min(self.next, -(-at // PACKET_TICKS))
        self._ready.clear()
        self._encoder = None
        first = self.next * PACKET_TICKS
        self._line.fade(first + _WINDOW * PACKET_TICKS)
        return not self._line.is_silent(first - PACKET_TICKS, self._line.end)

    async def resume(self, encoder: AacEncoder) -> None:
        """Encode the sound that ``cut`` left.

        Raises:
            SetupError: the encoder failed.
        """
        try:
            await self.begin(encoder, self._line.end)
            await self.finish(self._line.end)
        finally:
            self._encoder = None

    async def _feed(self, until: int) -> None:
        """Give the encoder the sound up to a tick, and keep the packets that come."""
        assert self._encoder is not None
        packets = await self._encoder.encode(self._line.read(self._fed, until))
        self._fed = max(self._fed, until)
        unwanted = min(self._skip, len(packets))
        self._skip -= unwanted
        self._ready.extend(packets[unwanted:])
