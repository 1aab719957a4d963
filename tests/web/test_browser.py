"""The studio as a person meets it: the real service, a real browser, its real policy."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from axe_core_python.sync_playwright import Axe

from orchestrator.speech.ffmpeg import ffmpeg_path

pytestmark = [pytest.mark.triton, pytest.mark.slow]

PORTRAITS = Path(__file__).parents[2] / "orchestrator" / "avatars" / "portraits"
SOUNDING = 0.02
"""Peak of sound that is heard; the clips' silence is far below."""

DROP = """
([name, type, content]) => {
  const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const event = new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true });
    document.body.dispatchEvent(event);
  }
}
"""

CAPTIONS = """
() => {
  const caption = document.querySelector("#caption");
  window.captions = new Set();
  new MutationObserver(() => window.captions.add(caption.textContent))
    .observe(caption, { childList: true });
}
"""

DRAWN_ANEW = """
() => {
  const stage = document.querySelector("#stage");
  const blurred = [stage, ...stage.querySelectorAll("*")]
    .filter((element) => getComputedStyle(element).backdropFilter !== "none");
  const moving = document.getAnimations().filter((one) => one instanceof CSSAnimation);
  return [...blurred.map((one) => one.className), ...moving.map((one) => one.animationName)];
}
"""
"""What makes a browser without a GPU draw the face more often than it changes, or more than it."""


def mouth(avatar: str) -> tuple[float, float, float, float]:
    """The lower half of a portrait's face, as parts of the picture."""
    about = json.loads((PORTRAITS / f"{avatar}.json").read_text())
    x0, y0, x1, y1 = np.mean(about["boxes"], axis=0)
    width, height = about["width"], about["height"]
    middle = (y0 + y1) / 2
    return x0 / width, middle / height, (x1 - x0) / width, (y1 - middle) / height


def picture(avatar: str) -> bytes:
    """A frame of a portrait as a JPEG."""
    capture = cv2.VideoCapture(str(PORTRAITS / f"{avatar}.mp4"))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 20)
    found, frame = capture.read()
    capture.release()
    assert found
    return bytes(cv2.imencode(".jpg", frame)[1])


def drop(studio: Any, name: str, content: bytes, kind: str = "image/jpeg") -> None:
    studio.page.evaluate(DROP, [name, kind, base64.b64encode(content).decode()])


def seen(studio: Any) -> tuple[np.ndarray, np.ndarray]:
    """What was watched: rows of (clock ms, media time, change), and of (clock ms, loudness)."""
    watched = studio.value("window.seen")
    return np.array(watched["frames"]), np.array(watched["sounds"])


def test_the_face_idles_without_a_click(studio: Any) -> None:
    before = studio.value("document.querySelector('#live').currentTime")
    studio.until(f"document.querySelector('#live').currentTime > {before} + 1")
    assert studio.value("document.querySelector('#live').muted")
    assert studio.page.is_visible("#unmute") and studio.page.is_visible("#notice")
    assert studio.state == "idle"


def test_saying_moves_the_lips_sounds_and_shows_captions(studio: Any) -> None:
    studio.watch(mouth("amara"))
    time.sleep(1.5)
    began = studio.value("performance.now()")
    studio.send("Hello! Many people move their mouths when they are speaking about bananas.")
    studio.until("document.querySelector('#caption').textContent === 'Hello!'")
    studio.until("document.querySelector('#caption').textContent.startsWith('Many people')")
    assert studio.page.evaluate(DRAWN_ANEW) == []
    studio.until("document.querySelector('#stage').dataset.state === 'idle'")
    assert not studio.value("document.querySelector('#live').muted")

    frames, sounds = seen(studio)
    loud = sounds[sounds[:, 1] > SOUNDING, 0]
    assert len(loud) > 25 and loud[0] > began, "the speech is heard, and nothing before it"
    speaking = (frames[:, 0] > loud[0]) & (frames[:, 0] < loud[-1])
    resting = frames[:, 0] < began
    assert np.mean(frames[speaking, 2]) > 1.5 * np.mean(frames[resting, 2])
    assert np.all(np.diff(frames[:, 1]) > -0.5), "the picture does not jump back"
    assert "Many people move their mouths" in studio.page.inner_text("#log")
    assert "spoke after" in studio.page.inner_text("#log")


