"""Avatars and video jobs over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final

from orchestrator.api.musetalk.v1 import musetalk_pb2 as pb
from orchestrator.api.rpc.guard import Context, answers, caller_of, streams
from orchestrator.api.service import Service
from orchestrator.errors import MediaError, UsageError
from orchestrator.jobs.job import Job
from orchestrator.jobs.order import Order
from orchestrator.rendering.listing import Listed
from orchestrator.rendering.tasks import within

_UPLOAD_SECONDS: Final = 300.0
_MOST_LISTED: Final = 100


class Catalogue:
    """The methods for avatars and videos.

    Args:
        service: has them.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    @answers
    async def ListAvatars(  # noqa: N802 -- the names in the .proto file
        self, request: pb.ListAvatarsRequest, context: Context
    ) -> pb.ListAvatarsResponse:
        """See the .proto file."""
        owner = caller_of(context, self._service).id
        found = await self._service.require_library().visible(owner)
        return pb.ListAvatarsResponse(avatars=[_avatar(one, owner) for one in found])

    @answers
    async def GetAvatar(  # noqa: N802
        self, request: pb.GetAvatarRequest, context: Context
    ) -> pb.Avatar:
        """See the .proto file."""
        owner = caller_of(context, self._service).id
        return _avatar(await self._service.require_library().get(owner, request.id), owner)

    @answers
    async def AddAvatar(  # noqa: N802
        self, request: AsyncIterator[pb.AddAvatarRequest], context: Context
    ) -> pb.Avatar:
        """See the .proto file."""
        owner = caller_of(context, self._service).id
        library = self._service.require_library()
        limit = self._service.settings.max_avatar_bytes
        try:
            about = await within(_first(request), _UPLOAD_SECONDS)
            async with library.upload() as target:
                await within(_receive(request, target, limit), _UPLOAD_SECONDS)
                made = await library.add(
                    owner, target, declared="", name=about.name, consent=about.consent
                )
        except TimeoutError as error:
            raise UsageError("the file took too long to arrive") from error
        return _avatar(made, owner)

    @answers
    async def DeleteAvatar(  # noqa: N802
        self, request: pb.DeleteAvatarRequest, context: Context
    ) -> pb.DeleteAvatarResponse:
        """See the .proto file."""
        owner = caller_of(context, self._service).id
        await self._service.require_library().delete(owner, request.id)
        return pb.DeleteAvatarResponse()

    @answers
    async def CreateVideo(  # noqa: N802
        self, request: pb.CreateVideoRequest, context: Context
    ) -> pb.Video:
        """See the .proto file."""
        service = self._service
        owner = caller_of(context, service).id
        videos = service.require_videos()
        if request.fps and not 8 <= request.fps <= 49:
            raise UsageError("fps: 8 to 49, or 0")
        service.require_voice(request.voice)
        kind = request.WhichOneof("speech")
        await service.access.require_seconds(owner)
        order = Order(
            text=request.text if kind == "text" else None,
            message=request.message if kind == "message" else None,
            audio=request.audio if kind == "audio" else None,
            avatar=await service.require_library().usable(owner, request.avatar or None),
            fps=request.fps or None,
            profile=request.profile or None,
            language=request.language or None,
        )
        limit = service.access.job_limit(owner)
        return _video(
            await videos.create(owner, order, request.idempotency_key or None, limit=limit)
        )

    @answers
    async def GetVideo(  # noqa: N802
        self, request: pb.GetVideoRequest, context: Context
    ) -> pb.Video:
        """See the .proto file."""
        owner = caller_of(context, self._service).id
        return _video(await self._service.require_videos().get(owner, request.id))

    @answers
    async def ListVideos(  # noqa: N802
        self, request: pb.ListVideosRequest, context: Context
    ) -> pb.ListVideosResponse:
        """See the .proto file."""
        owner = caller_of(context, self._service).id
        limit = min(request.limit or 50, _MOST_LISTED)
        jobs = await self._service.require_videos().page(owner, limit, request.before or None)
        return pb.ListVideosResponse(videos=[_video(job) for job in jobs])

    @answers
    async def CancelVideo(  # noqa: N802
        self, request: pb.CancelVideoRequest, context: Context
    ) -> pb.Video:
        """See the .proto file."""
        owner = caller_of(context, self._service).id
        return _video(await self._service.require_videos().cancel(owner, request.id))

    @answers
    async def DeleteVideo(  # noqa: N802
        self, request: pb.DeleteVideoRequest, context: Context
    ) -> pb.DeleteVideoResponse:
        """See the .proto file."""
        owner = caller_of(context, self._service).id
        await self._service.require_videos().delete(owner, request.id)
        return pb.DeleteVideoResponse()

    @streams
    async def DownloadVideo(  # noqa: N802
        self, request: pb.DownloadVideoRequest, context: Context
    ) -> AsyncGenerator[pb.DownloadVideoResponse, None]:
        """See the .proto file."""
        owner = caller_of(context, self._service).id
        videos = self._service.require_videos()
        result = await videos.result(owner, request.id)
        async for piece in await videos.content(request.id, result.video, 0, result.size):
            yield pb.DownloadVideoResponse(data=piece)


async def _first(requests: AsyncIterator[pb.AddAvatarRequest]) -> pb.NewAvatar:
    async for request in requests:
        if request.WhichOneof("request") == "about":
            return request.about
        break
    raise UsageError("the first message must say what the avatar is: about")


async def _receive(requests: AsyncIterator[pb.AddAvatarRequest], target: Path, limit: int) -> None:
    """Write the file that comes.

    Raises:
        UsageError: a message that is no part of the file.
        MediaError: it is too large.
    """
    size = 0
    file = await asyncio.to_thread(target.open, "xb")
    try:
        async for request in requests:
            if request.WhichOneof("request") != "data":
                raise UsageError("after the first message only data may come")
            size += len(request.data)
            if size > limit:
                raise MediaError(f"the file is larger than {limit >> 20} MB")
            await asyncio.to_thread(file.write, request.data)
    finally:
        await asyncio.to_thread(file.close)


def _avatar(listed: Listed, owner: str) -> pb.Avatar:
    error = listed.error
    return pb.Avatar(
        id=listed.id,
        name=listed.name,
        status=listed.status,
        progress=listed.progress,
        width=listed.width or 0,
        height=listed.height or 0,
        fps=listed.fps or 0,
        frames=listed.frames or 0,
        consent=listed.consent,
        notes=listed.notes,
        deletable=listed.is_deletable_by(owner),
        error=pb.Problem(code=error.code, detail=error.message, remedy=error.remedy)
        if error
        else None,
    )


def _video(job: Job) -> pb.Video:
    result, error = job.result, job.error
    return pb.Video(
        id=job.id,
        status=job.status,
        stage=job.stage,
        progress=job.progress,
        created=job.created,
        expires=job.expires or 0,
        duration=result.duration if result else 0,
        size=result.size if result else 0,
        error=pb.Problem(code=error.code, detail=error.message, remedy=error.remedy)
        if error
        else None,
    )
