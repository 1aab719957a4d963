"""The sessions of a process for as long as it serves: made with what they share, ended with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from orchestrator.heap import give_back
from orchestrator.rendering.tasks import end
from orchestrator.replies.responder import responder
from orchestrator.sessions.estimate import LEAST
from orchestrator.sessions.registry import Sessions
from orchestrator.sessions.shared import Shared
from orchestrator.sessions.stored import StoredConversations, open_conversations
from orchestrator.sessions.talkers import Talkers

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar
    from orchestrator.rendering.live import LiveMedia
    from orchestrator.rendering.renderer import Renderer
    from orchestrator.sessions.profiles import Profile
    from orchestrator.settings import Settings
    from orchestrator.telemetry import Telemetry


@asynccontextmanager
async def open_sessions(
    settings: Settings,
    renderer: Renderer,
    telemetry: Telemetry,
) -> AsyncIterator[Sessions]:
    """Sessions over a renderer; all are ended at the end of the block.

    Args:
        settings: of the process.
        renderer: Triton, avatars, voice.
        telemetry: metrics.

    Raises:
        SetupError: the settings of the language model or of the store cannot be used.
    """
    conversations = open_conversations(settings)
    replies = responder(settings)
    shared = Shared(
        settings,
        renderer.inference,
        renderer.scheduler,
        renderer.voice,
        replies,
        Talkers(settings.max_talkers or LEAST),
        conversations,
        telemetry,
    )
    sessions = Sessions(renderer, shared, live_media)
    telemetry.live.watch(sessions=sessions.states, waiting=shared.scheduler.waiting)
    tidying = [
        asyncio.create_task(sessions.sweep(), name="session-sweep"),
        asyncio.create_task(give_back(), name="give-back-memory"),
    ]
    if isinstance(conversations, StoredConversations):
        tidying.append(asyncio.create_task(conversations.clean(), name="conversation-clean"))
    try:
        yield sessions
    finally:
        await end(*tidying)
        await sessions.close()
        await replies.close()


async def live_media(avatar: Avatar, profile: Profile) -> LiveMedia:
    """The media of one session; the avatar's idle clip is encoded at its first."""
    from orchestrator.rendering.live import LiveMedia, idle_clip

    return LiveMedia(avatar, await idle_clip(avatar, fps=profile.grid))
