from __future__ import annotations

import asyncio
import errno
import io
import json
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from orchestrator.api.admission import Admission
from orchestrator.api.http import Service, create_app
from orchestrator.errors import NotFoundError, OverloadedError, ServerDiedError
from orchestrator.rendering.encode import Mp4Info
from orchestrator.rendering.script import Recording, Text
from orchestrator.settings import Settings
from orchestrator.telemetry import Telemetry


def write_video(output: Path) -> None:
    output.write_bytes(b"video" * 1000)


class FakeRenderer:
    """Takes as long as it is told and writes bytes in place of a video."""

    def __init__(self) -> None:
        self.names = ["ada"]
        self.triton_ready = True
        self.seconds = 0.0
        self.error: Exception | None = None
        self.orders: list[tuple[Any, str, int]] = []
        self.running = 0
        self.cancelled = 0
        self.outputs: list[Path] = []
        self.inference = SimpleNamespace(ready=self._ready)

    async def _ready(self) -> bool:
        return self.triton_ready

    def avatar_names(self) -> list[str]:
        return self.names

    async def avatar(self, name: str | None) -> Any:
        if name not in (None, *self.names):
            raise NotFoundError(f"there is no avatar {name!r}")
        return SimpleNamespace(name=name or "ada")

    async def speak(
        self, script: Any, avatar: Any, output: Path, *, fps: int, times: Any
    ) -> Mp4Info:
        self.orders.append((script, avatar.name, fps))
        self.outputs.append(output)
        self.running += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error
        write_video(output)
        times.generated, times.wall, times.media = 25, 0.5, 1.0
        return Mp4Info(25, 1.0, 5000)


@pytest.fixture
def renderer() -> FakeRenderer:
    return FakeRenderer()


class FakeLibrary:
    """Everybody may use the renderer's avatars."""

    def __init__(self, renderer: FakeRenderer) -> None:
        self._renderer = renderer

    async def usable(self, owner: str, identity: str | None) -> str:
        name: str = (await self._renderer.avatar(identity)).name
        return name


@pytest.fixture
def service(renderer: FakeRenderer, tmp_path: Path) -> Service:
    telemetry = Telemetry()
    settings = Settings(
        max_text_chars=100, max_audio_bytes=100_000, max_audio_seconds=10, cache_dir=tmp_path
    )
    library: Any = FakeLibrary(renderer)
    return Service(
        settings,
        telemetry,
        Admission(2, telemetry),
        renderer,  # type: ignore[arg-type]
        library=library,
    )


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
        yield client


def wav(seconds: float = 1.0) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        t = np.arange(round(seconds * 16000)) / 16000
        file.writeframes((9000 * np.sin(2000 * t)).astype("<i2").tobytes())
    return buffer.getvalue()


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status and body["code"] == code
    assert body["detail"] and "\n" not in body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]
    return body


async def test_text_to_video(client: httpx.AsyncClient, renderer: FakeRenderer) -> None:
    response = await client.post("/v1/speak", json={"text": "Hello. World.", "fps": 12})
    assert response.status_code == 200
    assert response.headers["content-type"] == "video/mp4"
    assert response.headers["content-length"] == "5000"
    assert response.headers["x-real-time-factor"] == "0.500"
    assert "lipsync;dur=" in response.headers["server-timing"]
    assert response.content == b"video" * 1000
    script, name, fps = renderer.orders[0]
    assert isinstance(script, Text) and len(script.sentences) == 2
    assert (name, fps) == ("ada", 12)
    assert not renderer.outputs[0].parent.exists()


