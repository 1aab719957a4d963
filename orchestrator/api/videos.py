"""Video jobs over HTTP: ``/v1/videos``."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from orchestrator.api.access import owner_of
from orchestrator.api.orders import VOICE, Language, read_body
from orchestrator.api.problems import documented, problem
from orchestrator.api.ranges import UnsatisfiableRangeError, is_unchanged, wanted_range
from orchestrator.jobs.job import Job
from orchestrator.jobs.order import MAX_KEY, Order

if TYPE_CHECKING:
    from orchestrator.api.service import Service

_UPLOADS: Final = 4
_ID: Final = "9f86d081884c7d659a2feaa0c55ad015"

Profile = Literal["quality", "economy", "classic"]


class VideoOrder(BaseModel):
    """What a video is made from: ``text`` to say, or a ``message`` to answer."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"text": "Welcome. This video was made in the background.", "avatar": "amara"},
                {"message": "What can you do for me?", "profile": "economy"},
            ]
        },
    )

    text: Annotated[str, Field(min_length=1, description="what the avatar says")] | None = None
    message: Annotated[str, Field(min_length=1, description="what the avatar answers")] | None = (
        None
    )
    avatar: Annotated[str, Field(description="id; the default avatar without one")] | None = None
    voice: Annotated[str, Field(max_length=100, description=VOICE)] | None = None
    language: Language | None = None
    fps: Annotated[int, Field(ge=8, le=49, description="frames a second")] | None = None
    profile: Profile | None = None


class VideoForm(BaseModel):
    """Fields of a multipart order, beside the recording in ``audio``."""

    model_config = ConfigDict(extra="forbid")

    avatar: str | None = None
    voice: Annotated[str, Field(max_length=100, description=VOICE)] | None = None
    fps: Annotated[int, Field(ge=8, le=49)] | None = None
    profile: Profile | None = None


class VideoError(BaseModel):
    """Why a job failed."""

    code: Annotated[str, Field(examples=["speech"])]
    detail: Annotated[str, Field(examples=["the speech server sent nothing for 30 s"])]
    remedy: str = ""


class Video(BaseModel):
    """A video job."""

    id: Annotated[str, Field(examples=[_ID])]
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    stage: Annotated[
        Literal["queued", "llm", "tts", "render", "publish", "done"],
        Field(description="what is being done"),
    ]
    progress: Annotated[float, Field(ge=0, le=1, description="part that is done")]
    kind: Literal["text", "message", "audio"]
    avatar: Annotated[str, Field(examples=["amara"])]
    fps: Annotated[int, Field(examples=[25])]
    profile: Profile
    created: datetime
    expires: Annotated[datetime | None, Field(description="when a job that is over is deleted")] = (
        None
    )
    duration: Annotated[float | None, Field(description="seconds", examples=[4.2])] = None
    frames: int | None = None
    size: Annotated[int | None, Field(description="bytes of the MP4")] = None
    cached: Annotated[bool, Field(description="an earlier video answered this request")] = False
    url: Annotated[str | None, Field(examples=[f"/v1/videos/{_ID}/content"])] = None
    captions_url: Annotated[str | None, Field(examples=[f"/v1/videos/{_ID}/captions.vtt"])] = None
    error: VideoError | None = None


class VideoPage(BaseModel):
    """Some video jobs, the newest first."""

    videos: list[Video]
    next: Annotated[
        str | None, Field(description="``before`` of the next page; null at the end")
    ] = None


