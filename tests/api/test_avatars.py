"""Uploads over HTTP: what becomes an avatar, what is refused, what is left on disk."""

from __future__ import annotations

import asyncio
import io
import struct
import time
import zipfile
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.api.admission import Admission
from orchestrator.api.http import Service, create_app
from orchestrator.api.keys import KeyFile, Limits, keys_path
from orchestrator.avatars.prepare import prepare_avatar
from orchestrator.errors import InferenceError
from orchestrator.rendering.gallery import Gallery, avatar_store
from orchestrator.rendering.library import open_library
from orchestrator.rendering.provenance import Provenance
from orchestrator.settings import Settings
from orchestrator.telemetry import Telemetry

GOLDEN = Path(__file__).parent.parent / "golden"
CONSENT = "the test's author, in writing"


class GreyEncoder:
    """Stands in for Triton's encoder."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hold = asyncio.Event()
        self.hold.set()

    async def encode_crops(self, crops: Any, *, timeout: float | None = None) -> Any:
        await self.hold.wait()
        if self.error is not None:
            raise self.error
        return np.zeros((len(crops), 8, 32, 32), np.float16)

    async def has_model(self, name: str) -> bool:
        return False

    async def ready(self) -> bool:
        return True


class Studio:
    """The part of a renderer that avatars need, with real preparation."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.inference: Any = GreyEncoder()
        self.gallery = Gallery(settings, self.inference, avatar_store(settings), folder)

    def avatar_names(self) -> list[str]:
        return self.gallery.names()

    async def avatar(self, name: str | None) -> Any:
        return await self.gallery.get(name)

    async def avatar_of_file(self, source: Path, **options: Any) -> Any:
        return await prepare_avatar(
            source, inference=self.inference, settings=self.settings, **options
        )

    def provenance(self, avatar: Any, *, recorded: bool) -> Provenance:
        return Provenance("test", "none", avatar.name)


@pytest.fixture(scope="session")
def photograph() -> npt.NDArray[np.uint8]:
    with np.load(GOLDEN / "chain.npz") as data:
        frame: npt.NDArray[np.uint8] = data["frames"][0]
    return frame


@pytest.fixture(scope="session")
def portrait(photograph: Any) -> bytes:
    return bytes(cv2.imencode(".jpg", photograph)[1].tobytes())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        cache_dir=tmp_path / "cache",
        max_avatar_bytes=2_000_000,
        max_avatar_pixels=2_000_000,
        max_avatar_seconds=4,
        _env_file=None,
    )


@pytest.fixture
async def service(settings: Settings, tmp_path: Path) -> AsyncIterator[Service]:
    studio: Any = Studio(settings, tmp_path / "no-portraits")
    telemetry = Telemetry()
    service = Service(settings, telemetry, Admission(2, telemetry), studio)
    async with open_library(settings, studio) as service.library:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost:8080", timeout=60
    ) as client:
        yield client


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "sqlite" not in path.name]


async def upload(
    client: httpx.AsyncClient,
    content: bytes,
    filename: str = "me.jpg",
    kind: str = "image/jpeg",
    headers: dict[str, str] | None = None,
    **fields: str,
) -> httpx.Response:
    data = {"name": "Ana", "consent": CONSENT} | fields
    return await client.post(
        "/v1/avatars", files={"file": (filename, content, kind)}, data=data, headers=headers
    )


