"""Live sessions over Socket.IO: the events of a viewer, and what it gets.

Nothing that a client sends is trusted: each payload is parsed, sizes and rates are limited, and
every answer to an event says whether it worked.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import socketio  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.api.live_connection import Connection
from orchestrator.api.live_protocol import StrictServer, only_packets
from orchestrator.api.problems import RETRY_AFTER_SECONDS
from orchestrator.errors import (
    DeadlineError,
    MuseTalkError,
    OverloadedError,
    UnavailableError,
    UsageError,
)
from orchestrator.rendering.tasks import within
from orchestrator.sessions.events import describe
from orchestrator.sessions.registry import JoinRequest, Sessions
from orchestrator.sessions.session import Session

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from orchestrator.api.http import Service

LOG: Final = logging.getLogger("musetalk.live")

MAX_AUDIO_BYTES: Final = 64 * 1024
"""Of one ``speech`` event: two seconds."""

MAX_MESSAGE_BYTES: Final = 80 * 1024
"""Of one message of a client."""

_EVENTS_WAITING: Final = 16
_JOIN_SECONDS: Final = 120.0
_COMMAND_SECONDS: Final = 20.0
_PING_SECONDS: Final = 10


class _Payload(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Join(_Payload):
    avatar: Annotated[str, Field(max_length=100)] | None = None
    voice: Annotated[str, Field(max_length=100)] | None = None
    profile: Annotated[str, Field(max_length=20)] | None = None
    language: Annotated[str, Field(max_length=20)] | None = None
    session: Annotated[str, Field(max_length=100)] | None = None
    token: Annotated[str, Field(max_length=100)] | None = None
    last_sequence: Annotated[int, Field(ge=0)] | None = None
    system_prompt: Annotated[str, Field(max_length=4000)] | None = None


class _Text(_Payload):
    text: Annotated[str, Field(min_length=1)]


class _Speech(_Payload):
    audio: Annotated[bytes, Field(max_length=MAX_AUDIO_BYTES)]
    final: bool = False


class _Nothing(_Payload):
    pass


class _Playhead(_Payload):
    time: Annotated[float, Field(ge=0, allow_inf_nan=False)]


Action = Callable[[Connection, Sessions, Any], Awaitable[dict[str, Any]]]


def attach(service: Service, app: ASGIApp) -> ASGIApp:
    """Serve live sessions on ``/socket.io`` beside an application.

    Args:
        service: its ``sessions`` may be set later.
        app: gets everything else.
    """
    server = StrictServer(
        async_mode="asgi",
        transports=["websocket"],
        http_compression=False,
        cors_allowed_origins="*",  # Events checks the origin, as for all of the service
        max_http_buffer_size=MAX_MESSAGE_BYTES,
        ping_interval=_PING_SECONDS,
        ping_timeout=_PING_SECONDS,
    )
    Events(service, server).register()
    return only_packets(socketio.ASGIApp(server, other_asgi_app=app))


class Events:
    """What happens at each event of a client.

    Args:
        service: has the sessions.
        server: the Socket.IO server.
    """

    def __init__(self, service: Service, server: socketio.AsyncServer) -> None:
        self._service = service
        self._server = server
        self._connections: dict[str, Connection] = {}

    def register(self) -> None:
        """Connect the events."""
        self._server.on("connect", self._connect)
        self._server.on("disconnect", self._disconnect)
        self._server.on("playhead", self._playhead)
        for event, payload, seconds, action in (
            ("join", _Join, _JOIN_SECONDS, self._join),
            ("leave", _Nothing, _COMMAND_SECONDS, self._leave),
            ("say", _Text, _COMMAND_SECONDS, self._say),
            ("ask", _Text, _COMMAND_SECONDS, self._ask),
            ("speech", _Speech, _COMMAND_SECONDS, self._speech),
            ("interrupt", _Nothing, _COMMAND_SECONDS, self._interrupt),
        ):
            self._server.on(event, self._handler(payload, seconds, action))

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        access = self._service.access
        key = auth.get("key") if isinstance(auth, dict) else None
        try:
            access.check_origin(environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN"))
            caller = access.identify(key if isinstance(key, str) else None)
        except MuseTalkError as error:
            raise socketio.exceptions.ConnectionRefusedError(error.code) from error
        self._connections[sid] = Connection(self._server, sid, caller)

    async def _disconnect(self, sid: str, reason: object = None) -> None:
        connection = self._connections.pop(sid, None)
        if connection is None:
            return
        if connection.session is not None:
            connection.session.detach(connection)
        await connection.close()
        await self._settle(connection)

    async def _playhead(self, sid: str, *args: object) -> None:
        connection = self._connections.get(sid)
        if connection is None or connection.session is None:
            return
        try:
            reported = _Playhead.model_validate(args[0] if args else {})
        except ValidationError:
            return
        connection.session.playhead(reported.time)

    def _handler(
        self, kind: type[_Payload], seconds: float, action: Action
    ) -> Callable[..., Awaitable[dict[str, Any]]]:
        async def handle(sid: str, *args: object) -> dict[str, Any]:
            connection = self._connections.get(sid)
            sessions = self._service.sessions
            try:
                if connection is None or sessions is None:
                    raise UnavailableError("the service is starting", remedy="try again soon")
                if connection.waiting >= _EVENTS_WAITING:
                    raise OverloadedError("too many events at once", remedy="wait for the answers")
                payload = kind.model_validate(args[0] if args else {})
                connection.waiting += 1
                try:
                    async with connection.order:
                        answer = await within(action(connection, sessions, payload), seconds)
                finally:
                    connection.waiting -= 1
                if connection.session is not None:
                    # Media waits for this; the answer is on its way before anybody else's turn.
                    connection.opened.set()
                return {"ok": True, **answer}
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "payload"
                return self._refusal(UsageError(f"{where}: {first['msg']}"))
            except MuseTalkError as error:
                return self._refusal(error)
            except TimeoutError:
                return self._refusal(DeadlineError(f"no answer within {seconds:.0f} s"))
            except Exception:
                LOG.exception("connection %s: unforeseen error", sid)
                return self._refusal(MuseTalkError("an unforeseen error; the log has it"))

        return handle

    def _refusal(self, error: MuseTalkError) -> dict[str, Any]:
        content = describe(error)
        if isinstance(error, OverloadedError) and self._service.sessions is not None:
            content["retry_after"] = self._service.sessions.retry_after
        elif error.retryable:
            content["retry_after"] = RETRY_AFTER_SECONDS
        return {"ok": False, "error": content}

    async def _join(
        self, connection: Connection, sessions: Sessions, payload: _Join
    ) -> dict[str, Any]:
        if connection.session is not None:
            connection.session.detach(connection)
            connection.session = None
        request = JoinRequest(**payload.model_dump())
        owner = connection.caller.id
        access, library = self._service.access, self._service.library
        if access.required or library is not None:
            library = self._service.require_library()
            if request.session is None or request.avatar is not None:
                request = replace(request, avatar=await library.usable(owner, request.avatar))
        await access.require_seconds(owner)
        self._service.places.require(sessions, connection.caller, request.session)
        joined = await sessions.join(request, connection)
        session = joined.session
        self._service.places.note(session, connection.caller)
        connection.session = session
        if self._connections.get(connection.sid) is not connection:
            session.detach(connection)  # it left while the session was made
        return {
            "session": session.id,
            "token": joined.token,
            "resumed": joined.resumed,
            "continued": joined.continued,
            "avatar": session.avatar.name,
            "profile": session.profile.name,
            "fps": session.profile.fps,
            "width": session.avatar.width,
            "height": session.avatar.height,
            "mime": session.mime,
            "live_responder": sessions.live_responder,
            "generated_notice": True,
        }

    async def _settle(self, connection: Connection) -> None:
        """Count the speech that a key was sent."""
        spoken, connection.spoken = connection.spoken, 0.0
        await self._service.access.count_seconds(connection.caller.id, spoken)

    async def _require_seconds(self, connection: Connection) -> None:
        """Refuse a turn of a key that has used up its seconds.

        Raises:
            QuotaError: it has.
        """
        await self._settle(connection)
        await self._service.access.require_seconds(connection.caller.id)

    async def _leave(
        self, connection: Connection, sessions: Sessions, payload: _Nothing
    ) -> dict[str, Any]:
        session, connection.session = _joined(connection), None
        session.detach(connection)
        await sessions.leave(session)
        return {}

    async def _say(
        self, connection: Connection, sessions: Sessions, payload: _Text
    ) -> dict[str, Any]:
        session = _joined(connection)
        await self._require_seconds(connection)
        return {"turn": await session.say(payload.text)}

    async def _ask(
        self, connection: Connection, sessions: Sessions, payload: _Text
    ) -> dict[str, Any]:
        session = _joined(connection)
        await self._require_seconds(connection)
        return {"turn": await session.ask(payload.text)}

    async def _speech(
        self, connection: Connection, sessions: Sessions, payload: _Speech
    ) -> dict[str, Any]:
        session = _joined(connection)
        await self._require_seconds(connection)
        turn = await session.speech(payload.audio, final=payload.final)
        return {"turn": turn}

    async def _interrupt(
        self, connection: Connection, sessions: Sessions, payload: _Nothing
    ) -> dict[str, Any]:
        await _joined(connection).interrupt()
        return {}


def _joined(connection: Connection) -> Session:
    """The session of a connection.

    Raises:
        UsageError: it has not joined one, or the session went to another connection.
    """
    session = connection.session
    if session is None or session.client is not connection:
        raise UsageError("this connection has no session", remedy="join first")
    return session