_ORDER_DOC: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": VideoOrder.model_json_schema()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["audio"],
                    "properties": {
                        "audio": {"type": "string", "format": "binary"},
                        **VideoForm.model_json_schema()["properties"],
                    },
                }
            },
        },
    }
}
_MP4: Final = {"content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}}
_VTT: Final = {"content": {"text/vtt": {"schema": {"type": "string"}}}}


def router(service: Service) -> APIRouter:
    """The routes of video jobs.

    Args:
        service: its ``videos`` may be set later.
    """
    routes = APIRouter(prefix="/v1/videos", tags=["videos"])
    uploads = asyncio.Semaphore(_UPLOADS)

    @routes.post(
        "",
        status_code=202,
        response_model=Video,
        responses=documented(400, 404, 408, 409, 413, 415, 422, 429, 503),
        openapi_extra=_ORDER_DOC,
    )
    async def create(
        request: Request,
        response: Response,
        idempotency_key: Annotated[
            str | None,
            Header(max_length=MAX_KEY, description="the same key creates one job, not two"),
        ] = None,
    ) -> Any:
        """Create a video job from a text, a message or a recording."""
        videos = service.require_videos()
        # Few bodies at a time lie in memory; the others wait unread.
        async with uploads:
            try:
                order = await _read_order(request, service)
            except ClientDisconnect:
                return Response(status_code=499)
            owner = owner_of(request)
            name = await service.require_library().usable(owner, order.avatar)
            await service.access.require_seconds(owner)
            job = await videos.create(
                owner,
                replace(order, avatar=name),
                idempotency_key,
                limit=service.access.job_limit(owner),
            )
        response.headers["Location"] = f"/v1/videos/{job.id}"
        return _video(job)

    @routes.get("", response_model=VideoPage, responses=documented(404, 422, 503))
    async def list_videos(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        before: Annotated[str | None, Query(description="id; only older ones")] = None,
    ) -> VideoPage:
        """List your video jobs, the newest first."""
        jobs = await service.require_videos().page(owner_of(request), limit, before)
        more = jobs[-1].id if len(jobs) == limit else None
        return VideoPage(videos=[_video(job) for job in jobs], next=more)

    @routes.get("/{video}", response_model=Video, responses=documented(404, 503))
    async def retrieve(request: Request, video: str) -> Video:
        """A video job and its progress."""
        return _video(await service.require_videos().get(owner_of(request), video))

    @routes.post("/{video}/cancel", response_model=Video, responses=documented(404, 503))
    async def cancel(request: Request, video: str) -> Video:
        """Stop a job; one that is over stays as it is."""
        return _video(await service.require_videos().cancel(owner_of(request), video))

    @routes.delete("/{video}", status_code=204, responses=documented(404, 503))
    async def delete(request: Request, video: str) -> Response:
        """Stop a job and delete its files."""
        await service.require_videos().delete(owner_of(request), video)
        return Response(status_code=204)

    @routes.head("/{video}/content", include_in_schema=False)
    @routes.get(
        "/{video}/content",
        response_class=Response,
        responses={
            200: _MP4,
            206: {"description": "a part of the MP4", **_MP4},
            304: {"description": "the client has it"},
            **documented(404, 409, 416, 503),
        },
    )
    async def content(request: Request, video: str) -> Response:
        """The MP4; also in parts, as players ask for it."""
        videos = service.require_videos()
        result = await videos.result(owner_of(request), video)
        etag = f'"{result.digest}"'
        headers = {
            "ETag": etag,
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-cache",
            "Content-Disposition": f'inline; filename="{video}.mp4"',
        }
        if is_unchanged(request.headers, etag):
            return Response(status_code=304, headers=headers)
        try:
            part = wanted_range(request.headers, etag, result.size)
        except UnsatisfiableRangeError:
            return problem(
                request,
                416,
                "range_not_satisfiable",
                f"the video has {result.size} bytes",
                headers={"Content-Range": f"bytes */{result.size}"},
            )
        start, stop = part or (0, result.size)
        headers["Content-Length"] = str(stop - start)
        if part is not None:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{result.size}"
        status = 200 if part is None else 206
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers, media_type="video/mp4")
        pieces = await videos.content(video, result.video, start, stop)
        return StreamingResponse(pieces, status, headers, media_type="video/mp4")

    @routes.get(
        "/{video}/captions.vtt",
        response_class=Response,
        responses={200: _VTT, **documented(404, 409, 503)},
    )
    async def captions(request: Request, video: str) -> Response:
        """The captions as WebVTT."""
        text = await service.require_videos().captions(owner_of(request), video)
        return Response(text, media_type="text/vtt; charset=utf-8")

    return routes


async def _read_order(request: Request, service: Service) -> Order:
    """Parse the body; raises what ``read_body`` does, UsageError for an unknown voice."""
    most = service.settings.max_audio_bytes
    fields, audio = await read_body(request, most, body=VideoOrder, form=VideoForm)
    service.require_voice(fields.pop("voice"))
    return Order(audio=audio, **fields)


def _video(job: Job) -> Video:
    result, error, path = job.result, job.error, f"/v1/videos/{job.id}"
    return Video.model_validate(
        {
            "id": job.id,
            "status": job.status,
            "stage": job.stage,
            "progress": job.progress,
            "kind": job.request.kind,
            "avatar": job.request.avatar,
            "fps": job.request.fps,
            "profile": job.request.profile,
            "created": _moment(job.created),
            "expires": _moment(job.expires) if job.expires is not None else None,
            "duration": result and result.duration,
            "frames": result and result.frames,
            "size": result and result.size,
            "cached": result is not None and result.cached,
            "url": f"{path}/content" if result else None,
            "captions_url": f"{path}/captions.vtt" if result and result.captions else None,
            "error": error
            and VideoError(code=error.code, detail=error.message, remedy=error.remedy),
        }
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
