"""One turn: text to sentences, speech, features, mouths, frames, each stage ahead of the next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

import numpy as np
import numpy.typing as npt

from orchestrator.rendering.encode import AUDIO_RATE
from orchestrator.rendering.prefetch import prefetch
from orchestrator.rendering.render import (
    Overdue,
    RenderOptions,
    idle_frames,
    render_frames,
)
from orchestrator.rendering.script import Utterance, synthesize
from orchestrator.replies.sentences import Sentence
from orchestrator.replies.stream import stream_sentences
from orchestrator.sessions.haste import Haste
from orchestrator.sessions.leisure import Leisure, is_early
from orchestrator.sessions.pieces import Piece
from orchestrator.sessions.progress import TurnProgress
from orchestrator.speech.features import SpeechFeatures, speech_features
from orchestrator.speech.windows import frame_count

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar
    from orchestrator.inference import Inference
    from orchestrator.sessions.mouths import LiveInference, Pace
    from orchestrator.sessions.profiles import Profile
    from orchestrator.sessions.times import TurnTimes
    from orchestrator.speech.tts import SpeechSynthesizer

U8 = npt.NDArray[np.uint8]
I16 = npt.NDArray[np.int16]
F16 = npt.NDArray[np.float16]

_SENTENCES_AHEAD: Final = 64
"""Sentences that wait for the voice: a whole reply, so that the LLM's connection is soon free."""

_SPOKEN_AHEAD: Final = 2
_ENCODED_AHEAD: Final = 1

_HEAD_START: Final = 0.5
"""Seconds of speech that are made while other sessions hold back: then a turn is as far as they."""

_SOON: Final = 0.8
"""Seconds before it must be there at which a frame is asked for together with few others: what
waits for more of them is lost with all of them where the machine is slow."""

_LEAST_AHEAD: Final = 0.1
"""Seconds that a browser must hold to go on (Chromium halts below 0.08, and does not begin)."""


@dataclass(frozen=True)
class Part:
    """A stretch of speech that is rendered by itself.

    Attributes:
        text: what is said; empty for a viewer's own speech.
        utterance: its sound.
        features: what the mouth follows; None: it is silent.
    """

    text: str
    utterance: Utterance
    features: SpeechFeatures | None


class Stage(Protocol):
    """Where the frames go; see ``Playout``."""

    def place(self) -> int:
        """Frame of the grid at which the next part is likely to show."""
        ...

    def due(self, frame: int) -> float | None:
        """Moment at which a frame must be here."""
        ...

    async def put(self, piece: Piece) -> None:
        """Hand over what shows next."""
        ...


@dataclass(frozen=True)
class Tools:
    """What a turn works with.

    Attributes:
        avatar: who speaks.
        voice: speaks the sentences.
        language: of the sentences, ISO 639.
        profile: frame rate and batches.
        pace: how fast the session renders.
        inference: Triton.
        stage: takes the frames.
        times: gets the time of each stage.
        progress: is told how far each stage is.
        spoken: called with index, text, start and end in seconds when a part begins to show.
        leisure: when the sentences after the one that is rendered may be worked on.
        haste: goes before other sessions until it has a head start.
    """

    avatar: Avatar
    voice: SpeechSynthesizer
    language: str
    profile: Profile
    pace: Pace
    inference: LiveInference
    stage: Stage
    times: TurnTimes
    progress: TurnProgress
    spoken: Callable[[int, str, float, float], None]
    leisure: Leisure
    haste: Haste


async def speak_text(pieces: AsyncGenerator[str, None], tools: Tools) -> int:
    """Speak a text while it is being written.

    Args:
        pieces: the text; closed in any case.
        tools: what the turn works with.

    Returns:
        How many sentences there were; 0 when the text has nothing that can be said.

    Raises:
        MuseTalkError: any stage failed.
    """
    sentences = prefetch(
        stream_sentences(_counted(pieces, tools), tools.language), _SENTENCES_AHEAD
    )
    utterances = prefetch(_voiced(sentences, tools), _SPOKEN_AHEAD)
    parts = prefetch(_encoded(utterances, tools), _ENCODED_AHEAD)
    return await show(parts, tools)


async def show(parts: AsyncGenerator[Part, None], tools: Tools) -> int:
    """Render parts of speech as they come, and hand the frames over.

    Args:
        parts: what is said; closed in any case.
        tools: what the turn works with.

    Returns:
        How many there were.
    """
    count = 0
    face: U8 | None = None
    async with aclosing(parts):
        async for part in parts:
            face = await _show_part(count, part, tools, face)
            count += 1
    tools.progress.complete("avatar_generation")
    return count


