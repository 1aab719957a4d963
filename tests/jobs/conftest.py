"""Video jobs over a renderer without Triton, in this process."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orchestrator.jobs.job import FINISHED, Job
from orchestrator.jobs.opening import open_videos
from orchestrator.jobs.videos import VideoJobs
from orchestrator.settings import Settings

HERE = Path(__file__).parent


def load(file: str) -> ModuleType:
    name = f"musetalk_job_{file}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{file}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


class FakeResponder:
    name = "fake"
    live = False

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.options: list[dict[str, Any]] = []

    async def reply(self, message: str, history: Any, **options: Any) -> AsyncIterator[str]:
        self.messages.append(message)
        self.options.append(options)
        for word in f"You said {message} Is that so?".split(" "):
            yield word + " "

    async def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def quick_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.jobs.engine._POLL_SECONDS", 0.05)


@pytest.fixture
def fakes() -> ModuleType:
    return load("fakes")


@pytest.fixture
def jobs_outside() -> ModuleType:
    """Servers on loopback and workers as processes."""
    return load("loopback")


@pytest.fixture
def voice(fakes: ModuleType) -> Any:
    return fakes.FakeVoice()


@pytest.fixture
def inference(fakes: ModuleType) -> Any:
    return fakes.FakeInference()


@pytest.fixture
def responder() -> FakeResponder:
    return FakeResponder()


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where files go: each test that uses this runs with a folder and with S3."""
    if request.param == "folder":
        return str(tmp_path / "elsewhere")
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


@pytest.fixture
def results() -> list[str]:
    """How the jobs of this test ended."""
    return []


Opener = Callable[..., AbstractAsyncContextManager[VideoJobs]]


@pytest.fixture
def seconds_made() -> list[tuple[str, float]]:
    """Owner and seconds of each video that was made."""
    return []


@pytest.fixture
def opened(
    tmp_path: Path,
    fakes: ModuleType,
    voice: Any,
    inference: Any,
    responder: Any,
    results: list[str],
    seconds_made: list[tuple[str, float]],
) -> Opener:
    """Opens video jobs, always over the same folder; arguments are settings."""

    @asynccontextmanager
    async def opener(**changes: Any) -> AsyncIterator[VideoJobs]:
        values = {"cache_dir": tmp_path, "worker_timeout": 2.0, **changes}
        settings = Settings(**values)
        renderer = fakes.fake_renderer(settings, voice=voice, inference=inference)

        async def counted(owner: str, seconds: float) -> None:
            seconds_made.append((owner, seconds))

        async with open_videos(settings, renderer, responder, results.append, counted) as videos:
            yield videos

    return opener


async def finished(videos: VideoJobs, job: Job, seconds: float = 30.0) -> Job:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = await videos.get(job.owner, job.id)
        if now.status in FINISHED:
            return now
        await asyncio.sleep(0.05)
    raise AssertionError(f"not over after {seconds} s: {now}")


@pytest.fixture
def wait() -> Callable[..., Awaitable[Job]]:
    return finished


async def content_of(videos: VideoJobs, job: Job) -> bytes:
    result = await videos.result(job.owner, job.id)
    pieces = await videos.content(job.id, result.video, 0, result.size)
    return b"".join([piece async for piece in pieces])


@pytest.fixture
def content() -> Callable[..., Awaitable[bytes]]:
    return content_of
