from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from pydantic import SecretStr

from loadtests.loopback_llm import Exchange, LoopbackLlm
from orchestrator.errors import LlmError, MuseTalkError, SetupError
from orchestrator.replies.openai_chat import OpenAIResponder
from orchestrator.replies.responder import Message, Responder, instructions, responder
from orchestrator.settings import Settings

TALK = (Message("user", "Hi."), Message("assistant", "Hello."))


@pytest.fixture
async def model(llm: LoopbackLlm) -> AsyncIterator[OpenAIResponder]:
    made = OpenAIResponder(
        base_url=llm.url, api_key="sk-secret", model="m", first_token_timeout=0.8, total_timeout=2.5
    )
    yield made
    await made.close()


async def ask(model: Responder, text: str = "What is it?", max_tokens: int = 100) -> list[str]:
    pieces: list[str] = []
    return await collect(model, pieces, text, max_tokens)


async def collect(
    model: Responder, pieces: list[str], text: str = "What is it?", max_tokens: int = 100
) -> list[str]:
    async with aclosing(model.reply(text, TALK, system="Be brief.", max_tokens=max_tokens)) as all_:
        async for piece in all_:
            pieces.append(piece)
    return pieces


async def test_answers(llm: LoopbackLlm, model: OpenAIResponder) -> None:
    assert await ask(model) == ["You", " asked:", " What", " is", " it?"]
    exchange = llm.exchanges[0]
    assert exchange.head.startswith("POST /v1/chat/completions HTTP/1.1")
    assert "authorization: bearer sk-secret" in exchange.head.lower()
    assert exchange.asked == {
        "model": "m",
        "stream": True,
        "max_tokens": 100,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi."},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "What is it?"},
        ],
    }
    assert model.name == "m" and model.live


async def test_the_first_piece_does_not_wait_for_the_last(llm, model) -> None:
    llm.tokens_per_second = 20
    started = time.monotonic()
    times = []
    async for _ in model.reply("a b c d e f g h", (), system="", max_tokens=100):
        times.append(time.monotonic() - started)
    assert len(times) == 10
    assert times[0] < times[-1] / 2


ERRORS = [
    (401, {"error": {"message": "Incorrect key sk-secret"}}, SetupError, "refuses the key"),
    (403, {"error": {"message": "no"}}, SetupError, "refuses the key"),
    (404, {"error": {"message": "model m\n not found"}}, SetupError, "model m not found"),
    (400, {"error": {"message": "bad request for sk-secret"}}, LlmError, r"for \*\*\*"),
    (429, {"error": {"message": "slow down", "code": "rate"}}, LlmError, "no more requests"),
    (429, {"error": {"code": "insufficient_quota", "message": "pay"}}, SetupError, "no credit"),
    (500, {"error": {"message": "oops"}}, LlmError, "status 500: .*oops"),
    (503, "<html>busy</html>", LlmError, "status 503"),
]


@pytest.mark.parametrize(("code", "body", "kind", "words"), ERRORS)
async def test_errors(llm, model, code: int, body, kind: type[MuseTalkError], words: str) -> None:
    llm.answer = lambda exchange: exchange.status(code, body)
    with pytest.raises(kind, match=words) as caught:
        await ask(model)
    assert type(caught.value) is kind
    assert caught.value.remedy
    assert "sk-secret" not in str(caught.value) and "\n" not in str(caught.value)
    passing = kind is LlmError and code != 400
    assert len(llm.exchanges) == (2 if passing else 1)


@pytest.mark.parametrize("fault", ["status", "cut", "cut stream", "end", "error event"])
async def test_a_failure_before_the_first_piece_is_tried_again(llm, model, fault: str) -> None:
    async def answer(exchange: Exchange) -> None:
        if len(llm.exchanges) > 1:
            await llm.write(exchange)
        elif fault == "status":
            await exchange.status(500, {})
        elif fault == "cut":
            exchange.writer.transport.abort()
        else:
            await exchange.start()
            if fault == "cut stream":
                await asyncio.sleep(0.05)  # the head has arrived
                exchange.writer.transport.abort()
            elif fault == "error event":
                await exchange.event({"error": {"message": "overloaded"}})
            await exchange.end()

    llm.answer = answer
    assert "".join(await ask(model)) == "You asked: What is it?"
    assert len(llm.exchanges) == 2


@pytest.mark.parametrize("how", ["abort", "end", "error event"])
async def test_what_was_said_is_never_repeated(llm, model, how: str) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.token("One")
        await exchange.token(" two")
        if how == "abort":
            exchange.writer.transport.abort()
        elif how == "error event":
            await exchange.event({"error": {"message": "sk-secret exploded"}})
        else:
            await exchange.end()

    llm.answer = answer
    pieces: list[str] = []
    with pytest.raises(LlmError) as caught:
        await collect(model, pieces)
    assert pieces == ["One", " two"]
    assert len(llm.exchanges) == 1
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stall_has_a_deadline(llm, model, begun: bool) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start()
        if begun:
            await exchange.token("One")
        await asyncio.sleep(60)

    llm.answer = answer
    started = time.monotonic()
    with pytest.raises(LlmError, match="did not answer in time"):
        await ask(model)
    assert 0.7 < time.monotonic() - started < 8
    await until(lambda: llm.active == 0)


async def test_a_drip_has_a_deadline(llm, model) -> None:
    llm.tokens_per_second = 3
    llm.reply = lambda _: "word " * 50
    pieces: list[str] = []
    with pytest.raises(LlmError, match="did not answer in time"):
        await collect(model, pieces)
    assert 3 <= len(pieces) <= 12


