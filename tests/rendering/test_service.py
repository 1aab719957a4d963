"""The running commands: ``musetalk serve`` and ``speak`` as processes, with a real tritonserver."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import httpx
import numpy as np
import psutil
import pytest

from loadtests.ports import free_port
from orchestrator.avatars.avatar import Avatar
from orchestrator.avatars.masks import BlendMask
from orchestrator.avatars.store import AvatarStore
from orchestrator.errors import SetupError, UsageError
from orchestrator.rendering.gallery import portraits
from orchestrator.serve import check_loopback, serve
from orchestrator.settings import Settings

ROOT = Path(__file__).parent.parent.parent
MUSETALK = [sys.executable, "-m", "orchestrator.cli"]


def environment(cache: Path, repository: Path) -> dict[str, str]:
    return {
        **os.environ,
        "MUSETALK_CACHE_DIR": str(cache),
        "MUSETALK_REPOSITORY": str(repository),
        "MUSETALK_MAX_RENDERS": "1",
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the avatar ``ada``, also under the default portrait's name.

    Preparing that portrait takes many seconds, and is tested with the avatars.
    """
    path = tmp_path_factory.mktemp("cache")
    jpeg = cv2.imencode(".jpg", np.full((96, 128, 3), 60, np.uint8))[1].tobytes()
    avatar = Avatar(
        id="ada",
        name="ada",
        width=128,
        height=96,
        jpegs=(jpeg,) * 2,
        latents=np.zeros((2, 8, 32, 32), np.float16),
        boxes=np.tile(np.array([40, 20, 88, 80], np.int32), (2, 1)),
        squares=np.tile(np.array([20, 10, 100, 90], np.int32), (2, 1)),
        masks=(BlendMask(45, 40, np.full((30, 30), 255, np.uint8)),) * 2,
        metadata={"consent": "a grey square"},
    )
    store = AvatarStore(path / "avatars")
    for name in {"ada", *list(portraits())[:1]}:
        store.add(dataclasses.replace(avatar, name=name))
    return path