async def settled(
    client: httpx.AsyncClient, identity: str, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        body: dict[str, Any] = (await client.get(f"/v1/avatars/{identity}", headers=headers)).json()
        if body["status"] != "preparing":
            return body
        await asyncio.sleep(0.05)
    raise AssertionError("still preparing")


async def test_a_picture_becomes_an_avatar_and_is_gone_when_deleted(
    client: httpx.AsyncClient, portrait: bytes, settings: Settings
) -> None:
    answer = await upload(client, portrait, filename="../../../etc/passwd")
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/v1/avatars/{made['id']}"
    assert made["status"] == "preparing" and made["name"] == "Ana"
    assert len(made["id"]) == 32 and "ana" not in made["id"]
    (listed,) = (await client.get("/v1/avatars")).json()["avatars"]
    assert listed["id"] == made["id"]
    ready = await settled(client, made["id"])
    assert ready["status"] == "ready" and ready["progress"] == 1
    assert (ready["width"], ready["height"], ready["frames"]) == (640, 640, 1)
    assert ready["consent"] == CONSENT and ready["deletable"]
    where = f"/v1/avatars/{made['id']}"
    for part in ("poster.jpg", "sheet.jpg"):
        picture = await client.get(f"{where}/{part}")
        assert picture.headers["content-type"] == "image/jpeg"
        assert cv2.imdecode(np.frombuffer(picture.content, np.uint8), 1) is not None
    preview = await client.get(f"{where}/preview.mp4")
    assert preview.headers["content-type"] == "video/mp4" and preview.content[4:8] == b"ftyp"
    assert (await client.get(f"{where}/preview.mp4", headers={"range": "bytes=0-9"})).content == (
        preview.content[:10]
    )
    assert not list((settings.cache_dir / "uploads").iterdir())
    assert not any(portrait[100:200] in path.read_bytes() for path in files_in(settings.cache_dir))
    assert (await client.delete(where)).status_code == 204
    assert (await client.get(where)).status_code == 404
    assert (await client.get(f"{where}/preview.mp4")).status_code == 404
    assert files_in(settings.cache_dir) == []


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(data, 9))
        + chunk(b"IEND", b"")
    )


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("run.sh", "echo")
    return buffer.getvalue()


