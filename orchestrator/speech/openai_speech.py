"""Any server that speaks OpenAI's ``/v1/audio/speech``, streamed as raw samples.

Asked for is ``response_format="pcm"``: 24 kHz, signed 16 bit, mono, without a header, so that
the first samples can be used when they arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import numpy as np
import openai

from orchestrator.errors import MuseTalkError, SpeechError
from orchestrator.openai_api import Endpoint
from orchestrator.speech.text import speakable
from orchestrator.speech.tts import SpeechChunk

RATE: Final = 24_000
"""Samples a second of the ``pcm`` format."""

_CHUNK_BYTES: Final = RATE // 10 * 2
_RETRIES: Final = 1
# A text that it could not speak is never sent: any refusal is of the model or the voice.
_UNSUITABLE: Final = frozenset({400, 404, 405, 410, 422})

# No voice takes a second for each character: a server that sends more does not stop by itself.
_SPARE_SECONDS: Final = 30.0
_SECONDS_PER_CHAR: Final = 1.0

_FILE_HEADERS: Final = (b"RIFF", b"OggS", b"fLaC", b"ID3", b"\xff\xfb", b"\xff\xf3")
_TEXT_TYPES: Final = ("text/", "application/json", "application/xml", "application/problem")


class OpenAISynthesizer:
    """A ``SpeechSynthesizer`` over HTTP.

    Args:
        base_url: of the API, up to and with ``/v1``; None is OpenAI's own.
        api_key: None for servers that want none; the environment's OPENAI_API_KEY is not read,
            so that it is never sent to somebody else's server.
        model: name that the server knows.
        voice: name that the server knows.
        timeout: seconds until the first, and then each next, piece of speech.
        max_chars: a longer text is refused.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: str | None,
        model: str,
        voice: str,
        timeout: float,
        max_chars: int,
    ) -> None:
        self._model = model
        self._voice = voice
        self._timeout = timeout
        self._max_chars = max_chars
        self._endpoint = Endpoint(
            "speech server", "MUSETALK_TTS", SpeechError, base_url, api_key, unsuitable=_UNSUITABLE
        )
        self._client = self._endpoint.client(timeout, retries=_RETRIES)

    @property
    def name(self) -> str:
        """Model and voice."""
        return f"{self._model}/{self._voice}"

    async def synthesize(
        self, text: str, *, language: str | None = None
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Speak a text; the voice finds its language out by itself.

        Raises:
            UsageError: the text is empty or too long.
            SpeechError: the server failed, cut off, sent something else, or took too long.
            SetupError: key, address, model or voice are refused.
        """
        text = speakable(text, self._max_chars)
        limit = int((_SPARE_SECONDS + _SECONDS_PER_CHAR * len(text)) * RATE) * 2
        request = self._client.audio.speech.with_streaming_response.create(
            model=self._model, voice=self._voice, input=text, response_format="pcm"
        )
        received, rest = 0, b""
        try:
            async with request as response:
                _check_type(response.headers.get("content-type", ""))
                pieces = response.iter_bytes(_CHUNK_BYTES)
                while piece := await self._next(pieces):
                    if not received and piece.startswith(_FILE_HEADERS):
                        raise SpeechError(
                            "the speech server sent a sound file in place of raw samples",
                            remedy="it does not know response_format=pcm; use another server",
                        )
                    received += len(piece)
                    if received > limit:
                        raise SpeechError("the speech server does not stop sending")
                    data = rest + piece
                    whole = len(data) // 2 * 2
                    rest = data[whole:]
                    if whole:
                        pcm = np.frombuffer(data[:whole], "<i2").astype(np.int16)
                        yield SpeechChunk(pcm, RATE)
        except openai.APIError as error:
            raise self._explain(error) from error
        if received < 2:
            raise SpeechError("the speech server sent no speech")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes:
        """The next bytes, or none at the end."""
        try:
            return await asyncio.wait_for(anext(pieces, b""), self._timeout)
        except openai.APIError:
            raise
        except Exception as error:
            # Which HTTP library the client reads with, and so its errors, depends on its version.
            if "Timeout" in type(error).__name__:
                raise self._silence() from error
            raise SpeechError(f"the speech was cut off: {error}") from error

    def _explain(self, error: openai.APIError) -> MuseTalkError:
        """Which of our errors it is: what the operator must change, or what may pass."""
        if isinstance(error, openai.APITimeoutError):
            return self._silence()
        return self._endpoint.explain(error)

    def _silence(self) -> SpeechError:
        return SpeechError(f"the speech server sent nothing for {self._timeout:g} s")


def _check_type(content_type: str) -> None:
    if content_type.lower().startswith(_TEXT_TYPES):
        raise SpeechError(
            f"the speech server sent {content_type.split(';')[0]} in place of speech",
            remedy="check MUSETALK_TTS_BASE_URL",
        )
