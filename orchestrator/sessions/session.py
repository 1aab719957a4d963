"""One viewer's session: the turns of a conversation on one media timeline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Literal

from orchestrator.errors import LlmError, UsageError
from orchestrator.replies.responder import instructions
from orchestrator.sessions.conversation import Conversation
from orchestrator.sessions.events import Events
from orchestrator.sessions.listening import Listener, require_samples
from orchestrator.sessions.memory import Memory
from orchestrator.sessions.playout import Playout
from orchestrator.sessions.profiles import Profile
from orchestrator.sessions.turn import show, speak_text
from orchestrator.sessions.turns import Turns

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar
    from orchestrator.rendering.live import LiveMedia
    from orchestrator.sessions.events import Client, State
    from orchestrator.sessions.outbox import MediaMessage
    from orchestrator.sessions.shared import Shared


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
        self._turns = Turns(avatar, profile, self._memory, self.playout, self._events, shared)
        self._commands = asyncio.Lock()

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
        return self._turns.state if self.client is not None else "away"

    @property
    def broken(self) -> bool:
        """Whether no media can be made any more."""
        return self.playout.broken

    @property
    def halted(self) -> float:
        """Seconds for which the viewer's player has not moved in the turn that runs."""
        return self._turns.halted

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
                await self._turns.interrupt()
                last_sequence = None
            self._turns.require_life()
            self._events.client, self.away_since = client, None
            return self.playout.connect(last_sequence)

    def tell_state(self) -> None:
        """Say what the session does to a client that was away, and may have missed it."""
        self._turns.tell()

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
        client, self._events.client = self.client, None
        await self._turns.close()
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
            turn = await self._turns.begin()
            tools = self._turns.tools(turn, tokens=0)

            async def repeat() -> None:
                if not await speak_text(pieces(), tools):
                    raise UsageError("the text has nothing that can be said")

            self._turns.run(turn, repeat)
            return turn.id

    async def ask(self, text: str) -> str:
        """Answer a text; see ``say``."""
        text = self._checked(text)
        shared, language = self._shared, self.conversation.language
        async with self._commands:
            turn = await self._turns.begin()
            tokens = self.profile.max_tokens(shared.settings.llm_max_tokens)
            history = self.conversation.history
            self._memory.asked(text)
            tools = self._turns.tools(turn, tokens)

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

            self._turns.run(turn, answer)
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
            turn = self._turns.current
            if turn is None or turn.listener is None or turn.listener.ended:
                turn = await self._turns.begin()
                listener = Listener(self.profile.grid, self._shared.settings.max_audio_seconds)
                turn.listener = listener
                tools = self._turns.tools(turn, tokens=0)

                async def repeat() -> None:
                    if not await show(listener.parts(tools.inference, tools.times), tools):
                        raise UsageError("the speech is shorter than one frame")

                self._turns.run(turn, repeat)
            if turn.listener is None:
                raise UsageError("this turn takes no speech")
            turn.listener.feed(audio, final=final)
            return turn.id

    async def interrupt(self) -> None:
        """End the running turn; the viewer sees no more of it than is about to be shown."""
        async with self._commands:
            await self._turns.interrupt()

    async def give_up(self) -> None:
        """End the running turn, whose viewer's player stands still: others need its place."""
        async with self._commands:
            await self._turns.give_up()

    def confirm(self, sequence: int) -> None:
        """The client has a media message."""
        self.playout.confirm(sequence)

    def playhead(self, position: float) -> None:
        """The client says where its player is."""
        self.playout.report(position)

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

    def _send_media(self, message: MediaMessage) -> None:
        if self.client is not None:
            self.client.media(message)
            self._turns.sent(message)
