from __future__ import annotations

import json

import pytest

from orchestrator.replies.responder import Message
from orchestrator.sessions.conversation import (
    Conversation,
    MemoryConversations,
    Spoken,
    hash_token,
    heard,
)

REPLY = [Spoken("One two three four.", 1.0, 3.0), Spoken("And five.", 3.25, 4.0)]


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (0.5, ""),
        (1.0, ""),
        (2.0, "One two…"),
        (3.0, "One two three four."),
        (3.1, "One two three four."),
        (3.7, "One two three four. And…"),
        (9.0, "One two three four. And five."),
    ],
)
def test_what_was_heard(position: float, words: str) -> None:
    assert heard(REPLY, position) == words


@pytest.mark.parametrize(("fps", "batch"), [(25, 8), (25, 4), (15, 2)])
def test_a_reply_that_was_heard_to_its_end_is_remembered_whole(fps: int, batch: int) -> None:
    for first in range(0, 3000, 61):
        start = position = first / fps
        for _ in range(first % 17 + 5):  # as the playout counts: piece by piece
            position += batch / fps
        end = start + (first % 17 + 5) * batch / fps
        assert heard([Spoken("Good day to you.", start, end)], position) == "Good day to you."


def conversation() -> Conversation:
    return Conversation("id", hash_token("secret"), "amara", "quality", "fr")


def test_it_survives_a_store() -> None:
    talked = conversation().with_message(Message("user", "Ça va ?"))
    assert Conversation.from_json(talked.to_json()) == talked
    assert b"secret" not in talked.to_json()


def test_what_a_newer_version_keeps_besides_does_no_harm() -> None:
    talked = conversation().with_message(Message("user", "Hello?"))
    values = json.loads(talked.to_json())
    values["mood"] = values["history"][0]["tone"] = "new"
    assert Conversation.from_json(json.dumps(values).encode()) == talked


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"history": 3}', b"\xff"])
def test_nonsense_from_a_store_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        Conversation.from_json(data)


def test_only_its_token_opens_it() -> None:
    assert conversation().allows("secret")
    assert not conversation().allows("Secret") and not conversation().allows("")


def test_the_oldest_messages_are_forgotten() -> None:
    talked = conversation()
    for number in range(100):
        talked = talked.with_message(Message("user", f"{number} " + 1000 * "x"))
    assert 5 < len(talked.history) < 20
    assert talked.history[-1].content.startswith("99 ")


async def test_memory_keeps_the_latest() -> None:
    store = MemoryConversations()
    await store.save(conversation())
    assert await store.load("id") == conversation()
    await store.forget("id")
    await store.forget("id")
    assert await store.load("id") is None
