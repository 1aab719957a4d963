"""What every source of replies is to the rest of the system."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from orchestrator.errors import UsageError
from orchestrator.settings import Settings

LANGUAGES: Final = {"en": "English", "fr": "French"}
"""Languages that replies are asked for in, by ISO 639 code."""


@dataclass(frozen=True)
class Message:
    """One thing that was said in a conversation.

    Attributes:
        role: ``user`` is the viewer, ``assistant`` the avatar.
        content: what was said; for an interrupted reply only what was heard.
    """

    role: Literal["user", "assistant"]
    content: str


class Responder(Protocol):
    """Answers messages, one or several conversations at a time."""

    @property
    def name(self) -> str:
        """Which model answers, for logs and provenance."""
        ...

    @property
    def live(self) -> bool:
        """Whether a language model answers; False for the embedded responder."""
        ...

    def reply(
        self,
        message: str,
        history: Sequence[Message],
        *,
        system: str,
        max_tokens: int,
        language: str = "en",
    ) -> AsyncGenerator[str, None]:
        """Answer a message.

        Args:
            message: what the viewer says.
            history: what was said before, oldest first.
            system: what the model is told about its part, from ``instructions``.
            max_tokens: length of the answer.
            language: ISO 639 code, for a responder whose words are its own.

        Yields:
            Pieces of text as they come; joined they are the answer. Closing the generator, or
            cancelling, hangs up.

        Raises:
            LlmError: the model failed, was too slow or sent nonsense. What was already
                yielded stays valid and is never repeated.
            SetupError: its address, key or name is refused.
        """
        ...

    async def close(self) -> None:
        """End connections."""
        ...


def known_language(language: str | None) -> str:
    """A language that replies are written and cut into sentences in; None and "" are English.

    Raises:
        UsageError: it is another one.
    """
    if language and language not in LANGUAGES:
        raise UsageError(
            f"the language {language[:20]!r} is not spoken",
            remedy=f"choose one of {', '.join(LANGUAGES)}",
        )
    return language or "en"


def instructions(settings: Settings, language: str = "en", part: str = "") -> str:
    """The system prompt of a conversation.

    Args:
        settings: ``llm_system_prompt``.
        language: ISO 639 code of the voice that will speak.
        part: who the avatar is in this conversation, from the viewer; empty: nobody special.
    """
    system = f"{settings.llm_system_prompt} {part}".strip()
    name = LANGUAGES.get(language.split("-")[0].lower())
    return f"{system} Answer in {name}." if name else system


def responder(settings: Settings) -> Responder:
    """The language model that the settings name, or the embedded responder without one."""
    if settings.llm_api_key is None and settings.llm_base_url is None:
        from orchestrator.replies.embedded import EmbeddedResponder

        return EmbeddedResponder()
    from orchestrator.replies.openai_chat import OpenAIResponder

    return OpenAIResponder(
        base_url=settings.llm_base_url,
        api_key=settings.llm_api_key.get_secret_value() if settings.llm_api_key else None,
        model=settings.llm_model,
        first_token_timeout=settings.llm_first_token_timeout,
        total_timeout=settings.llm_total_timeout,
    )
