"""One session's media over time: idle pictures, speech when there is some, never too far ahead.

One task makes all media, so that the timeline has one author. It takes pieces of speech from the
turn as the viewer's player gets near them, and idle media when there is nothing to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from orchestrator.errors import MuseTalkError, SetupError
from orchestrator.rendering.tasks import end, within
from orchestrator.sessions.outbox import MediaMessage, Outbox
from orchestrator.sessions.playhead import Playhead

if TYPE_CHECKING:
    from orchestrator.rendering.live import Fragment
    from orchestrator.sessions.pieces import Media, Piece

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]

LOG: Final = logging.getLogger("musetalk.sessions")

AHEAD: Final = 0.9
"""Seconds of speech at most that are made before they are shown, beside one piece."""

DEPTH: Final = 1
"""Pieces of speech that wait to be encoded."""

GUARD: Final = 0.1
"""Seconds that the client has from hearing of a cut to showing it."""

_IDLE_AHEAD: Final = 0.6
_SPEECH_AHEAD: Final = 0.05
_DUE_BEFORE: Final = 0.16
_FIRST_LEAD: Final = 0.35
_FIRST_START: Final = 0.06
_LONGEST_START: Final = 0.4
_MEDIA_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 1.0
_RECOVER_SECONDS: Final = 0.2
_FAILURES: Final = 5


class Playout:
    """Makes and sends the media of one session.

    Args:
        media: the timeline.
        fps: of its frame grid.
        send: sends a message to the client, if there is one.
        flush: tells the client to drop what it has from a position on.
    """

    def __init__(
        self,
        media: Media,
        fps: int,
        *,
        send: Callable[[MediaMessage], None],
        flush: Callable[[float], None],
    ) -> None:
        self.playhead = Playhead()
        self.outbox = Outbox()
        self._media = media
        self._fps = fps
        self._send = send
        self._flush = flush
        self._pieces: deque[Piece] = deque()
        self._speaking = False
        self._finishing = False
        self._planned = 0
        """Frame of the grid that the next piece was rendered for."""
        self._asked_place: float | None = None
        self._lead = _FIRST_LEAD
        self._start_cost = _FIRST_START
        """Seconds that the first fragment of speech usually takes to be made."""
        self._speech_end = 0.0
        self._sent_end = 0.0
        self._connected = False
        self._cut: asyncio.Future[float] | None = None
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._furthest = (0.0, self._clock())
        self._failure: MuseTalkError | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to make media; it is sent when a client is connected."""
        self._task = asyncio.create_task(self._run(), name="playout")
        self._task.add_done_callback(_log_end)

    async def close(self) -> None:
        """Stop, and close the media."""
        if self._task is not None:
            await end(self._task)
        if self._cut is not None and not self._cut.done():
            self._cut.cancel()
        await self._media.close()

    @property
    def position(self) -> float:
        """Where the viewer's player is, in seconds."""
        return self.playhead.now(self._clock())

    def halted(self) -> float:
        """Seconds since the player was seen further on than ever before; to be asked often."""
        now = self._clock()
        if (position := self.playhead.now(now)) > self._furthest[0]:
            self._furthest = position, now
        return now - self._furthest[1]

    @property
    def broken(self) -> bool:
        """Whether making media failed for good."""
        return self._task is not None and self._task.done()

    # The client

    def resumable(self, last_sequence: int) -> bool:
        """Whether a client that has all messages up to a number can go on from there."""
        return self.outbox.reaches(last_sequence)

    def connect(self, last_sequence: int | None) -> bool:
        """A client is there.

        Args:
            last_sequence: number of the last message that it has; None: it has nothing.

        Returns:
            Whether it goes on where it was; otherwise it gets a new ``init``.
        """
        resumed = last_sequence is not None and self.outbox.reaches(last_sequence)
        if last_sequence is not None and resumed:
            self.outbox.resume(last_sequence)
        else:
            self.outbox.clear()
            self.outbox.push("init", self._media.init)
            self.playhead.restart(self._media.end)
            self._sent_end = self._media.end
        self._connected = True
        self._wake.set()
        return resumed

    def disconnect(self) -> None:
        """The client is gone: nothing is made any more but what fits in the queues."""
        self._connected = False

    def confirm(self, sequence: int) -> None:
        """The client has a message."""
        self.outbox.confirm(sequence, self._clock())
        self._wake.set()

    def report(self, position: float) -> None:
        """The client says where its player is, in seconds."""
        self.playhead.report(position, self._clock())
        self._wake.set()

    # The turn

    def expect_speech(self) -> None:
        """A turn was asked for: start what its media needs."""
        self._failure = None  # of the turn before it, or of idle video
        self._media.prepare()

    def place(self) -> int:
        """Frame of the grid at which the next sentence is likely to show."""
        if not self._speaking and not self._pieces:
            now = self._clock()
            position = min(self._reached(now) + self._lead, self._media.end)
            self._planned = round(position * self._fps)
            self._asked_place = now
        return self._planned

    def due(self, frame: int) -> float | None:
        """Moment at which a frame must be here to be shown in time.

        Args:
            frame: of the grid, counted from what ``place`` said.

        Returns:
            On the event loop's clock; None while its sentence has not begun to show: it waits.
        """
        if not self._speaking:
            return None
        first = self._planned - sum(len(piece.frames) for piece in self._pieces)
        position = self._speech_end + (frame - first) / self._fps
        now = self._clock()
        return now + position - self._reached(now) - _DUE_BEFORE

    async def put(self, piece: Piece) -> None:
        """Hand over what shows next; waits while the player is too far behind.

        Raises:
            MuseTalkError: the media could not be made; the turn is over.
        """
        await self._until(lambda: len(self._pieces) < DEPTH)
        self._pieces.append(piece)
        self._planned += len(piece.frames)
        self._wake.set()

    async def finish(self) -> float:
        """Wait until all pieces are media.

        Returns:
            The end of the speech on the timeline, in seconds.

        Raises:
            MuseTalkError: the media could not be made.
        """
        self._finishing = True
        self._wake.set()
        try:
            await self._until(lambda: not self._pieces and not self._speaking)
        finally:
            self._finishing = False
        return self._speech_end

    async def played(self, position: float) -> None:
        """Wait until the viewer has seen the timeline up to a position, in seconds."""
        left = position - self.playhead.now(self._clock())
        while left > 0:
            await asyncio.sleep(min(max(left, 0.02), _POLL_SECONDS))  # reports may move it
            left = position - self.playhead.now(self._clock())

    async def interrupt(self) -> float:
        """Drop all speech that the viewer has not seen yet.

        Returns:
            Position in seconds up to which it is seen.
        """
        if self._cut is None:
            self._cut = asyncio.get_running_loop().create_future()
        self._wake.set()
        return await asyncio.shield(self._cut)

    def _reached(self, now: float) -> float:
        """Where the player will be when it gets what is sent now, in seconds.

        Its reports are as old as the way here is long, and what it is told takes the way back.
        """
        return min(self.playhead.now(now) + self.outbox.round_trip, self._sent_end)

    async def _until(self, ready: Callable[[], bool]) -> None:
        while True:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if ready():
                return
            self._room.clear()
            await self._room.wait()

    # The task

    async def _run(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            try:
                pause = await self._step()
                failures = 0
            except (MuseTalkError, OSError, TimeoutError) as error:
                failures += 1
                if failures > _FAILURES:
                    raise
                await self._recover(error)
                continue
            if pause:
                with contextlib.suppress(TimeoutError):
                    await within(self._wake.wait(), pause)

    async def _step(self) -> float:
        """Do the next thing; returns seconds to wait, unless woken, before the one after."""
        if self._cut is not None:
            await self._interrupt(self._cut)
            return 0
        if not self._connected:
            return _POLL_SECONDS
        if (message := self.outbox.take(self._clock())) is not None:
            self._send(message)
            if message.duration:
                self._sent_end = max(self._sent_end, message.end)
                self.playhead.sent(message.start, message.end, self._clock())
            return 0
        if len(self.outbox):
            return _POLL_SECONDS  # until the client confirms
        ahead = self._media.end - self._reached(self._clock())
        if self._pieces and (ahead < AHEAD or not self._speaking):  # idle video makes room
            await self._speak(self._pieces.popleft())
            return 0
        if self._speaking and self._finishing and not self._pieces:
            await self._end_speech()
            return 0
        low = _SPEECH_AHEAD if self._speaking else _IDLE_AHEAD
        if ahead < low:
            if self._speaking:
                await self._end_speech()
            else:
                self._push([self._media.idle()])
            return 0
        return max(0.005, ahead - (AHEAD if self._pieces else low))

    async def _speak(self, piece: Piece) -> None:
        began = self._clock()
        beginning = not self._speaking
        if beginning:
            await self._begin_speech(piece, began)
        if piece.begins is not None:
            piece.begins(self._speech_end)
        encoding = self._clock()
        fragments = await within(self._media.speech(piece.frames, piece.sound), _MEDIA_SECONDS)
        now = self._clock()
        seconds = len(piece.frames) / self._fps
        self._speech_end += seconds
        self._push(fragments)
        piece.encoded(seconds, now - encoding)
        if beginning:
            self._start_cost += 0.5 * (min(now - began, _LONGEST_START) - self._start_cost)
        self._room.set()

    async def _begin_speech(self, piece: Piece, now: float) -> None:
        """Let speech begin where it was rendered for, or as soon as it can be shown."""
        waiting = sum(len(other.frames) for other in self._pieces)
        planned = (self._planned - waiting - len(piece.frames)) / self._fps
        delay = GUARD + self._start_cost + piece.head_start
        await self._cut_at(max(self._reached(now) + delay, planned))
        if self._asked_place is not None:
            self._lead += 0.3 * (now - self._asked_place + delay - self._lead)
            self._asked_place = None
        await within(self._media.begin_turn(), _MEDIA_SECONDS)
        self._speaking = True
        self._speech_end = self._media.end

    async def _end_speech(self) -> None:
        self._speaking = False
        self._push(await within(self._media.end_turn(), _MEDIA_SECONDS))
        self._room.set()

    async def _interrupt(self, answer: asyncio.Future[float]) -> None:
        self._pieces.clear()
        self._finishing = False
        position = self._reached(self._clock()) + GUARD
        if self._speaking or self._speech_end > position:
            position = await self._cut_at(position)
            self._speech_end = min(self._speech_end, position)
        self._speaking = False
        self._cut = None
        self._room.set()
        if not answer.done():
            answer.set_result(position)

    async def _cut_at(self, position: float) -> float:
        """Let the timeline go on from ``position``, or from what the client has if that is less.

        The client is told first: what has to be encoded for the cut may take longer than is left.
        """
        position = min(position, self._sent_end, self._media.end)
        position = min(math.ceil(position * self._fps - 1e-6) / self._fps, self._media.end)
        if not self._speaking and position == self._media.end:
            return position
        self.outbox.drop_from(position)
        if self._sent_end > position:
            self._sent_end = position
            self.playhead.flushed(position)
            self._flush(position)
        return await within(self._media.cut(position), _MEDIA_SECONDS)

    async def _recover(self, error: Exception) -> None:
        """After a failure: no speech, and a timeline that goes on."""
        LOG.error("the media of a session failed: %s", str(error) or type(error).__name__)
        failed = SetupError("the media of the session failed", remedy="try again")
        self._failure = error if isinstance(error, MuseTalkError) else failed
        self._pieces.clear()
        self._speaking = self._finishing = False
        if self._cut is not None:
            self._cut.set_result(self._media.end)
            self._cut = None
        self._room.set()
        with contextlib.suppress(MuseTalkError, OSError, TimeoutError):
            await within(self._media.cut(self._media.end), _MEDIA_SECONDS)
        await asyncio.sleep(_RECOVER_SECONDS)

    def _push(self, fragments: Sequence[Fragment]) -> None:
        for fragment in fragments:
            self.outbox.push(fragment.kind, fragment.data, fragment.start, fragment.duration)


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.error("a session can make no more media and ends", exc_info=error)
