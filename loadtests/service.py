"""``musetalk serve`` in a process of its own, for measurements."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from loadtests.loopback_llm import LoopbackLlm
from loadtests.ports import free_port
from orchestrator.processes import end_process

UNLIMITED: Final = {"MUSETALK_MAX_TALKERS": "1000", "MUSETALK_MAX_SESSIONS": "1000"}
"""Options of a service whose admission control refuses nobody."""

_STOP_SECONDS: Final = 60.0


@asynccontextmanager
async def serving(llm: LoopbackLlm | None, cache: Path, **options: str) -> AsyncIterator[str]:
    """``musetalk serve`` as operators run it; yields its address.

    Args:
        llm: answers; None leaves the embedded responder.
        cache: of the service.
        options: environment variables.

    Raises:
        TimeoutError: it was not ready within three minutes.
    """
    port = free_port()
    replies = {}
    if llm is not None:
        replies = {"MUSETALK_LLM_BASE_URL": llm.url, "MUSETALK_LLM_MAX_TOKENS": "1000"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator.cli", "serve", "--port", str(port)),
        env={**os.environ, **replies, "MUSETALK_CACHE_DIR": str(cache), **options},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(timeout=5) as http:
            end = time.monotonic() + 180
            while True:
                try:
                    if (await http.get(f"{url}/readyz")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                if process.returncode is not None or time.monotonic() > end:
                    raise TimeoutError("the service did not become ready")
                await asyncio.sleep(0.2)
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            await end_process(process)  # if it hangs: its Triton ends with it
