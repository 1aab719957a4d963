"""What a conversation needs to go on, here or on another server."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Protocol

from orchestrator.replies.responder import Message

_MESSAGES: Final = 40
_CHARS: Final = 16_000
_KEPT: Final = 1000

_ROUNDING: Final = 1e-3
"""Seconds by which two sums of the same frames may differ, far less than one of them."""


@dataclass(frozen=True)
class Conversation:
    """Who speaks how, and what was said.

    Attributes:
        id: of the session.
        token_hash: of the secret that proves that a client may go on with it.
        avatar: name of the avatar.
        profile: name of the profile.
        language: ISO 639 code.
        system_prompt: what the viewer tells the language model about its part.
        history: the last messages, oldest first.
    """

    id: str
    token_hash: str
    avatar: str
    profile: str
    language: str
    system_prompt: str = ""
    history: tuple[Message, ...] = field(default=())

    def allows(self, token: str) -> bool:
        """Whether a token is the one of this conversation."""
        return hmac.compare_digest(self.token_hash, hash_token(token))

    def with_message(self, message: Message) -> Conversation:
        """The conversation after one more message; the oldest ones are forgotten."""
        return replace(self, history=_last((*self.history, message)))

    def to_json(self) -> bytes:
        """For a store."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Conversation:
        """From a store; what a newer version keeps besides is left out.

        Raises:
            ValueError: it is none.
        """
        try:
            values = json.loads(data)
            history = tuple(Message(**_known(Message, said)) for said in values.pop("history"))
            return cls(**_known(cls, values), history=history)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this is no conversation: {error}") from error


class Conversations(Protocol):
    """Keeps conversations for the time between two servers."""

    async def save(self, conversation: Conversation) -> None:
        """Keep a conversation; an older state of it is replaced."""
        ...

    async def load(self, identity: str) -> Conversation | None:
        """The conversation of a session; None if there is none."""
        ...

    async def forget(self, identity: str) -> None:
        """Delete a conversation, if it is there."""
        ...


class MemoryConversations:
    """Conversations of this process, the latest thousand."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Conversation] = OrderedDict()

    async def save(self, conversation: Conversation) -> None:
        """See ``Conversations``."""
        self._kept[conversation.id] = conversation
        self._kept.move_to_end(conversation.id)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    async def load(self, identity: str) -> Conversation | None:
        """See ``Conversations``."""
        return self._kept.get(identity)

    async def forget(self, identity: str) -> None:
        """See ``Conversations``."""
        self._kept.pop(identity, None)


@dataclass(frozen=True)
class Spoken:
    """A sentence of the avatar on the timeline.

    Attributes:
        text: what it says.
        start: in seconds.
        end: in seconds.
    """

    text: str
    start: float
    end: float


def heard(sentences: Sequence[Spoken], position: float) -> str:
    """What a viewer heard of a reply.

    Args:
        sentences: what was said, in order.
        position: in seconds, up to which the viewer saw and heard the timeline.

    Returns:
        The whole sentences, and of the one that was cut the words up to there, with an ellipsis.
    """
    parts: list[str] = []
    for sentence in sentences:
        if not sentence.text:
            continue  # the viewer's own speech: nobody wrote down what it says
        if sentence.end <= position + _ROUNDING:
            parts.append(sentence.text)
            continue
        share = (position - sentence.start) / (sentence.end - sentence.start)
        cut = _words(sentence.text, share)
        if cut:
            parts.append(f"{cut}…")
        break
    return " ".join(parts)


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def hash_token(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def _words(text: str, share: float) -> str:
    """The whole words in the first ``share`` of a text."""
    length = int(len(text) * share)
    if length <= 0:
        return ""
    return text[: length + 1].rsplit(None, 1)[0] if " " in text[: length + 1] else ""


def _last(history: Sequence[Message]) -> tuple[Message, ...]:
    kept: list[Message] = []
    chars = 0
    for message in reversed(history[-_MESSAGES:]):
        chars += len(message.content)
        if chars > _CHARS and kept:
            break
        kept.append(message)
    return tuple(reversed(kept))
