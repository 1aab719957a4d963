"""What answers when no language model is set: it says so, and speaks what it is given."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from orchestrator.replies.responder import Message

# At the start of a conversation, in front of every later reply, and where words are left out.
_WORDS: Final = {
    "en": (
        "I am the demo without a language model: I only repeat what you say. You said: ",
        "You said: ",
        " And so on.",
    ),
    "fr": (
        "Je suis la démonstration sans modèle de langage : je répète seulement ce que vous "
        "dites. Vous avez dit : ",
        "Vous avez dit : ",
        " Et ainsi de suite.",
    ),
}


class EmbeddedResponder:
    """A ``Responder`` that needs nothing, and does not pretend to understand."""

    @property
    def name(self) -> str:
        """What it is."""
        return "embedded (no language model)"

    @property
    def live(self) -> bool:
        """No language model answers."""
        return False

    async def reply(
        self,
        message: str,
        history: Sequence[Message],
        *,
        system: str,
        max_tokens: int,
        language: str = "en",
    ) -> AsyncGenerator[str, None]:
        """Repeat a message, word by word, at most ``max_tokens`` words of it.

        Says in English or French what it is; other languages get English.
        """
        first, later, more = _WORDS.get(language.split("-")[0].lower(), _WORDS["en"])
        opening = later if any(said.role == "assistant" for said in history) else first
        given = re.findall(r"\S+\s*", message)
        closing = more if len(given) > max_tokens else ""
        for piece in (*re.findall(r"\S+\s*", opening), *given[:max_tokens], closing):
            if piece:
                yield piece
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Nothing to end."""
