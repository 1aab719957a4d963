"""``POST /v1/speak``: a text, or recorded speech, becomes a video while the client waits."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from starlette.requests import ClientDisconnect

from orchestrator.api import problems
from orchestrator.api.access import owner_of
from orchestrator.api.orders import SPEAK_DOC, Order, read_order
from orchestrator.api.service import Service
from orchestrator.errors import MuseTalkError
from orchestrator.rendering.encode import Mp4Info
from orchestrator.rendering.script import Script, read_recording, read_text
from orchestrator.rendering.tasks import end
from orchestrator.rendering.timings import StageTimes

if TYPE_CHECKING:
    from orchestrator.rendering.renderer import Renderer

LOG: Final = logging.getLogger("musetalk.api")

T = TypeVar("T")

_PIECE: Final = 256 * 1024


def router(service: Service) -> APIRouter:
    """``/v1/speak``.

    Args:
        service: what the routes work with.
    """
    routes = APIRouter(tags=["speak"])

    @routes.post(
        "/v1/speak",
        response_class=Response,
        responses={200: {"content": {"video/mp4": {}}}},
        openapi_extra=SPEAK_DOC,
    )
    async def speak(request: Request) -> Response:
        """Render a text, or recorded speech, and return the video."""
        renderer = service.require_renderer()
        try:
            # The place is taken before the body is read: uploads wait in memory too.
            with service.admission.place():
                order = await read_order(request, service.settings)
                name = await service.require_library().usable(owner_of(request), order.avatar)
                order = replace(order, avatar=name)
                return await _answer(request, service, renderer, order)
        except ClientDisconnect:
            return Response(status_code=499)
        except MuseTalkError as error:
            if error.http_status == 429:
                return problems.from_error(
                    request, error, retry_after=service.admission.retry_after
                )
            raise

    return routes


async def _answer(request: Request, service: Service, renderer: Renderer, order: Order) -> Response:
    """Render into a file that has no name any more when it is sent."""
    times = StageTimes()
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="musetalk-"))
    try:
        output = folder / "speech.mp4"
        info = await _unless_gone(request, lambda: _render(service, renderer, order, output, times))
        if info is None:
            LOG.info("request %s: the client left", problems.request_id(request))
            return Response(status_code=499)
        file = await asyncio.to_thread(output.open, "rb")
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


async def _render(
    service: Service, renderer: Renderer, order: Order, output: Path, times: StageTimes
) -> Mp4Info:
    """Do the work and count how it ended."""
    result = "internal"
    try:
        script: Script
        if order.audio is not None:
            script = await read_recording(order.audio, service.settings)
        else:
            script = read_text(order.text or "", service.settings)
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
