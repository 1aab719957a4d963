"""What the studio shows beside the picture: numbers of the moment, voices, dictation."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, File, Form, UploadFile
from pydantic import BaseModel

from orchestrator.api.service import Service
from orchestrator.errors import MediaError
from orchestrator.speech.transcribe import transcriber
from orchestrator.stats import Stats

_MAX_DICTATION_BYTES: Final = 20 << 20
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


class Transcript(BaseModel):
    """What was said; empty where nothing was."""

    text: str


def router(service: Service) -> APIRouter:
    """``/v1/stats``, ``/v1/voices`` and ``/v1/transcriptions``.

    Args:
        service: what is asked.
    """
    routes = APIRouter(tags=["studio"])
    stats = _stats(service)

    @routes.get("/v1/stats")
    async def numbers() -> dict[str, Any]:
        """Sessions, Triton's models, the machine: numbers of the last second."""
        return await stats.snapshot()

    @routes.get("/v1/voices")
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

    @routes.post("/v1/transcriptions")
    async def transcriptions(
        audio: Annotated[UploadFile, File(description="WAV, WebM, MP3 or MP4")],
        language: Annotated[str | None, Form(max_length=8)] = None,
    ) -> Transcript:
        """Write down what was said, by the server of MUSETALK_STT_BASE_URL."""
        listener = transcriber(service.settings)
        try:
            sound = await audio.read(_MAX_DICTATION_BYTES + 1)
            if len(sound) > _MAX_DICTATION_BYTES:
                raise MediaError(
                    f"the recording is larger than {_MAX_DICTATION_BYTES >> 20} MB",
                    remedy="dictate in shorter pieces",
                )
            name = "speech.webm" if sound[:4] == b"\x1a\x45\xdf\xa3" else "speech.wav"
            return Transcript(text=await listener.transcribe(sound, name, language))
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
