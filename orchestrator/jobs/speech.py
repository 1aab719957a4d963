"""The speech of a video job in the store: two files of samples an utterance.

They are named ``speech-000.16k`` and ``.48k`` and hold little-endian integers; the one is for the
model, the other to be heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.jobs.plan import Piece, Span, Speech, window
from orchestrator.jobs.store import FileStore
from orchestrator.rendering.encode import AUDIO_RATE
from orchestrator.rendering.script import Part, Utterance
from orchestrator.rendering.video import fill
from orchestrator.speech.windows import frame_count

I16 = npt.NDArray[np.int16]

_BYTES: Final = 2


class SpeechFiles:
    """The speech of one job.

    Args:
        store: where files go.
        identity: of the job.
    """

    def __init__(self, store: FileStore, identity: str) -> None:
        self._store = store
        self._identity = identity

    async def length(self, index: int) -> int | None:
        """Samples at 16 kHz of an utterance; None: it is not there, or not whole."""
        for_model, for_ear = self._paths(index)
        if await self._store.size(for_ear) is None:
            return None
        return (await self._store.size(for_model) or 0) // _BYTES

    async def write(self, index: int, pcm: I16, sound: I16) -> None:
        """Store an utterance.

        Args:
            index: of the utterance.
            pcm: I16[S] at 16 kHz.
            sound: I16[S] at ``AUDIO_RATE``; written last, it says that both are there.
        """
        for_model, for_ear = self._paths(index)
        await self._store.put(for_model, samples_bytes(pcm))
        await self._store.put(for_ear, samples_bytes(sound))

    async def utterance(self, span: Span, speech: Speech, piece: Piece, fps: int) -> Utterance:
        """What a span needs to be rendered.

        Args:
            span: of ``piece``.
            speech: of which it is a part.
            piece: that is rendered.
            fps: frames a second.
        """
        heard = window(span, speech, fps)
        path, _ = self._paths(span.speech)
        pcm = await self._store.read(path, heard.start * _BYTES, heard.end * _BYTES)
        sound = await self._sound(span, speech, fps)
        part = Part(heard.first, heard.first + span.end - span.first, span.pause)
        return Utterance(_samples(pcm), sound, speech.pause, span.frames / piece.frames, part)

    async def append_to(
        self, target: Path, piece: Piece, speeches: Sequence[Speech], fps: int
    ) -> None:
        """Append what is heard during a piece to a file, as long as its frames.

        Args:
            target: the file.
            piece: of the video.
            speeches: all utterances.
            fps: frames a second.
        """
        position = piece.position
        for span in piece.spans:
            sound = await self._sound(span, speeches[span.speech], fps)
            sound = fill(sound, position, position + span.frames, fps)
            await asyncio.to_thread(_append, target, samples_bytes(sound))
            position += span.frames

    async def _sound(self, span: Span, speech: Speech, fps: int) -> I16:
        """What is heard during a span: whole samples, as spans begin at whole seconds."""
        _, path = self._paths(span.speech)
        start = span.first // fps * AUDIO_RATE
        last = span.end == frame_count(speech.samples, fps)
        stop = None if last else span.end // fps * AUDIO_RATE * _BYTES
        return _samples(await self._store.read(path, start * _BYTES, stop))

    def _paths(self, index: int) -> tuple[str, str]:
        name = f"{self._identity}/speech-{index:03}"
        return f"{name}.16k", f"{name}.48k"


def samples_bytes(pcm: I16) -> bytes:
    """Samples as they lie in a file."""
    return np.ascontiguousarray(pcm, "<i2").tobytes()


def _samples(content: bytes) -> I16:
    return np.frombuffer(content, "<i2").astype(np.int16)


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)
