"""The HTTP service, put together from its routers."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from orchestrator.api import avatars, health, panel, problems, speak, studio, videos
from orchestrator.api.middleware import Gate
from orchestrator.api.service import Service

__all__ = ["Service", "create_app"]


def create_app(service: Service) -> FastAPI:
    """The application over a service.

    Args:
        service: what the routes work with; its ``renderer`` may be set later.
    """
    app = FastAPI(title="MuseTalk serving", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(Gate, telemetry=service.telemetry, access=service.access)
    if service.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Range"],
            expose_headers=["X-Request-ID", "Content-Range", "Server-Timing", "Retry-After"],
        )
    problems.install(app)
    app.include_router(health.router(service), responses=problems.documented(403, 500))
    for module in (speak, videos, avatars, panel):
        # What the gate, a parameter that is none, and a fault of ours are answered with.
        refusals = problems.documented(401, 403, 422, 500)
        app.include_router(module.router(service), responses=refusals)
    app.include_router(studio.router(service))
    return app
