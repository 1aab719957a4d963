"""All sessions of this process: who may join, who comes back, who has left."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from orchestrator.errors import NotFoundError, OverloadedError, StoppingError
from orchestrator.replies.responder import known_language
from orchestrator.sessions.conversation import Conversation, hash_token
from orchestrator.sessions.estimate import lipsync_rate, talkers
from orchestrator.sessions.profiles import Profile, find_profile
from orchestrator.sessions.session import Session
from orchestrator.sessions.shared import Shared
from orchestrator.speech.tts import require_voice

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar
    from orchestrator.rendering.live import LiveMedia
    from orchestrator.rendering.renderer import Renderer
    from orchestrator.sessions.events import Client

LOG: Final = logging.getLogger("musetalk.sessions")

RESUME_SECONDS: Final = 30.0
"""For how long a session waits for a client that is gone."""

TURN_SECONDS: Final = 5.0
"""For how long its turn does: a talker's place is not kept for somebody who may never return."""

HALT_SECONDS: Final = 30.0
"""For how long a turn waits for a player that does not move: paused, or never confirming."""

_SWEEP_SECONDS: Final = 1.0
_DRAIN_POLL_SECONDS: Final = 0.05
_GOODBYE_SECONDS: Final = 0.25
"""For what viewers are told at the end of a turn to reach them before connections are closed."""

MakeMedia = Callable[["Avatar", Profile], Awaitable["LiveMedia"]]


@dataclass(frozen=True)
class JoinRequest:
    """What a client asks for; None takes the default."""

    avatar: str | None = None
    voice: str | None = None
    profile: str | None = None
    language: str | None = None
    session: str | None = None
    token: str | None = None
    last_sequence: int | None = None
    system_prompt: str | None = None


@dataclass(frozen=True)
class Joined:
    """A session and the secret that lets its client come back.

    Attributes:
        session: the session.
        token: its secret.
        resumed: the media goes on where the client was.
        continued: the conversation is an earlier one.
    """

    session: Session
    token: str
    resumed: bool
    continued: bool


