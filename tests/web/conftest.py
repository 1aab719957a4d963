"""The real service in processes of its own, and Debian's Chromium in front of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from loadtests.ports import free_port

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]
EXPECTED = ("ERR_CONNECTION", "status of")
"""Parts of what a browser says of a server that is away, or that says no."""

# Looks at the mouth and listens, frame by frame, from outside of the page's own code.
WATCH = """
([x, y, width, height]) => {
  const video = document.querySelector("#live");
  const context = new OffscreenCanvas(48, 32).getContext("2d", { willReadFrequently: true });
  const seen = (window.seen = { frames: [], sounds: [], marks: [] });
  const mark = (what) => seen.marks.push([what, performance.now()]);
  const caption = document.querySelector("#caption"), stage = document.querySelector("#stage");
  addEventListener("keydown", ({ key }) => mark(key), true);
  new MutationObserver(() => mark(caption.textContent ? "said" : "unsaid"))
    .observe(caption, { childList: true });
  new MutationObserver(() => mark(stage.dataset.state))
    .observe(stage, { attributes: true, attributeFilter: ["data-state"] });
  let last = null;
  const look = (now, { mediaTime }) => {
    context.drawImage(video, x * video.videoWidth, y * video.videoHeight,
      width * video.videoWidth, height * video.videoHeight, 0, 0, 48, 32);
    const { data } = context.getImageData(0, 0, 48, 32);
    let change = 0;
    if (last) for (let i = 0; i < data.length; i++) change += Math.abs(data[i] - last[i]);
    last = data;
    seen.frames.push([now, mediaTime, change / data.length]);
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  const audio = new AudioContext();
  const source = audio.createMediaElementSource(video);
  const analyser = audio.createAnalyser();
  analyser.fftSize = 1024;
  source.connect(analyser).connect(audio.destination);
  const wave = new Float32Array(1024);
  setInterval(() => {
    analyser.getFloatTimeDomainData(wave);
    seen.sounds.push([performance.now(), Math.max(...wave.map(Math.abs))]);
  }, 20);
}
"""


# How the page and its player are, for when something does not happen.
STATE = """
() => {
  const { currentTime, readyState, seeking, paused, buffered } = document.querySelector("#live");
  const numbers = [...Array(buffered.length).keys()];
  const ranges = numbers.map((i) => [buffered.start(i), buffered.end(i)]);
  const { state } = document.querySelector("#stage").dataset;
  return JSON.stringify({ state, currentTime, readyState, seeking, paused, ranges });
}
"""


class Server:
    """``musetalk triton`` and ``musetalk serve``; the second can be restarted on its port."""

    def __init__(self, folder: Path, cache: Path, environment: dict[str, str]) -> None:
        self._folder, self._cache, self._environment = folder, cache, environment
        self._triton = _start("triton", "--grpc-port", "0", log=folder / "triton.log")
        self._serve: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        address = _wait(lambda: _address(self._folder / "triton.log"), 60)
        self._serve = _start(
            "serve",
            "--port",
            str(self.port),
            "--triton",
            address,
            log=self._folder / "serve.log",
            MUSETALK_CACHE_DIR=str(self._cache),
            MUSETALK_MAX_TALKERS="2",  # a loaded machine would estimate less
            **self._environment,
        )

    def wait(self) -> None:
        _wait(self._ready, 200)

    def drain(self) -> None:
        """Ask it to stop; turns go on to their end."""
        assert self._serve is not None
        self._serve.terminate()

    def stop(self) -> None:
        if self._serve is not None:
            _end(self._serve)

    def close(self) -> None:
        self.stop()
        _end(self._triton)

    def _ready(self) -> bool:
        assert self._serve is not None and self._serve.poll() is None, self.log()
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
                return bool(json.load(answer)["ready"])
        except OSError:
            return False

    def log(self) -> str:
        return (self._folder / "serve.log").read_text()[-3000:]


class Studio:
    """A browser window with the studio in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._console)
        page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type == "error" and not any(part in message.text for part in EXPECTED):
            self.errors.append(message.text)

    def _request(self, request: Any) -> None:
        address = request.url.split("://", 1)[1]
        if not request.url.startswith(("blob:", self.url)):
            self.foreign.append(address)

    def open(self, view: str = "talk") -> None:
        self.page.goto(f"{self.url}/#{view}")

    def value(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def until(self, expression: str, seconds: float = 45) -> Any:
        """Wait for a JavaScript expression to be true, without eval, which the policy forbids."""
        try:
            return _wait(lambda: self.page.evaluate(expression), seconds)
        except AssertionError:
            told = self.page.inner_text("#talk-problem") or "no problem"
            raise AssertionError(
                f"not within {seconds} s: {expression}; the page tells of {told}; "
                f"{self.page.evaluate(STATE)}"
            ) from None

    def meet(self) -> None:
        """Open the conversation, and wait for the face."""
        self.open()
        self.until("document.querySelector('#live').currentTime > 0.4")

    def send(self, text: str, mode: str = "say") -> None:
        self.page.check(f"input[value={mode}]", force=True)
        self.page.fill("#message", text)
        self.page.press("#message", "Enter")

    def record(self, mode: str, seconds: float) -> None:
        """Speak into the microphone, until the avatar answers."""
        self.page.check(f"input[value={mode}]", force=True)
        self.page.click("#microphone")
        self.until("document.querySelector('#status').textContent.startsWith('Recording')")
        time.sleep(seconds)
        self.page.click("#microphone")
        self.until("document.querySelector('#stage').dataset.state === 'speaking'")

    def watch(self, region: tuple[float, float, float, float]) -> None:
        self.page.click("#message")
        self.page.evaluate(WATCH, list(region))

    @property
    def caption(self) -> str:
        return str(self.value("document.querySelector('#caption').textContent"))

    @property
    def state(self) -> str:
        return str(self.value("document.querySelector('#stage').dataset.state"))


def _start(*arguments: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)


def _address(log: Path) -> str:
    for line in log.read_text().splitlines():
        if "gRPC" in line and "127.0.0.1:" in line:
            return "127.0.0.1:" + line.split("127.0.0.1:")[1].split()[0].rstrip(",;")
    return ""


def _wait(ready: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := ready():
            return value
        time.sleep(0.06)
    raise AssertionError(f"not within {seconds} s")


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Settings of the service that a module's tests need."""
    return {}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    portraits_ready: Callable[[Path], Path],
    environment: dict[str, str],
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("studio")
    running = Server(folder, portraits_ready(folder / "cache"), environment)
    try:
        running.start()
        running.wait()
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def window(server: Server, browser: Browser) -> Iterator[Callable[..., Studio]]:
    """Opens windows; at the end nothing went wrong in them, and they asked nobody else."""
    contexts: list[BrowserContext] = []
    studios: list[Studio] = []

    def make(**options: Any) -> Studio:
        chosen: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "locale": "en-GB"}
        context = browser.new_context(**{**chosen, **options})
        contexts.append(context)
        studio = Studio(context.new_page(), server.url)
        studios.append(studio)
        return studio

    yield make
    for context in contexts:
        context.close()
    for studio in studios:
        assert studio.errors == []
        assert studio.foreign == []


@pytest.fixture
def studio(window: Callable[..., Studio]) -> Studio:
    """A window with the conversation, its face on the screen."""
    made = window()
    made.meet()
    return made
