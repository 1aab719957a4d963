"""One viewer's session: the turns of a conversation on one media timeline."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal

from orchestrator.errors import (
    DeadlineError,
    LlmError,
    MuseTalkError,
    NotFoundError,
    OverloadedError,
    UsageError,
)
from orchestrator.logs import bound
from orchestrator.rendering.tasks import end, within
from orchestrator.replies.responder import instructions
from orchestrator.sessions.conversation import Conversation
from orchestrator.sessions.events import Events
from orchestrator.sessions.listening import Listener, require_samples
from orchestrator.sessions.memory import Memory
from orchestrator.sessions.mouths import Pace
from orchestrator.sessions.playout import Playout
from orchestrator.sessions.profiles import Profile
from orchestrator.sessions.running import RunningTurn, equip
from orchestrator.sessions.turn import Tools, show, speak_text
from orchestrator.tracing import mark_failed, span

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar
    from orchestrator.rendering.live import LiveMedia
    from orchestrator.sessions.events import Client, State
    from orchestrator.sessions.outbox import MediaMessage
    from orchestrator.sessions.shared import Shared

LOG: Final = logging.getLogger("musetalk.sessions")

_END_SECONDS: Final = 10.0


class Session:
    """One session; made by ``Sessions``, which also ends it.

    Args:
        conversation: who speaks how, and what was said.
        avatar: who speaks.
        profile: how finely.
        media: the timeline.
        shared: what all sessions work with.
    """

    def __init__(
        self,
        conversation: Conversation,
        avatar: Avatar,
        profile: Profile,
        media: LiveMedia,
        shared: Shared,
    ) -> None:
        self._memory = Memory(conversation, shared.conversations)
        self.avatar = avatar
        self.profile = profile
        self.mime = media.mime
        self._events = Events()
        self.away_since: float | None = time.monotonic()
        self.playout = Playout(media, profile.grid, send=self._send_media, flush=self._events.flush)
        self._shared = shared
        self._turn: RunningTurn | None = None
        self._commands = asyncio.Lock()
        self._over = False
        self._state: State = "idle"
        self._paces: dict[int, Pace] = {}

    @property
    def conversation(self) -> Conversation:
        """Who speaks how, and what was said."""
        return self._memory.conversation

    @property
    def id(self) -> str:
        """Of the session."""
        return self.conversation.id

    @property
    def client(self) -> Client | None:
        """Who is connected."""
        return self._events.client

    @property
    def state(self) -> State | Literal["away"]:
        """What the viewer sees."""
        return self._state if self.client is not None else "away"

    @property
    def broken(self) -> bool:
        """Whether no media can be made any more."""
        return self.playout.broken

    @property
    def halted(self) -> float:
        """Seconds for which the viewer's player has not moved in the turn that runs."""
        return 0.0 if self._turn is None else min(self.playout.halted(), self._turn.times.elapsed)

    # Connection

    async def attach(self, client: Client, last_sequence: int | None) -> bool:
        """A client takes the session over; one that had it before loses it.

        Args:
            client: the connection.
            last_sequence: number of the last media message that it has; None: it has nothing.

        Returns:
            Whether the media goes on where it was for this viewer.
        """
        async with self._commands:
            if (before := self.client) is not None:
                self.detach(before)
                if before is not client:
                    before.hang_up()
            if last_sequence is None or not self.playout.resumable(last_sequence):
                await self._interrupt()
                last_sequence = None
            self._require_life()
            self._events.client, self.away_since = client, None
            return self.playout.connect(last_sequence)

    def tell_state(self) -> None:
        """Say what the session does to a client that was away, and may have missed it."""
        self._events.state(self._state, None if self._turn is None else self._turn.id)

    def start_media(self) -> None:
        """Begin to send."""
        self.playout.start()

    def detach(self, client: Client) -> None:
        """A client is gone; the session waits for it for a while."""
        if self.client is client:
            self._events.client = None
            self.away_since = time.monotonic()
            self.playout.disconnect()

    async def close(self) -> None:
        """End everything; nothing of the session is left at work.

        What was heard of a turn that still runs is remembered.
        """
        self._over = True
        client, self._events.client = self.client, None
        turn, self._turn = self._turn, None
        if turn is not None:
            position = self.playout.position
            if turn.task is not None:
                await end(turn.task)
            self._memory.spoken(turn.spoken, position)
            if not turn.ended:
                self._end_report(turn, "interrupted")
        await self.playout.close()
        await self._memory.close()
        if client is not None:
            client.hang_up()

    # Commands

    async def say(self, text: str) -> str:
        """Speak a text.

        Returns:
            The id of the turn.

        Raises:
            UsageError: a text that is too long or empty.
            OverloadedError: too many talk at a time.
            StoppingError: the service is about to stop; another one goes on.
            NotFoundError: the session is over.
        """
        text = self._checked(text)

        async def pieces() -> AsyncGenerator[str, None]:
            yield text

        async with self._commands:
            turn = await self._begin()
            tools = self._tools(turn, tokens=0)

            async def repeat() -> None:
                if not await speak_text(pieces(), tools):
                    raise UsageError("the text has nothing that can be said")

            self._run(turn, repeat)
            return turn.id

    async def ask(self, text: str) -> str:
        """Answer a text; see ``say``."""
        text = self._checked(text)
        shared, language = self._shared, self.conversation.language
        async with self._commands:
            turn = await self._begin()
            tokens = self.profile.max_tokens(shared.settings.llm_max_tokens)
            history = self.conversation.history
            self._memory.asked(text)
            tools = self._tools(turn, tokens)

            async def answer() -> None:
                now = self.playout.position
                self._events.transcript(turn.id, "user", 0, text, now, now)
                pieces = shared.responder.reply(
                    text,
                    history,
                    system=instructions(shared.settings, language, self.conversation.system_prompt),
                    max_tokens=tokens,
                    language=language,
                )
                if not await speak_text(pieces, tools):
                    raise LlmError("the answer has nothing that can be said", remedy="ask again")

            self._run(turn, answer)
            return turn.id

    async def speech(self, audio: bytes, *, final: bool) -> str:
        """Let the avatar speak a viewer's own speech, as it comes.

        Args:
            audio: PCM s16le, mono, 16 kHz.
            final: nothing follows.

        Returns:
            The id of the turn.

        Raises:
            UsageError: half a sample.
            OverloadedError: too many talk at a time, or too much sound waits.
        """
        require_samples(audio)  # before a turn that runs is given up for this one
        async with self._commands:
            turn = self._turn
            if turn is None or turn.listener is None or turn.listener.ended:
                turn = await self._begin()
                listener = Listener(self.profile.grid, self._shared.settings.max_audio_seconds)
                turn.listener = listener
                tools = self._tools(turn, tokens=0)

                async def repeat() -> None:
                    if not await show(listener.parts(tools.inference, tools.times), tools):
                        raise UsageError("the speech is shorter than one frame")

                self._run(turn, repeat)
            if turn.listener is None:
                raise UsageError("this turn takes no speech")
            turn.listener.feed(audio, final=final)
            return turn.id

    async def interrupt(self) -> None:
        """End the running turn; the viewer sees no more of it than is about to be shown."""
        async with self._commands:
            await self._interrupt()

    async def give_up(self) -> None:
        """End the running turn, whose viewer's player stands still: others need its place."""
        async with self._commands:
            if self._turn is not None:
                seconds = f"{self.halted:.0f} s"
                error = DeadlineError(
                    f"the player has not moved for {seconds}: the turn is over",
                    remedy="let it play, and ask again",
                )
                self._fail(self._turn, error)
                await self._interrupt(error.code)

    async def _interrupt(self, result: str = "interrupted") -> None:
        turn = self._turn
        if turn is None:
            return
        self._turn = None
        if turn.task is not None:
            turn.task.cancel()
        position = await within(self.playout.interrupt(), _END_SECONDS)
        if turn.task is not None:
            await end(turn.task)
        self._memory.spoken(turn.spoken, position)
        if not turn.ended:
            self._end_report(turn, result)
        self._enter("idle", None)

    def confirm(self, sequence: int) -> None:
        """The client has a media message."""
        self.playout.confirm(sequence)

    def playhead(self, position: float) -> None:
        """The client says where its player is."""
        self.playout.report(position)

    # Turns

    def _checked(self, text: str) -> str:
        text = text.strip()
        longest = self._shared.settings.max_text_chars
        if len(text) > longest:
            raise UsageError(
                f"the text has {len(text)} characters, more than {longest}",
                remedy="shorten it, or raise MUSETALK_MAX_TEXT_CHARS",
            )
        if not any(char.isalnum() for char in text):
            raise UsageError("the text has nothing that can be said")
        return text

    def _require_life(self) -> None:
        if self._over:
            raise NotFoundError("the session is over", remedy="join again")

    async def _begin(self) -> RunningTurn:
        self._shared.talkers.require_open()  # before a turn that runs is given up for this one
        await self._interrupt()
        self._require_life()
        try:
            place = self._shared.talkers.admit(self.profile)
        except OverloadedError:
            self._shared.telemetry.live.refusals.inc()
            raise
        self._turn = turn = RunningTurn(place, self._shared.scheduler)
        self._enter("thinking", turn)
        self.playout.expect_speech()
        return turn

    def _tools(self, turn: RunningTurn, tokens: int) -> Tools:
        return equip(
            turn,
            self.avatar,
            self.conversation.language,
            owner=self.id,
            tokens=tokens,
            pace=lambda stride: self._paces.setdefault(stride, Pace(stride)),
            stage=self.playout,
            events=self._events,
            shared=self._shared,
        )

    def _run(self, turn: RunningTurn, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(self._observed(turn, work), name=f"turn-{turn.id}")
        # Also when it is cancelled before its first step.
        task.add_done_callback(lambda _: turn.give_back())
        turn.task = task

    async def _observed(self, turn: RunningTurn, work: Callable[[], Awaitable[None]]) -> None:
        """The turn, with its name on log lines and a span of its own."""
        with bound(session=self.id[:6], turn=turn.id), span("turn", profile=self.profile.name):
            turn.times.belongs_here()
            await self._carry_out(turn, work)

    async def _carry_out(self, turn: RunningTurn, work: Callable[[], Awaitable[None]]) -> None:
        """A turn from its request to the moment at which the viewer has seen it.

        Whatever fails ends the turn, not the session.
        """
        result = "ok"
        try:
            await work()
        except MuseTalkError as error:
            result = error.code
            self._fail(turn, error)
        except Exception:
            result = "internal"
            LOG.exception("turn %s: unforeseen error", turn.id)
            self._fail(turn, MuseTalkError("an unforeseen error; the log has it", remedy=""))
        position = await self._finished(turn)
        turn.give_back()
        if turn.progress is not None and result == "ok":
            turn.progress.complete("encoding")
        self._end_report(turn, result)
        await self.playout.played(position)
        if self._turn is turn:
            self._turn = None
            self._memory.spoken(turn.spoken, position)
            self._enter("idle", None)

    async def _finished(self, turn: RunningTurn) -> float:
        """The end of the turn's speech, when all of it is media."""
        try:
            return await self.playout.finish()
        except MuseTalkError as error:
            self._fail(turn, error)
            return self.playout.position

    def _fail(self, turn: RunningTurn, error: MuseTalkError) -> None:
        LOG.warning("turn %s: %s", turn.id, error.code)
        mark_failed(error.code)
        self._shared.telemetry.live.errors.labels(error.code).inc()
        self._events.error(turn.id, error)

    # Events

    def _enter(self, state: State, turn: RunningTurn | None) -> None:
        self._state = state
        self._events.state(state, None if turn is None else turn.id)

    def _end_report(self, turn: RunningTurn, result: str) -> None:
        """All media of the turn is made, or none will be any more."""
        turn.ended = True
        turn.times.wall = turn.times.elapsed
        self._shared.telemetry.live.turn_ended(result, turn.times)
        self._events.performance(turn.id, turn.times)

    def _send_media(self, message: MediaMessage) -> None:
        if self.client is None:
            return
        self.client.media(message)
        turn = self._turn
        if message.kind == "speech" and turn is not None and not turn.sounding:
            turn.sounding = True
            turn.times.reached("frame")
            self._enter("speaking", turn)