def lies(portrait: bytes) -> dict[str, tuple[bytes, str]]:
    return {
        "nothing": (b"", "image/jpeg"),
        "words": (b"just words, no picture" * 100, "image/png"),
        "a script": (b"#!/bin/sh\necho\n", "image/jpeg"),
        "a drawing that refers to files": (
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
            "image/svg+xml",
        ),
        "a playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "video/mp4"),
        "a list of files": (b"ffconcat version 1.0\nfile /etc/passwd\n", "video/mp4"),
        "an archive": (archive(), "image/png"),
        "a picture that is said to be a video": (portrait, "video/mp4"),
        "a picture and an archive": (portrait + archive(), "image/jpeg"),
        "a picture and a page": (portrait + b"<script>alert(1)</script>", "image/jpeg"),
        "a picture and a program": (portrait + b"<?php system('id'); ?>", "image/jpeg"),
        "half a picture": (portrait[: len(portrait) // 2], "image/jpeg"),
        "a bomb": (png(30_000, 30_000, b"\0" * 9_000_000), "image/png"),
        "a picture that lies about its size": (png(1000, 1000, b"\0" * 5000), "image/png"),
        "a broken film": (b"\0\0\0\x18ftypmp42" + b"\0" * 5000, "video/mp4"),
        "a film of nothing": (b"\x1a\x45\xdf\xa3" + b"\xff" * 5000, "video/webm"),
    }


async def test_what_is_refused_leaves_nothing(
    client: httpx.AsyncClient, portrait: bytes, settings: Settings
) -> None:
    for what, (content, kind) in lies(portrait).items():
        answer = await upload(client, content, kind=kind)
        assert answer.status_code == 422, (what, answer.text)
        body = answer.json()
        assert body["code"] == "bad_media" and str(settings.cache_dir) not in answer.text, what
    assert files_in(settings.cache_dir) == []
    assert (await client.get("/v1/avatars")).json() == {"avatars": []}


async def test_a_long_film_and_a_large_body_are_refused(
    client: httpx.AsyncClient, settings: Settings, tmp_path: Path
) -> None:
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 64))
    for _ in range(50):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    answer = await upload(client, film.read_bytes(), kind="video/x-msvideo")
    assert answer.status_code == 422 and "longer than 4 s" in answer.json()["detail"]
    answer = await upload(client, b"\xff\xd8\xff" + b"x" * 3_000_000)
    assert answer.status_code == 413
    assert "the file is larger than 1.91 MB" in answer.json()["detail"]
    assert files_in(settings.cache_dir) == []


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"consent": ""}, "agree"),
        ({"consent": " \t"}, "agree"),
        ({"consent": "x" * 501}, "agree"),
        ({"name": ""}, "name"),
        ({"name": "a" * 65}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_names_and_consent_are_needed(
    client: httpx.AsyncClient,
    portrait: bytes,
    settings: Settings,
    fields: dict[str, str],
    word: str,
) -> None:
    answer = await upload(client, portrait, **fields)
    assert answer.status_code == 400 and word in answer.json()["detail"]
    assert files_in(settings.cache_dir) == []


@pytest.mark.parametrize(
    "trick",
    ["..%2f..%2fetc%2fpasswd", "%2e%2e", "....//", "a%00b", "cache", "~root", "%2Fetc%2Fpasswd"],
)
async def test_ids_are_never_paths(client: httpx.AsyncClient, trick: str) -> None:
    for part in ("", "/preview.mp4", "/poster.jpg", "/sheet.jpg"):
        assert (await client.get(f"/v1/avatars/{trick}{part}")).status_code == 404
    assert (await client.delete(f"/v1/avatars/{trick}")).status_code == 404


async def test_a_face_that_is_not_there_is_said_later(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    blank = cv2.imencode(".png", np.full((300, 300, 3), 200, np.uint8))[1].tobytes()
    made = (await upload(client, blank, kind="image/png")).json()
    failed = await settled(client, made["id"])
    assert failed["status"] == "failed" and failed["error"]["code"] == "bad_avatar"
    assert files_in(settings.cache_dir) == []
    answer = await client.get(f"/v1/avatars/{made['id']}/poster.jpg")
    assert answer.status_code == 409
    assert (await client.delete(f"/v1/avatars/{made['id']}")).status_code == 204
    assert (await client.get("/v1/avatars")).json() == {"avatars": []}


async def test_preparations_are_few_stop_when_deleted_and_fail_with_reasons(
    client: httpx.AsyncClient, service: Service, portrait: bytes, settings: Settings
) -> None:
    encoder: Any = service.require_renderer().inference
    encoder.hold.clear()
    made = [(await upload(client, portrait)).json()["id"] for _ in range(2)]
    refused = await upload(client, portrait)
    assert refused.status_code == 429 and "retry-after" in refused.headers
    assert (await client.delete(f"/v1/avatars/{made[0]}")).status_code == 204
    encoder.error = InferenceError("the model broke")
    encoder.hold.set()
    failed = await settled(client, made[1])
    assert failed["error"]["code"] == "inference"
    assert files_in(settings.cache_dir) == []


async def test_an_avatar_belongs_to_its_key(settings: Settings, portrait: bytes) -> None:
    keys = KeyFile(keys_path(settings))
    ana, ben = (keys.add(name, Limits())[1] for name in ("ana", "ben"))
    studio: Any = Studio(settings, settings.cache_dir / "none")
    telemetry = Telemetry()
    service = Service(settings, telemetry, Admission(2, telemetry), studio)
    transport = httpx.ASGITransport(create_app(service))
    hers = {"authorization": f"Bearer {ana}"}
    his = {"x-api-key": ben}
    async with (
        open_library(settings, studio) as service.library,
        httpx.AsyncClient(transport=transport, base_url="http://example.org") as client,
    ):
        made = (await upload(client, portrait, headers=hers)).json()
        where = f"/v1/avatars/{made['id']}"
        for moment in ("preparing", "ready"):
            if moment == "ready":
                await settled(client, made["id"], hers)
            assert (await client.get(where, headers=hers)).json()["status"] in ("preparing", moment)
            assert (await client.get(where, headers=his)).status_code == 404
            assert (await client.get("/v1/avatars", headers=his)).json() == {"avatars": []}
            assert (await client.delete(where, headers=his)).status_code == 404
        assert (await client.get(f"{where}/poster.jpg", headers=his)).status_code == 404
        assert (await client.get(f"{where}/poster.jpg", headers=hers)).status_code == 200
        speak = {"text": "Hello.", "avatar": made["id"]}
        assert (await client.post("/v1/speak", json=speak, headers=his)).status_code == 404


async def test_uploads_of_a_killed_process_are_removed(settings: Settings) -> None:
    import os

    left = settings.cache_dir / "uploads" / "abc"
    fresh = settings.cache_dir / "uploads" / "def"
    for folder in (left, fresh):
        folder.mkdir(parents=True)
        (folder / "upload").write_bytes(b"x")
    os.utime(left, (1, 1))
    async with open_library(settings, SimpleNamespace(gallery=None)):  # type: ignore[arg-type]
        assert not left.exists() and fresh.exists()