NONSENSE = [
    ("text/html", b"<html>Welcome</html>", "text/html in place"),
    ("application/json", b'{"choices": [{"message": {"content": "x"}}]}', "application/json in"),
    ("text/event-stream", b"data: {broken\n\n", "no part of an answer"),
    ("text/event-stream", b"data: [1, 2]\n\n", "no part of an answer"),
    ("text/event-stream", b'data: {"choices": "x"}\n\n', "no part of an answer"),
    ("text/event-stream", b'data: {"choices": [{"delta": {"content": 7}}]}\n\n', "no part of"),
    ("text/event-stream", b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n', "no"),
    ("text/event-stream", b"data: [DONE]\n\n", "broke off"),
    ("text/event-stream", b"\xff\xfe\x00\n\n", "broke off|no part"),
]


@pytest.mark.parametrize(("kind", "body", "words"), NONSENSE)
async def test_nonsense(llm, model, kind: str, body: bytes, words: str) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start(kind)
        await exchange.raw(body)
        await exchange.end()

    llm.answer = answer
    with pytest.raises(LlmError, match=words):
        await ask(model)


async def test_a_server_without_an_end(llm, model) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start()
        while True:
            await exchange.token("word " * 50)

    llm.answer = answer
    with pytest.raises(LlmError, match="does not stop after 10 tokens"):
        await ask(model, max_tokens=10)
    await until(lambda: llm.active == 0)


async def test_an_answer_ends_with_its_end_though_the_server_holds_on(llm, model) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.token("Yes.", "stop")
        await asyncio.sleep(60)

    llm.answer = answer
    assert await ask(model) == ["Yes."]


async def test_the_other_name_of_the_length_is_tried_and_kept(llm, model) -> None:
    async def answer(exchange: Exchange) -> None:
        if "max_tokens" in exchange.asked:
            words = "'max_tokens' is not supported. Use 'max_completion_tokens' instead."
            await exchange.status(400, {"error": {"message": words}})
        else:
            await llm.write(exchange)

    llm.answer = answer
    assert "".join(await ask(model)) == "You asked: What is it?"
    assert "".join(await ask(model)) == "You asked: What is it?"
    assert ["max_tokens" in exchange.asked for exchange in llm.exchanges] == [True, False, False]


async def test_the_other_name_of_the_length_is_found_by_two_at_a_time(llm, model) -> None:
    both = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        if len(llm.exchanges) == 2:
            both.set()
        if "max_tokens" in exchange.asked:
            await both.wait()
            await exchange.status(400, {"error": {"message": "Use 'max_completion_tokens'."}})
        else:
            await llm.write(exchange)

    llm.answer = answer
    answers = await asyncio.gather(ask(model), ask(model))
    assert ["".join(pieces) for pieces in answers] == ["You asked: What is it?"] * 2


async def test_messages_of_one_author_in_a_row_become_one(llm, model) -> None:
    history = [Message("user", "Hi?"), Message("user", "Hello?"), *TALK[1:], *TALK[1:]]
    async for _ in model.reply("Well?", history, system="", max_tokens=9):
        pass
    assert llm.exchanges[0].asked["messages"][1:] == [
        {"role": "user", "content": "Hi?\nHello?"},
        {"role": "assistant", "content": "Hello.\nHello."},
        {"role": "user", "content": "Well?"},
    ]
    assert history[0] == Message("user", "Hi?")


async def test_what_was_said_before_any_question_is_told_in_the_instructions(llm, model) -> None:
    said = (
        Message("assistant", "Welcome!"),
        Message("assistant", "I am here."),
        Message("user", "Hi."),
        Message("assistant", "Hello."),
    )
    async for _ in model.reply("And now?", said, system="Be brief.", max_tokens=100):
        pass
    assert llm.exchanges[0].asked["messages"] == [
        {"role": "system", "content": "Be brief.\n\nBefore that you said: Welcome! I am here."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And now?"},
    ]


@pytest.mark.parametrize("cancel", [False, True])
async def test_hangs_up(llm, model, cancel: bool) -> None:
    llm.tokens_per_second = 10
    llm.reply = lambda _: "word " * 50
    if cancel:
        task = asyncio.create_task(ask(model))
        await until(lambda: llm.sent > 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        async with aclosing(model.reply("x", (), system="", max_tokens=100)) as pieces:
            await anext(pieces)
    await until(lambda: llm.active == 0)
    assert llm.sent < 20


async def test_nobody_there() -> None:
    model = OpenAIResponder(
        base_url="http://user:sk-pass@127.0.0.1:9/v1", api_key=None, model="m",
        first_token_timeout=2, total_timeout=4,
    )  # fmt: skip
    with pytest.raises(LlmError, match="cannot be reached") as caught:
        await ask(model)
    assert "sk-pass" not in str(caught.value)
    await model.close()


async def test_by_settings(llm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    own = responder(Settings(llm_base_url=llm.url, llm_model="own", _env_file=None))
    assert "".join(await ask(own)) == "You asked: What is it?"
    assert "sk-of-somebody" not in llm.exchanges[0].head
    assert own.name == "own"
    await own.close()
    keyed = responder(Settings(llm_api_key=SecretStr("k"), _env_file=None))
    assert keyed.live
    await keyed.close()


def test_instructions_name_the_language() -> None:
    settings = Settings(llm_system_prompt="Be kind.", _env_file=None)
    assert instructions(settings, "fr-FR") == "Be kind. Answer in French."
    assert instructions(settings, "xx") == "Be kind."
    assert (
        instructions(settings, "fr", "You sell tea.") == "Be kind. You sell tea. Answer in French."
    )
    assert json.dumps(instructions(settings))


async def until(condition, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
