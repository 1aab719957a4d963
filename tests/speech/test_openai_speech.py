from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import numpy as np
import pytest
from pydantic import SecretStr

from orchestrator.errors import MuseTalkError, SetupError, SpeechError, UsageError
from orchestrator.settings import Settings
from orchestrator.speech.openai_speech import OpenAISynthesizer
from orchestrator.speech.tts import synthesizer

PCM = (8000 * np.sin(2 * np.pi * 300 * np.arange(36_001) / 24000)).astype(np.int16)
Answer = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request and the raw bytes of its answer."""

    def __init__(self, writer: asyncio.StreamWriter, head: str, body: bytes) -> None:
        self.writer, self.head, self.body = writer, head, body

    async def status(self, code: int, body: dict | str, *headers: str) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        kind = "text/html" if isinstance(body, str) else "application/json"
        self.writer.write(
            f"HTTP/1.1 {code} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
            f"{''.join(h + chr(13) + chr(10) for h in headers)}\r\n".encode()
            + data
        )
        await self.writer.drain()

    async def start(self, kind: str = "audio/pcm") -> None:
        self.writer.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
            + f"Content-Type: {kind}\r\n\r\n".encode()
        )
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.writer.drain()

    async def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()


class Server:
    """A loopback server of ``/v1/audio/speech`` that answers as a test says."""

    def __init__(self) -> None:
        self.answer: Answer = speak_pcm
        self.exchanges: list[Exchange] = []
        self.closed = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (
                        int(line.split(":")[1])
                        for line in head.lower().splitlines()
                        if line.startswith("content-length:")
                    ),
                    0,
                )
                exchange = Exchange(writer, head, await reader.readexactly(length))
                self.exchanges.append(exchange)
                await self.answer(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed.set()
            writer.close()


async def speak_pcm(exchange: Exchange) -> None:
    data = PCM.tobytes()
    await exchange.start()
    for start in range(0, len(data), 1777):  # odd: samples are cut in two
        await exchange.chunk(data[start : start + 1777])
    await exchange.end()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listener = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    yield made
    listener.close()


@pytest.fixture
async def voice(server: Server) -> AsyncIterator[OpenAISynthesizer]:
    made = OpenAISynthesizer(
        base_url=server.url, api_key="sk-secret", model="m", voice="v", timeout=2, max_chars=500
    )
    yield made
    await made.close()


async def speak(voice: OpenAISynthesizer, text: str = "Hello.") -> np.ndarray:
    chunks = [chunk async for chunk in voice.synthesize(text, language="en")]
    assert {chunk.rate for chunk in chunks} == {24000}
    return np.concatenate([chunk.pcm for chunk in chunks])


async def test_speaks(server: Server, voice: OpenAISynthesizer) -> None:
    np.testing.assert_array_equal(await speak(voice, "Hello\nthere."), PCM)
    exchange = server.exchanges[0]
    assert exchange.head.startswith("POST /v1/audio/speech HTTP/1.1")
    assert "authorization: bearer sk-secret" in exchange.head.lower()
    assert json.loads(exchange.body) == {
        "model": "m", "voice": "v", "input": "Hello there.", "response_format": "pcm",
    }  # fmt: skip
    assert voice.name == "m/v"


async def test_the_first_chunk_does_not_wait_for_the_last(server, voice) -> None:
    last = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.chunk(PCM[:12000].tobytes())
        await asyncio.wait_for(last.wait(), 10)
        await exchange.chunk(PCM[12000:].tobytes())
        await exchange.end()

    server.answer = answer
    async with aclosing(voice.synthesize("Hello.")) as chunks:
        parts = [(await anext(chunks)).pcm]
        last.set()
        parts += [chunk.pcm async for chunk in chunks]
    np.testing.assert_array_equal(np.concatenate(parts), PCM)


ERRORS = [
    (401, {"error": {"message": "Incorrect key sk-secret"}}, SetupError, "refuses the key"),
    (403, {"error": {"message": "no"}}, SetupError, "refuses the key"),
    (404, {"error": {"message": "model m not found"}}, SetupError, "model m not found"),
    (400, {"error": {"message": "unknown\n voice v"}}, SetupError, "unknown voice v"),
    (429, {"error": {"message": "slow down", "code": "rate"}}, SpeechError, "no more requests"),
    (429, {"error": {"code": "insufficient_quota", "message": "pay"}}, SetupError, "no credit"),
    (500, {"error": {"message": "oops"}}, SpeechError, "failed"),
    (503, "<html>busy</html>", SpeechError, "failed"),
]


@pytest.mark.parametrize(("code", "body", "kind", "words"), ERRORS)
async def test_errors(server, voice, code: int, body, kind: type[MuseTalkError], words) -> None:
    server.answer = lambda exchange: exchange.status(code, body, "retry-after-ms: 1")
    with pytest.raises(kind, match=words) as caught:
        await speak(voice)
    assert type(caught.value) is kind
    assert "sk-secret" not in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.exchanges) == (2 if code in (429, 500, 503) else 1)


async def test_a_passing_failure_is_tried_again(server, voice) -> None:
    async def answer(exchange: Exchange) -> None:
        if len(server.exchanges) == 1:
            await exchange.status(500, {}, "retry-after-ms: 1")
        else:
            await speak_pcm(exchange)

    server.answer = answer
    np.testing.assert_array_equal(await speak(voice), PCM)


async def test_nobody_there() -> None:
    voice = OpenAISynthesizer(
        base_url="http://127.0.0.1:9/v1", api_key=None, model="m", voice="v", timeout=2,
        max_chars=9,
    )  # fmt: skip
    with pytest.raises(SpeechError, match="cannot be reached"):
        await speak(voice)
    await voice.close()


@pytest.mark.parametrize("begun", [False, True])
async def test_silence_has_a_deadline(server, voice, begun: bool) -> None:
    async def answer(exchange: Exchange) -> None:
        if begun:
            await exchange.start()
            await exchange.chunk(PCM.tobytes())
        await asyncio.sleep(60)

    server.answer = answer
    started = time.monotonic()
    with pytest.raises(SpeechError, match="nothing for 2 s"):
        await speak(voice)
    assert time.monotonic() - started < 15


async def test_cut_off(server, voice) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start()
        await exchange.chunk(PCM.tobytes())
        exchange.writer.transport.abort()

    server.answer = answer
    with pytest.raises(SpeechError, match="cut off"):
        await speak(voice)


NONSENSE = [
    ("text/html; charset=utf-8", b"<html>Welcome</html>", "sent text/html in place"),
    ("application/json", b'{"ok": true}', "sent application/json in place"),
    ("audio/wav", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(5000), "sound file"),
    ("audio/pcm", b"", "no speech"),
    ("audio/pcm", b"x", "no speech"),
]


@pytest.mark.parametrize(("kind", "body", "words"), NONSENSE)
async def test_nonsense(server, voice, kind: str, body: bytes, words: str) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start(kind)
        if body:
            await exchange.chunk(body)
        await exchange.end()

    server.answer = answer
    with pytest.raises(SpeechError, match=words):
        await speak(voice)


async def test_a_server_without_an_end(server, voice) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start()
        while True:
            await exchange.chunk(bytes(1 << 16))

    server.answer = answer
    with pytest.raises(SpeechError, match="does not stop"):
        await speak(voice)


async def test_cancel_hangs_up(server, voice) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.start()
        while True:
            await exchange.chunk(PCM.tobytes())
            await asyncio.sleep(0.05)

    server.answer = answer
    async with aclosing(voice.synthesize("Hello.")) as chunks:
        await anext(chunks)
    await asyncio.wait_for(server.closed.wait(), 10)


async def test_nothing_to_say(server, voice) -> None:
    for text in ("", "...", "x" * 501):
        with pytest.raises(UsageError):
            await speak(voice, text)
    assert not server.exchanges


async def test_by_settings(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(SetupError, match="needs a key"):
        synthesizer(Settings(tts="openai", _env_file=None))
    own = synthesizer(Settings(tts="openai", tts_base_url=server.url, _env_file=None))
    assert [chunk async for chunk in own.synthesize("Hello.")]
    assert "sk-of-somebody" not in server.exchanges[0].head
    await own.close()
    keyed = synthesizer(Settings(tts="openai", tts_api_key=SecretStr("k"), _env_file=None))
    assert keyed.name == "tts-1/alloy"
    await keyed.close()
