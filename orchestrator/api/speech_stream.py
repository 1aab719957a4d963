"""A video as an answer that is sent while it is made."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.api.orders import Order
from orchestrator.api.service import Service
from orchestrator.errors import MuseTalkError
from orchestrator.rendering.script import Script, read_recording, read_text
from orchestrator.rendering.stream import StreamPart
from orchestrator.rendering.tasks import end, within
from orchestrator.rendering.timings import StageTimes
from orchestrator.settings import Settings

LOG: Final = logging.getLogger("musetalk.api")

_STALLED_SECONDS: Final = 60.0
"""For how long a client may take nothing."""


async def read_script(order: Order, settings: Settings) -> Script:
    """What is said.

    Raises:
        MuseTalkError: the text or the recording cannot be used.
    """
    if order.audio is not None:
        return await read_recording(order.audio, settings)
    return read_text(order.text or "", settings, order.language)


@asynccontextmanager
async def count_render(
    service: Service, owner: str, times: StageTimes, fps: int
) -> AsyncIterator[None]:
    """Count what is made in the block, however it ends.

    Args:
        service: has the metrics, and the use of keys.
        owner: for whom it is made.
        times: gets the frames and the time of each stage.
        fps: frames a second.
    """
    result, start = "internal", time.perf_counter()
    try:
        yield
        result = "ok"
    except (asyncio.CancelledError, GeneratorExit):
        result = "cancelled"
        raise
    except MuseTalkError as error:
        result = error.code
        raise
    finally:
        times.wall, times.media = time.perf_counter() - start, times.frames / fps
        service.telemetry.render_ended(result, times)
        await service.access.count_seconds(owner, times.media)


async def stream_speech(
    service: Service, owner: str, order: Order, times: StageTimes
) -> AsyncGenerator[StreamPart, None]:
    """Render an order part by part; what was made is counted, however it ends.

    Args:
        service: renders.
        owner: for whom.
        order: what; its avatar is one that the owner may use.
        times: gets the time of each stage.

    Yields:
        The init segment and the fragments.

    Raises:
        MuseTalkError: any stage failed.
    """
    renderer = service.require_renderer()
    fps = order.fps or service.settings.fps
    async with count_render(service, owner, times, fps):
        script = await read_script(order, service.settings)
        avatar = await renderer.avatar(order.avatar)
        async with aclosing(renderer.stream(script, avatar, fps=fps, times=times)) as parts:
            async for part in parts:
                yield part


class SpeechStream(Response):
    """Sends the parts of a video one by one, each when the client has taken the one before.

    Rendering ends when the client is gone, or has taken nothing for a minute. An error in the
    middle breaks the connection: the client must not take a part for the whole.

    Args:
        first: the part that is there already.
        parts: the rest; closed in any case.
        ended: called at the end, however that is.
    """

    def __init__(
        self,
        first: StreamPart,
        parts: AsyncGenerator[StreamPart, None],
        ended: Callable[[], None],
    ) -> None:
        super().__init__(media_type="video/mp4")
        del self.headers["content-length"]
        self.headers["X-Accel-Buffering"] = "no"
        self._first = first
        self._parts = parts
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        sending = asyncio.create_task(self._send(send))
        watching = asyncio.create_task(gone())
        try:
            await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            else:
                LOG.info("the client of a stream left")
        finally:
            await end(sending, watching)
            await self._parts.aclose()
            self._ended()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await self._send_part(send, self._first)
        async for part in self._parts:
            await self._send_part(send, part)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_part(self, send: Send, part: StreamPart) -> None:
        message = {"type": "http.response.body", "body": part.data, "more_body": True}
        await within(send(message), _STALLED_SECONDS)
