"""The gRPC API over a real channel, with a renderer that needs no Triton."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from orchestrator.api.keys import KeyFile, Limits
from orchestrator.api.musetalk.v1 import musetalk_pb2 as pb
from orchestrator.api.musetalk.v1 import musetalk_pb2_grpc as rpc
from orchestrator.api.rpc.server import NAME, serve_rpc
from orchestrator.sessions.opening import open_sessions
from orchestrator.settings import ROOT

TEXT = "This is a sentence that is said. And here is another one, which comes after it."


@pytest.fixture
def connect(start_service: Any) -> Any:
    @asynccontextmanager
    async def connected(**values: Any) -> AsyncIterator[tuple[Any, Any, str]]:
        async with start_service(**values) as running:
            service = running.service
            async with (
                open_sessions(service.settings, service.renderer, service.telemetry) as sessions,
                serve_rpc(service, "127.0.0.1", 0) as port,
                grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
            ):
                service.sessions = sessions
                running.channel = channel
                yield rpc.MuseTalkStub(channel), running, f"127.0.0.1:{port}"

    return connected


async def fails(call: Any, status: grpc.StatusCode) -> dict[str, Any]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    assert caught.value.code() == status, caught.value.details()
    return dict(caught.value.trailing_metadata())


async def until(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.02)


async def test_fragments_are_one_file(connect: Any) -> None:
    async with connect() as (stub, _, _):
        data, finished = b"", None
        async for answer in stub.Speak(pb.SpeakRequest(text=TEXT), timeout=60):
            if answer.WhichOneof("part") == "fragment":
                data += answer.fragment.data
                assert answer.fragment.mime.startswith("video/mp4; codecs=")
            else:
                finished = answer.finished
    with av.open(io.BytesIO(data)) as file:
        frames = sum(1 for _ in file.decode(video=0))
    assert finished is not None and finished.seconds >= len(TEXT) / 25
    assert finished.frames <= frames <= finished.frames + 15


async def test_frames_and_sound_as_they_are(connect: Any) -> None:
    async with connect() as (stub, _, _):
        request = pb.SpeakRequest(text="Hello there.", fps=12, output=pb.OUTPUT_FRAMES)
        frames, samples, finished = [], 0, None
        async for answer in stub.Speak(request, timeout=60):
            part = answer.WhichOneof("part")
            if part == "frame":
                frames.append(answer.frame)
            elif part == "sound":
                assert answer.sound.rate == 48_000
                samples += len(answer.sound.pcm) // 2
            else:
                finished = answer.finished
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert {(frame.width, frame.height, len(frame.bgr)) for frame in frames} == {
        (96, 64, 96 * 64 * 3)
    }
    assert finished is not None and finished.frames == len(frames)
    assert samples == len(frames) * 4000


async def test_deadlines_and_cancelling_end_the_work(connect: Any) -> None:
    async with connect(delay=0.2) as (stub, running, _):
        request = pb.SpeakRequest(text=TEXT)
        await fails(stub.Speak(request, timeout=0.7), grpc.StatusCode.DEADLINE_EXCEEDED)
        await until(lambda: running.service.admission._taken == 0, 2)
        call = stub.Speak(request)
        async for _ in call:
            break
        call.cancel()
        await until(lambda: running.service.admission._taken == 0, 2)
        assert running.inference.running == 0


async def test_a_slow_reader_holds_up_the_work(connect: Any) -> None:
    text = " ".join(f"Sentence {number} of a very long text." for number in range(100))
    async with connect() as (stub, running, _):
        call = stub.Speak(pb.SpeakRequest(text=text, output=pb.OUTPUT_FRAMES))
        async for _ in call:
            break
        calls = -1
        while calls != running.inference.calls:
            calls = running.inference.calls
            await asyncio.sleep(1)
        assert calls < 200, "all was rendered although nobody read it"
        call.cancel()
        await until(lambda: running.service.admission._taken == 0, 2)


async def test_a_conversation_with_an_interruption(connect: Any) -> None:
    async with connect() as (stub, running, _):
        call = stub.Converse()
        await call.write(pb.ConverseRequest(join=pb.Join(profile="quality")))
        seen: dict[str, list[Any]] = {}

        async def read(kind: str, test: Any = lambda _: True) -> Any:
            while True:
                answer = await asyncio.wait_for(call.read(), 30)
                name = answer.WhichOneof("response")
                seen.setdefault(name, []).append(getattr(answer, name))
                if name == kind and test(getattr(answer, name)):
                    return getattr(answer, name)

        joined = await read("joined")
        assert (joined.width, joined.height) == (96, 64) and joined.session
        assert (await read("media")).kind == "init"
        await call.write(pb.ConverseRequest(say=pb.Say(text=TEXT * 5)))
        first = (await read("accepted")).turn
        await read("media", lambda media: media.kind == "speech")
        await call.write(pb.ConverseRequest(say=pb.Say(text="...")))
        refused = await read("event", lambda event: event.name == "error")
        assert refused.payload["code"] == "bad_request"
        await call.write(pb.ConverseRequest(interrupt=pb.Interrupt()))
        await read("event", lambda event: event.name == "flush")
        await call.write(pb.ConverseRequest(say=pb.Say(text="Something else.")))
        assert (await read("accepted")).turn != first
        await read("media", lambda media: media.kind == "speech")
        data = b"".join(media.data for media in seen["media"])
        assert data[4:8] == b"ftyp"
        assert running.service.sessions.count == 1
        call.cancel()
        await until(lambda: running.service.sessions.count == 0, 5)


async def test_conversations_that_cannot_begin(connect: Any) -> None:
    async with connect() as (stub, _, _):
        invalid, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
        await fails(stub.Converse(iter([pb.ConverseRequest()])), invalid)
        await fails(stub.Converse(iter([])), invalid)
        for join, status in ((pb.Join(avatar="../x"), missing), (pb.Join(profile="?"), invalid)):
            await fails(stub.Converse(iter([pb.ConverseRequest(join=join)])), status)


async def test_avatars(connect: Any) -> None:
    async with connect() as (stub, _, _):
        listed = await stub.ListAvatars(pb.ListAvatarsRequest())
        assert [one.id for one in listed.avatars] == ["ada"]
        assert (await stub.GetAvatar(pb.GetAvatarRequest(id="ada"))).status == "ready"
        missing = await fails(
            stub.GetAvatar(pb.GetAvatarRequest(id="../../x")), grpc.StatusCode.NOT_FOUND
        )
        assert missing["code"] == "not_found"
        about = pb.AddAvatarRequest(about=pb.NewAvatar(name="Ana", consent="Ana"))
        for requests in (
            [],
            [about],
            [about, pb.AddAvatarRequest(data=b"no picture")],
            [about, about],
            [pb.AddAvatarRequest(data=b"x")],
        ):
            await fails(stub.AddAvatar(iter(requests)), grpc.StatusCode.INVALID_ARGUMENT)
        await fails(
            stub.DeleteAvatar(pb.DeleteAvatarRequest(id="ada")), grpc.StatusCode.INVALID_ARGUMENT
        )


async def test_videos(connect: Any) -> None:
    async with connect() as (stub, _, _):
        request = pb.CreateVideoRequest(text="Hello there.", idempotency_key="k")
        made = await stub.CreateVideo(request)
        assert (await stub.CreateVideo(request)).id == made.id
        status = ""
        end = time.monotonic() + 30
        while status != "succeeded":
            assert time.monotonic() < end
            video = await stub.GetVideo(pb.GetVideoRequest(id=made.id))
            status = video.status
            await asyncio.sleep(0.1)
        data = b""
        async for part in stub.DownloadVideo(pb.DownloadVideoRequest(id=made.id)):
            data += part.data
        assert len(data) == video.size and data[4:8] == b"ftyp"
        (listed,) = (await stub.ListVideos(pb.ListVideosRequest())).videos
        assert listed.id == made.id
        await stub.CancelVideo(pb.CancelVideoRequest(id=made.id))
        await stub.DeleteVideo(pb.DeleteVideoRequest(id=made.id))
        await fails(stub.GetVideo(pb.GetVideoRequest(id=made.id)), grpc.StatusCode.NOT_FOUND)


async def test_keys(connect: Any, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    _, secret = file.add("ana", Limits(sessions=0, video_seconds=1))
    async with connect(api_keys_file=file.path) as (stub, _, _):
        ask = pb.ListAvatarsRequest()
        await fails(stub.ListAvatars(ask), grpc.StatusCode.UNAUTHENTICATED)
        wrong = [("authorization", f"Bearer {secret[:-1]}")]
        await fails(stub.ListAvatars(ask, metadata=wrong), grpc.StatusCode.UNAUTHENTICATED)
        right = [("authorization", f"Bearer {secret}")]
        assert (await stub.ListAvatars(ask, metadata=right)).avatars
        join = pb.ConverseRequest(join=pb.Join())
        full = grpc.StatusCode.RESOURCE_EXHAUSTED
        await fails(stub.Converse(iter([join]), metadata=right), full)
        async for _ in stub.Speak(pb.SpeakRequest(text=TEXT), metadata=right):
            pass
        await fails(stub.Speak(pb.SpeakRequest(text="Hi."), metadata=right), full)


async def test_health_and_reflection(connect: Any) -> None:
    async with connect() as (_, running, _):
        health = health_pb2_grpc.HealthStub(running.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=NAME))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for listed in stub.ServerReflectionInfo(iter([request])):
            assert NAME in [one.name for one in listed.list_services_response.service]


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    source = "orchestrator/api/musetalk/v1/musetalk.proto"
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, source],
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    for name in ("musetalk_pb2.py", "musetalk_pb2.pyi", "musetalk_pb2_grpc.py"):
        fresh = (tmp_path / Path(source).parent / name).read_text()
        assert fresh == (ROOT / Path(source).parent / name).read_text(), "run make proto"


async def run_example(name: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "examples" / name), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "MUSETALK_API_KEY": ""},
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_the_client_example(connect: Any, tmp_path: Path) -> None:
    async with connect() as (_, _, address):
        output = tmp_path / "hello.mp4"
        words = await run_example("speak_grpc.py", address, "Hello over gRPC.", str(output))
    assert "frames" in words
    with av.open(str(output)) as file:
        assert sum(1 for _ in file.decode(video=0)) > 10


@pytest.mark.triton
async def test_the_triton_example(tmp_path: Path) -> None:
    from orchestrator.inference.server import EmbeddedTriton

    picture, output = tmp_path / "a.png", tmp_path / "face.png"
    cv2.imwrite(str(picture), np.full((300, 400, 3), 128, np.uint8))
    async with EmbeddedTriton(
        ROOT / "model_repository" / "cpu", start_timeout=200, brief=True
    ) as server:
        words = await run_example(
            "triton_direct.py", server.grpc_address, str(picture), str(output)
        )
    assert "lipsync is ready" in words
    assert cv2.imread(str(output)).shape == (256, 256, 3)
