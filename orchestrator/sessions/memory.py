"""What a session remembers of its conversation, and keeps in the store."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from orchestrator.errors import MuseTalkError
from orchestrator.rendering.tasks import within
from orchestrator.replies.responder import Message
from orchestrator.sessions.conversation import heard

if TYPE_CHECKING:
    from orchestrator.sessions.conversation import Conversation, Conversations, Spoken

LOG: Final = logging.getLogger("musetalk.sessions")

_STORE_SECONDS: Final = 5.0


class Memory:
    """A conversation that is stored whenever it has changed.

    Args:
        conversation: so far.
        store: of all conversations.
    """

    def __init__(self, conversation: Conversation, store: Conversations) -> None:
        self.conversation = conversation
        self._store = store
        self._unsaved = False
        self._saving: asyncio.Task[None] | None = None

    def asked(self, text: str) -> None:
        """The viewer said something; stored with what is answered."""
        self.conversation = self.conversation.with_message(Message("user", text))

    def spoken(self, spoken: list[Spoken], position: float) -> None:
        """Add what the viewer heard of a turn, up to a position in seconds, and store all."""
        words = heard(spoken, position)
        if words:
            self.conversation = self.conversation.with_message(Message("assistant", words))
        self._unsaved = True
        if self._saving is None or self._saving.done():
            name = f"save-{self.conversation.id[:6]}"
            self._saving = asyncio.create_task(self._save(), name=name)

    async def close(self) -> None:
        """Wait for what is being stored."""
        if self._saving is not None:
            await self._saving

    async def _save(self) -> None:
        """Store the conversation as it is by then; no turn waits for it."""
        while self._unsaved:
            self._unsaved = False
            try:
                await within(self._store.save(self.conversation), _STORE_SECONDS)
            except (MuseTalkError, OSError, TimeoutError) as error:
                name = self.conversation.id[:6]
                LOG.warning("session %s: the conversation was not stored: %s", name, error)
