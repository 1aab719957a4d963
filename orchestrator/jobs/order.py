"""What a client asks a video job for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final, Literal

from orchestrator.errors import UsageError
from orchestrator.rendering.script import read_text
from orchestrator.settings import Settings

MAX_KEY: Final = 200
"""Characters of an idempotency key."""


@dataclass(frozen=True)
class Order:
    """What a client asks for.

    Attributes:
        text: to be said; or
        message: to be answered by the language model; or
        audio: an encoded recording. Exactly one of the three.
        avatar: who speaks; None: the default avatar.
        fps: frames a second; None: those of the profile.
        profile: name of a profile; None: ``quality``.
        language: of the text, or to be answered in; None: English.
    """

    text: str | None = None
    message: str | None = None
    audio: bytes | None = None
    avatar: str | None = None
    fps: int | None = None
    profile: str | None = None
    language: str | None = None


def check(order: Order, settings: Settings) -> Literal["text", "message", "audio"]:
    """Which kind of order it is.

    Args:
        order: to be judged.
        settings: its limits.

    Raises:
        UsageError: it is of none, of several, has nothing to say, or the language is not known.
    """
    kinds: dict[Literal["text", "message", "audio"], object] = {
        "text": order.text,
        "message": order.message,
        "audio": order.audio,
    }
    given = [kind for kind, value in kinds.items() if value is not None]
    if len(given) != 1:
        raise UsageError("a video is made from one of text, message and audio")
    words = order.text if order.text is not None else order.message
    if words is not None:
        read_text(words, settings, order.language)
    return given[0]


def fingerprint(order: Order) -> str:
    """Digest of an order, to tell two with one idempotency key apart."""
    audio = hashlib.sha256(order.audio).hexdigest() if order.audio is not None else None
    parts = [order.text, order.message, audio, order.avatar, order.fps, order.profile]
    if order.language is not None:  # at the end: older servers' digests have none
        parts.append(order.language)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
