"""Video jobs over HTTP, with the real jobs behind it and a renderer without Triton."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import sys
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
import sqlalchemy as sa

from orchestrator.api.admission import Admission
from orchestrator.api.http import create_app
from orchestrator.api.service import Service
from orchestrator.jobs.ledger import Ledger
from orchestrator.jobs.opening import open_videos
from orchestrator.rendering.library import open_library
from orchestrator.replies.embedded import EmbeddedResponder
from orchestrator.settings import Settings
from orchestrator.telemetry import Telemetry

FAKES = Path(__file__).parent.parent / "jobs" / "fakes.py"


def load(name: str = "musetalk_job_fakes") -> Any:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, FAKES)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        cache_dir=tmp_path, max_text_chars=200, max_audio_bytes=200_000, max_videos_queued=4
    )


@pytest.fixture(autouse=True)
def quick_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.jobs.engine._POLL_SECONDS", 0.05)


@pytest.fixture
def inference() -> Any:
    return load().FakeInference()


class OpenLibrary:
    """Everybody may use the renderer's avatars."""

    def __init__(self, renderer: Any) -> None:
        self._renderer = renderer

    async def usable(self, owner: str, identity: str | None) -> str:
        name: str = (await self._renderer.avatar(identity)).name
        return name


@pytest.fixture
async def service(settings: Settings, inference: Any) -> AsyncIterator[Service]:
    telemetry = Telemetry()
    renderer = load().fake_renderer(settings, inference=inference)
    library: Any = OpenLibrary(renderer)
    service = Service(settings, telemetry, Admission(2, telemetry), renderer, library=library)
    async with (
        open_library(settings, renderer) as service.library,
        open_videos(
            settings,
            renderer,
            EmbeddedResponder(),
            lambda result: None,
            service.access.count_seconds,
        ) as service.videos,
    ):
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client:
        yield client


def wav(seconds: float) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        t = np.arange(round(seconds * 16000)) / 16000
        file.writeframes((9000 * np.sin(2000 * t)).astype("<i2").tobytes())
    return buffer.getvalue()


async def created(client: httpx.AsyncClient, **request: Any) -> dict[str, Any]:
    response = await client.post("/v1/videos", **request)
    assert response.status_code == 202, response.text
    job: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/v1/videos/{job['id']}"
    return job


async def over(client: httpx.AsyncClient, job: dict[str, Any]) -> dict[str, Any]:
    for _ in range(600):
        now: dict[str, Any] = (await client.get(f"/v1/videos/{job['id']}")).json()
        if now["status"] not in ("queued", "running"):
            return now
        assert now["expires"] is None and now["url"] is None
        await asyncio.sleep(0.05)
    raise AssertionError(now)


def problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["code"] == code and body["detail"] and body["request_id"]


async def test_from_text_to_content_and_captions(client: httpx.AsyncClient) -> None:
    job = await created(client, json={"text": "Hello there. How are you?", "fps": 15})
    assert job["status"] == "queued" and job["avatar"] == "ada" and job["fps"] == 15
    done = await over(client, job)
    assert done["status"] == "succeeded" and done["progress"] == 1 and done["expires"]
    video = await client.get(done["url"])
    assert video.status_code == 200 and video.headers["content-type"] == "video/mp4"
    assert len(video.content) == done["size"] == int(video.headers["content-length"])
    with av.open(io.BytesIO(video.content)) as file:
        assert sum(1 for _ in file.decode(video=0)) == done["frames"]
    captions = await client.get(done["captions_url"])
    assert captions.headers["content-type"].startswith("text/vtt")
    assert captions.text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:00.")
    assert "Hello there." in captions.text and "How are you?" in captions.text


async def test_content_in_parts(client: httpx.AsyncClient) -> None:
    done = await over(client, await created(client, json={"text": "Hello there."}))
    url, size = done["url"], done["size"]
    whole = await client.get(url)
    etag = whole.headers["etag"]
    for given, start, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=10-99", 10, 100),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=5-{size + 100}", 5, size),
        (f"bytes=-{size + 100}", 0, size),
    ):
        part = await client.get(url, headers={"Range": given})
        assert part.status_code == 206, given
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert part.content == whole.content[start:stop], given
        head = await client.head(url, headers={"Range": given})
        assert head.status_code == 206 and not head.content
        assert head.headers["content-length"] == str(stop - start)
    for given in ("bytes=3-2", "bytes=-", "items=1-2", "bytes=0-1,5-6", "nonsense"):
        answer = await client.get(url, headers={"Range": given})
        assert answer.status_code == 200 and answer.content == whole.content, given
    for given in (f"bytes={size}-", "bytes=-0"):
        answer = await client.get(url, headers={"Range": given})
        problem(answer, 416, "range_not_satisfiable")
        assert answer.headers["content-range"] == f"bytes */{size}"
    same = await client.get(url, headers={"If-None-Match": f'"x", {etag}'})
    assert same.status_code == 304 and not same.content
    older = await client.get(url, headers={"Range": "bytes=0-0", "If-Range": '"old"'})
    assert older.status_code == 200
    newer = await client.get(url, headers={"Range": "bytes=0-0", "If-Range": etag})
    assert newer.status_code == 206


async def test_recording(client: httpx.AsyncClient) -> None:
    files = {"audio": ("a.wav", wav(1.0))}
    job = await created(client, files=files, data={"avatar": "ada", "profile": "classic"})
    done = await over(client, job)
    assert done["status"] == "succeeded" and done["kind"] == "audio"
    assert done["fps"] == 15 and done["frames"] == 15
    problem(await client.get(f"/v1/videos/{job['id']}/captions.vtt"), 404, "not_found")


