"""A viewer's own speech, rendered while it still comes: windows of about two seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import numpy.typing as npt

from orchestrator.errors import MediaError, OverloadedError
from orchestrator.rendering.encode import AUDIO_RATE
from orchestrator.rendering.script import Utterance
from orchestrator.rendering.tasks import within
from orchestrator.sessions.turn import Part
from orchestrator.speech import SAMPLE_RATE
from orchestrator.speech.features import SpeechFeatures, speech_features
from orchestrator.speech.resample import Resampler

if TYPE_CHECKING:
    from orchestrator.inference import Inference
    from orchestrator.sessions.mouths import LiveInference
    from orchestrator.sessions.times import TurnTimes

I16 = npt.NDArray[np.int16]

UNIT: Final = SAMPLE_RATE // 5
"""Windows begin and end on multiples of 0.2 s: whole frames at 15 and 25, whole Whisper steps."""

FIRST: Final = 3 * UNIT
LATER: Final = 10 * UNIT
"""Samples that the first window shows, and the later ones."""

LOOK_AHEAD: Final = SAMPLE_RATE // 2
LOOK_BACK: Final = 5 * UNIT
"""Samples around them that are encoded too, for the mouth to know what comes and what was."""

_STEP: Final = SAMPLE_RATE // 50
_SILENCE: Final = 32768 * 10 ** (-50 / 20)
_PENDING_SECONDS: Final = 60
_SILENT_SECONDS: Final = 10.0


class Listener:
    """Collects the speech of one turn.

    Args:
        fps: of the frame grid, a multiple of 5.
        max_seconds: of speech in one turn.
    """

    def __init__(self, fps: int, max_seconds: float) -> None:
        self._fps = fps
        self._most = int(max_seconds * SAMPLE_RATE)
        self._pcm: I16 = np.zeros(0, np.int16)
        self._first = 0
        """Samples before ``_pcm`` that are not needed any more."""
        self._shown = 0
        self._resampler = Resampler(SAMPLE_RATE, AUDIO_RATE)
        self._sound: I16 = np.zeros(0, np.int16)
        self._more = asyncio.Event()
        self.ended = False

    def feed(self, audio: bytes, *, final: bool) -> None:
        """Take the next speech.

        Args:
            audio: PCM s16le, mono, 16 kHz.
            final: nothing follows.

        Raises:
            MediaError: half a sample, or too much speech for one turn.
            OverloadedError: the speech comes faster than it is shown.
        """
        require_samples(audio)
        pcm = np.frombuffer(audio, "<i2").astype(np.int16)
        total = self._first + len(self._pcm) + len(pcm)
        if total > self._most:
            raise MediaError(
                f"the speech is longer than {self._most / SAMPLE_RATE:.0f} s",
                remedy="send final earlier",
            )
        if total - self._shown > _PENDING_SECONDS * SAMPLE_RATE:
            raise OverloadedError(
                f"{_PENDING_SECONDS} s of speech wait already", remedy="send it as it is spoken"
            )
        self._pcm = np.concatenate([self._pcm, pcm])
        sound = [self._sound, self._resampler.push(pcm)]
        if final:
            sound.append(self._resampler.finish())
            self.ended = True
        self._sound = np.concatenate(sound)
        self._more.set()

    async def parts(self, inference: LiveInference, times: TurnTimes) -> AsyncGenerator[Part, None]:
        """The speech in parts, as it comes.

        Raises:
            MediaError: nothing came for ten seconds, and it was not the end.
            InferenceError: Triton failed.
        """
        size = FIRST
        while True:
            stop = self._shown + size
            while not self.ended and self._total < stop + LOOK_AHEAD:
                self._more.clear()
                try:
                    await within(self._more.wait(), _SILENT_SECONDS)
                except TimeoutError as error:
                    raise MediaError(
                        "the speech stopped without an end", remedy="send final: true"
                    ) from error
            last = self.ended and self._total <= stop + LOOK_AHEAD
            stop = self._total if last else stop
            times.reached("audio")
            if (part := await self._part(stop, inference, times)) is not None:
                yield part
            if last:
                return
            size = LATER

    @property
    def _total(self) -> int:
        return self._first + len(self._pcm)

    async def _part(self, stop: int, inference: LiveInference, times: TurnTimes) -> Part | None:
        start = self._shown
        context = max(0, start - LOOK_BACK)
        last = stop == self._total and self.ended
        window = self._pcm[context - self._first : stop + LOOK_AHEAD - self._first]
        frames = (stop - start) * self._fps // SAMPLE_RATE
        length = (stop - start) * AUDIO_RATE // SAMPLE_RATE
        pcm, sound = self._pcm[start - self._first : stop - self._first], self._sound[:length]
        self._sound = self._sound[length:]
        self._shown = stop
        if not frames:
            return None
        features: SpeechFeatures | None = None
        if not _is_silent(window):
            with times.measure("features"):
                encoded = await speech_features(cast("Inference", inference), window, self._fps)
            skipped = (start - context) * self._fps // SAMPLE_RATE
            features = encoded.part(skipped, skipped + frames)
        keep = max(0, stop - LOOK_BACK)
        self._pcm, self._first = self._pcm[keep - self._first :], keep
        return Part("", Utterance(pcm, sound, 0.0 if last else None, 0.0), features)


def require_samples(audio: bytes) -> None:
    """Refuse what cannot be PCM s16le.

    Raises:
        MediaError: it ends in the middle of a sample.
    """
    if len(audio) % 2:
        raise MediaError("the audio has half a sample", remedy="send pcm_s16le")


def _is_silent(pcm: I16) -> bool:
    """Whether nobody speaks: no 20 ms of it are louder than -50 dB of full scale."""
    whole = pcm[: len(pcm) // _STEP * _STEP].astype(np.float32).reshape(-1, _STEP)
    return not len(whole) or float(np.square(whole).mean(1).max()) < _SILENCE**2
