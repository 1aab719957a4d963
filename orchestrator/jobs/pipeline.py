"""The work of a video job, step by step; each step leaves a file, and finds it when repeated.

A job's files lie under its id: ``script.json``, the speech (see ``SpeechFiles``),
``piece-000.mp4``, and what stays: ``video.mp4``, ``captions.vtt``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.errors import LlmError, MediaError
from orchestrator.jobs.captions import SpokenSentence, webvtt
from orchestrator.jobs.job import Job, Result, Stage
from orchestrator.jobs.ledger import Ledger
from orchestrator.jobs.plan import Piece, Speech, pieces_of
from orchestrator.jobs.speech import SpeechFiles
from orchestrator.jobs.store import FileStore
from orchestrator.leftovers import PREFIX
from orchestrator.rendering.join import join
from orchestrator.rendering.script import Spoken, read_text, synthesize
from orchestrator.rendering.tasks import end
from orchestrator.rendering.timings import StageTimes
from orchestrator.replies.responder import Responder, instructions, known_language
from orchestrator.replies.sentences import Sentence
from orchestrator.sessions.profiles import find_profile
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.rendering.renderer import Renderer

FORMAT: Final = 1
"""Part of every cache key: raised when the same request gives another video than before."""

_NOTE_SECONDS: Final = 0.5
_FIRST_PACE: Final = 0.5

# Where each stage begins in the progress of a job.
_TTS: Final = 0.05
_RENDER: Final = 0.15
_PUBLISH: Final = 0.95


class Pipeline:
    """Does the steps of jobs.

    Args:
        settings: of the process.
        renderer: speaks and renders.
        responder: answers messages.
        ledger: where progress is noted.
        store: where files go.
    """

    def __init__(
        self,
        settings: Settings,
        renderer: Renderer,
        responder: Responder,
        ledger: Ledger,
        store: FileStore,
    ) -> None:
        self._settings = settings
        self._renderer = renderer
        self._responder = responder
        self._ledger = ledger
        self._store = store
        self._noting: dict[str, asyncio.Task[None]] = {}
        self.pace = _FIRST_PACE
        """Seconds that a frame takes, from the renders so far."""

    async def script(self, job: Job) -> list[Sentence]:
        """What is said, in sentences; of a message, what the language model answers.

        Returns:
            The sentences; none for recorded speech.

        Raises:
            LlmError: the model failed or said nothing.
            UsageError: there is nothing to say.
        """
        if job.request.kind == "audio":
            return []
        path = f"{job.id}/script.json"
        if await self._store.size(path) is not None:
            return [Sentence(*one) for one in json.loads(await self._store.read(path))]
        text = job.request.text
        if job.request.kind == "message":
            await self._note(job, "llm", 0.01)
            text = await self._reply(job)
        sentences = read_text(text, self._settings, job.request.language).sentences
        content = json.dumps([[one.text, one.pause] for one in sentences])
        await self._store.put(path, content.encode())
        return sentences

    async def cached(self, job: Job, sentences: Sequence[Sentence]) -> bool:
        """Answer the job with an earlier video of the same speech, avatar, settings, weights.

        Raises:
            MuseTalkError: there is no such avatar.
        """
        avatar = await self._renderer.avatar(job.request.avatar)
        request = job.request
        words = [[one.text, one.pause] for one in sentences]
        spoken = [self._renderer.voice.name, request.language, words]
        speech = [request.digest] if request.kind == "audio" else spoken
        made_of = [
            *(FORMAT, job.owner, speech, avatar.id, avatar.name),
            *(request.fps, request.profile, self._renderer.weights),
        ]
        key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
        return await asyncio.to_thread(self._ledger.take_cached, job.id, key)

    async def speak(self, job: Job, index: int, sentence: Sentence, of: int) -> int:
        """Synthesise one sentence.

        Args:
            job: the job.
            index: of the sentence.
            sentence: what is said.
            of: number of sentences, for progress.

        Returns:
            Its length in samples at 16 kHz.

        Raises:
            MuseTalkError: the voice failed.
        """
        files = SpeechFiles(self._store, job.id)
        known = await files.length(index)
        if known is not None:
            return known
        await self._note(job, "tts", _TTS + (_RENDER - _TTS) * index / of)
        pcm, sound = await synthesize(self._renderer.voice, sentence.text, job.request.language)
        await files.write(index, pcm, sound)
        return len(pcm)

    def plan(self, job: Job, speeches: Sequence[Speech]) -> list[Piece]:
        """Cut the video into pieces.

        Raises:
            MediaError: it would have no frame.
        """
        pieces = pieces_of(speeches, job.request.fps)
        if not pieces:
            raise MediaError("the speech is shorter than one frame of video")
        return pieces

    async def render(
        self, job: Job, number: int, pieces: Sequence[Piece], speeches: Sequence[Speech]
    ) -> str:
        """Render one piece.

        Args:
            job: the job.
            number: of the piece.
            pieces: all of them.
            speeches: all utterances.

        Returns:
            Name of its file.

        Raises:
            MuseTalkError: a stage failed.
        """
        piece, fps = pieces[number], job.request.fps
        path = f"{job.id}/piece-{number:03}.mp4"
        if await self._store.size(path) is not None:
            return path
        total = pieces[-1].position + pieces[-1].frames

        def moved(part: float, frames: int) -> None:
            done = (piece.position + part * piece.frames) / total
            self._note_soon(job, "render", _RENDER + (_PUBLISH - _RENDER) * done)

        await self._note(job, "render", _RENDER + (_PUBLISH - _RENDER) * piece.position / total)
        avatar = await self._renderer.avatar(job.request.avatar)
        speech = SpeechFiles(self._store, job.id)
        times = StageTimes()
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
            output = Path(folder) / "piece.mp4"
            utterances = [
                await speech.utterance(span, speeches[span.speech], piece, fps)
                for span in piece.spans
            ]
            await self._renderer.speak(
                Spoken(utterances),
                avatar,
                output,
                fps=fps,
                times=times,
                progress=moved,
                piece_from=piece.position,
            )
            await self._store.put(path, output)
        self.pace += 0.3 * ((time.monotonic() - started) / piece.frames - self.pace)
        return path

    async def publish(
        self,
        job: Job,
        pieces: Sequence[Piece],
        speeches: Sequence[Speech],
        sentences: Sequence[Sentence],
    ) -> Result:
        """Join the pieces, and write the captions.

        Args:
            job: the job.
            pieces: rendered all.
            speeches: all utterances.
            sentences: their words; none for recorded speech.

        Raises:
            MuseTalkError: a file is gone, or cannot be written.
        """
        await self._note(job, "publish", _PUBLISH)
        fps = job.request.fps
        frames = pieces[-1].position + pieces[-1].frames
        avatar = await self._renderer.avatar(job.request.avatar)
        recorded = job.request.kind == "audio"
        with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
            folder = Path(name)
            files = []
            for number in range(len(pieces)):
                file = folder / f"piece-{number:03}.mp4"
                await self._store.fetch(f"{job.id}/piece-{number:03}.mp4", file)
                files.append(file)
            sound = folder / "sound.pcm"
            for piece in pieces:
                await SpeechFiles(self._store, job.id).append_to(sound, piece, speeches, fps)
            output = folder / "video.mp4"
            provenance = self._renderer.provenance(avatar, recorded=recorded)
            await join(files, sound, output, provenance=provenance)
            digest = await asyncio.to_thread(_digest, output)
            size = (await asyncio.to_thread(output.stat)).st_size
            await self._store.put(f"{job.id}/video.mp4", output)
        captions = None
        if not recorded:
            captions = f"{job.id}/captions.vtt"
            text = webvtt(_times(pieces, sentences, fps))
            await self._store.put(captions, text.encode())
        return Result(f"{job.id}/video.mp4", captions, size, digest, frames, frames / fps)

    async def close(self) -> None:
        """End what still runs beside the steps."""
        await end(*self._noting.values())

    async def tidy(self, job: Job) -> None:
        """Delete what is not needed once the job is over."""
        working, kept = await asyncio.to_thread(self._ledger.needed)
        if job.id in working:
            return
        files = await self._store.files(job.id)
        await self._store.delete([file.path for file in files if file.path not in kept])

    async def _reply(self, job: Job) -> str:
        profile = find_profile(job.request.profile)
        language = known_language(job.request.language)
        reply = self._responder.reply(
            job.request.text,
            [],
            system=instructions(self._settings, language),
            max_tokens=profile.max_tokens(self._settings.llm_max_tokens),
            language=language,
        )
        async with aclosing(reply) as pieces:
            text = "".join([piece async for piece in pieces])
        if not text.strip():
            raise LlmError(f"{self._responder.name} said nothing", remedy="ask something else")
        return text

    async def _note(self, job: Job, stage: Stage, progress: float) -> None:
        await asyncio.to_thread(self._ledger.advance, job.id, stage, progress)

    def _note_soon(self, job: Job, stage: Stage, progress: float) -> None:
        """Note progress without waiting for it, and not too often."""
        if job.id in self._noting:
            return

        async def note() -> None:
            await self._note(job, stage, progress)
            await asyncio.sleep(_NOTE_SECONDS)

        task = asyncio.create_task(note())
        self._noting[job.id] = task
        task.add_done_callback(lambda _: self._noting.pop(job.id))


def _times(
    pieces: Sequence[Piece], sentences: Sequence[Sentence], fps: int
) -> list[SpokenSentence]:
    """When each sentence is heard."""
    times: dict[int, tuple[int, int]] = {}
    for piece in pieces:
        position = piece.position
        for span in piece.spans:
            start, _ = times.get(span.speech, (position, 0))
            times[span.speech] = (start, position + span.end - span.first)
            position += span.frames
    return [
        SpokenSentence(sentences[index].text, start / fps, end / fps)
        for index, (start, end) in times.items()
        if end > start
    ]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        sha = hashlib.sha256()
        while block := file.read(1 << 20):
            sha.update(block)
        return sha.hexdigest()
