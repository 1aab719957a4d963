"""``/v1/avatars``: which there are."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from orchestrator.api.service import Service


def router(service: Service) -> APIRouter:
    """``/v1/avatars``.

    Args:
        service: what the routes work with.
    """
    routes = APIRouter(tags=["avatars"])

    @routes.get("/v1/avatars")
    async def avatars() -> dict[str, list[str]]:
        """Names of the avatars."""
        return {"avatars": await asyncio.to_thread(service.require_renderer().avatar_names)}

    return routes
