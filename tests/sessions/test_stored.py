from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from orchestrator.errors import SetupError
from orchestrator.jobs.store import open_store
from orchestrator.rendering.tasks import within
from orchestrator.replies.responder import Message
from orchestrator.sessions.conversation import Conversation, MemoryConversations, hash_token
from orchestrator.sessions.stored import StoredConversations, open_conversations
from orchestrator.settings import Settings

ID = "AbCdEfGhIjKlMnOp_-12"


def conversation() -> Conversation:
    made = Conversation(ID, hash_token("secret"), "amara", "economy", "fr")
    return made.with_message(Message("user", "Ça va ?"))


async def test_another_server_finds_it(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, conversation_store=str(tmp_path / "talk"))
    await open_conversations(settings).save(conversation())
    there = open_conversations(settings)
    assert await there.load(ID) == conversation()
    await there.forget(ID)
    await there.forget(ID)
    assert await there.load(ID) is None


def test_without_a_store_it_stays_in_memory() -> None:
    assert isinstance(open_conversations(Settings(_env_file=None)), MemoryConversations)


def test_a_store_that_cannot_be_used_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = Settings(_env_file=None, conversation_store=str(tmp_path / "file" / "folder"))
    with pytest.raises(SetupError, match="MUSETALK_CONVERSATION_STORE"):
        open_conversations(settings)


@pytest.mark.parametrize(
    "identity", ["../../etc/passwd", "", "short", "a/b/c/d/e/f/g/h/i/j", "x" * 99]
)
async def test_an_id_names_no_other_file(tmp_path: Path, identity: str) -> None:
    store = StoredConversations(open_store(str(tmp_path)), 60)
    assert await store.load(identity) is None


async def test_a_damaged_file_is_no_conversation(tmp_path: Path) -> None:
    store = StoredConversations(open_store(str(tmp_path)), 60)
    (tmp_path / f"{ID}.json").write_text("{")
    assert await store.load(ID) is None


async def test_old_ones_are_deleted(tmp_path: Path) -> None:
    store = StoredConversations(open_store(str(tmp_path)), 60)
    await store.save(conversation())
    old = tmp_path / f"{ID[::-1]}.json"
    old.write_bytes(conversation().to_json())
    os.utime(old, (time.time() - 100,) * 2)
    with pytest.raises(TimeoutError):
        await within(store.clean(), 0.5)
    assert sorted(os.listdir(tmp_path)) == [f"{ID}.json"]  # noqa: PTH208
