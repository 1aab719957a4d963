"""What is no Socket.IO ends the connection that sent it, in one line of the log.

The libraries below would write a traceback for each such message, keep as many attachments in
memory as a packet announces, and forget a connection in the middle of its handler.
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import socketio  # type: ignore[import-untyped]

from orchestrator.rendering.tasks import within

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG: Final = logging.getLogger("musetalk.live")

_PACKET: Final = re.compile(r"[12356][^\[{]{0,16}|4[0-6].*", re.ASCII | re.DOTALL)
"""Engine.IO over a WebSocket: little but the messages of Socket.IO."""

_ATTACHMENTS: Final = 1
"""``speech`` has one; nothing else has any."""

_GOODBYE_SECONDS: Final = 2.0


class StrictServer(socketio.AsyncServer):  # type: ignore[misc]
    """A Socket.IO server that hangs up on who does not speak Socket.IO."""

    async def _handle_event(self, eio_sid: str, namespace: str, id: Any, data: Any) -> None:
        # The handlers of these two are the server's own: sent as an event, "connect" would put a
        # second connection in the place of the first, which nobody would end.
        if data[0] in ("connect", "disconnect"):
            raise ValueError("a reserved event")
        await super()._handle_event(eio_sid, namespace, id, data)

    async def _handle_eio_message(self, eio_sid: str, data: str | bytes) -> None:
        try:
            await super()._handle_eio_message(eio_sid, data)
            packet: Any = self._binary_packet.get(eio_sid)
            if packet is not None and packet.attachment_count > _ATTACHMENTS:
                raise ValueError("too many attachments")
        except Exception as error:  # noqa: BLE001 -- of whatever kind: they foresee none
            LOG.warning("a connection is closed: no Socket.IO message (%s)", type(error).__name__)
            # It waits for what is still to be sent; nobody sends it when the client is gone.
            with suppress(TimeoutError, asyncio.TimeoutError):
                await within(self.eio.disconnect(eio_sid), _GOODBYE_SECONDS)
        finally:
            if eio_sid not in self.environ:  # it ended while this packet waited for its attachment
                self._binary_packet.pop(eio_sid, None)


def only_packets(app: ASGIApp) -> ASGIApp:
    """The same application, for whose WebSockets what is no Engine.IO packet is the end."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        async def packets() -> Message:
            message = await receive()
            text = message.get("text")
            if text is not None and not _PACKET.fullmatch(text):
                LOG.warning("a connection is closed: no Engine.IO packet")
                return {"type": "websocket.disconnect", "code": 1002}
            return message

        await app(scope, packets if scope["type"] == "websocket" else receive, send)

    return checked
