"""``/v1/avatars``: list, add, look at, delete."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from orchestrator.api.access import owner_of
from orchestrator.api.orders import limited
from orchestrator.api.problems import documented
from orchestrator.api.service import Service
from orchestrator.errors import UsageError
from orchestrator.rendering.library import Library
from orchestrator.rendering.listing import Listed
from orchestrator.rendering.tasks import within

_FORM_OVERHEAD: Final = 64 * 1024
_UPLOAD_SECONDS: Final = 300.0
_UPLOADS: Final = 4
_ID: Final = "b5bb9d8014a0f9b1d61e21e796d78dcc"
_FIELDS: Final = {"file", "name", "consent"}


class AvatarError(BaseModel):
    """Why an avatar could not be made."""

    code: Annotated[str, Field(examples=["bad_avatar"])]
    detail: Annotated[str, Field(examples=["there is no face in the picture"])]
    remedy: str = ""


class Avatar(BaseModel):
    """A talking portrait, or one that is being made."""

    id: Annotated[str, Field(examples=["amara", _ID])]
    name: Annotated[str, Field(examples=["Amara"])]
    status: Literal["preparing", "ready", "failed"]
    progress: Annotated[float, Field(ge=0, le=1)]
    width: Annotated[int | None, Field(description="of the frames; null until known")] = None
    height: int | None = None
    fps: int | None = None
    frames: int | None = None
    consent: Annotated[str, Field(description="who agreed to this use of their face, and how")]
    notes: Annotated[list[str], Field(description="what preparation changed or noticed")] = []
    deletable: Annotated[bool, Field(description="by you")]
    error: AvatarError | None = None


class Avatars(BaseModel):
    """The avatars that you may use, portraits first."""

    avatars: list[Avatar]


_UPLOAD_DOC: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "name", "consent"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "picture or video of one person; 10 s are plenty",
                        },
                        "name": {"type": "string", "minLength": 1, "maxLength": 64},
                        "consent": {
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 500,
                            "description": "who agreed to this use of their face, and how",
                            "example": "Ana Silva, in writing, 2026-11-02",
                        },
                    },
                }
            }
        },
    }
}
_JPEG: Final = {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
_MP4: Final = {"content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}}
_PICTURE_CACHING: Final = {"Cache-Control": "private, max-age=300"}


def router(service: Service) -> APIRouter:
    """``/v1/avatars``.

    Args:
        service: its ``library`` may be set later.
    """
    routes = APIRouter(prefix="/v1/avatars", tags=["avatars"])
    uploads = asyncio.Semaphore(_UPLOADS)

    @routes.get("", responses=documented(503))
    async def list_avatars(request: Request) -> Avatars:
        """The avatars that you may use."""
        owner = owner_of(request)
        found = await service.require_library().visible(owner)
        return Avatars(avatars=[_avatar(one, owner) for one in found])

    @routes.post(
        "",
        status_code=202,
        response_model=Avatar,
        responses=documented(400, 408, 413, 415, 422, 429, 503),
        openapi_extra=_UPLOAD_DOC,
    )
    async def add(request: Request, response: Response) -> Avatar:
        """Make an avatar of a picture or video; its ``progress`` says how far it is."""
        library, owner = service.require_library(), owner_of(request)
        async with uploads:
            try:
                made = await within(
                    _receive(request, library, owner, service.settings.max_avatar_bytes),
                    _UPLOAD_SECONDS,
                )
            except TimeoutError as error:
                closing = {"Connection": "close"}
                raise HTTPException(408, "the request took too long to arrive", closing) from error
        response.headers["Location"] = f"/v1/avatars/{made.id}"
        return _avatar(made, owner)

    @routes.get("/{avatar}", responses=documented(404, 503))
    async def retrieve(request: Request, avatar: str) -> Avatar:
        """One avatar."""
        owner = owner_of(request)
        return _avatar(await service.require_library().get(owner, avatar), owner)

    @routes.delete("/{avatar}", status_code=204, responses=documented(400, 404, 503))
    async def delete(request: Request, avatar: str) -> Response:
        """Delete an avatar and all that was made of its file."""
        await service.require_library().delete(owner_of(request), avatar)
        return Response(status_code=204)

    @routes.get(
        "/{avatar}/preview.mp4",
        response_class=Response,
        responses={200: _MP4, **documented(404, 409, 502, 503, 504)},
    )
    async def preview(request: Request, avatar: str) -> Response:
        """A few seconds of the avatar, silent."""
        path = await service.require_library().preview(owner_of(request), avatar)
        return FileResponse(path, media_type="video/mp4", headers=_PICTURE_CACHING)

    @routes.get(
        "/{avatar}/poster.jpg",
        response_class=Response,
        responses={200: _JPEG, **documented(404, 409, 502, 503, 504)},
    )
    async def poster(request: Request, avatar: str) -> Response:
        """The first frame."""
        jpeg = await service.require_library().poster(owner_of(request), avatar)
        return Response(jpeg, media_type="image/jpeg", headers=_PICTURE_CACHING)

    @routes.get(
        "/{avatar}/sheet.jpg",
        response_class=Response,
        responses={200: _JPEG, **documented(404, 409, 502, 503, 504)},
    )
    async def sheet(request: Request, avatar: str) -> Response:
        """Frames with the face box and the mask drawn in."""
        jpeg = await service.require_library().sheet(owner_of(request), avatar)
        return Response(jpeg, media_type="image/jpeg", headers=_PICTURE_CACHING)

    return routes


async def _receive(request: Request, library: Library, owner: str, limit: int) -> Listed:
    """Take in the form; the client's file name is not used for anything.

    Raises:
        MuseTalkError: the form or the file is refused; nothing is left of it then.
        HTTPException: 413 for a body that is too large, 415 for one that is no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HTTPException(415, "send multipart/form-data with file, name and consent")
    async with _form(request, limit) as form, library.upload() as target:
        file, name, consent = form.get("file"), form.get("name"), form.get("consent")
        if not isinstance(file, UploadFile):
            raise UsageError("the form has no file in its field file")
        if unknown := sorted(set(form) - _FIELDS):
            raise UsageError(f"the form has an unknown field {unknown[0][:40]!r}")
        if not isinstance(name, str):
            raise UsageError("the form has no field name")
        await asyncio.to_thread(_copy, file, target)
        return await library.add(
            owner,
            target,
            declared=file.content_type or "",
            name=name,
            consent=consent if isinstance(consent, str) else "",
        )


@asynccontextmanager
async def _form(request: Request, limit: int) -> AsyncIterator[FormData]:
    try:
        form = await limited(request, limit + _FORM_OVERHEAD).form(max_files=1, max_fields=4)
    except HTTPException as error:
        if error.status_code != 413:
            raise
        told = f"the file is larger than {limit / (1 << 20):.3g} MB; 10 s of video are plenty"
        raise HTTPException(413, told, error.headers) from error
    try:
        yield form
    finally:
        await form.close()


def _copy(file: UploadFile, target: Path) -> None:
    with target.open("xb") as output:
        shutil.copyfileobj(file.file, output, 1 << 20)


def _avatar(listed: Listed, owner: str) -> Avatar:
    error = listed.error
    return Avatar(
        id=listed.id,
        name=listed.name,
        status=listed.status,
        progress=listed.progress,
        width=listed.width,
        height=listed.height,
        fps=listed.fps,
        frames=listed.frames,
        consent=listed.consent,
        notes=listed.notes,
        deletable=listed.is_deletable_by(owner),
        error=AvatarError(code=error.code, detail=error.message, remedy=error.remedy)
        if error
        else None,
    )