async def test_recording_to_video(client: httpx.AsyncClient, renderer: FakeRenderer) -> None:
    response = await client.post(
        "/v1/speak", files={"audio": ("a.wav", wav())}, data={"avatar": "ada", "fps": "30"}
    )
    assert response.status_code == 200
    script, name, fps = renderer.orders[0]
    assert isinstance(script, Recording) and len(script.pcm) == 16000
    assert (name, fps) == ("ada", 30)


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"json": {"text": ""}}, 400, "bad_request"),
        ({"json": {"text": "..."}}, 400, "bad_request"),
        ({"json": {"text": "x" * 101}}, 400, "bad_request"),
        ({"json": {"text": "Hi.", "fps": 7}}, 400, "bad_request"),
        ({"json": {"text": "Hi.", "fps": 50}}, 400, "bad_request"),
        ({"json": {"text": "Hi.", "colour": "red"}}, 400, "bad_request"),
        ({"json": {"text": "Hi.", "avatar": "../../etc/passwd"}}, 404, "not_found"),
        ({"json": ["Hi."]}, 400, "bad_request"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "bad_request"),
        ({"content": b"hi", "headers": {"content-type": "text/plain"}}, 415,
         "unsupported_media_type"),
        ({"content": b"hi"}, 415, "unsupported_media_type"),
        ({"files": {"sound": ("a.wav", wav())}}, 400, "bad_request"),
        ({"files": {"audio": ("a.wav", b"nonsense" * 100)}}, 422, "bad_media"),
        ({"files": {"audio": ("a.wav", b"")}}, 422, "bad_media"),
        ({"files": {"audio": ("a.wav", wav(0.1))}, "data": {"fps": "fast"}}, 400, "bad_request"),
        ({"files": {"audio": ("a.wav", b"x" * 200_000)}}, 413, "request_entity_too_large"),
        ({"content": b"--", "headers": {"content-type": "multipart/form-data"}}, 400,
         "bad_request"),
    ],
)  # fmt: skip
async def test_orders_that_cannot_be(
    client: httpx.AsyncClient, request_: dict[str, Any], status: int, code: str
) -> None:
    problem(await client.post("/v1/speak", **request_), status, code)