def wav(path: Path, seconds: float) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        t = np.arange(round(seconds * 16000)) / 16000
        file.writeframes((9000 * np.sin(2000 * t)).astype("<i2").tobytes())
    return path


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@contextlib.contextmanager
def serving(cache: Path, repository: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    port = free_port()
    process = subprocess.Popen(
        [*MUSETALK, "serve", "--port", str(port)],
        env=environment(cache, repository),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(url: str, status: int, process: subprocess.Popen[str], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, process.stderr and process.stderr.read()
        with contextlib.suppress(httpx.TransportError):
            response = httpx.get(url)
            if response.status_code == status:
                return response
        time.sleep(0.1)
    raise AssertionError(f"{url} did not answer {status} in {seconds} s")


@pytest.mark.triton
def test_serve_from_start_to_stop(tmp_path: Path, cache: Path, repository: Path) -> None:
    with serving(cache, repository) as (process, url):
        wait_for(f"{url}/healthz", 200, process)
        assert wait_for(f"{url}/readyz", 200, process).json()["avatars"] >= 1
        triton = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if child.name() == "tritonserver"
        ]
        assert len(triton) == 1
        sound = wav(tmp_path / "a.wav", 2.5).read_bytes()
        form: dict[str, Any] = {"files": {"audio": ("a.wav", sound)}, "data": {"avatar": "ada"}}
        answer = httpx.post(f"{url}/v1/speak", **form, timeout=60)
        assert answer.status_code == 200, answer.text
        (tmp_path / "a.mp4").write_bytes(answer.content)
        assert frames_of(tmp_path / "a.mp4") == 62

        # A client that hangs up frees its place, the only one, within two seconds.
        form["files"] = {"audio": ("b.wav", wav(tmp_path / "b.wav", 500).read_bytes())}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/speak", **form, timeout=httpx.Timeout(30, read=1.0))
        time.sleep(2)
        metrics = httpx.get(f"{url}/metrics").text
        assert 'musetalk_renders_total{result="cancelled"} 1.0' in metrics
        assert "musetalk_renders_in_progress 0.0" in metrics

        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert not triton[0].is_running()


@pytest.mark.triton
@pytest.mark.slow
def test_video_jobs_go_on_after_kill(tmp_path: Path, cache: Path, repository: Path) -> None:
    """With the real Triton, voice and responder: nothing is lost, and no tritonserver stays."""
    sound = wav(tmp_path / "a.wav", 12).read_bytes()
    with serving(cache, repository) as (process, url):
        wait_for(f"{url}/readyz", 200, process)
        jobs = [
            httpx.post(
                f"{url}/v1/videos", files={"audio": ("a.wav", sound)}, data={"avatar": "ada"}
            ).json(),
            httpx.post(f"{url}/v1/videos", json={"message": "Hello!", "avatar": "ada"}).json(),
        ]
        end = time.monotonic() + 60
        while httpx.get(f"{url}/v1/videos/{jobs[0]['id']}").json()["progress"] < 0.3:
            assert time.monotonic() < end
            time.sleep(0.02)
        triton = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if child.name() == "tritonserver"
        ]
        process.kill()
        process.wait()
        psutil.wait_procs(triton, timeout=10)
        assert not any(child.is_running() for child in triton)
    with serving(cache, repository) as (process, url):
        wait_for(f"{url}/readyz", 200, process)
        end = time.monotonic() + 60
        for job in jobs:
            path = f"{url}/v1/videos/{job['id']}"
            while not (state := httpx.get(path).json())["expires"]:
                assert time.monotonic() < end, state
                time.sleep(0.1)
            assert state["status"] == "succeeded", state
            (tmp_path / "job.mp4").write_bytes(httpx.get(f"{path}/content").content)
            assert frames_of(tmp_path / "job.mp4") == state["frames"] > 0
        assert httpx.get(f"{url}{state['captions_url']}").text.startswith("WEBVTT")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


@pytest.mark.triton
def test_speak_and_its_errors(tmp_path: Path, cache: Path, repository: Path) -> None:
    def speak(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*MUSETALK, "speak", *arguments],
            env=environment(cache, repository),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    wav(tmp_path / "a.wav", 1.0)
    done = speak("--audio", "a.wav", "--avatar", "ada", "--fps", "20", "-o", "out/a.mp4")
    assert done.returncode == 0, done.stderr
    assert frames_of(tmp_path / "out" / "a.mp4") == 20
    assert "real-time factor" in done.stdout and "Triton" in done.stdout
    assert "100%, 20 frames" in done.stderr

    (tmp_path / "noise.mp4").write_text("not a video at all" * 50)
    picture = tmp_path / "face.png"
    cv2.imwrite(str(picture), np.zeros((64, 64, 3), np.uint8))
    for arguments, words in (
        (["...", "--avatar", "ada"], "nothing that can be said"),
        (["--audio", "noise.mp4", "--avatar", "ada"], "not sound or video"),
        (["--audio", "missing.wav", "--avatar", "ada"], "missing.wav"),
        (["--audio", "a.wav", "--avatar", "face.png"], "did they agree"),
        (["--audio", "a.wav", "--avatar", "nobody"], "there is no avatar 'nobody'"),
    ):
        failed = speak(*arguments, "-o", "out/b.mp4")
        lines = [line for line in failed.stderr.splitlines() if line.startswith("musetalk: ")]
        assert failed.returncode == 1, (arguments, failed.stderr)
        assert len(lines) == 1 and words in lines[0]
        assert "Traceback" not in failed.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.mp4"]


@pytest.mark.triton
def test_a_terminated_speak_leaves_nothing(tmp_path: Path, cache: Path, repository: Path) -> None:
    sound = wav(tmp_path / "a.wav", 500)
    process = subprocess.Popen(
        [*MUSETALK, "speak", "--audio", str(sound), "--avatar", "ada", "-o", "out/a.mp4"],
        env=environment(cache, repository),
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while not list(tmp_path.glob("out/.a.mp4.*/video.mp4")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 130
    assert list((tmp_path / "out").iterdir()) == []
    assert not [child for child in children if child.is_running()]


def test_serve_says_in_one_line_why_it_cannot_start(tmp_path: Path, cache: Path) -> None:
    with serving(cache, tmp_path / "no-repository") as (process, _):
        assert process.stderr is not None
        log = process.stderr.read()
        assert process.wait(timeout=30) == 1
    lines = [line for line in log.splitlines() if line.startswith("musetalk: ")]
    assert len(lines) == 1 and "no-repository" in lines[0]
    assert "Traceback" not in log


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(SetupError, match=f"port {port} of 127.0.0.1"):
            serve(Settings(port=port))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_other_machines_are_kept_out(host: str) -> None:
    with pytest.raises(UsageError, match="no API keys"):
        serve(Settings(host=host))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.3.2.1"])
def test_loopback_is_allowed(host: str) -> None:
    check_loopback(host, keys=False)
    check_loopback("0.0.0.0", keys=True)
