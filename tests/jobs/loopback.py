"""A language model and a voice that note every request, and the service as a process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from loadtests.ports import free_port

WARM_UP = "Hello."
"""What the service says to itself when it starts."""

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@dataclass
class Asked:
    """One request to the language model or the voice."""

    what: str
    text: str
    at: float = field(default_factory=time.monotonic)


class Loopback(ThreadingHTTPServer):
    """Answers ``/v1/chat/completions`` and ``/v1/audio/speech``, after ``delay`` seconds each."""

    daemon_threads = True

    def __init__(self, delay: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.delay = delay
        self.asked: list[Asked] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Loopback

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with contextlib.suppress(ConnectionError):
            if self.path.endswith("/speech"):
                if body["input"] != WARM_UP:
                    self.server.asked.append(Asked("tts", body["input"]))
                time.sleep(self.server.delay)
                t = np.arange(24_000 * len(body["input"]) // 40) / 24_000
                self._send("audio/pcm", (6000 * np.sin(2000 * t)).astype("<i2").tobytes())
            else:
                message = body["messages"][-1]["content"]
                self.server.asked.append(Asked("llm", message))
                time.sleep(self.server.delay)
                which = message.rstrip("?.")
                words = " ".join(f"Sentence {n} answers {which}." for n in ("one", "two", "three"))
                events = [
                    {"choices": [{"index": 0, "delta": {"content": words}}]},
                    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
                ]
                for number, event in enumerate(events):
                    event |= {"id": "x", "object": "chat.completion.chunk", "created": number}
                    event["model"] = "fake"
                lines = [f"data: {json.dumps(event)}\n\n" for event in events]
                self._send("text/event-stream", "".join([*lines, "data: [DONE]\n\n"]).encode())

    def _send(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


class Worker:
    """The service as a process of its own, with a renderer without Triton."""

    def __init__(self, folder: Path, loopback: Loopback, **environment: str) -> None:
        self._folder = folder
        self._environment = {
            **{key: value for key, value in os.environ.items() if "PROXY" not in key.upper()},
            "MUSETALK_CACHE_DIR": str(folder),
            "MUSETALK_LLM_BASE_URL": loopback.url,
            "MUSETALK_TTS": "openai",
            "MUSETALK_TTS_BASE_URL": loopback.url,
            "MUSETALK_TTS_FALLBACK": "false",
            "MUSETALK_WORKER_TIMEOUT": "2",
            "PYTHONPATH": str(ROOT),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / f"worker-{id(self)}.log"
        self.url = ""

    def start(self, *arguments: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "fakes.py"), *arguments],
                env={**self._environment, "MUSETALK_PORT": str(port)},
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more when this returns."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def wait_ready(self, seconds: float = 60.0) -> None:
        def ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{self.url}/v1/videos").status_code == 200
            return False

        until(ready, seconds)

    def create(self, **order: Any) -> str:
        response = httpx.post(f"{self.url}/v1/videos", json=order, timeout=20)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def job(self, identity: str) -> dict[str, Any]:
        response = httpx.get(f"{self.url}/v1/videos/{identity}", timeout=20)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait_over(self, jobs: list[str], seconds: float) -> list[dict[str, Any]]:
        def over() -> bool:
            return all(self.job(job)["expires"] for job in jobs)

        try:
            until(over, seconds)
        except AssertionError:
            states = [self.job(job) for job in jobs]
            raise AssertionError(f"{states}\n{self.log.read_text()[-3000:]}") from None
        return [self.job(job) for job in jobs]


def until(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)
