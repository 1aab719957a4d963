"""``Speak``: a text or a recording as fragments, or as pictures and samples."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from orchestrator.api.musetalk.v1 import musetalk_pb2 as pb
from orchestrator.api.orders import Order
from orchestrator.api.rpc.guard import Context, caller_of, streams
from orchestrator.api.service import Service
from orchestrator.api.speech_stream import count_render, read_script, stream_speech
from orchestrator.errors import UsageError
from orchestrator.rendering.encode import AUDIO_RATE
from orchestrator.rendering.timings import StageTimes


class Speaking:
    """The method of the service that renders.

    Args:
        service: renders.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    @streams
    async def Speak(  # noqa: N802 -- the name in the .proto file
        self, request: pb.SpeakRequest, context: Context
    ) -> AsyncGenerator[pb.SpeakResponse, None]:
        """See the .proto file."""
        service = self._service
        owner = caller_of(context, service).id
        service.require_renderer()
        kind = request.WhichOneof("speech")
        if kind is None:
            raise UsageError("speech: give a text or audio")
        if request.fps and not 8 <= request.fps <= 49:
            raise UsageError("fps: 8 to 49, or 0")
        with service.admission.place():
            await service.access.require_seconds(owner)
            service.require_voice(request.voice)
            order = Order(
                avatar=await service.require_library().usable(owner, request.avatar or None),
                fps=request.fps or None,
                text=request.text if kind == "text" else None,
                audio=request.audio if kind == "audio" else None,
                stream=True,
                language=request.language or None,
            )
            frames = request.output == pb.OUTPUT_FRAMES
            parts = self._frames(owner, order) if frames else self._fragments(owner, order)
            async with aclosing(parts):
                async for part in parts:
                    yield part

    async def _fragments(self, owner: str, order: Order) -> AsyncGenerator[pb.SpeakResponse, None]:
        times, fps = StageTimes(), order.fps or self._service.settings.fps
        async with aclosing(stream_speech(self._service, owner, order, times)) as parts:
            async for part in parts:
                fragment = pb.Fragment(
                    data=part.data, start=part.start, duration=part.duration, mime=part.mime
                )
                yield pb.SpeakResponse(fragment=fragment)
        yield _finished(times, fps)

    async def _frames(self, owner: str, order: Order) -> AsyncGenerator[pb.SpeakResponse, None]:
        service = self._service
        renderer = service.require_renderer()
        times, fps = StageTimes(), order.fps or service.settings.fps
        async with count_render(service, owner, times, fps):
            script = await read_script(order, service.settings)
            avatar = await renderer.avatar(order.avatar)
            index = 0
            async with aclosing(renderer.pieces(script, avatar, fps=fps, times=times)) as pieces:
                async for piece in pieces:
                    if len(piece.sound):
                        for samples in _cut(piece.sound.astype("<i2").tobytes()):
                            sound = pb.Sound(pcm=samples, rate=AUDIO_RATE)
                            yield pb.SpeakResponse(sound=sound)
                    for picture in piece.frames:
                        height, width = picture.shape[:2]
                        frame = pb.Frame(
                            index=index, width=width, height=height, bgr=picture.tobytes()
                        )
                        yield pb.SpeakResponse(frame=frame)
                        index += 1
        yield _finished(times, fps)


def _finished(times: StageTimes, fps: int) -> pb.SpeakResponse:
    finished = pb.Finished(
        frames=times.frames,
        seconds=times.frames / fps,
        real_time_factor=times.real_time_factor,
    )
    return pb.SpeakResponse(finished=finished)


def _cut(samples: bytes, size: int = 1 << 20) -> list[bytes]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]
