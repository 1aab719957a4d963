"""Run ffmpeg as a subprocess through pipes: restricted, bounded, ended when nobody waits for it.

Command lines are built with typed-ffmpeg where a graph of inputs and filters is meant; this
module adds what every run must have. The binary is the one of imageio-ffmpeg, so that every
machine runs the same version (``IMAGEIO_FFMPEG_EXE`` names another one).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import imageio_ffmpeg

from orchestrator import confine
from orchestrator.errors import MediaError, SetupError
from orchestrator.processes import end_process

THREADS: Final = 2
"""Threads of each decoder, filter graph and encoder: one conversion must not take the machine."""

MAX_OUTPUT: Final = 512 * 1024 * 1024
"""Bytes of standard output that a run may produce unless its caller allows less or more."""

_MEMORY: Final = 3 << 30
"""Bytes of address space of a run: media from strangers is decoded here."""

_CHUNK: Final = 1 << 16
_LOG_KEPT: Final = 16 * 1024
_PREFIX: Final = re.compile(r"^(\[[^\]]*\] ?)+")
_CONSEQUENCE: Final = re.compile(
    r"Conversion failed|Nothing was written|Last message repeated|To ignore this|Task finished"
    r"|Failed to set value|Error (parsing options|selecting|while opening|submitting a packet)"
    r"|Terminating thread|Error opening (input|output) file|Error opening input: Invalid argument"
)
"""Lines that only say that the reason was given before."""


@dataclass(frozen=True)
class Finished:
    """A run that ended with status 0.

    Attributes:
        stdout: all of standard output.
        log: the last 16 KiB of standard error.
    """

    stdout: bytes
    log: str


@cache
def ffmpeg_path() -> str:
    """Where ffmpeg is.

    Raises:
        SetupError: there is none for this platform.
    """
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise SetupError(
            "there is no ffmpeg on this machine",
            remedy="install it and set IMAGEIO_FFMPEG_EXE to its path",
        ) from error


def file_url(path: Path) -> str:
    """A path as ffmpeg's argument: never read as an option, a protocol or a pattern."""
    return f"file:{path.absolute()}"


def last_words(log: str) -> str:
    """The last line of a log that gives a reason, without ffmpeg's prefixes; may be empty."""
    lines = [words for line in log.splitlines() if (words := _PREFIX.sub("", line.strip()))]
    reasons = [words for words in lines if not _CONSEQUENCE.match(words)]
    return (reasons or lines or [""])[-1]


async def run_ffmpeg(
    args: Sequence[str],
    stdin: bytes | None = None,
    *,
    timeout: float,
    max_output: int = MAX_OUTPUT,
) -> bytes:
    """Run ffmpeg and return what it wrote to standard output.

    Args:
        args: options, inputs and outputs, as on a command line but without ``ffmpeg`` itself.
        stdin: bytes for an input named ``pipe:0``; ``None`` closes it.
        timeout: seconds for the whole run.
        max_output: bytes of standard output at most.

    Raises:
        MediaError: ffmpeg failed (its last meaningful line is the message), took too long, or
            wrote more than ``max_output``.
        SetupError: ffmpeg cannot be started.
    """
    return (await execute(args, stdin, timeout=timeout, max_output=max_output)).stdout


async def execute(
    args: Sequence[str],
    stdin: bytes | None = None,
    *,
    timeout: float,
    max_output: int = MAX_OUTPUT,
    protocols: str = "pipe,file",
    loglevel: str = "error",
) -> Finished:
    """``run_ffmpeg`` with the log, and a choice of what inputs may open.

    Args:
        args: see ``run_ffmpeg``.
        stdin: see ``run_ffmpeg``.
        timeout: see ``run_ffmpeg``.
        max_output: see ``run_ffmpeg``.
        protocols: ffmpeg protocols that an input may use, itself and what it refers to.
        loglevel: how much ffmpeg writes to the log.

    Raises:
        MediaError: see ``run_ffmpeg``.
        SetupError: see ``run_ffmpeg``.
    """
    command = [
        *("-nostdin", "-hide_banner", "-nostats", "-loglevel", loglevel),
        *("-filter_threads", str(THREADS), "-y"),
        *_restrict(args, protocols),
    ]
    try:
        process = await asyncio.create_subprocess_exec(
            *confine.command(_MEMORY, timeout * 2 * THREADS, [ffmpeg_path(), *command]),
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise SetupError(
            f"ffmpeg cannot be started: {error.strerror}", remedy="run musetalk doctor"
        ) from error
    try:
        stdout, log = await asyncio.wait_for(_talk(process, stdin, max_output), timeout)
    except (asyncio.TimeoutError, TimeoutError) as error:
        raise MediaError(f"ffmpeg did not finish within {timeout:g} s") from error
    finally:
        await end_process(process)
    if process.returncode == confine.NOT_STARTED:
        raise SetupError(
            f"ffmpeg cannot be started: {last_words(log)}", remedy="run musetalk doctor"
        )
    if process.returncode:
        raise MediaError(last_words(log) or f"ffmpeg ended with status {process.returncode}")
    return Finished(stdout, log)


def _restrict(args: Sequence[str], protocols: str) -> list[str]:
    """Add the restrictions, which ffmpeg takes for each input and output separately."""
    threads = ["-threads", str(THREADS)]
    inputs = [index for index, arg in enumerate(args) if arg == "-i"]
    restricted: list[str] = []
    for index, arg in enumerate(args):
        if index in inputs:
            if "-protocol_whitelist" not in args:
                restricted += ["-protocol_whitelist", protocols]
            restricted += threads
        restricted.append(arg)
        if inputs and index == inputs[-1] + 1:
            restricted += threads
    return restricted


async def _talk(
    process: asyncio.subprocess.Process, stdin: bytes | None, max_output: int
) -> tuple[bytes, str]:
    """Feed the input and collect both outputs, at the same time, until ffmpeg ends."""
    assert process.stdout is not None and process.stderr is not None
    reading = asyncio.create_task(_read(process.stdout, max_output))
    logging = asyncio.create_task(_read_log(process.stderr))
    feeding = asyncio.create_task(_feed(process.stdin, stdin))
    tasks = (reading, logging, feeding)
    try:
        stdout, log, _ = await asyncio.gather(*tasks)
        await process.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return stdout, log


async def _feed(stream: asyncio.StreamWriter | None, data: bytes | None) -> None:
    if stream is None or data is None:
        return
    view = memoryview(data)
    # A decoder that has heard enough closes its end: not an error here, its status tells.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for start in range(0, len(view), _CHUNK):
            stream.write(view[start : start + _CHUNK])
            await stream.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.close()
        await stream.wait_closed()


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    data = bytearray()
    while piece := await stream.read(_CHUNK):
        data += piece
        if len(data) > limit:
            raise MediaError(f"the decoded media is larger than {limit} bytes")
    return bytes(data)


async def _read_log(stream: asyncio.StreamReader) -> str:
    kept = b""
    while piece := await stream.read(_CHUNK):
        kept = (kept + piece)[-_LOG_KEPT:]
    return kept.decode(errors="replace")
