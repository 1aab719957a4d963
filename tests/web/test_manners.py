"""The studio with people who are quick, change their minds, or meet a server that says no."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

pytestmark = [pytest.mark.triton, pytest.mark.slow]

TRACKS = """
window.tracks = [];
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  const stream = await ask(wanted);
  tracks.push(...stream.getTracks());
  return stream;
};
"""
SLOW_TO_LEAVE = """
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (data) {
  if (!String(data).includes('"leave"')) return send.call(this, data);
  setTimeout(() => this.readyState === 1 && send.call(this, data), 700);
};
"""
DIALOG = "document.querySelector('#create-title')?.textContent"
HEARD = "How tall is the lighthouse?"


class Transcriptions(BaseHTTPRequestHandler):
    """Answers ``POST /v1/audio/transcriptions``, and keeps what it was sent."""

    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        assert self.path == "/v1/audio/transcriptions"
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"text": HEARD}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Transcriptions) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield {"MUSETALK_STT_BASE_URL": f"http://127.0.0.1:{listening.server_port}/v1"}
        listening.shutdown()


def fill(studio: Any, path: Path) -> None:
    """Choose a file for an avatar, and agree to everything."""
    studio.open("avatars")
    studio.page.set_input_files("#avatar-file", str(path))
    studio.page.fill("#create-dialog input[placeholder]", "nobody: a drawing")
    studio.page.check("#create-dialog input[type=checkbox]")


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    path = tmp_path / "noise.png"
    pixels = np.random.default_rng(7).integers(0, 255, (240, 320, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


def test_a_second_click_opens_no_second_microphone(window: Callable[..., Any]) -> None:
    studio = window(permissions=["microphone"])
    studio.page.add_init_script(TRACKS)
    studio.meet()
    studio.page.dblclick("#microphone")
    studio.until("document.querySelector('#status').textContent.startsWith('Recording')")
    assert studio.value("tracks.length") == 1
    studio.page.click("a[href='#videos']")  # where nobody would see that it listens
    studio.until("tracks.every((track) => track.readyState === 'ended')")


def test_what_is_dictated_is_asked(window: Callable[..., Any]) -> None:
    studio = window(permissions=["microphone"])
    studio.meet()
    studio.record("ask", 1.5)
    assert HEARD in studio.page.inner_text("#log")
    (body,) = Transcriptions.bodies
    sound = body[body.index(b"RIFF") :]
    assert sound[8:12] == b"WAVE" and len(sound) > 16_000, "what was recorded"
    assert b'name="language"\r\n\r\nen\r\n' in body
    studio.until("document.querySelector('#stage').dataset.state === 'idle'")


def test_a_double_click_says_it_once_and_what_was_said_is_not_said_anew(studio: Any) -> None:
    studio.page.dblclick(".starter >> nth=0")
    studio.until("document.querySelector('#log .meta a')")
    studio.until("document.querySelector('#stage').dataset.state === 'idle'")
    assert studio.value("document.querySelectorAll('#log li').length") == 1
    studio.value("window.line = document.querySelector('#log .said')")
    studio.page.select_option("#language", "fr")
    assert studio.value("line.isConnected"), "a screen reader would read the conversation again"


def test_a_text_that_is_too_long_is_refused_and_kept_whole(studio: Any) -> None:
    words = "word " * 1600
    studio.page.focus("#message")
    studio.page.keyboard.insert_text(words)
    studio.page.keyboard.press("Enter")
    studio.until("!document.querySelector('#talk-problem').hidden")
    assert "more than 5000" in studio.page.inner_text("#talk-problem")
    assert studio.page.input_value("#message") == words.strip()


def test_the_skip_link_leads_to_the_message_from_everywhere(studio: Any) -> None:
    studio.page.click("a[href='#avatars']")
    studio.page.focus(".skip")
    studio.page.keyboard.press("Enter")
    assert studio.value("document.activeElement.id") == "message"
    studio.page.select_option("#language", "fr")
    assert studio.page.title() == "Parler · MuseTalk Studio"


def test_who_changes_their_mind_gets_the_last_choice_and_one_session(
    window: Callable[..., Any], server: Any
) -> None:
    studio = window()
    studio.page.add_init_script(SLOW_TO_LEAVE)
    studio.meet()
    for name in ("Mei", "Henrik", "Amara"):
        studio.page.click(f".face[aria-label={name}]")
        assert studio.page.get_attribute(f".face[aria-label={name}]", "aria-pressed") == "true"
        time.sleep(0.2)
    studio.until("document.querySelector('#stage').dataset.state === 'idle'")
    assert "Amara" in studio.page.get_attribute("#message", "placeholder")
    time.sleep(2)
    with urllib.request.urlopen(f"{server.url}/v1/stats", timeout=10) as answer:
        sessions = json.load(answer)["sessions"]
    assert sum(sessions[state] for state in ("idle", "thinking", "speaking")) == 1


def guard(studio: Any) -> list[str]:
    """Make the server ask for the key ``right``; returns what is asked for with it."""
    given: list[str] = []

    def check(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer right":
            given.append(route.request.url.removeprefix(studio.url))
            route.continue_()
        else:
            told = {"status": 401, "code": "unauthorized", "detail": "an API key is needed"}
            route.fulfill(status=401, json=told, content_type="application/problem+json")

    studio.page.route("**/v1/**", check)
    return given


def test_a_key_is_asked_for_once_for_all_that_wait(window: Callable[..., Any]) -> None:
    studio = window()
    given = guard(studio)
    studio.open("videos")
    studio.page.wait_for_selector("#key")
    studio.page.type("#key", "wrong")
    time.sleep(3)  # others are refused meanwhile
    assert studio.page.input_value("#key") == "wrong"
    studio.page.keyboard.press("Enter")
    studio.until("document.querySelector('#key-dialog').innerText.includes('not accepted')")
    studio.page.fill("#key", "right")
    studio.page.keyboard.press("Enter")
    studio.until("document.querySelector('#jobs .empty')")
    studio.until("document.querySelector('#video-avatar').options.length === 3")
    assert {"/v1/videos", "/v1/avatars", "/v1/voices"} <= set(given)


def test_who_has_no_key_is_not_asked_again(window: Callable[..., Any]) -> None:
    studio = window()
    guard(studio)
    studio.open("timing")
    studio.page.wait_for_selector("#key")
    studio.page.keyboard.press("Escape")
    studio.until("document.querySelector('#timing-problem').innerText.includes('key')")
    time.sleep(2)  # asks for figures again
    assert not studio.page.is_visible("#key-dialog")


@pytest.mark.parametrize("view", ["videos", "timing"])
def test_what_was_wrong_is_taken_back_when_it_is_over(
    window: Callable[..., Any], view: str
) -> None:
    studio = window()
    asked = {"videos": "**/v1/videos", "timing": "**/v1/stats"}[view]
    problem = f"document.querySelector('#{view.removesuffix('s')}-problem')"
    studio.page.route(asked, lambda route: route.abort("connectionrefused"))
    studio.open(view)
    studio.until(f"{problem}.innerText.includes('cannot be reached')")
    studio.page.unroute(asked)
    studio.until(f"{problem}.hidden", 10)


def test_a_refusal_has_the_focus_and_a_failure_is_not_the_files_fault(
    window: Callable[..., Any], noise: Path
) -> None:
    studio = window()
    page = studio.page
    fill(studio, noise)
    page.route("**/v1/avatars", lambda route: route.abort("connectionrefused"))
    page.click("#create-dialog .primary")
    studio.until(f"{DIALOG} === 'The avatar was not made'")
    assert "cannot be reached" in page.inner_text("#create-dialog .problem")
    assert not page.is_visible("#create-dialog .tips")
    assert studio.value("document.activeElement.textContent") == "Try again"
    page.unroute("**/v1/avatars")
    page.keyboard.press("Enter")
    assert page.input_value("#create-dialog input[placeholder]") == "nobody: a drawing"
    page.click("#create-dialog .primary")
    studio.until(f"{DIALOG} === 'This one cannot be used'", 120)
    assert page.is_visible("#create-dialog .tips")
    assert studio.value("document.activeElement.textContent") == "Choose another"


def test_escape_stops_sending(window: Callable[..., Any], noise: Path) -> None:
    studio = window()
    fill(studio, noise)
    held: list[Any] = []
    studio.page.route("**/v1/avatars", lambda route: held.append(route))
    with studio.page.expect_event("requestfailed", lambda failed: failed.method == "POST") as sent:
        studio.page.click("#create-dialog .primary")
        studio.until(f"{DIALOG} === 'Noise'")
        studio.page.keyboard.press("Escape")
    assert "ABORTED" in sent.value.failure


def test_a_picture_that_no_browser_shows_leaves_no_hole(
    window: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "letter.jpg"
    path.write_text("Dear reader, this is no picture.")
    studio = window()
    fill(studio, path)
    studio.until("document.querySelector('#create-dialog .preview').hidden")
    studio.page.click("#create-dialog .primary")
    studio.until(f"{DIALOG} === 'This one cannot be used'", 120)
    assert "no picture or video" in studio.page.inner_text("#create-dialog .problem")
