"""``POST /v1/speak``: a text, or recorded speech, becomes a video while the client waits."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.requests import ClientDisconnect

from orchestrator.api import problems
from orchestrator.api.access import owner_of
from orchestrator.api.orders import SPEAK_DOC, VOICE, Language, Order, read_order
from orchestrator.api.problems import documented
from orchestrator.api.service import Service
from orchestrator.api.speech_stream import SpeechStream, read_script, stream_speech
from orchestrator.errors import MuseTalkError, OverloadedError
from orchestrator.leftovers import PREFIX
from orchestrator.rendering.encode import Mp4Info
from orchestrator.rendering.tasks import end
from orchestrator.rendering.timings import StageTimes

LOG: Final = logging.getLogger("musetalk.api")

T = TypeVar("T")

_PIECE: Final = 256 * 1024
_VIDEO: Final[dict[str, Any]] = {
    "description": "the video",
    "content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}},
}
_REFUSALS: Final = documented(400, 404, 408, 409, 413, 415, 422, 429, 502, 503, 504)


def router(service: Service) -> APIRouter:
    """``/v1/speak``.

    Args:
        service: what the routes work with.
    """
    routes = APIRouter(tags=["speak"])

    @routes.post(
        "/v1/speak",
        response_class=Response,
        responses={200: _VIDEO, **_REFUSALS},
        openapi_extra=SPEAK_DOC,
    )
    async def speak(request: Request) -> Response:
        """Render a text, or recorded speech, and return the video.

        With ``stream: true`` it comes as a fragmented MP4 while it is made, otherwise finished.
        """
        return await _serve(request, service, lambda: read_order(request, service.settings))

    @routes.get("/v1/speak", response_class=Response, responses={200: _VIDEO, **_REFUSALS})
    async def watch(
        request: Request,
        text: Annotated[str, Query(min_length=1, description="what the avatar says")],
        avatar: Annotated[str | None, Query(description="id; the default without one")] = None,
        voice: Annotated[str | None, Query(max_length=100, description=VOICE)] = None,
        language: Language | None = None,
        fps: Annotated[int | None, Query(ge=8, le=49)] = None,
    ) -> Response:
        """Render a text as a fragmented MP4, for the ``src`` of a video element."""

        async def order() -> Order:
            return Order(avatar, fps, text, stream=True, voice=voice, language=language)

        return await _serve(request, service, order)

    return routes


async def _serve(
    request: Request, service: Service, read: Callable[[], Awaitable[Order]]
) -> Response:
    """Take a place, read the order, carry it out."""
    service.require_renderer()
    owner = owner_of(request)
    with ExitStack() as stack:
        try:
            # The place is taken before the body is read: uploads wait in memory too.
            stack.enter_context(service.admission.place())
            await service.access.require_seconds(owner)
            order = await read()
            service.require_voice(order.voice)
            name = await service.require_library().usable(owner, order.avatar)
            order = replace(order, avatar=name)
            if not order.stream:
                return await _answer(request, service, owner, order)
            parts = stream_speech(service, owner, order, StageTimes())
            try:
                first = await _unless_gone(request, lambda: anext(parts))
                if first is not None:
                    return SpeechStream(first, parts, stack.pop_all().close)
            except BaseException:
                await parts.aclose()
                raise
            await parts.aclose()
            return Response(status_code=499)
        except ClientDisconnect:
            return Response(status_code=499)
        except OverloadedError as error:
            return problems.from_error(request, error, retry_after=service.admission.retry_after)


async def _answer(request: Request, service: Service, owner: str, order: Order) -> Response:
    """Render into a file that has no name any more when it is sent."""
    times = StageTimes()
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=PREFIX))
    try:
        output = folder / "speech.mp4"
        info = await _unless_gone(request, lambda: _render(service, order, output, times))
        if info is None:
            LOG.info("request %s: the client left", problems.request_id(request))
            return Response(status_code=499)
        file = await asyncio.to_thread(output.open, "rb")
        await service.access.count_seconds(owner, info.seconds)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    LOG.info(
        "request %s: %d frames in %.2f s, real-time factor %.2f",
        problems.request_id(request),
        info.frames,
        times.wall,
        times.real_time_factor,
    )
    headers = {
        "Content-Length": str(info.size),
        "Content-Disposition": 'inline; filename="speech.mp4"',
        "Server-Timing": ", ".join(
            f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in times.seconds.items()
        ),
        "X-Frames": str(info.frames),
        "X-Real-Time-Factor": f"{times.real_time_factor:.3f}",
    }
    return StreamingResponse(_pieces(file), media_type="video/mp4", headers=headers)


async def _render(service: Service, order: Order, output: Path, times: StageTimes) -> Mp4Info:
    """Do the work and count how it ended."""
    renderer = service.require_renderer()
    result = "internal"
    try:
        script = await read_script(order, service.settings)
        avatar = await renderer.avatar(order.avatar)
        fps = order.fps or service.settings.fps
        info = await renderer.speak(script, avatar, output, fps=fps, times=times)
        result = "ok"
        return info
    except asyncio.CancelledError:
        result = "cancelled"
        raise
    except MuseTalkError as error:
        result = error.code
        raise
    finally:
        service.telemetry.render_ended(result, times)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    try:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece
    finally:
        file.close()


async def _unless_gone(request: Request, work: Callable[[], Awaitable[T]]) -> T | None:
    """Do the work, but cancel it when the client hangs up; None then."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work())
    watching = asyncio.create_task(gone())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        await end(working, watching)