def test_escape_stops_picture_sound_and_caption_at_once(studio: Any) -> None:
    studio.watch(mouth("amara"))
    delays = []
    for _ in range(3):  # the best of three: other work on the machine is not the page's doing
        studio.send("This is a rather long sentence which nobody wants to hear to its very end.")
        studio.until("document.querySelector('#caption').textContent")
        time.sleep(1)
        studio.page.keyboard.press("Escape")
        studio.until("document.querySelector('#stage').dataset.state === 'idle'")
        studio.until("!document.querySelector('#caption').textContent")
        time.sleep(0.8)
        marks = studio.value("window.seen.marks")
        pressed = max(at for what, at in marks if what == "Escape")
        over = [
            min(at for what, at in marks if what == end and at >= pressed)
            for end in ("unsaid", "idle")
        ]
        _, sounds = seen(studio)
        heard = sounds[(sounds[:, 0] > pressed) & (sounds[:, 1] > SOUNDING), 0]
        delays.append(max([*over, *heard[-1:]]) - pressed)
        if delays[-1] < 500:
            break
    print(f"silent and still {min(delays):.0f} ms after Escape; the aim is 500")  # noqa: T201
    # The aim is for a quiet machine; what was buffered ahead would go on for longer than this.
    assert min(delays) < 1500, delays


def test_the_next_message_interrupts(studio: Any) -> None:
    studio.send("The first message goes on for quite some time, with one word after the other.")
    studio.until("document.querySelector('#caption').textContent.startsWith('The first')")
    studio.value(CAPTIONS)  # a short one may come and go between two looks from outside
    studio.send("Second one.")
    studio.until("window.captions.has('Second one.')")
    studio.until("document.querySelector('#stage').dataset.state === 'idle'")
    assert len(studio.page.query_selector_all("#log li")) == 2


def test_the_button_interrupts(studio: Any) -> None:
    assert not studio.page.is_visible("#interrupt")
    studio.send("This message goes on for quite some time, with one word after the other.")
    studio.until("document.querySelector('#caption').textContent")
    studio.page.click("#interrupt")
    studio.until("document.querySelector('#stage').dataset.state === 'idle'", 1.5)
    assert studio.caption == "" and not studio.page.is_visible("#interrupt")


def test_the_notice_can_be_switched_off_and_stays_so(studio: Any) -> None:
    for shown in (False, True):
        studio.page.click("#tune")
        studio.page.set_checked("#settings-dialog input[type=checkbox]", shown)
        studio.page.click("#settings-dialog .primary")
        assert studio.page.is_visible("#notice") == shown
        studio.page.reload()
        studio.meet()
        assert studio.page.is_visible("#notice") == shown


def test_a_question_is_answered_and_timed(studio: Any) -> None:
    studio.send("Who are you?", "ask")
    studio.until("document.querySelector('#caption').textContent")
    assert studio.page.inner_text("#log .you").endswith("Who are you?")
    studio.until("document.querySelector('#stage').dataset.state === 'idle'")
    studio.page.click("a[href='#timing'] >> nth=0")
    studio.until("document.querySelectorAll('.waterfall tr').length > 5")
    assert {"Voice", "Inference", "Encoding", "To the screen"} <= {
        cell.inner_text() for cell in studio.page.query_selector_all(".waterfall tbody th")
    }
    studio.until("document.querySelector('#models')?.innerText.includes('lipsync')")


def test_the_avatar_repeats_a_voice(studio: Any) -> None:
    studio.record("say", 2)
    studio.until("document.querySelector('#stage').dataset.state === 'idle'")
    assert "Your voice" in studio.page.inner_text("#log")


def test_dictation_says_what_it_needs(studio: Any) -> None:
    studio.page.check("input[value=ask]", force=True)
    studio.page.click("#microphone")
    assert "MUSETALK_STT_BASE_URL" in studio.page.inner_text("#talk-problem")


def test_a_dropped_picture_becomes_an_avatar_that_speaks(studio: Any) -> None:
    page = studio.page
    drop(studio, "my_uncle.jpg", picture("henrik"))
    page.wait_for_selector("#create-dialog[open]")
    assert page.input_value("#create-dialog input") == "My uncle"
    page.click("#create-dialog .primary")
    assert page.is_visible("#create-dialog form"), "not without consent"
    page.fill("#create-dialog input[placeholder]", "nobody: a drawing")
    page.check("#create-dialog input[type=checkbox]")
    page.click("#create-dialog .primary")
    studio.until("document.querySelector('#create-title').textContent === 'My uncle is ready'", 40)
    studio.until("document.querySelector('.sheet-image').naturalWidth > 100")
    page.click("#create-dialog .primary")
    studio.until("document.querySelector('#message').placeholder.includes('My uncle')")
    studio.until("document.querySelector('#stage').dataset.state === 'idle'")
    studio.send("I am your uncle.")
    studio.until("document.querySelector('#caption').textContent === 'I am your uncle.'")

    page.click("a[href='#avatars']")
    page.click("button[aria-label='Delete My uncle']")
    page.click("#create-dialog .danger")
    studio.until("!document.querySelector('#gallery').innerText.includes('My uncle')")
    assert len(page.query_selector_all("#gallery video")) == 3


