"""Everything that one video needs, held together: Triton, the avatars, the voice."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.prepare import prepare_avatar
from orchestrator.inference import Inference, connect
from orchestrator.inference.background import BackgroundInference
from orchestrator.inference.schedule import Scheduler
from orchestrator.rendering.encode import Mp4Info
from orchestrator.rendering.gallery import Gallery, avatar_store
from orchestrator.rendering.prefetch import prefetch
from orchestrator.rendering.provenance import Provenance
from orchestrator.rendering.render import RenderOptions, render_speech
from orchestrator.rendering.script import Recording, Script, Text
from orchestrator.rendering.stream import StreamPart, check_stream_fps, speak_to_stream
from orchestrator.rendering.timings import StageTimes
from orchestrator.rendering.video import Piece, Progress, speak_to_file, speech_pieces
from orchestrator.replies.sentences import Sentence
from orchestrator.settings import Settings
from orchestrator.speech.tts import SpeechSynthesizer, synthesizer

LOG: Final = logging.getLogger("musetalk.rendering")

MODEL: Final = "MuseTalk v1.5"

_FIRST_BATCH: Final = 4
"""Frames of the first batch of an utterance in a stream: somebody waits for it."""


class Renderer:
    """Renders videos; several at a time may share one.

    Args:
        settings: of the process.
        inference: Triton.
        gallery: the avatars.
        voice: speaks the texts.
        scheduler: orders the requests to Triton of everybody who renders with this.
        batch: frames in one request, at most what the server's ``lipsync`` takes.
        weights: identifier of the weights that the server runs; empty when it says none.
    """

    def __init__(
        self,
        settings: Settings,
        inference: Inference,
        gallery: Gallery,
        voice: SpeechSynthesizer,
        scheduler: Scheduler,
        *,
        batch: int,
        weights: str,
    ) -> None:
        self.inference = inference
        self.scheduler = scheduler
        self._in_background = BackgroundInference(inference, scheduler)
        self.weights = weights
        self._settings = settings
        self._gallery = gallery
        self._voice = voice
        self._batch = batch

    @property
    def voice(self) -> SpeechSynthesizer:
        """Speaks the texts."""
        return self._voice

    @property
    def gallery(self) -> Gallery:
        """The avatars."""
        return self._gallery

    def avatar_names(self) -> list[str]:
        """Names of the avatars."""
        return self._gallery.names()

    async def avatar(
        self, name: str | None, progress: Callable[[float], None] | None = None
    ) -> Avatar:
        """Find an avatar; None takes the default one. See ``Gallery.get``."""
        return await self._gallery.get(name, progress)

    async def warm_up(self) -> None:
        """Do once what would make the first video late: default avatar, voice, networks.

        Raises:
            MuseTalkError: one of them does not work.
        """
        avatar = await self._gallery.get(None)
        utterances = Text([Sentence("Hello.", 0.0)]).utterances(self._voice, StageTimes())
        async with aclosing(utterances):
            async for utterance in utterances:
                frames = render_speech(
                    avatar,
                    utterance.pcm,
                    inference=self.inference,
                    options=RenderOptions(batch=self._batch),
                    times=StageTimes(),
                )
                async with aclosing(frames):
                    async for _ in frames:
                        break

    async def avatar_of_file(
        self,
        source: Path,
        *,
        name: str,
        consent: str,
        progress: Callable[[float], None] | None = None,
    ) -> Avatar:
        """Prepare an avatar from a picture or video.

        Args:
            source: the picture or video.
            name: for the avatar.
            consent: who agreed to the use of their face.
            progress: told the part that is done, 0 to 1.

        Raises:
            MuseTalkError: no usable face, or no usable file.
        """
        return await prepare_avatar(
            source,
            inference=self._in_background,
            settings=self._settings,
            name=name,
            consent=consent,
            progress=progress,
        )

    async def speak(
        self,
        script: Script,
        avatar: Avatar,
        output: Path,
        *,
        fps: int,
        times: StageTimes,
        progress: Progress | None = None,
        piece_from: int | None = None,
    ) -> Mp4Info:
        """Render a script into a file; see ``speak_to_file``.

        Args:
            script: what is said.
            avatar: who says it.
            output: the MP4 to write.
            fps: frames a second, 8 to 49.
            times: gets the time of each stage.
            progress: told after each batch.
            piece_from: first frame of a piece, without sound, of a longer video.

        Raises:
            MuseTalkError: any stage failed; no file is left then.
        """
        return await speak_to_file(
            avatar,
            script.utterances(self._voice, times),
            output,
            inference=self._in_background,
            options=RenderOptions(
                fps=fps, batch=self._batch, timeout=self._settings.inference_timeout
            ),
            provenance=self.provenance(avatar, recorded=isinstance(script, Recording)),
            times=times,
            progress=progress,
            piece_from=piece_from,
        )

    def stream(
        self, script: Script, avatar: Avatar, *, fps: int, times: StageTimes
    ) -> AsyncGenerator[StreamPart, None]:
        """Render a script into a stream; see ``speak_to_stream``.

        Args:
            script: what is said.
            avatar: who says it.
            fps: frames a second, one of ``STREAM_FPS``.
            times: gets the time of each stage.

        Raises:
            UsageError: a stream cannot have that frame rate.
        """
        check_stream_fps(fps)
        return speak_to_stream(
            avatar,
            script.utterances(self._voice, times),
            inference=self.inference,
            options=self._live_options(fps),
            times=times,
        )

    def pieces(
        self, script: Script, avatar: Avatar, *, fps: int, times: StageTimes
    ) -> AsyncGenerator[Piece, None]:
        """Render a script into pictures and samples, a batch at a time.

        Args:
            script: what is said.
            avatar: who says it.
            fps: frames a second, 8 to 49.
            times: gets the time of each stage.

        Yields:
            The pieces, at most a few made ahead; see ``speech_pieces``.
        """
        return prefetch(
            speech_pieces(
                avatar,
                script.utterances(self._voice, times),
                self.inference,
                self._live_options(fps),
                times,
                0,
            )
        )

    def _live_options(self, fps: int) -> RenderOptions:
        return RenderOptions(
            fps=fps,
            batch=self._batch,
            first_batch=min(_FIRST_BATCH, self._batch),
            timeout=self._settings.inference_timeout,
        )

    def provenance(self, avatar: Avatar, *, recorded: bool) -> Provenance:
        """What a video of this renderer says of itself.

        Args:
            avatar: who speaks.
            recorded: whether the speech is a recording, not the voice's.
        """
        voice = "" if recorded else self._voice.name
        return Provenance(MODEL, self.weights, avatar.name, voice)


@asynccontextmanager
async def open_renderer(settings: Settings, *, brief: bool = False) -> AsyncIterator[Renderer]:
    """Connect to Triton, or start it, and open the avatars and the voice.

    Args:
        settings: of the process.
        brief: for one piece of work: an embedded Triton is ready sooner and a little slower.

    Raises:
        MuseTalkError: Triton, the avatars or the voice cannot be used; the message says why.
    """
    voice = synthesizer(settings)
    try:
        async with connect(settings, brief=brief) as inference:
            served = await inference.model_config("lipsync")
            weights = served.parameters.get("weights_id", "")
            if not weights:
                LOG.warning(
                    "lipsync has no parameter weights_id: what was rendered with other "
                    "weights cannot be told apart; build the repository again"
                )
            scheduler = Scheduler(settings.triton_in_flight)
            prepares = BackgroundInference(inference, scheduler)
            yield Renderer(
                settings,
                inference,
                Gallery(settings, prepares, avatar_store(settings)),
                voice,
                scheduler,
                batch=min(settings.batch, served.max_batch),
                weights=weights,
            )
    finally:
        await voice.close()