async def test_a_body_that_grows_past_its_limit_is_cut_off(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a"\r\n\r\n'
        while True:
            sent += 10_000
            yield b"x" * 10_000

    response = await client.post(
        "/v1/speak", content=endless(), headers={"content-type": "multipart/form-data; boundary=b"}
    )
    problem(response, 413, "request_entity_too_large")
    assert sent < 1_000_000


async def test_more_renders_than_places_are_told_when_to_come_back(
    client: httpx.AsyncClient, renderer: FakeRenderer, service: Service
) -> None:
    renderer.seconds = 0.5
    running = [
        asyncio.create_task(client.post("/v1/speak", json={"text": "Hi."})) for _ in range(2)
    ]
    while renderer.running < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    refused = await client.post("/v1/speak", json={"text": "Hi."})
    body = problem(refused, 429, OverloadedError.code)
    assert int(refused.headers["retry-after"]) >= 1
    assert "places" in body["detail"]
    assert [(await task).status_code for task in running] == [200, 200]
    assert (await client.post("/v1/speak", json={"text": "Hi."})).status_code == 200
    assert len(renderer.orders) == 3
    assert b"musetalk_rejected_total 1.0" in service.telemetry.render()


async def test_a_client_that_leaves_ends_its_render(
    service: Service, renderer: FakeRenderer
) -> None:
    """Against the ASGI interface itself, which is what tells of a lost connection."""
    renderer.seconds = 60
    body = json.dumps({"text": "Hi."}).encode()
    gone = asyncio.Event()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "path": "/v1/speak", "raw_path": b"/v1/speak", "query_string": b"", "root_path": "",
        "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }  # fmt: skip
    call = asyncio.create_task(create_app(service)(scope, receive, send))
    while not renderer.running:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    gone.set()
    await asyncio.wait_for(call, 2)
    assert renderer.cancelled == 1 and renderer.running == 0
    assert not renderer.outputs[0].parent.exists()
    with service.admission.place(), service.admission.place():
        pass
    assert b'musetalk_renders_total{result="cancelled"} 1.0' in service.telemetry.render()


async def test_errors_of_a_render(client: httpx.AsyncClient, renderer: FakeRenderer) -> None:
    renderer.error = ServerDiedError("tritonserver was killed", remedy="see its log")
    response = await client.post("/v1/speak", json={"text": "Hi."})
    body = problem(response, 503, "triton_died")
    assert body["remedy"] == "see its log" and "retry-after" in response.headers
    renderer.error = ZeroDivisionError("secret detail")
    body = problem(await client.post("/v1/speak", json={"text": "Hi."}), 500, "internal")
    assert "secret" not in json.dumps(body)
    renderer.error = OSError(errno.ENOSPC, "No space left on device")
    body = problem(await client.post("/v1/speak", json={"text": "Hi."}), 503, "setup")
    assert "disk is full" in body["detail"] and "free" in body["remedy"]
    assert not any(output.parent.exists() for output in renderer.outputs)


async def test_a_slow_upload_is_ended(
    client: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.api.orders._BODY_TIMEOUT", 0.1)

    async def stalls() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    answer = await client.post(
        "/v1/speak", content=stalls(), headers={"content-type": "application/json"}
    )
    problem(answer, 408, "request_timeout")
    with service.admission.place(), service.admission.place():
        pass


async def test_health_and_readiness(
    client: httpx.AsyncClient, renderer: FakeRenderer, service: Service
) -> None:
    assert (await client.get("/healthz")).status_code == 200
    ready = await client.get("/readyz")
    assert ready.status_code == 200 and ready.json()["avatars"] == 1
    renderer.triton_ready = False
    assert (await client.get("/readyz")).status_code == 503
    renderer.triton_ready, renderer.names = True, []
    assert (await client.get("/readyz")).status_code == 503
    service.renderer = None
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/healthz")).status_code == 200
    problem(await client.post("/v1/speak", json={"text": "Hi."}), 503, "triton_unavailable")


async def test_metrics_tell_of_renders_and_requests(client: httpx.AsyncClient) -> None:
    await client.post("/v1/speak", json={"text": "Hi."})
    await client.post("/v1/speak", json={"text": "..."})
    await client.get("/no/such/page")
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = response.text.splitlines()
    assert 'musetalk_renders_total{result="ok"} 1.0' in lines
    assert 'musetalk_renders_total{result="bad_request"} 1.0' in lines
    assert 'musetalk_frames_total{kind="generated"} 25.0' in lines
    assert 'musetalk_stage_seconds_count{stage="lipsync"} 1.0' in lines
    assert 'musetalk_http_requests_total{method="POST",route="/v1/speak",status="200"} 1.0' in lines
    assert 'musetalk_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in lines


async def test_request_ids_come_back(client: httpx.AsyncClient) -> None:
    given = await client.get("/healthz", headers={"x-request-id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 65, "<script>"):
        answer = await client.get("/healthz", headers={"x-request-id": bad})
        assert answer.headers["x-request-id"] != bad


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"host": "127.0.0.1:8080"}, True),
        ({"host": "[::1]:8080"}, True),
        ({"host": "evil.example"}, False),
        ({"host": "localhost.evil.example"}, False),
        ({"origin": "http://localhost:8080"}, True),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
    ],
)
async def test_pages_of_others_get_nothing(
    client: httpx.AsyncClient, headers: dict[str, str], allowed: bool
) -> None:
    response = await client.post("/v1/speak", json={"text": "Hi."}, headers=headers)
    if allowed:
        assert response.status_code == 200
    else:
        problem(response, 403, "foreign_host")


async def test_unknown_paths_and_methods(client: httpx.AsyncClient) -> None:
    problem(await client.get("/nothing"), 404, "not_found")
    problem(await client.delete("/v1/speak"), 405, "method_not_allowed")


async def test_the_page_is_the_studio(client: httpx.AsyncClient) -> None:
    response = await client.get("/")
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["content-security-policy"]


async def test_the_interface_describes_itself(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/openapi.json")).json()
    body = schema["paths"]["/v1/speak"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