def test_a_dropped_video_becomes_an_avatar_that_speaks(studio: Any, tmp_path: Path) -> None:
    page, clip = studio.page, tmp_path / "neighbour.mp4"
    cut = [ffmpeg_path(), "-i", str(PORTRAITS / "mei.mp4"), "-t", "3", "-c", "copy", str(clip)]
    subprocess.run(cut, check=True, capture_output=True)
    drop(studio, clip.name, clip.read_bytes(), "video/mp4")
    page.fill("#create-dialog input[placeholder]", "nobody: a drawing")
    page.check("#create-dialog input[type=checkbox]")
    page.click("#create-dialog .primary")
    ready = "document.querySelector('#create-title').textContent === 'Neighbour is ready'"
    studio.until(ready, 90)
    page.click("#create-dialog .primary")
    studio.until("document.querySelector('#message').placeholder.includes('Neighbour')")
    studio.until("document.querySelector('#stage').dataset.state === 'idle'")
    studio.send("I live next door.")
    studio.until("document.querySelector('#caption').textContent === 'I live next door.'")


def drop_a_wall(studio: Any) -> None:
    noise = np.random.default_rng(7).integers(0, 255, (240, 320, 3), np.uint8)
    drop(studio, "wall.png", bytes(cv2.imencode(".png", noise)[1]), "image/png")
    studio.page.fill("#create-dialog input[placeholder]", "nobody")
    studio.page.check("#create-dialog input[type=checkbox]")
    studio.page.click("#create-dialog .primary")
    studio.until("document.querySelector('#create-dialog .problem')", 30)


def test_a_picture_without_a_face_is_refused_helpfully(studio: Any) -> None:
    drop_a_wall(studio)
    page = studio.page
    assert page.inner_text("#create-title").startswith("This one")
    assert "face" in page.inner_text("#create-dialog .problem")
    page.keyboard.press("Escape")
    drop(studio, "letter.pdf", b"%PDF-1.4", "application/pdf")
    assert "neither a picture nor a video" in page.inner_text("#create-dialog .problem")


def test_a_video_is_made_and_plays(studio: Any) -> None:
    page = studio.page
    page.click("a[href='#videos']")
    page.fill("#video-form textarea", "This one is made in the background.")
    page.click("#video-form .primary")
    studio.until("document.querySelector('.job')?.innerText.includes('made in the background')")
    studio.until("document.querySelector('.job .badge').classList.contains('succeeded')", 40)
    page.click(".job .button >> nth=0")
    studio.until("document.querySelector('#player-dialog video')?.currentTime > 0.5")
    cues = "document.querySelector('#player-dialog video').textTracks[0].cues"
    studio.until(f"{cues}?.length > 0")
    assert "background" in studio.value(f"{cues}[0].text")
    page.keyboard.press("Escape")
    for suffix in ("mp4", "vtt"):
        with page.expect_download() as download:
            page.click(f".job a[download$={suffix}]")
        assert download.value.path().stat().st_size > 20
    page.click(".job button[aria-label=Delete]")
    studio.until("!document.querySelector('.job')")


def test_the_page_comes_back_after_a_restart(studio: Any, server: Any) -> None:
    server.stop()
    studio.until("document.querySelector('#stage').dataset.state === 'lost'")
    assert "again" in studio.page.inner_text("#status")
    studio.page.click("#starters button >> nth=0")
    assert "cannot be reached" in studio.page.inner_text("#talk-problem")
    server.start()
    server.wait()
    studio.until("document.querySelector('#stage').dataset.state === 'idle'", 15)
    studio.send("Here I am again.")
    studio.until("document.querySelector('#caption').textContent === 'Here I am again.'")


def test_what_a_stopping_server_refuses_is_said_by_the_next_one(studio: Any, server: Any) -> None:
    studio.send("This is said to its end, although the server was asked to stop.")
    studio.until("document.querySelector('#stage').dataset.state === 'speaking'")
    server.drain()
    studio.page.wait_for_timeout(500)
    studio.send("Now I am elsewhere.")
    server.stop()
    server.start()
    server.wait()
    studio.until("document.querySelector('#caption').textContent === 'Now I am elsewhere.'", 30)


