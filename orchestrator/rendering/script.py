"""What is said in a video: a text that is synthesised sentence by sentence, or a recording."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from orchestrator.errors import SpeechError, UsageError
from orchestrator.rendering.encode import AUDIO_RATE
from orchestrator.rendering.timings import StageTimes
from orchestrator.replies.responder import known_language
from orchestrator.replies.sentences import Sentence, split_sentences
from orchestrator.settings import Settings
from orchestrator.speech import SAMPLE_RATE
from orchestrator.speech.decode import decode_audio
from orchestrator.speech.resample import resample
from orchestrator.speech.tts import SpeechSynthesizer
from orchestrator.speech.windows import frame_count

I16 = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Part:
    """Frames of an utterance that are rendered apart from its others.

    Attributes:
        first: index in the utterance of the first one.
        end: after the last one.
        pause: frames after them that show the avatar silent.
    """

    first: int
    end: int
    pause: int


@dataclass(frozen=True)
class Utterance:
    """A stretch of speech that is encoded and rendered by itself.

    Attributes:
        pcm: I16[S] mono at 16 kHz, what the mouth follows.
        sound: I16[S'] mono at ``AUDIO_RATE``, what is heard, from the same moment.
        pause: seconds of silence after it; None ends the video with the last whole frame.
        share: part of the whole video, 0 to 1, for progress.
        part: what of it is rendered; None: all. ``sound`` begins with the first frame of it.
    """

    pcm: I16
    sound: I16
    pause: float | None
    share: float
    part: Part | None = None

    def spoken_frames(self, fps: int) -> int:
        """Frames that the model renders."""
        if self.part is not None:
            return self.part.end - self.part.first
        return frame_count(len(self.pcm), fps)

    def pause_frames(self, fps: int) -> int:
        """Frames after those that the model renders."""
        if self.part is not None:
            return self.part.pause
        if self.pause is None:
            return 0
        whole = math.ceil((len(self.pcm) / SAMPLE_RATE + self.pause) * fps)
        return whole - len(self.pcm) * fps // SAMPLE_RATE


@dataclass(frozen=True)
class Recording:
    """Speech that somebody recorded: one utterance."""

    pcm: I16
    sound: I16

    async def utterances(
        self, synthesizer: SpeechSynthesizer, times: StageTimes
    ) -> AsyncGenerator[Utterance, None]:
        """The recording as it is; arguments as for ``Text``."""
        yield Utterance(self.pcm, self.sound, None, 1.0)


@dataclass(frozen=True)
class Text:
    """Sentences to synthesise.

    Attributes:
        sentences: in order.
        language: ISO 639 code that was asked for; None: that of the voice.
    """

    sentences: list[Sentence]
    language: str | None = None

    async def utterances(
        self, synthesizer: SpeechSynthesizer, times: StageTimes
    ) -> AsyncGenerator[Utterance, None]:
        """Speak the sentences one after the other.

        Args:
            synthesizer: the voice.
            times: gets the time that it took.

        Yields:
            An utterance for each sentence.

        Raises:
            SpeechError: the voice failed or said nothing.
        """
        total = sum(len(sentence.text) for sentence in self.sentences)
        for sentence in self.sentences:
            with times.measure("speech"):
                pcm, sound = await synthesize(synthesizer, sentence.text, self.language)
            yield Utterance(pcm, sound, sentence.pause, len(sentence.text) / total)


@dataclass(frozen=True)
class Spoken:
    """Utterances whose sound is there already."""

    ready: Sequence[Utterance]

    async def utterances(
        self, synthesizer: SpeechSynthesizer, times: StageTimes
    ) -> AsyncGenerator[Utterance, None]:
        """The utterances as they are; arguments as for ``Text``."""
        for utterance in self.ready:
            yield utterance


Script: TypeAlias = "Text | Recording | Spoken"


def read_text(text: str, settings: Settings, language: str | None = None) -> Text:
    """Check a text and cut it into sentences.

    Args:
        text: any text.
        settings: how long it may be.
        language: ISO 639 code; None: that of the voice, cut by the rules of English.

    Raises:
        UsageError: it is too long, or has nothing that can be said; the language is not known.
    """
    rules = known_language(language)
    if len(text) > settings.max_text_chars:
        raise UsageError(
            f"the text has {len(text)} characters, more than {settings.max_text_chars}",
            remedy="shorten it, or raise MUSETALK_MAX_TEXT_CHARS",
        )
    sentences = split_sentences(text, rules)
    if not sentences:
        raise UsageError("the text has nothing that can be said")
    return Text(sentences, language)


async def read_recording(source: Path | bytes, settings: Settings) -> Recording:
    """Decode recorded speech, for the model and, better, for the ear.

    Raises:
        MediaError: it is no audio, too long, too large, or damaged.
    """
    seconds, size = settings.max_audio_seconds, settings.max_audio_bytes
    pcm = await decode_audio(source, max_seconds=seconds, max_bytes=size)
    sound = await decode_audio(source, max_seconds=seconds, max_bytes=size, rate=AUDIO_RATE)
    return Recording(pcm, sound)


async def synthesize(
    synthesizer: SpeechSynthesizer, text: str, language: str | None = None
) -> tuple[I16, I16]:
    """Speak one sentence.

    Args:
        synthesizer: the voice.
        text: the sentence.
        language: ISO 639 code, where the voice has a choice.

    Returns:
        The same sound at 16 kHz and at ``AUDIO_RATE``.

    Raises:
        MuseTalkError: the voice failed or said nothing.
    """
    pieces: list[I16] = []
    rate = SAMPLE_RATE
    async with aclosing(synthesizer.synthesize(text, language=language)) as chunks:
        async for chunk in chunks:
            pieces.append(chunk.pcm)
            rate = chunk.rate
    if not pieces:
        raise SpeechError(f"{synthesizer.name} said nothing for {text[:40]!r}")
    pcm = np.concatenate(pieces)
    return (
        await asyncio.to_thread(resample, pcm, rate, SAMPLE_RATE),
        await asyncio.to_thread(resample, pcm, rate, AUDIO_RATE),
    )
