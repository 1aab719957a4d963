"""Bodies of requests for speech: a JSON text or a multipart recording, within limits."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message

from orchestrator.errors import UsageError
from orchestrator.rendering.tasks import within
from orchestrator.replies.responder import LANGUAGES
from orchestrator.settings import Settings

T = TypeVar("T")

VOICE: Final = "an id of /v1/voices; the server's voice without one"
Language = Annotated[
    str,
    Field(
        max_length=20,
        description="of the text; English without one",
        json_schema_extra={"enum": list(LANGUAGES)},
    ),
]

_BODY_TIMEOUT: Final = 60.0
_JSON_BYTES: Final = 256 * 1024
_FORM_OVERHEAD: Final = 64 * 1024


@dataclass(frozen=True)
class Order:
    """A parsed request: either ``text`` or ``audio``."""

    avatar: str | None
    fps: int | None
    text: str | None = None
    audio: bytes | None = None
    stream: bool = False
    voice: str | None = None
    language: str | None = None


class SpeakBody(BaseModel):
    """JSON body of ``POST /v1/speak``."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(min_length=1)]
    avatar: str | None = None
    voice: Annotated[str, Field(max_length=100, description=VOICE)] | None = None
    language: Language | None = None
    fps: Annotated[int, Field(ge=8, le=49)] | None = None
    stream: Annotated[
        bool, Field(description="send a fragmented MP4 while it is made, not a finished one")
    ] = False


class SpeakForm(BaseModel):
    """Fields of a multipart ``POST /v1/speak``, beside the file ``audio``."""

    model_config = ConfigDict(extra="forbid")

    avatar: str | None = None
    voice: Annotated[str, Field(max_length=100, description=VOICE)] | None = None
    fps: Annotated[int, Field(ge=8, le=49)] | None = None
    stream: Annotated[
        bool, Field(description="send a fragmented MP4 while it is made, not a finished one")
    ] = False


SPEAK_DOC: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": SpeakBody.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["audio"],
                    "properties": {
                        "audio": {"type": "string", "format": "binary"},
                        **SpeakForm.model_json_schema()["properties"],
                    },
                }
            },
        },
    }
}


async def read_order(request: Request, settings: Settings) -> Order:
    """Parse the body of ``POST /v1/speak``; raises what ``read_body`` raises."""
    fields, audio = await read_body(
        request, settings.max_audio_bytes, body=SpeakBody, form=SpeakForm
    )
    return Order(audio=audio, **fields)


async def read_body(
    request: Request, most: int, *, body: type[BaseModel], form: type[BaseModel]
) -> tuple[dict[str, Any], bytes | None]:
    """Parse JSON, or a form with the file ``audio``, within limits of size and time.

    Args:
        request: whose body was not read yet.
        most: bytes of the file.
        body: what JSON may hold.
        form: what a form may hold beside the file.

    Returns:
        The fields, and the file if it was a form.

    Raises:
        UsageError: fields that cannot be used.
        HTTPException: 408 for a body that does not end, 413 for one that is too large, 415 for
            one of another kind.
    """
    return await _in_time(_parse(request, most, body, form))


async def read_form(
    request: Request, most: int, form: type[BaseModel]
) -> tuple[dict[str, Any], bytes]:
    """Parse a form with the file ``audio``; arguments and errors are those of ``read_body``."""
    if _kind(request) != "multipart/form-data":
        raise HTTPException(415, "send multipart/form-data")
    return await _in_time(_parse_form(request, most, form))


async def _in_time(parsing: Awaitable[T]) -> T:
    try:
        return await within(parsing, _BODY_TIMEOUT)
    except TimeoutError as error:
        closing = {"Connection": "close"}
        raise HTTPException(408, "the request took too long to arrive", closing) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise UsageError(f"{where}: {first['msg']}") from error


async def _parse(
    request: Request, most: int, body: type[BaseModel], form: type[BaseModel]
) -> tuple[dict[str, Any], bytes | None]:
    kind = _kind(request)
    if kind == "application/json":
        json = await limited(request, _JSON_BYTES).body()
        return body.model_validate_json(json).model_dump(), None
    if kind == "multipart/form-data":
        return await _parse_form(request, most, form)
    raise HTTPException(415, "send application/json or multipart/form-data")


async def _parse_form(
    request: Request, most: int, form: type[BaseModel]
) -> tuple[dict[str, Any], bytes]:
    whole = limited(request, most + _FORM_OVERHEAD)
    async with whole.form(max_files=1, max_fields=8) as sent:
        fields = {key: value for key, value in sent.items() if key != "audio"}
        values = form.model_validate(fields)
        audio = sent.get("audio")
        if not isinstance(audio, UploadFile):
            raise UsageError("the form has no file in its field audio")
        return values.model_dump(), await audio.read()


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def limited(request: Request, limit: int) -> Request:
    """The same request, whose body ends in an error past ``limit`` bytes.

    Raises:
        HTTPException: 413, at once where the request says its length.
    """
    declared = request.headers.get("content-length", "0")
    # Closed, or the server would read on to the end of a body that may have none.
    closing = {"Connection": "close"}
    too_large = HTTPException(413, f"the body is larger than {limit / (1 << 20):.3g} MB", closing)
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_large
        return message

    return Request(request.scope, receive)