def test_french_by_the_language_of_the_browser(window: Callable[..., Any]) -> None:
    studio = window(locale="fr-CA")
    studio.meet()
    assert studio.value("document.documentElement.lang") == "fr"
    assert "Visage généré par IA" in studio.page.inner_text("#notice")
    assert studio.page.get_attribute("#message", "placeholder").startswith("Écrivez")
    drop_a_wall(studio)
    assert studio.page.inner_text("#create-dialog .problem").startswith("Aucun avatar ne peut")
    assert "face" in studio.page.inner_text("#create-dialog .problem [lang=en]")
    studio.page.keyboard.press("Escape")
    studio.page.select_option("#language", "en")
    assert studio.page.get_attribute("#message", "placeholder").startswith("Type")
    # The voice of this server speaks English only, so a French page asks for that.
    studio.send("I speak English.")
    studio.until("document.querySelector('#caption').textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_for_axe(window: Callable[..., Any], scheme: str) -> None:
    studio = window(color_scheme=scheme)
    studio.meet()
    found = []

    def check(what: str) -> None:
        answer = Axe().run(studio.page, options={"resultTypes": ["violations"]})
        found.extend(
            (what, violation["id"], [node["html"][:120] for node in violation["nodes"]])
            for violation in answer["violations"]
            if violation["impact"] in ("serious", "critical")
        )

    check("talk")
    studio.page.click("#tune")
    check("settings")
    studio.page.keyboard.press("Escape")
    for view in ("avatars", "videos", "timing"):
        studio.page.click(f"a[href='#{view}']")
        time.sleep(0.7)
        check(view)
    drop(studio, "someone.jpg", picture("mei"))
    check("create")
    assert found == []


def test_the_keyboard_is_enough(studio: Any) -> None:
    page = studio.page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the skip link
    assert studio.value("document.activeElement.id") == "message"
    page.keyboard.type("Typed.")
    page.keyboard.press("Shift+Enter")
    assert page.input_value("#message") == "Typed.\n"
    page.keyboard.press("Enter")
    # The caption of one word is gone before a busy machine looks; the conversation stays.
    studio.until("document.querySelector('#log').innerText.includes('Typed.')")
    page.focus("#tune")
    page.keyboard.press("Enter")
    assert page.is_visible("#settings-dialog")
    page.keyboard.press("Escape")
    assert not page.is_visible("#settings-dialog")
    assert studio.value("document.activeElement.id") == "tune"


@pytest.mark.parametrize(("width", "locale"), [(360, "en-GB"), (320, "fr-FR")])
def test_a_phone_shows_all_without_scrolling_sideways(
    window: Callable[..., Any], width: int, locale: str
) -> None:
    studio = window(viewport={"width": width, "height": 740}, locale=locale, has_touch=True)
    studio.meet()
    for view in ("talk", "avatars", "videos", "timing"):
        studio.page.click(f"a[href='#{view}'] >> nth=-1")
        time.sleep(0.3)
        assert studio.value("document.documentElement.scrollWidth") <= width, view


def test_a_video_element_plays_a_speech_while_it_is_made(studio: Any, server: Any) -> None:
    """``/v1/speak`` as the address of a video: it moves before the last frame is rendered."""

    def finished() -> float:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        name = 'musetalk_renders_total{result="ok"} '
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = finished()
    words = "I am said while I am being made, and nobody has to wait for the end of it. " * 2
    studio.page.evaluate(
        """(text) => {
          const video = (window.spoken = document.createElement("video"));
          video.muted = true;
          video.src = "/v1/speak?" + new URLSearchParams({ text });
          document.body.append(video);
          video.play();
        }""",
        words.strip(),
    )
    studio.until("spoken.error !== null || spoken.currentTime > 0.5", 90)
    assert finished() == before, "it played only when all of it was there"
    studio.until("spoken.error !== null || spoken.ended", 180)
    error, end, width, frames = studio.page.evaluate(
        "[spoken.error && spoken.error.message, spoken.currentTime, spoken.videoWidth,"
        " spoken.getVideoPlaybackQuality().totalVideoFrames]"
    )
    assert error is None and width > 0
    assert end > 5 and frames > 5 * end
    assert finished() == before + 1
    studio.page.evaluate("spoken.remove()")
