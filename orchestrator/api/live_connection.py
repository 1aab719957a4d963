"""What a viewer of a live session gets: events and media, in order, over its connection."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import socketio  # type: ignore[import-untyped]

from orchestrator.api.access import Caller
from orchestrator.rendering.tasks import end

if TYPE_CHECKING:
    from orchestrator.sessions.outbox import MediaMessage
    from orchestrator.sessions.session import Session

_OUTGOING: Final = 256


class Connection:
    """One viewer's Socket.IO connection, as a ``sessions.session.Client``.

    Args:
        server: the Socket.IO server.
        sid: of the connection.
        caller: whose connection it is.
    """

    def __init__(self, server: socketio.AsyncServer, sid: str, caller: Caller) -> None:
        self.caller = caller
        self.spoken = 0.0
        """Seconds of speech sent and not counted yet."""
        self.session: Session | None = None
        self.order = asyncio.Lock()
        self.waiting = 0
        self.opened = asyncio.Event()
        """Set when the answer to ``join`` is on its way: media comes after it."""
        self.sid = sid
        self._server = server
        self._outgoing: asyncio.Queue[tuple[str, dict[str, Any]] | MediaMessage | None]
        self._outgoing = asyncio.Queue(_OUTGOING)
        self._task = asyncio.create_task(self._deliver(), name=f"client-{sid}")

    def emit(self, event: str, payload: dict[str, Any]) -> None:
        """Send an event."""
        self._put((event, payload))

    def media(self, message: MediaMessage) -> None:
        """Send media."""
        self._put(message)

    def hang_up(self) -> None:
        """Close the connection, after what is on its way."""
        self.opened.set()
        self._put(None)

    async def close(self) -> None:
        """The connection is gone."""
        if self._task is not asyncio.current_task():  # which hangs up, and ends by itself
            await end(self._task)

    def _put(self, item: tuple[str, dict[str, Any]] | MediaMessage | None) -> None:
        try:
            self._outgoing.put_nowait(item)
        except asyncio.QueueFull:
            # Whoever does not read gets nothing more.
            while not self._outgoing.empty():
                self._outgoing.get_nowait()
            self._outgoing.put_nowait(None)

    async def _deliver(self) -> None:
        await self.opened.wait()
        while (item := await self._outgoing.get()) is not None:
            if isinstance(item, tuple):
                await self._server.emit(*item, to=self.sid)
                continue
            session, sequence = self.session, item.sequence
            if item.kind == "speech":
                self.spoken += item.duration

            def received(*_: object, session: Session | None = session, n: int = sequence) -> None:
                if session is not None and session.client is self:
                    session.confirm(n)

            await self._server.emit("media", asdict(item), to=self.sid, callback=received)
        await self._server.disconnect(self.sid)
