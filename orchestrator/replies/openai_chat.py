"""Any server that speaks OpenAI's ``/v1/chat/completions``, streamed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Final

import openai

from orchestrator.errors import LlmError
from orchestrator.openai_api import Endpoint, may_pass
from orchestrator.rendering.tasks import within
from orchestrator.replies.responder import Message

_ATTEMPTS: Final = 2
_PAUSE: Final = 0.25
_END_SECONDS: Final = 0.5

# No tokenizer makes longer tokens on average: such a server does not stop by itself.
_CHARS_PER_TOKEN: Final = 40
_SPARE_CHARS: Final = 400


class _BrokenOffError(LlmError):
    """The server hung up in the middle: before the first piece of text it is asked again."""


class OpenAIResponder:
    """A ``Responder`` over HTTP.

    Args:
        base_url: of the API, up to and with ``/v1``; None is OpenAI's own.
        api_key: None for servers that want none.
        model: name that the server knows.
        first_token_timeout: seconds until the first, and then each next, piece of text; a
            second attempt must do with what the first one left.
        total_timeout: seconds until the end of the answer.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: str | None,
        model: str,
        first_token_timeout: float,
        total_timeout: float,
    ) -> None:
        self._endpoint = Endpoint("language model", "MUSETALK_LLM", LlmError, base_url, api_key)
        self._client = self._endpoint.client(total_timeout)
        self._model = model
        self._gap = first_token_timeout
        self._total = total_timeout
        # What the length is called: newer models of OpenAI refuse the name all others know.
        self._length = "max_tokens"

    @property
    def name(self) -> str:
        """The model."""
        return self._model

    @property
    def live(self) -> bool:
        """A language model answers."""
        return True

    async def reply(
        self,
        message: str,
        history: Sequence[Message],
        *,
        system: str,
        max_tokens: int,
        language: str = "en",
    ) -> AsyncGenerator[str, None]:
        """Answer a message; the language is what ``system`` asks for. See ``Responder``."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        messages = _chat(system, [*history, Message("user", message)])
        attempt, begun = 1, False
        while True:
            length = self._length
            try:
                answer = self._answer(messages, length, max_tokens, started)
                async with aclosing(answer):
                    async for piece in answer:
                        begun = True
                        yield piece
                return
            except (openai.APIError, _BrokenOffError) as error:
                if not begun and self._renames_length(error, length):
                    continue
                pause = _PAUSE * attempt
                late = loop.time() + pause - started >= self._gap
                lasting = isinstance(error, openai.APIError) and not may_pass(error)
                if begun or late or attempt == _ATTEMPTS or lasting:
                    if isinstance(error, LlmError):
                        raise
                    raise self._endpoint.explain(error) from error
                attempt += 1
                await asyncio.sleep(pause)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _renames_length(self, error: Exception, used: str) -> bool:
        """Whether the server refused only the name of the length; it is changed then."""
        other = "max_completion_tokens"
        if isinstance(error, openai.BadRequestError) and other in error.message and used != other:
            self._length = other
            return True
        return False

    async def _answer(
        self, messages: Sequence[Any], length: str, max_tokens: int, started: float
    ) -> AsyncGenerator[str, None]:
        """One attempt.

        Args:
            messages: all of the conversation.
            length: what the server calls the longest answer.
            max_tokens: of the longest answer.
            started: moment of the first attempt, on the event loop's clock.

        Raises:
            openai.APIError: the server refused, failed or hung up.
            LlmError: it sent nonsense, or nothing for too long.
        """
        end = started + self._total
        create: Any = self._client.chat.completions.create
        request = create(model=self._model, messages=messages, stream=True, **{length: max_tokens})
        first_end = min(started + self._gap, end)
        stream = await self._by(request, first_end)
        received, finished = 0, False
        try:
            kind = stream.response.headers.get("content-type", "").split(";")[0]
            if not kind.startswith("text/event-stream"):
                raise self._nonsense(f"{kind or 'an answer without a type'} in place of a stream")
            chunks = aiter(stream)
            while True:
                if finished:
                    wait = asyncio.get_running_loop().time() + _END_SECONDS
                elif received:
                    wait = asyncio.get_running_loop().time() + self._gap
                else:
                    wait = first_end
                chunk = await self._next(chunks, min(wait, end), finished)
                if chunk is None:
                    break
                text, over = _read(chunk)
                finished = finished or over
                received += len(text)
                if received > _SPARE_CHARS + _CHARS_PER_TOKEN * max_tokens:
                    raise LlmError(
                        f"the language model does not stop after {max_tokens} tokens",
                        remedy="its server ignores max_tokens; use another one",
                    )
                if text:
                    yield text
        finally:
            await stream.close()
        if not finished:
            raise _BrokenOffError("the language model broke off", remedy="try again")
        if not received:
            raise self._nonsense("no text")

    async def _next(self, chunks: AsyncIterator[Any], by: float, finished: bool) -> Any:
        """The next chunk; None at the end of the stream, or soon after the answer's end."""
        try:
            return await self._by(_advance(chunks), by)
        except openai.APIError:
            raise
        except LlmError:
            if finished:
                return None
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._nonsense("something that is no part of an answer") from error
        except Exception as error:
            # Which HTTP library the client reads with, and so its errors, depends on its version.
            raise _BrokenOffError("the language model broke off", remedy="try again") from error

    async def _by(self, awaitable: Any, moment: float) -> Any:
        """Await until a moment of the event loop's clock."""
        started = asyncio.get_running_loop().time()
        try:
            return await within(awaitable, max(0.0, moment - started))
        except TimeoutError as error:
            raise LlmError(
                f"the language model at {self._endpoint.url} did not answer in time",
                remedy="try again, or raise MUSETALK_LLM_FIRST_TOKEN_TIMEOUT and "
                "MUSETALK_LLM_TOTAL_TIMEOUT",
            ) from error

    def _nonsense(self, what: str) -> LlmError:
        return LlmError(
            f"the language model sent {what}",
            remedy="check MUSETALK_LLM_BASE_URL and MUSETALK_LLM_MODEL",
        )


def _chat(system: str, history: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as the chat templates of all models take them.

    Many templates refuse two messages in a row by one author, as they are after an interruption,
    and one of the assistant before any of the user's, as after *say*: what it said until then goes
    into the instructions.
    """
    first = next(i for i, said in enumerate(history) if said.role == "user")
    begun = " ".join(said.content for said in history[:first])
    if begun:
        system = f"{system}\n\nBefore that you said: {begun}"
    messages = [{"role": "system", "content": system}]
    for said in history[first:]:
        if messages[-1]["role"] == said.role:
            messages[-1]["content"] += f"\n{said.content}"
        else:
            messages.append({"role": said.role, "content": said.content})
    return messages


async def _advance(chunks: AsyncIterator[Any]) -> Any:
    return await anext(chunks, None)


def _read(chunk: Any) -> tuple[str, bool]:
    """Text of a chunk, and whether it is the last one with text."""
    choices = getattr(chunk, "choices", None)
    if not isinstance(choices, list):
        raise _nothing_of_ours()
    if not choices:
        return "", False  # some servers send usage, or a filter's verdict, like that
    delta = getattr(choices[0], "delta", None)
    text = getattr(delta, "content", None) or getattr(delta, "refusal", None) or ""
    if not isinstance(text, str):
        raise _nothing_of_ours()
    return text, getattr(choices[0], "finish_reason", None) is not None


def _nothing_of_ours() -> LlmError:
    return LlmError(
        "the language model sent something that is no part of an answer",
        remedy="check MUSETALK_LLM_BASE_URL and MUSETALK_LLM_MODEL",
    )