class Sessions:
    """The sessions of a process.

    Args:
        renderer: Triton, avatars, voice.
        shared: what sessions work with.
        make_media: starts the media of a session.
    """

    def __init__(self, renderer: Renderer, shared: Shared, make_media: MakeMedia) -> None:
        self._renderer = renderer
        self._shared = shared
        self._make_media = make_media
        self._sessions: dict[str, Session] = {}
        self._joining = 0
        self._closed = False
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """Sessions, with those whose client is away."""
        return len(self._sessions)

    def states(self) -> dict[str, int]:
        """How many sessions there are, by state."""
        counts = dict.fromkeys(("idle", "thinking", "speaking", "away"), 0)
        return counts | Counter(session.state for session in self._sessions.values())

    def has(self, session: Session) -> bool:
        """Whether a session is not over, perhaps with its client away."""
        return self._sessions.get(session.id) is session

    def waiting(self) -> dict[str, int]:
        """Requests that have not been sent to Triton yet, by model."""
        return self._shared.scheduler.waiting()

    @property
    def retry_after(self) -> int:
        """Seconds after which a talker's place is likely to be free."""
        return self._shared.talkers.retry_after

    @property
    def live_responder(self) -> bool:
        """Whether a language model answers."""
        return self._shared.responder.live

    async def warm_up(self) -> None:
        """Do once what would make the first viewer wait, and find out how many may talk.

        Raises:
            MuseTalkError: an avatar, ffmpeg or Triton does not work.
        """
        settings, inference = self._shared.settings, self._shared.inference
        if settings.max_talkers is None:
            rate = await lipsync_rate(inference, settings.batch, timeout=settings.inference_timeout)
            here = settings.triton is None or settings.triton.startswith(("localhost:", "127."))
            self._shared.talkers.limit = limit = talkers(rate, here=here)
            LOG.info(
                "%g may talk at a time: lipsync makes %.0f frames a second "
                "(an estimate; MUSETALK_MAX_TALKERS sets what was measured)",
                limit,
                rate,
            )
        # Last: idle video goes on being encoded, beside which less is computed.
        media = await self._make_media(await self._renderer.avatar(None), find_profile(None))
        await media.close()

    async def join(self, request: JoinRequest, client: Client) -> Joined:
        """Make a session, or go on with one.

        A session whose server is gone goes on from what was stored of its conversation; one that
        nobody knows any more is made anew.

        Args:
            request: what the client asks for.
            client: the connection.

        Raises:
            NotFoundError: there is no such avatar, or the token is not the session's.
            UsageError: no such profile, voice or language.
            OverloadedError: there are too many sessions.
            StoppingError: the service is about to stop; another one may take it.
        """
        known = self._sessions.get(request.session or "")
        if known is not None:
            self._check(known.conversation, request.token)
            resumed = await known.attach(client, request.last_sequence)
            known.tell_state()
            return Joined(known, request.token or "", resumed, True)
        stored = None
        if request.session is not None:
            stored = await self._shared.conversations.load(request.session)
        if stored is not None:
            self._check(stored, request.token)
        limit = self._shared.settings.max_sessions
        self._require_open()
        if len(self._sessions) + self._joining >= limit:
            self._shared.telemetry.live.refusals.inc()
            raise OverloadedError(f"there are {limit} sessions already", remedy="try again later")
        self._joining += 1
        try:
            made = await self._make(request, stored)
        finally:
            self._joining -= 1
        if made is None:
            return await self.join(request, client)
        session, token = made
        try:
            await session.attach(client, None)
            if stored is not None:
                session.tell_state()
            session.start_media()
        except BaseException:
            await self._end(session)  # nobody else knows of it: it would stay for ever
            raise
        return Joined(session, token, False, stored is not None)

    async def leave(self, session: Session) -> None:
        """End a session for good."""
        await self._end(session)
        await self._shared.conversations.forget(session.id)

    async def drain(self, seconds: float) -> None:
        """Take no new sessions and no new turns, and wait until nobody is spoken to.

        A viewer who may begin again and again would keep this server until its time is up, and
        then be cut off in the middle of a word.

        Args:
            seconds: after which the turns that still run are given up.
        """
        self._closed = True
        self._shared.talkers.close()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            states = self.states()
            if not states["thinking"] + states["speaking"]:
                await asyncio.sleep(_GOODBYE_SECONDS if self._sessions else 0)
                return
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        LOG.warning("turns are cut off: they did not end in %.0f s", seconds)

    async def close(self) -> None:
        """End all sessions; their conversations stay in the store."""
        self._closed = True
        ending = (self._end(session) for session in [*self._sessions.values()])
        for error in await asyncio.gather(*ending, return_exceptions=True):
            if error is not None:
                LOG.error("a session did not end as it should", exc_info=error)
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def sweep(self) -> None:
        """End turns, then sessions, whose viewer is gone or does not look, again and again."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for session in [*self._sessions.values()]:
                try:
                    await self._tidy(session)
                except Exception:
                    LOG.exception("session %s: it, or its turn, does not end", session.id[:6])

    async def _tidy(self, session: Session) -> None:
        away = 0.0 if session.away_since is None else time.monotonic() - session.away_since
        if session.broken or away > RESUME_SECONDS:
            await self._end(session)
        elif away > TURN_SECONDS:
            await session.interrupt()
        elif session.halted > HALT_SECONDS:
            await session.give_up()

    def _require_open(self) -> None:
        if self._closed:
            raise StoppingError("this server is about to stop", remedy="join again")

    def _check(self, conversation: Conversation, token: str | None) -> None:
        if token is None or not conversation.allows(token):
            raise NotFoundError("there is no such session with this token")

    async def _make(
        self, request: JoinRequest, stored: Conversation | None
    ) -> tuple[Session, str] | None:
        """A session and its token; None if another connection made it in the meantime."""
        profile = find_profile(request.profile or (stored.profile if stored else None))
        language = known_language(request.language or (stored.language if stored else None))
        require_voice(request.voice, self._shared.voice.name)
        avatar = await self._renderer.avatar(request.avatar or (stored.avatar if stored else None))
        token = secrets.token_urlsafe(32)
        if stored is not None and request.token is not None:
            token = request.token
        conversation = Conversation(
            stored.id if stored else secrets.token_urlsafe(16),
            hash_token(token),
            avatar.name,
            profile.name,
            language,
            request.system_prompt or (stored.system_prompt if stored else ""),
            stored.history if stored else (),
        )
        media = await self._make_media(avatar, profile)
        if self._closed or conversation.id in self._sessions:
            await media.close()
            self._require_open()
            return None
        session = Session(conversation, avatar, profile, media, self._shared)
        self._sessions[session.id] = session
        LOG.info("session %s: begins, %s, %s", session.id[:6], avatar.name, profile.name)
        return session, token

    async def _end(self, session: Session) -> None:
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
            closing = asyncio.create_task(session.close(), name="session-close")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            # A caller who is cancelled here must not leave half a session at work.
            await asyncio.shield(closing)
            LOG.info("session %s: is over", session.id[:6])
