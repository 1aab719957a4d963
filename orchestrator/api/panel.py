"""What the studio shows beside the picture: numbers of the moment, voices, dictation."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from orchestrator.api.orders import read_form
from orchestrator.api.problems import documented
from orchestrator.api.service import Service
from orchestrator.speech.transcribe import transcriber
from orchestrator.stats import Stats

_MAX_DICTATION_BYTES: Final = 20 << 20
_DICTATIONS: Final = 4
_LOCALE: Final = re.compile(r"(?:^|/)([a-z]{2})_[A-Z]{2}")


class Voice(BaseModel):
    """A voice that texts can be spoken with.

    Attributes:
        id: what ``join`` takes.
        name: for people.
        language: ISO 639 code; empty when the voice speaks several.
        engine: what makes it.
    """

    id: str
    name: str
    language: str
    engine: str


class Voices(BaseModel):
    """What this server can speak and hear.

    Attributes:
        voices: that there are.
        transcription: whether it writes down what is said to it.
        llm: whether a language model answers.
    """

    voices: list[Voice]
    transcription: bool
    llm: bool


class DictationForm(BaseModel):
    """Fields of a dictation, beside the recording in ``audio``."""

    model_config = ConfigDict(extra="forbid")

    language: Annotated[str, Field(max_length=8, description="ISO 639 code")] | None = None


class Transcript(BaseModel):
    """What was said; empty where nothing was."""

    text: str


_DICTATION_DOC: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["audio"],
                    "properties": {
                        "audio": {
                            "type": "string",
                            "format": "binary",
                            "description": "WAV, WebM, MP3 or MP4",
                        },
                        **DictationForm.model_json_schema()["properties"],
                    },
                }
            }
        },
    }
}


def router(service: Service) -> APIRouter:
    """``/v1/stats``, ``/v1/voices`` and ``/v1/transcriptions``.

    Args:
        service: what is asked.
    """
    routes = APIRouter(tags=["studio"])
    stats = _stats(service)
    dictations = asyncio.Semaphore(_DICTATIONS)

    @routes.get("/v1/stats", responses=documented(503))
    async def numbers() -> dict[str, Any]:
        """Sessions, Triton's models, the machine: numbers of the last second."""
        return await stats.snapshot()

    @routes.get("/v1/voices", responses=documented(503))
    async def voices() -> Voices:
        """What this server can speak and hear."""
        voice = service.require_renderer().voice.name
        engine, _, name = voice.partition("/")
        settings = service.settings
        return Voices(
            voices=[Voice(id=voice, name=name or engine, language=_language(voice), engine=engine)],
            transcription=settings.stt_base_url is not None,
            llm=settings.llm_base_url is not None or settings.llm_api_key is not None,
        )

    @routes.post(
        "/v1/transcriptions",
        response_model=Transcript,
        responses=documented(400, 408, 413, 415, 502, 503),
        openapi_extra=_DICTATION_DOC,
    )
    async def transcriptions(request: Request) -> Any:
        """Write down what was said, by the server of MUSETALK_STT_BASE_URL."""
        listener = transcriber(service.settings)
        try:
            # Few recordings at a time lie in memory; the others wait unread.
            async with dictations:
                fields, sound = await read_form(request, _MAX_DICTATION_BYTES, DictationForm)
                name = "speech.webm" if sound[:4] == b"\x1a\x45\xdf\xa3" else "speech.wav"
                return Transcript(text=await listener.transcribe(sound, name, fields["language"]))
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            await listener.close()

    return routes


def _stats(service: Service) -> Stats:
    def sessions() -> dict[str, int]:
        limit = {"limit": service.settings.max_sessions}
        return limit if service.sessions is None else limit | service.sessions.states()

    def triton() -> Any:
        return service.require_renderer().inference

    def pending(model: str) -> int:
        return 0 if service.sessions is None else service.sessions.waiting().get(model, 0)

    return Stats(sessions=sessions, triton=triton, pending=pending)


def _language(voice: str) -> str:
    """The language in a name such as ``piper/en_US-joe-medium``; else empty."""
    found = _LOCALE.search(voice)
    return found[1] if found else ""
