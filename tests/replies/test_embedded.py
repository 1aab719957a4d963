from __future__ import annotations

import pytest

from orchestrator.replies.responder import Message, responder
from orchestrator.settings import Settings

SAID = (Message("user", "Hi."), Message("assistant", "You said: Hi."))


async def reply(text: str, language: str = "en", history=(), max_tokens: int = 100) -> str:
    embedded = responder(Settings(_env_file=None, llm_api_key=None, llm_base_url=None))
    assert not embedded.live and "no language model" in embedded.name
    pieces = embedded.reply(text, history, system="", max_tokens=max_tokens, language=language)
    return "".join([piece async for piece in pieces])


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSETALK_LLM_API_KEY", raising=False)
    monkeypatch.delenv("MUSETALK_LLM_BASE_URL", raising=False)


async def test_says_what_it_is_and_speaks_what_it_is_given() -> None:
    text = await reply("The sky is blue.")
    assert "without a language model" in text
    assert text.endswith("You said: The sky is blue.")


async def test_french() -> None:
    text = await reply("Le ciel est bleu.", "fr-FR")
    assert "sans modèle de langage" in text
    assert text.endswith("Vous avez dit : Le ciel est bleu.")


async def test_says_it_once_in_a_conversation() -> None:
    assert await reply("Blue?", history=SAID) == "You said: Blue?"


async def test_a_long_message_is_cut_audibly() -> None:
    assert (
        await reply("one two three", history=SAID, max_tokens=2) == "You said: one two  And so on."
    )
