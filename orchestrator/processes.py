"""The end of a subprocess whose output nobody reads any more."""

from __future__ import annotations

import asyncio
import contextlib

_CHUNK = 1 << 16


async def gone(process: asyncio.subprocess.Process, *unread: asyncio.StreamReader | None) -> int:
    """Wait until a process has ended, and return its exit status.

    ``Process.wait`` of Python before 3.13 returns only when every pipe has been read to its end.
    A pipe of which more than two buffers lie unread is paused, so its end is never seen: without
    this a killed process that had written much would be waited for without end.

    Args:
        process: that ends by itself, or has been killed.
        unread: its outputs that have no reader any more; what is in them is thrown away.
    """
    await asyncio.gather(*(_discard(stream) for stream in unread if stream is not None))
    return await process.wait()


async def end_process(process: asyncio.subprocess.Process) -> None:
    """Kill a process unless it has ended, and wait until it is gone; nobody reads its outputs."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await gone(process, process.stdout, process.stderr)


async def _discard(stream: asyncio.StreamReader) -> None:
    # RuntimeError: somebody is still waiting for more of it, and will see its end.
    with contextlib.suppress(OSError, RuntimeError):
        while await stream.read(_CHUNK):
            pass
