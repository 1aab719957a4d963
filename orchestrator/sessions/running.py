"""A turn of a session while it runs, and what it works with."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.sessions.conversation import Spoken
from orchestrator.sessions.haste import Haste
from orchestrator.sessions.leisure import Leisure
from orchestrator.sessions.listening import Listener
from orchestrator.sessions.mouths import LiveInference, Pace
from orchestrator.sessions.progress import TurnProgress
from orchestrator.sessions.times import TurnTimes
from orchestrator.sessions.turn import Stage, Tools
from orchestrator.speech.fallback import FallbackSynthesizer, Switch

if TYPE_CHECKING:
    from orchestrator.avatars.avatar import Avatar
    from orchestrator.inference.schedule import Scheduler
    from orchestrator.sessions.events import Events
    from orchestrator.sessions.profiles import Profile
    from orchestrator.sessions.shared import Shared
    from orchestrator.sessions.talkers import Place
    from orchestrator.speech.tts import SpeechSynthesizer


class RunningTurn:
    """A turn and what is known of it.

    Args:
        place: among those who may talk.
        scheduler: orders the requests of all sessions.

    Attributes:
        id: of the turn.
        times: of its stages.
        spoken: the sentences, with the moments at which they show.
        listener: takes the viewer's own speech, where that is spoken.
        progress: how far its stages are.
        task: does the work.
        sounding: whether some of its media was sent.
        ended: whether its end was reported.
    """

    def __init__(self, place: Place, scheduler: Scheduler) -> None:
        self.id = secrets.token_hex(8)
        self.times = TurnTimes()
        self.spoken: list[Spoken] = []
        self.listener: Listener | None = None
        self.progress: TurnProgress | None = None
        self.task: asyncio.Task[None] | None = None
        self.sounding = False
        self.ended = False
        self.haste = Haste(scheduler)
        self._place = place

    @property
    def profile(self) -> Profile:
        """The profile that it was admitted with."""
        return self._place.profile

    def give_back(self) -> None:
        """Leave to others what the turn held."""
        self._place.give_back()
        self.haste.end()


def equip(
    turn: RunningTurn,
    avatar: Avatar,
    language: str,
    *,
    owner: str,
    tokens: int,
    pace: Callable[[int], Pace],
    stage: Stage,
    events: Events,
    shared: Shared,
) -> Tools:
    """Give a turn what it works with; its events go to the viewer.

    Args:
        turn: the turn.
        avatar: who speaks.
        language: of what is said, ISO 639.
        owner: the session.
        tokens: the longest reply; 0 without a language model.
        pace: how fast the session renders, by the stride of a profile.
        stage: takes the frames.
        events: of the session.
        shared: what all sessions work with.
    """
    profile = turn.profile
    voice: SpeechSynthesizer = shared.voice

    def switched(switch: Switch) -> None:
        shared.telemetry.live.voice_switches.inc()
        events.switched(turn.id, switch)

    if isinstance(voice, FallbackSynthesizer):
        voice = voice.told(switched)

    def progressed(stage: str, percent: int) -> None:
        events.progress(turn.id, stage, percent)

    def spoken(index: int, text: str, start: float, stop: float) -> None:
        turn.spoken.append(Spoken(text, start, stop))
        events.transcript(turn.id, "avatar", index, text, start, stop)

    turn.progress = TurnProgress(tokens, profile.grid, progressed)
    rate = pace(profile.stride)
    inference = LiveInference(
        shared.inference,
        shared.scheduler,
        owner,
        rate,
        turn.times,
        shared.settings.inference_timeout,
    )
    return Tools(
        avatar,
        voice,
        language,
        profile,
        rate,
        inference,
        stage,
        turn.times,
        turn.progress,
        spoken,
        Leisure(),
        turn.haste,
    )
