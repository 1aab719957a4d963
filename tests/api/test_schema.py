"""Requests made up from the OpenAPI document: nothing breaks, and every answer is documented.

``MUSETALK_SCHEMA_EXAMPLES`` makes it larger; the number is of requests for each operation.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from loadtests.loopback_llm import loopback_llm
from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.masks import BlendMask
from orchestrator.avatars.media import encode
from orchestrator.errors import UnavailableError

EXAMPLES = int(os.environ.get("MUSETALK_SCHEMA_EXAMPLES", "20"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def avatar_of_the_service(running: Any) -> None:
    """Give it an avatar with pictures, and what takes to make others."""

    async def encode_crops(crops: Any, *, timeout: float | None = None) -> Any:
        return np.zeros((len(crops), 8, 32, 32), np.float16)

    async def statistics(model: str) -> Any:
        raise UnavailableError("there is no Triton here")

    running.inference.encode_crops = encode_crops
    running.inference.statistics = statistics
    square = np.array([[32, 16, 64, 48]] * 5, np.int32)
    running.service.renderer.gallery.avatar = Avatar(
        id="ada-1",
        name="ada",
        width=96,
        height=64,
        jpegs=(encode(np.full((64, 96, 3), 90, np.uint8)),) * 5,
        latents=np.zeros((5, 8, 32, 32), np.float16),
        boxes=square,
        squares=square,
        masks=(BlendMask(36, 20, np.full((24, 24), 255, np.uint8)),) * 5,
        metadata={},
    )


async def finished_video(client: httpx.AsyncClient) -> str:
    """The id of a video that is done."""
    made = (await client.post("/v1/videos", json={"text": "Hello there."})).json()
    for _ in range(600):
        video = (await client.get(f"/v1/videos/{made['id']}")).json()
        if video["status"] == "succeeded":
            return str(video["id"])
        await asyncio.sleep(0.05)
    raise AssertionError(video)


def throw(operation: Any, url: str, known: dict[str, str]) -> collections.Counter[int]:
    """Send made-up requests for an operation; ``known`` are ids that there are."""
    seen: collections.Counter[int] = collections.Counter()
    modes = [GenerationMode.POSITIVE]
    if operation.query or operation.body:
        modes.append(GenerationMode.NEGATIVE)  # breaks what the document says

    @seed(11)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(modes))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if data.draw(st.booleans()):
            case.path_parameters = {
                name: known.get(name, value) for name, value in (case.path_parameters or {}).items()
            }
            if mode == GenerationMode.POSITIVE and isinstance(case.body, dict):
                for name in ("avatar", "voice", "message"):  # made-up ones are hardly ever there
                    case.body.pop(name, None)
                if "audio" not in case.body:
                    case.body["text"] = "Hello."
        response = case.call(base_url=url, timeout=30)
        seen[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    run()
    return seen


@pytest.mark.slow
async def test_made_up_requests(start_service: Any) -> None:
    async with (
        loopback_llm() as hearing,
        start_service(max_text_chars=60, max_videos_queued=3, stt_base_url=hearing.url) as running,
        httpx.AsyncClient(base_url=running.url, timeout=30) as client,
    ):
        hearing.answer = lambda exchange: exchange.status(200, {"text": "Hello."})
        avatar_of_the_service(running)
        document = (await client.get("/openapi.json")).json()
        known = {"avatar": "ada", "video": await finished_video(client)}
        operations = [
            found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()
        ]
        # What deletes comes last.
        operations.sort(key=lambda one: one.method.lower() == "delete")
        seen: dict[str, collections.Counter[int]] = {}
        for one in operations:
            seen[one.label] = await asyncio.to_thread(throw, one, running.url, known)
        assert sum(sum(counts.values()) for counts in seen.values()) > 100
        for label in ("GET /v1/videos/{video}/content", "GET /v1/avatars/{avatar}/poster.jpg"):
            assert seen[label][200] and seen[label][404], seen[label]
        assert seen["POST /v1/videos"][202] and seen["POST /v1/speak"][200]
        assert (await client.get("/healthz")).status_code == 200


async def test_a_dictation_is_limited_before_it_lies_anywhere(start_service: Any) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\n'
        while True:
            sent += 1 << 20
            yield bytes(1 << 20)

    kind = {"content-type": "multipart/form-data; boundary=b"}
    async with (
        start_service(stt_base_url="http://127.0.0.1:9") as running,
        httpx.AsyncClient(base_url=running.url, timeout=30) as client,
    ):
        url = "/v1/transcriptions"
        with contextlib.suppress(httpx.TransportError):  # the service hangs up on who goes on
            answer = await client.post(url, content=endless(), headers=kind)
            assert answer.status_code == 413
        assert sent < 60 << 20
        refused = await client.post(url, files={"audio": b"x"}, data={"colour": "red"})
        assert refused.status_code == 400 and refused.json()["detail"].startswith("colour")
        assert (await client.post(url, json={"audio": "x"})).status_code == 415
