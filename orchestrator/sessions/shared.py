"""What all sessions of a process work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.inference import Inference
    from orchestrator.inference.schedule import Scheduler
    from orchestrator.replies.responder import Responder
    from orchestrator.sessions.conversation import Conversations
    from orchestrator.sessions.talkers import Talkers
    from orchestrator.settings import Settings
    from orchestrator.speech.tts import SpeechSynthesizer
    from orchestrator.telemetry import Telemetry


@dataclass(frozen=True)
class Shared:
    """One of each for a process."""

    settings: Settings
    inference: Inference
    scheduler: Scheduler
    voice: SpeechSynthesizer
    responder: Responder
    talkers: Talkers
    conversations: Conversations
    telemetry: Telemetry