async def test_message_is_answered(client: httpx.AsyncClient) -> None:
    done = await over(client, await created(client, json={"message": "Hello!"}))
    assert done["status"] == "succeeded" and done["captions_url"]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"json": {}}, 400, "bad_request"),
        ({"json": {"text": "a", "message": "b"}}, 400, "bad_request"),
        ({"json": {"text": ""}}, 400, "bad_request"),
        ({"json": {"text": "..."}}, 400, "bad_request"),
        ({"json": {"text": "x" * 201}}, 400, "bad_request"),
        ({"json": {"text": "Hi.", "fps": 7}}, 400, "bad_request"),
        ({"json": {"text": "Hi.", "profile": "best"}}, 400, "bad_request"),
        ({"json": {"text": "Hi.", "avatar": "../../etc/passwd"}}, 404, "not_found"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "bad_request"),
        ({"content": b"hello"}, 415, "unsupported_media_type"),
        ({"files": {"audio": ("a.wav", b"no sound" * 99)}}, 422, "bad_media"),
        ({"files": {"audio": ("a.wav", bytes(300_000))}}, 413, "request_entity_too_large"),
        ({"json": {"text": "a"}, "headers": {"Idempotency-Key": "k" * 201}}, 422, "bad_request"),
    ],
)
async def test_what_cannot_be_made(
    client: httpx.AsyncClient, settings: Settings, request_: Any, status: int, code: str
) -> None:
    response = await client.post("/v1/videos", **request_)
    problem(response, status, response.json()["code"] if status == 413 else code)
    assert (await client.get("/v1/videos")).json()["videos"] == []
    assert not list((settings.cache_dir / "videos" / "files").rglob("*.*k"))


async def test_idempotency(client: httpx.AsyncClient) -> None:
    first = await created(client, json={"text": "Hi."}, headers={"Idempotency-Key": "k"})
    again = await created(client, json={"text": "Hi."}, headers={"Idempotency-Key": "k"})
    assert again["id"] == first["id"]
    other = await client.post("/v1/videos", json={"text": "Ho."}, headers={"Idempotency-Key": "k"})
    problem(other, 409, "conflict")


async def test_cancel_and_delete(client: httpx.AsyncClient, inference: Any) -> None:
    inference.delay = 60.0
    job = await created(client, json={"text": "Hello there."})
    problem(await client.get(f"/v1/videos/{job['id']}/content"), 409, "conflict")
    for _ in range(200):
        if inference.running:
            break
        await asyncio.sleep(0.05)
    cancelled = (await client.post(f"/v1/videos/{job['id']}/cancel")).json()
    assert cancelled["status"] == "cancelled"
    for _ in range(100):
        if not inference.running:
            break
        await asyncio.sleep(0.05)
    assert not inference.running
    problem(await client.get(f"/v1/videos/{job['id']}/content"), 409, "conflict")
    assert (await client.delete(f"/v1/videos/{job['id']}")).status_code == 204
    problem(await client.get(f"/v1/videos/{job['id']}"), 404, "not_found")
    problem(await client.delete(f"/v1/videos/{job['id']}"), 404, "not_found")


async def test_listing_in_pages_and_the_queues_end(
    client: httpx.AsyncClient, inference: Any
) -> None:
    inference.delay = 60.0
    jobs = [await created(client, json={"text": f"Number {n}."}) for n in range(4)]
    problem(await client.post("/v1/videos", json={"text": "Five."}), 429, "overloaded")
    first = (await client.get("/v1/videos?limit=3")).json()
    assert [job["id"] for job in first["videos"]] == [job["id"] for job in jobs[:0:-1]]
    second = (await client.get(f"/v1/videos?limit=3&before={first['next']}")).json()
    assert [job["id"] for job in second["videos"]] == [jobs[0]["id"]] and second["next"] is None
    problem(await client.get("/v1/videos?limit=0"), 422, "bad_request")
    problem(await client.get("/v1/videos?before=x%00"), 404, "not_found")


async def test_jobs_of_others_are_not_there(client: httpx.AsyncClient, service: Service) -> None:
    from orchestrator.jobs.order import Order

    assert service.videos is not None
    job = await service.videos.create("somebody", Order(text="A secret."))
    for method, path in (
        ("GET", ""),
        ("GET", "/content"),
        ("GET", "/captions.vtt"),
        ("POST", "/cancel"),
        ("DELETE", ""),
    ):
        problem(await client.request(method, f"/v1/videos/{job.id}{path}"), 404, "not_found")
    assert (await client.get("/v1/videos")).json()["videos"] == []


async def test_before_triton_is_ready(client: httpx.AsyncClient, service: Service) -> None:
    service.videos, videos = None, service.videos
    response = await client.post("/v1/videos", json={"text": "Hi."})
    problem(response, 503, "triton_unavailable")
    assert response.headers["retry-after"]
    service.videos = videos


async def test_document_has_examples(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    post = document["paths"]["/v1/videos"]["post"]
    assert set(post["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {"202", "400", "409", "422", "429", "503"} <= set(post["responses"])
    assert "206" in document["paths"]["/v1/videos/{video}/content"]["get"]["responses"]
    assert document["components"]["schemas"]["Video"]["properties"]["id"]["examples"]


async def test_without_its_database(
    client: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert service.videos is not None
    away = Ledger(sa.create_engine("sqlite:////no/such/folder/jobs.sqlite"), 60)
    monkeypatch.setattr(service.videos, "_ledger", away)
    for method, path in (("GET", ""), ("POST", ""), ("GET", f"/{'0' * 32}")):
        response = await client.request(
            method, f"/v1/videos{path}", json={"text": "Hi."} if method == "POST" else None
        )
        problem(response, 503, "database")
        assert response.headers["retry-after"]
