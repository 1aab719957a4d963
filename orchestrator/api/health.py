"""Whether the process lives, whether work can come, and what it counts."""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from orchestrator.api.service import Service
from orchestrator.rendering.tasks import within

_READY_TIMEOUT: Final = 2.0


class Alive(BaseModel):
    """The process is alive."""

    status: str


class Readiness(BaseModel):
    """What is ready.

    Attributes:
        ready: all of it: work can be sent here.
        triton: Triton answers and has its models.
        avatars: how many there are.
    """

    ready: bool
    triton: bool
    avatars: int


def router(service: Service) -> APIRouter:
    """``/healthz``, ``/readyz`` and ``/metrics``.

    Args:
        service: what is asked.
    """
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def healthz() -> Alive:
        """The process is alive."""
        return Alive(status="ok")

    @routes.get(
        "/readyz",
        response_model=Readiness,
        responses={503: {"model": Readiness, "description": "Not ready"}},
    )
    async def readyz() -> JSONResponse:
        """Triton answers and there is an avatar: work can be sent here."""
        state = await _readiness(service)
        return JSONResponse(state.model_dump(), 200 if state.ready else 503)

    @routes.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        telemetry = service.telemetry
        return Response(telemetry.render(), media_type=telemetry.content_type)

    return routes


async def _readiness(service: Service) -> Readiness:
    triton, count = False, 0
    if service.renderer is not None:
        try:
            triton = await within(service.renderer.inference.ready(), _READY_TIMEOUT)
        except TimeoutError:
            triton = False
        count = len(await asyncio.to_thread(service.renderer.avatar_names))
    ready = triton and count > 0 and not service.draining
    return Readiness(ready=ready, triton=triton, avatars=count)
