"""One session's media: idle video and speech on one timeline of H.264 and AAC."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from orchestrator.errors import MuseTalkError, SetupError
from orchestrator.rendering.live.audio_track import AudioTrack
from orchestrator.rendering.live.encoders import AacEncoder, H264Encoder
from orchestrator.rendering.live.fmp4 import (
    PACKET_TICKS,
    TICKS,
    Frame,
    codecs,
    fragment,
    init_segment,
)
from orchestrator.rendering.live.sound import KEPT_SECONDS
from orchestrator.rendering.tasks import end

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar
    from orchestrator.rendering.live.idle import IdleClip

_log = logging.getLogger(__name__)

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]
Kind = Literal["idle", "speech"]

_CUT_SECONDS: Final = KEPT_SECONDS - 1

_MAX_SOUND_AHEAD: Final = 10 * TICKS
"""Sound that may be handed over before its frames."""


@dataclass(frozen=True)
class Fragment:
    """A piece of the session's stream.

    Its sound ends up to 0.07 s before its pictures do: a packet is sent when the one after it can
    no longer change how it sounds.

    Attributes:
        data: ``moof`` and ``mdat``.
        start: position of the first picture, in seconds.
        duration: of the pictures, in seconds.
        kind: what it shows.
        keyframe: whether it begins with an IDR picture.
        frames: pictures on the frame grid; a picture that shows for two counts as two.
    """

    data: bytes
    start: float
    duration: float
    kind: Kind
    keyframe: bool
    frames: int


@dataclass
class _Encoders:
    """A video and a sound encoder that begin together."""

    video: H264Encoder
    audio: AacEncoder

    @classmethod
    async def start(cls, idle: IdleClip) -> _Encoders:
        video = await H264Encoder.start(idle.width, idle.height, idle.fps)
        try:
            return cls(video, await AacEncoder.start())
        except BaseException:
            await video.close()
            raise

    def kill(self) -> None:
        self.video.kill()
        self.audio.kill()

    async def close(self) -> None:
        self.kill()
        await self.video.close()
        await self.audio.close()


class LiveMedia:
    """The one timeline of a session; used by one task at a time.

    Frame *n* of the timeline, counted from its beginning at ``idle.fps``, shows frame *n* of the
    avatar's endless cycle, idle or speaking.

    Args:
        avatar: who is shown.
        idle: its idle video; its ``fps`` is the frame grid.

    Attributes:
        mime: type and codecs, as a browser's ``MediaSource`` wants them.
        init: the init segment, for all fragments.
    """

    def __init__(self, avatar: Avatar, idle: IdleClip) -> None:
        self.mime = codecs(idle.config)
        self.init = init_segment(idle.config, idle.width, idle.height)
        self._idle = idle
        self._shape = (avatar.height, avatar.width, 3)
        self._ticks = TICKS // idle.fps
        self._frames = 0
        self._oldest = 0
        self._sequence = 0
        self._audio = AudioTrack(idle.silence)
        self._turn: _Encoders | None = None
        self._sound_end = 0
        self._spare: asyncio.Task[_Encoders] | None = None

    @property
    def end(self) -> float:
        """Position in seconds up to which there are pictures."""
        return self._frames / self._idle.fps

    @property
    def cycle_position(self) -> int:
        """Frame of the avatar's cycle, counted on the frame grid, that shows next."""
        return self._frames % self._idle.cycle

    def prepare(self) -> None:
        """Start encoders ahead of ``begin_turn``, as soon as a turn is asked for; optional."""
        if self._spare is None:
            self._spare = asyncio.create_task(_Encoders.start(self._idle))
            self._spare.add_done_callback(lambda done: done.cancelled() or done.exception())

    def idle(self) -> Fragment:
        """The next idle fragment, up to 0.6 s long, beginning with an IDR picture.

        Costs no encoder: only time stamps are new.
        """
        if self._turn is not None:
            raise RuntimeError("idle video in the middle of a turn")
        return self._fragment("idle", self._idle.run(self._frames))

    async def begin_turn(self) -> None:
        """Speech comes next; its first picture is an IDR picture.

        Raises:
            SetupError: the encoders cannot be started; the timeline goes on with ``idle``.
        """
        if self._turn is not None:
            raise RuntimeError("a turn in the middle of a turn")
        self._turn = await self._take_spare()
        at = self._sound_end = self._frames * self._ticks
        try:
            await self._audio.begin(self._turn.audio, at)
        except BaseException as error:
            await self._abandon(error)
            raise

    async def speech(self, frames: Sequence[U8], sound: I16, last: bool = False) -> list[Fragment]:
        """Encode frames of the turn and their sound; nothing is held back.

        A frame that is the same array as the one before it is not encoded again: that one shows
        for longer. This is how a session at half rate keeps the frame grid.

        Args:
            frames: each U8[H,W,3] BGR, on the frame grid.
            sound: I16[S] mono at 48 kHz, going on where the sound before it ended. As long as the
                frames, or ahead of them: then the encoder need not wait for what comes next.
            last: no more of this turn follows; missing sound is silence.

        Returns:
            One fragment; none without frames.

        Raises:
            SetupError: an encoder failed. The turn is over then; the timeline goes on with
                ``idle`` or a new turn, where the last fragment ended.
        """
        if self._turn is None:
            raise RuntimeError("speech outside of a turn")
        for frame in frames:
            if frame.shape != self._shape:
                raise ValueError(f"frame {frame.shape} in a video of {self._shape}")
        video_end = (self._frames + len(frames)) * self._ticks
        if self._sound_end + len(sound) > video_end + _MAX_SOUND_AHEAD:
            raise ValueError("the sound runs too far ahead of the frames")
        if last:
            missing = video_end - self._sound_end - len(sound)
            sound = np.concatenate([sound, np.zeros(max(0, missing), np.int16)])
        try:
            pictures = await self._encode(self._turn, frames, sound)
        except BaseException as error:
            await self._abandon(error)
            raise
        self.prepare()  # for a cut
        return [self._fragment("speech", pictures)] if pictures else []

    async def end_turn(self) -> list[Fragment]:
        """The turn is over; idle video or another turn comes next.

        Sound that is longer than the frames is still heard, over idle video.

        Returns:
            The way to the beginning of a piece of idle video: at most one fragment, shorter than
            0.6 s, without speech.

        Raises:
            SetupError: an encoder failed, as in ``speech``.
        """
        if self._turn is None:
            return []
        try:
            frames = await self._idle.frames_to_piece(self._frames)
            silent = (self._frames + len(frames)) * self._ticks - self._sound_end
            sound = np.zeros(max(0, silent), np.int16)
            pictures = await self._encode(self._turn, frames, sound)
            await self._audio.finish(self._sound_end)
        except BaseException as error:
            await self._abandon(error)
            raise
        await self._stop_turn()
        await self._drop_spare()
        return [self._fragment("idle", pictures)] if pictures else []

    async def cut(self, at: float) -> float:
        """Forget what was made after a position; the timeline goes on from there.

        A turn is over then. The next fragment begins with an IDR picture. The sound of a cut turn
        fades out within 0.1 s.

        Args:
            at: position in seconds.

        Returns:
            The position in seconds from which the client must drop what it has: the first frame at
            or after ``at``, at most 5 s before the furthest that was made, and not after ``end``.
        """
        speaking = self._turn is not None
        await self._stop_turn()
        wanted = math.ceil(at * self._idle.fps - 1e-6)
        self._frames = min(self._frames, max(wanted, self._oldest))
        sounds = self._audio.cut(self._frames * self._ticks)
        if speaking or sounds:
            await self._return_to_idle(resume_sound=sounds)
        return self.end

    async def close(self) -> None:
        """End all processes; can be called at any time, and again."""
        await self._stop_turn()
        await self._drop_spare()

    async def _encode(self, turn: _Encoders, frames: Sequence[U8], sound: I16) -> list[Frame]:
        shown: list[U8] = []
        counts: list[int] = []
        for frame in frames:
            if shown and frame is shown[-1]:
                counts[-1] += 1
            else:
                shown.append(frame)
                counts.append(1)
        hearing = asyncio.create_task(self._audio.add(self._sound_end, sound))
        try:
            pictures = await turn.video.encode(shown)
            await hearing
        finally:
            await end(hearing)
        if pictures and turn.video.config != self._idle.config:
            raise SetupError("the video encoder changed its settings within a session")
        self._sound_end += len(sound)
        return [
            Frame(picture.data, count * self._ticks, picture.key)
            for picture, count in zip(pictures, counts, strict=True)
        ]

    def _fragment(self, kind: Kind, video: list[Frame]) -> Fragment:
        """Put frames, and the sound that is ready for them, at the end of the timeline."""
        start = self._frames * self._ticks
        ticks = sum(frame.ticks for frame in video)
        self._frames += ticks // self._ticks
        self._oldest = max(self._oldest, self._frames - _CUT_SECONDS * self._idle.fps)
        self._sequence += 1
        audio_start = self._audio.next * PACKET_TICKS
        audio = self._audio.take(start + ticks)
        data = fragment(self._sequence, start, video, audio_start, audio)
        return Fragment(
            data, start / TICKS, ticks / TICKS, kind, video[0].key, ticks // self._ticks
        )

    async def _take_spare(self) -> _Encoders:
        self.prepare()
        assert self._spare is not None
        try:
            encoders = await asyncio.shield(self._spare)  # a cancel leaves it for the next
        except SetupError:
            self._spare = None
            raise
        self._spare = None
        return encoders

    async def _drop_spare(self) -> None:
        """End encoders that were not used; a start under way is waited for, it is short."""
        if self._spare is not None:
            with contextlib.suppress(SetupError):
                await (await self._take_spare()).close()

    async def _stop_turn(self) -> None:
        if self._turn is not None:
            await self._turn.close()
            self._turn = None

    async def _abandon(self, error: BaseException) -> None:
        """After a failed step: the timeline ends where it did before it."""
        if self._turn is not None:
            self._turn.kill()
        if isinstance(error, MuseTalkError):
            await self._stop_turn()
            sounds = self._audio.cut(self._frames * self._ticks)
            await self._return_to_idle(resume_sound=sounds)

    async def _return_to_idle(self, *, resume_sound: bool) -> None:
        """Make what the way from a turn to idle video needs.

        Without encoders it goes on all the same: the picture then jumps a little, or the sound
        ends with a click.
        """
        try:
            jumps = not self._idle.can_enter(self._frames)
            if not jumps and not resume_sound:
                return
            encoders = await self._take_spare()
            try:
                await asyncio.gather(
                    self._idle.enter(self._frames, encoders.video) if jumps else _nothing(),
                    self._audio.resume(encoders.audio) if resume_sound else _nothing(),
                )
            finally:
                await encoders.close()
        except SetupError as error:
            _log.warning("the way back to idle video could not be encoded: %s", error)
        finally:
            await self._drop_spare()


async def _nothing() -> None:
    """Nothing to wait for."""
