"""``Converse``: a live session over one gRPC stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from orchestrator.api.live_places import LivePlaces
from orchestrator.api.musetalk.v1 import musetalk_pb2 as pb
from orchestrator.api.rpc.guard import Context, caller_of, streams
from orchestrator.api.service import Service
from orchestrator.errors import (
    DeadlineError,
    MuseTalkError,
    OverloadedError,
    UnavailableError,
    UsageError,
)
from orchestrator.rendering.tasks import end, within
from orchestrator.sessions.events import describe
from orchestrator.sessions.registry import JoinRequest
from orchestrator.sessions.session import Session

if TYPE_CHECKING:
    from orchestrator.sessions.outbox import MediaMessage

MAX_AUDIO_BYTES: Final = 64 * 1024
_OUTGOING: Final = 256
_COMMAND_SECONDS: Final = 20.0
_JOIN_SECONDS: Final = 120.0


class _Viewer:
    """A gRPC client as a ``sessions.session.Client``."""

    def __init__(self) -> None:
        self.spoken = 0.0
        self.outgoing: asyncio.Queue[pb.ConverseResponse | None] = asyncio.Queue(_OUTGOING)
        self.overrun = False

    def emit(self, event: str, payload: dict[str, Any]) -> None:
        values = ParseDict(payload, Struct())
        self._put(pb.ConverseResponse(event=pb.Event(name=event, payload=values)))

    def media(self, message: MediaMessage) -> None:
        media = pb.Media(
            sequence=message.sequence,
            kind=message.kind,
            data=message.data,
            start=message.start,
            duration=message.duration,
        )
        if message.kind == "speech":
            self.spoken += message.duration
        self._put(pb.ConverseResponse(media=media))

    def accepted(self, turn: str) -> None:
        self._put(pb.ConverseResponse(accepted=pb.Accepted(turn=turn)))

    def hang_up(self) -> None:
        self._put(None)

    def _put(self, item: pb.ConverseResponse | None) -> None:
        try:
            self.outgoing.put_nowait(item)
        except asyncio.QueueFull:
            self.overrun = True  # whoever does not read gets nothing more
            while not self.outgoing.empty():
                self.outgoing.get_nowait()
            self.outgoing.put_nowait(None)


class Conversing:
    """The method of the service for live sessions.

    Args:
        service: has the sessions.
        places: how many sessions each key has.
    """

    def __init__(self, service: Service, places: LivePlaces) -> None:
        self._service = service
        self._places = places

    @streams
    async def Converse(  # noqa: N802 -- the name in the .proto file
        self, request: AsyncIterator[pb.ConverseRequest], context: Context
    ) -> AsyncGenerator[pb.ConverseResponse, None]:
        """See the .proto file."""
        service = self._service
        caller = caller_of(context, service)
        sessions = service.sessions
        if sessions is None:
            raise UnavailableError("the service is starting", remedy="try again soon")
        try:
            first = await within(_next(request), _COMMAND_SECONDS)
        except TimeoutError as error:
            raise DeadlineError(f"no join within {_COMMAND_SECONDS:.0f} s") from error
        if first is None or first.WhichOneof("request") != "join":
            raise UsageError("the first request must be join")
        wanted = first.join
        library = service.require_library()
        await service.access.require_seconds(caller.id)
        join = JoinRequest(
            avatar=await library.usable(caller.id, wanted.avatar or None),
            profile=wanted.profile or None,
            language=wanted.language or None,
            voice=wanted.voice or None,
        )
        self._places.require(sessions, caller, None)
        viewer = _Viewer()
        made: list[Session] = []

        async def enter() -> None:
            made.append((await sessions.join(join, viewer)).session)

        commands: asyncio.Task[None] | None = None
        try:
            # Noted in the same step as it is made: a client may go in this very moment.
            await within(enter(), _JOIN_SECONDS)
            session = made[0]
            self._places.note(session, caller)
            commands = asyncio.create_task(self._obey(request, session, viewer, caller.id))
            commands.add_done_callback(lambda _: viewer.hang_up())
            yield pb.ConverseResponse(joined=_joined(session, sessions.live_responder))
            while (item := await viewer.outgoing.get()) is not None:
                yield item
                if item.WhichOneof("response") == "media":
                    session.confirm(item.media.sequence)
            if viewer.overrun:
                raise OverloadedError("the media is not read", remedy="read faster")
            if commands.done():
                commands.result()
        except TimeoutError as error:
            raise DeadlineError(f"no session within {_JOIN_SECONDS:.0f} s") from error
        finally:
            for session in made:
                # First: a session that is left alone ends by itself, even if this ends early.
                session.detach(viewer)
            if commands is not None:
                await end(commands)
            for session in made:
                await sessions.leave(session)
            await service.access.count_seconds(caller.id, viewer.spoken)

    async def _obey(
        self,
        requests: AsyncIterator[pb.ConverseRequest],
        session: Session,
        viewer: _Viewer,
        owner: str,
    ) -> None:
        """Carry out what the client asks for, until it asks no more."""
        async for request in requests:
            try:
                work = self._carry_out(request, session, viewer, owner)
                turn = await within(work, _COMMAND_SECONDS)
            except MuseTalkError as error:
                viewer.emit("error", describe(error))
                continue
            except TimeoutError:
                late = DeadlineError(f"no answer within {_COMMAND_SECONDS:.0f} s")
                viewer.emit("error", describe(late))
                continue
            if turn is not None:
                viewer.accepted(turn)

    async def _carry_out(
        self, request: pb.ConverseRequest, session: Session, viewer: _Viewer, owner: str
    ) -> str | None:
        kind = request.WhichOneof("request")
        if kind in ("say", "ask", "speech"):
            spoken, viewer.spoken = viewer.spoken, 0.0
            await self._service.access.count_seconds(owner, spoken)
            await self._service.access.require_seconds(owner)
        if kind == "say":
            return await session.say(request.say.text)
        if kind == "ask":
            return await session.ask(request.ask.text)
        if kind == "speech":
            if len(request.speech.pcm) > MAX_AUDIO_BYTES:
                raise UsageError(f"speech: at most {MAX_AUDIO_BYTES} bytes at a time")
            return await session.speech(request.speech.pcm, final=request.speech.final)
        if kind == "interrupt":
            await session.interrupt()
        elif kind == "playhead":
            session.playhead(request.playhead.time)
        else:
            raise UsageError("this session has begun: say, ask, speech, interrupt or playhead")
        return None


async def _next(requests: AsyncIterator[pb.ConverseRequest]) -> pb.ConverseRequest | None:
    async for request in requests:
        return request
    return None


def _joined(session: Session, live_responder: bool) -> pb.Joined:
    return pb.Joined(
        session=session.id,
        avatar=session.avatar.name,
        profile=session.profile.name,
        fps=session.profile.fps,
        width=session.avatar.width,
        height=session.avatar.height,
        mime=session.mime,
        live_responder=live_responder,
    )
