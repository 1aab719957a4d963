"""What every text-to-speech engine is to the rest of the system."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from orchestrator.errors import SetupError, UsageError
from orchestrator.settings import Settings

I16 = npt.NDArray[np.int16]


@dataclass(frozen=True)
class SpeechChunk:
    """A piece of speech, as soon as the engine has it.

    Attributes:
        pcm: I16[S] mono, S > 0.
        rate: samples a second, the engine's own; the same for all chunks of one call.
            ``resample.Resampler`` brings it to another one without seams between chunks.
    """

    pcm: I16
    rate: int


class SpeechSynthesizer(Protocol):
    """Speaks texts, one at a time or several at once."""

    @property
    def name(self) -> str:
        """Which engine and voice, for logs and provenance."""
        ...

    def synthesize(
        self, text: str, *, language: str | None = None
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Speak a text, usually one sentence.

        Args:
            text: what to say; it must have something that can be said.
            language: ISO 639 code, where the engine has a choice.

        Yields:
            The speech in order. Closing the generator, or cancelling, stops the engine.

        Raises:
            UsageError: an empty text, or one that is too long.
            SpeechError: the engine failed; trying again may help.
            SetupError: the engine, its voice or its key is missing.
        """
        ...

    async def close(self) -> None:
        """End processes and connections."""
        ...


def require_voice(wanted: str | None, there: str) -> None:
    """Refuse a voice that this server does not speak with; the same at each of its doors.

    Args:
        wanted: what a client asks for; None takes what there is.
        there: the ``name`` of the synthesizer.

    Raises:
        UsageError: it is another one.
    """
    if wanted not in (None, there):
        raise UsageError("there is no such voice", remedy=f"there is: {there}")


def synthesizer(settings: Settings) -> SpeechSynthesizer:
    """The engine that the settings ask for; nothing is started before it first speaks.

    Where the other engine can be used too, and ``tts_fallback`` allows it, it speaks the
    sentences that the chosen one cannot begin: see ``FallbackSynthesizer``.

    Raises:
        SetupError: the engine is not installed, or its voice or key is missing.
    """
    engines = {"piper": _piper, "openai": _openai}
    chosen = engines.pop(settings.tts)(settings)
    (other,) = engines.values()
    if not settings.tts_fallback:
        return chosen
    try:
        second = other(settings)
    except SetupError:
        return chosen
    from orchestrator.speech.fallback import FallbackSynthesizer

    return FallbackSynthesizer(chosen, second, patience=settings.tts_fallback_after)


def _piper(settings: Settings) -> SpeechSynthesizer:
    from orchestrator.speech.piper import PiperSynthesizer, find_voice

    return PiperSynthesizer(
        find_voice(settings.piper_voice),
        timeout=settings.tts_timeout,
        max_chars=settings.max_text_chars,
    )


def _openai(settings: Settings) -> SpeechSynthesizer:
    from orchestrator.speech.openai_speech import OpenAISynthesizer

    if settings.tts_api_key is None and settings.tts_base_url is None:
        raise SetupError(
            "the OpenAI voice needs a key",
            remedy="set MUSETALK_TTS_API_KEY, or MUSETALK_TTS_BASE_URL for a server of your own",
        )
    return OpenAISynthesizer(
        base_url=settings.tts_base_url,
        api_key=settings.tts_api_key.get_secret_value() if settings.tts_api_key else None,
        model=settings.tts_model,
        voice=settings.tts_voice,
        timeout=settings.tts_timeout,
        max_chars=settings.max_text_chars,
    )
