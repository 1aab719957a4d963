"""The HTTP service, put together from its routers."""

from __future__ import annotations

from fastapi import FastAPI

from orchestrator.api import avatars, health, panel, problems, speak, studio
from orchestrator.api.middleware import Gate
from orchestrator.api.service import Service

__all__ = ["Service", "create_app"]


def create_app(service: Service) -> FastAPI:
    """The application over a service.

    Args:
        service: what the routes work with; its ``renderer`` may be set later.
    """
    app = FastAPI(title="MuseTalk serving", docs_url=None, redoc_url=None)
    app.add_middleware(Gate, telemetry=service.telemetry)
    problems.install(app)
    for module in (health, speak, avatars, panel, studio):
        app.include_router(module.router(service))
    return app
