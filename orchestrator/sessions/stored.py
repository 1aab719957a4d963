"""Conversations in a folder or an S3-compatible store that several servers share."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Final

from orchestrator.errors import MuseTalkError, NotFoundError, SetupError
from orchestrator.jobs.store import FileStore, open_store
from orchestrator.rendering.tasks import within
from orchestrator.sessions.conversation import Conversation, Conversations, MemoryConversations
from orchestrator.settings import Settings

LOG: Final = logging.getLogger("musetalk.sessions")

_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
_LOAD_SECONDS: Final = 5.0
_CLEAN_SECONDS: Final = 600.0


class StoredConversations:
    """See ``Conversations``.

    Args:
        store: the files; nothing else lies there.
        retention: seconds for which a conversation is kept after its last turn.
    """

    def __init__(self, store: FileStore, retention: float) -> None:
        self._store = store
        self._retention = retention

    async def save(self, conversation: Conversation) -> None:
        """Keep a conversation.

        Raises:
            SetupError: the store does not take it.
        """
        await self._store.put(_path(conversation.id), conversation.to_json())

    async def load(self, identity: str) -> Conversation | None:
        """The conversation of a session; a store that does not answer has none."""
        if not _ID.fullmatch(identity):
            return None  # a client says it: it must not name another file
        try:
            data = await within(self._store.read(_path(identity)), _LOAD_SECONDS)
            return Conversation.from_json(data)
        except NotFoundError:
            return None
        except (MuseTalkError, TimeoutError, ValueError) as error:
            LOG.warning("a conversation cannot be continued: %s", error)
            return None

    async def forget(self, identity: str) -> None:
        """Delete a conversation, if it is there.

        Raises:
            SetupError: the store does not answer.
        """
        await self._store.delete([_path(identity)])

    async def clean(self) -> None:
        """Delete what is too old, again and again."""
        while True:
            try:
                before = time.time() - self._retention
                old = [file.path for file in await self._store.files() if file.modified < before]
                await self._store.delete(old)
            except MuseTalkError as error:
                LOG.warning("old conversations stay: %s", error)
            await asyncio.sleep(_CLEAN_SECONDS)


def open_conversations(settings: Settings) -> Conversations:
    """Where the settings keep conversations: in memory, or in a store.

    Raises:
        SetupError: the store cannot be used.
    """
    if settings.conversation_store is None:
        return MemoryConversations()
    try:
        store = open_store(settings.conversation_store)
    except SetupError as error:
        raise SetupError(
            error.message,
            remedy="name a folder, or s3://BUCKET/PREFIX, in MUSETALK_CONVERSATION_STORE",
        ) from error
    return StoredConversations(store, settings.conversation_retention)


def _path(identity: str) -> str:
    return f"{identity}.json"