async def _counted(pieces: AsyncGenerator[str, None], tools: Tools) -> AsyncGenerator[str, None]:
    async with aclosing(pieces):
        while True:
            with tools.times.measure("llm"):
                piece = await anext(pieces, None)
            if piece is None:
                break
            tools.times.reached("token")
            tools.progress.token()
            yield piece
    tools.progress.complete("llm")


async def _voiced(
    sentences: AsyncGenerator[Sentence, None], tools: Tools
) -> AsyncGenerator[tuple[str, Utterance], None]:
    first = True
    async with aclosing(sentences):
        async for sentence in sentences:
            if first:
                tools.haste.begin()
            async with tools.leisure.taken("voice", len(sentence.text), at_once=first):
                tools.progress.sentence(len(sentence.text))
                with tools.times.measure("speech"):
                    pcm, sound = await synthesize(tools.voice, sentence.text, tools.language)
            first = False
            tools.times.reached("audio")
            tools.progress.voiced(len(sentence.text), len(pcm))
            yield sentence.text, Utterance(pcm, sound, sentence.pause, 0.0)
    tools.progress.complete("tts")


async def _encoded(
    utterances: AsyncGenerator[tuple[str, Utterance], None], tools: Tools
) -> AsyncGenerator[Part, None]:
    inference = cast("Inference", tools.inference)
    fps = tools.profile.grid
    first = True
    async with aclosing(utterances):
        async for text, utterance in utterances:
            if not frame_count(len(utterance.pcm), fps):
                tools.leisure.judge_by(lambda _: True)
                continue  # shorter than one frame
            async with tools.leisure.taken("features", at_once=first):
                with tools.times.measure("features"):
                    features = await speech_features(inference, utterance.pcm, fps)
            first = False
            yield Part(text, utterance, features)


async def _show_part(index: int, part: Part, tools: Tools, face: U8 | None) -> U8 | None:
    """Frames and sound of one part, then the frames of its pause.

    Args:
        index: of the part.
        part: the part.
        tools: what the turn works with.
        face: mouth of the frame before it, if there was one.

    Returns:
        Mouth of its last frame, if there is one.
    """
    profile, times = tools.profile, tools.times
    options = RenderOptions(
        fps=profile.grid,
        batch=profile.batch * profile.stride,
        first_batch=profile.first_batch * profile.stride,
    )
    spoken = frame_count(len(part.utterance.pcm), profile.grid)
    pause = part.utterance.pause_frames(profile.grid)
    position = tools.stage.place()
    samples = AUDIO_RATE // profile.grid
    done = 0

    def begins(start: float) -> None:
        tools.spoken(index, part.text, start, start + spoken / profile.grid)

    def encoded(media: float, work: float) -> None:
        times.made += media
        if times.made >= _HEAD_START:
            tools.haste.end()
        times.note("encode", times.elapsed - work)
        tools.progress.encoded(media)

    def there_is_time(needed: float) -> bool:
        following, ending = tools.stage.due(position + done), tools.stage.due(position + spoken)
        now = asyncio.get_running_loop().time()
        hurried = tools.haste.others
        return done >= spoken or is_early(following, ending, now, needed=needed, hurried=hurried)

    tools.leisure.judge_by(there_is_time)
    tools.haste.begin()

    async def hand_over(frames: list[U8]) -> None:
        nonlocal done
        sound = part.utterance.sound[done * samples : (done + len(frames)) * samples]
        missing = len(frames) * samples - len(sound)
        if missing:
            sound = np.concatenate([sound, np.zeros(missing, np.int16)])
        wait = max(0.0, tools.pace.batch_seconds + _LEAST_AHEAD - len(frames) / profile.grid)
        piece = Piece(frames, sound, None if done else begins, encoded, wait)
        with times.waiting():
            await tools.stage.put(piece)
        done += len(frames)
        tools.progress.rendered(len(frames))

    def needed_soon(frame: int) -> bool:
        due = tools.stage.due(position + frame)
        return due is None or due - asyncio.get_running_loop().time() < _SOON

    async def faces(first: int, latents: F16, audio: F16, overdue: Overdue) -> U8 | None:
        def due(frame: int) -> float | None:
            # A sentence begins when its first mouths are there; then its sound does not wait.
            return tools.stage.due(position + first + frame) if first else None

        return await tools.inference.lipsync(latents, audio, due, overdue)

    if part.features is not None:
        chunks = render_frames(
            tools.avatar,
            part.features,
            faces=faces,
            options=options,
            times=times,
            first_frame=position,
            last_face=face,
            needed_soon=needed_soon,
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                times.late += chunk.late
                face = chunk.last_face
                await hand_over(chunk.frames)
    idle = spoken - done + pause
    rest = idle_frames(
        tools.avatar,
        idle,
        options=options,
        times=times,
        first_frame=position + done,
        last_face=face,
    )
    async with aclosing(rest):
        async for frames in rest:
            await hand_over(frames)
    return face if not idle else None
