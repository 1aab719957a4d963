"""The HTTP service: health, metrics, avatars, and ``POST /v1/speak``, which returns an MP4."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from orchestrator.api import problems
from orchestrator.api.admission import Admission
from orchestrator.api.middleware import Gate
from orchestrator.api.orders import SPEAK_DOC, Order, read_order
from orchestrator.api.page import CONTENT_SECURITY_POLICY, PAGE
from orchestrator.errors import MuseTalkError, UnavailableError
from orchestrator.rendering.encode import Mp4Info
from orchestrator.rendering.script import Script, read_recording, read_text
from orchestrator.rendering.tasks import end, within
from orchestrator.rendering.timings import StageTimes
from orchestrator.settings import Settings
from orchestrator.telemetry import Telemetry

if TYPE_CHECKING:
    from orchestrator.rendering.renderer import Renderer
    from orchestrator.sessions.registry import Sessions

LOG: Final = logging.getLogger("musetalk.api")

T = TypeVar("T")

_READY_TIMEOUT: Final = 2.0
_PIECE: Final = 256 * 1024


@dataclass
class Service:
    """What the routes work with; ``renderer`` is None until Triton is ready.

    Attributes:
        settings: of the process.
        telemetry: metrics.
        admission: places for renders.
        renderer: renders; set when Triton answers.
        sessions: live ones; set with it.
    """

    settings: Settings
    telemetry: Telemetry
    admission: Admission
    renderer: Renderer | None = None
    sessions: Sessions | None = None

    def require_renderer(self) -> Renderer:
        """The renderer.

        Raises:
            UnavailableError: Triton is still starting.
        """
        if self.renderer is None:
            raise UnavailableError("Triton is still starting", remedy="try again in a few seconds")
        return self.renderer


def create_app(service: Service) -> FastAPI:
    """The application over a service.

    Args:
        service: what the routes work with; its ``renderer`` may be set later.
    """
    app = FastAPI(title="MuseTalk serving", docs_url=None, redoc_url=None)
    app.add_middleware(Gate, telemetry=service.telemetry)
    problems.install(app)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """Triton answers and there is an avatar: work can be sent here."""
        state = await _readiness(service)
        return JSONResponse(state, 200 if state["ready"] else 503)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        telemetry = service.telemetry
        return Response(telemetry.render(), media_type=telemetry.content_type)

    @app.get("/v1/avatars")
    async def avatars() -> dict[str, list[str]]:
        """Names of the avatars."""
        return {"avatars": await asyncio.to_thread(service.require_renderer().avatar_names)}

    @app.post(
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
                return await _answer(request, service, renderer, order)
        except ClientDisconnect:
            return Response(status_code=499)
        except MuseTalkError as error:
            if error.http_status == 429:
                return problems.from_error(
                    request, error, retry_after=service.admission.retry_after
                )
            raise

    return app


async def _readiness(service: Service) -> dict[str, object]:
    triton, count = False, 0
    if service.renderer is not None:
        try:
            triton = await within(service.renderer.inference.ready(), _READY_TIMEOUT)
        except TimeoutError:
            triton = False
        count = len(await asyncio.to_thread(service.renderer.avatar_names))
    return {"ready": triton and count > 0, "triton": triton, "avatars": count}


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
