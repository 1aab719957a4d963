"""The viewer of load tests and of tests: what it does when its server goes."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
import socketio
import uvicorn

from loadtests.viewer import Viewer


async def test_an_unanswered_call_ends_with_the_connection() -> None:
    server = socketio.AsyncServer(async_mode="asgi")

    @server.event
    async def join(sid: str, payload: dict[str, Any]) -> dict[str, Any]:
        return {"ok": True, "session": "a", "token": "b", "resumed": False}

    @server.event
    async def ask(sid: str, payload: dict[str, Any]) -> None:
        await server.disconnect(sid)
        await asyncio.sleep(30)  # an answer that nobody can hear

    listener = socket.create_server(("127.0.0.1", 0))
    web = uvicorn.Server(uvicorn.Config(socketio.ASGIApp(server), log_config=None, lifespan="off"))
    serving = asyncio.create_task(web._serve([listener]))
    viewer = Viewer("http://127.0.0.1:{1}".format(*listener.getsockname()))
    try:
        await viewer.connect()
        began = time.monotonic()
        with pytest.raises(ConnectionError, match="lost before ask was answered"):
            await viewer.begin("ask", {"text": "Are you there?"})
        assert time.monotonic() - began < 10, "it waited for its whole time-out"
    finally:
        await viewer.disconnect()
        web.should_exit = True
        web.force_exit = True
        await serving
