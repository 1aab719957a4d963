"""A voice and a language are named, and refused, alike at each door."""

from __future__ import annotations

from typing import Any

import grpc
import httpx
import pytest
import socketio

from orchestrator.api.musetalk.v1 import musetalk_pb2 as pb
from orchestrator.api.musetalk.v1 import musetalk_pb2_grpc as rpc

TEXT = "Hello there."


async def over_http(url: str, asked: dict[str, str]) -> list[tuple[bool, str]]:
    """Whether each order was taken, and what was said of it."""
    form = {"files": {"audio": ("a.wav", b"x")}, "data": asked}
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        answers = [
            await client.post("/v1/speak", json={"text": TEXT, **asked}),
            await client.get("/v1/speak", params={"text": TEXT, **asked}),
            await client.post("/v1/videos", json={"text": TEXT, **asked}),
        ]
        assert (await client.post("/v1/videos", **form)).status_code in (400, 422)  # type: ignore[arg-type]
    said = []
    for answer in answers:
        assert answer.status_code in (200, 202, 400), answer.text
        refused = answer.json() if answer.status_code == 400 else None
        said.append((False, f"{refused['code']}: {refused['detail']}") if refused else (True, ""))
    return said


async def over_grpc(stub: Any, asked: dict[str, str]) -> list[tuple[bool, str]]:
    async def tried(call: Any) -> tuple[bool, str]:
        try:
            if hasattr(call, "__aiter__"):
                async for _ in call:
                    break
                call.cancel()
            else:
                await call
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            return False, f"{dict(error.trailing_metadata())['code']}: {error.details()}"
        return True, ""

    join = pb.ConverseRequest(join=pb.Join(**asked))
    return [
        await tried(stub.Speak(pb.SpeakRequest(text=TEXT, **asked))),
        await tried(stub.CreateVideo(pb.CreateVideoRequest(text=TEXT, **asked))),
        await tried(stub.Converse(iter([join]))),
    ]


async def over_socketio(url: str, asked: dict[str, str]) -> list[tuple[bool, str]]:
    viewer = socketio.AsyncClient(reconnection=False)
    await viewer.connect(url, transports=["websocket"])
    answer = await viewer.call("join", asked, timeout=30)
    if answer["ok"]:
        await viewer.call("leave", {}, timeout=30)
    await viewer.disconnect()
    error = answer.get("error")
    return [(False, f"{error['code']}: {error['message']}") if error else (True, "")]


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({"voice": "fake"}, ""),
        ({"voice": "nobody"}, "bad_request: there is no such voice"),
        ({"language": "fr"}, ""),
        ({"language": "xx"}, "bad_request: the language 'xx' is not spoken"),
    ],
)
async def test_what_is_asked_for_is_taken_or_refused_everywhere(
    start_service: Any, open_doors: Any, asked: dict[str, str], refused: str
) -> None:
    async with start_service() as running, open_doors(running.service) as (url, channel):
        async with httpx.AsyncClient(base_url=url) as client:
            (listed,) = (await client.get("/v1/voices")).json()["voices"]
        said = [
            *await over_http(url, asked),
            *await over_grpc(rpc.MuseTalkStub(channel), asked),
            *await over_socketio(url, asked),
        ]
    assert listed["id"] == "fake"
    assert said == [(not refused, refused)] * 7
