from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from loadtests.loopback_llm import LoopbackLlm, loopback_llm
from orchestrator.errors import MediaError, MuseTalkError, SetupError, SpeechError
from orchestrator.settings import Settings
from orchestrator.speech.transcribe import Transcriber, transcriber


@pytest.fixture
async def server() -> AsyncIterator[LoopbackLlm]:
    async with loopback_llm() as made:
        made.answer = lambda exchange: exchange.status(200, {"text": " Hello\n there. "})
        yield made


@pytest.fixture
async def listener(server: LoopbackLlm) -> AsyncIterator[Transcriber]:
    made = Transcriber(base_url=server.url, api_key="sk-secret", model="m", timeout=2)
    yield made
    await made.close()


async def test_transcribes(server: LoopbackLlm, listener: Transcriber) -> None:
    assert await listener.transcribe(b"RIFFsound", "said.wav", "fr") == "Hello there."
    exchange = server.exchanges[0]
    assert exchange.head.startswith("POST /v1/audio/transcriptions HTTP/1.1")
    assert b'filename="said.wav"' in exchange.body and b"RIFFsound" in exchange.body
    for name, value in ((b"model", b"m"), (b"language", b"fr"), (b"response_format", b"json")):
        assert b'name="%s"\r\n\r\n%s\r\n' % (name, value) in exchange.body


ERRORS = [
    (401, {"error": {"message": "bad sk-secret"}}, SetupError, "refuses the key"),
    (404, {"error": {"message": "no model m"}}, SetupError, "no model m"),
    (400, {"error": {"message": "not audio"}}, MediaError, "cannot use this recording"),
    (429, {"error": {"message": "slow"}}, SpeechError, "no more requests"),
    (500, {"error": {"message": "sk-secret"}}, SpeechError, "status 500"),
    (200, "<html>Hi</html>", SpeechError, "no transcript"),
    (200, {"words": []}, SpeechError, "no transcript"),
    (200, {"text": 7}, SpeechError, "no transcript"),
]


@pytest.mark.parametrize(("code", "body", "kind", "words"), ERRORS)
async def test_errors(
    server: LoopbackLlm, listener: Transcriber, code: int, body, kind: type[MuseTalkError], words
) -> None:
    server.answer = lambda exchange: exchange.status(code, body, "retry-after-ms: 1")
    with pytest.raises(kind, match=words) as caught:
        await listener.transcribe(b"x", "x.wav")
    assert type(caught.value) is kind and caught.value.remedy
    assert "sk-secret" not in str(caught.value)


async def test_silence_has_a_deadline(server: LoopbackLlm, listener: Transcriber) -> None:
    server.answer = lambda exchange: asyncio.sleep(60)
    with pytest.raises(SpeechError, match="did not answer"):
        await listener.transcribe(b"x", "x.wav")


async def test_by_settings(server: LoopbackLlm) -> None:
    with pytest.raises(SetupError, match="no transcription server"):
        transcriber(Settings(stt_base_url=None, _env_file=None))
    made = transcriber(Settings(stt_base_url=server.url, stt_model="w", _env_file=None))
    assert await made.transcribe(b"x", "x.wav") == "Hello there."
    await made.close()
