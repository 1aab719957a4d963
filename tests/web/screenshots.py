"""Take the pictures in ``docs/images`` from a running service.

``.venv/bin/python tests/web/screenshots.py [http://localhost:8080]``; nice with ``fonts-inter``.
The service needs ``MUSETALK_MAX_TALKERS=3``: a page that is closed keeps its place for a while.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parents[2] / "docs" / "images"
LARGEST = 300_000
FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><include>/etc/fonts/fonts.conf</include>
<match target="pattern"><test name="family"><string>system-ui</string></test>
<edit name="family" mode="prepend" binding="strong"><string>Inter</string></edit></match>
</fontconfig>"""


def until(page: Page, expression: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        if time.monotonic() > end:
            raise TimeoutError(expression)
        time.sleep(0.05)


def meet(browser: Browser, url: str, **options: Any) -> Page:
    chosen: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}, "locale": "en-GB"}
    page = browser.new_context(**{**chosen, **options}).new_page()
    page.goto(url)
    until(page, "document.querySelector('#live').currentTime > 0.3", 180)
    return page


def choose(page: Page, avatar: str) -> None:
    page.click(f".face[aria-label={avatar}]")
    until(page, f"document.querySelector('#message').placeholder.includes('{avatar}')")
    until(page, "document.querySelector('#stage').dataset.state === 'idle'", 180)


def hear(page: Page, text: str, mode: str = "say", caption: str = "") -> None:
    """Send a text; return while a caption that begins so is on the screen."""
    page.check(f"input[value={mode}]", force=True)
    page.fill("#message", text)
    page.press("#message", "Enter")
    speaking = "document.querySelector('#stage').dataset.state === 'speaking'"
    shown = "document.querySelector('#caption').textContent"
    until(page, f"{speaking} && {shown} && {shown}.startsWith({caption!r})")
    time.sleep(0.8)  # the portraits blink at fixed times: here their eyes are open


def quiet(page: Page) -> None:
    until(page, "document.querySelector('#stage').dataset.state === 'idle'")


def save(page: Page, name: str) -> None:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = IMAGES / f"studio-{name}.png"
    picture.save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        palette = picture.quantize(256, Image.Quantize.MEDIANCUT, kmeans=3)
        few = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        few.save(path, optimize=True)
    print(path.name, path.stat().st_size)  # noqa: T201


def main(url: str) -> None:
    """Take all pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    fonts = Path(tempfile.mkdtemp()) / "fonts.conf"
    fonts.write_text(FONTS)
    environment = {**os.environ, "FONTCONFIG_FILE": str(fonts)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
            env=environment,
        )
        page = meet(browser, url)
        hear(page, "Hello! It is good to see you.")
        quiet(page)
        said = "Ask me anything, or tell me what to say, and I will say it at once."
        hear(page, said, caption="Ask me anything")
        save(page, "talk")
        quiet(page)
        page.click("a[href='#timing']")
        time.sleep(6)
        save(page, "timing")
        page.click("a[href='#avatars']")
        time.sleep(4)
        save(page, "avatars")
        page.context.close()

        page = meet(browser, url, color_scheme="dark")
        choose(page, "Henrik")
        hear(page, "Good evening. The lights are low, and I am still here.", caption="The lights")
        save(page, "dark")
        page.context.close()

        page = meet(browser, url, locale="fr-FR")
        choose(page, "Mei")
        time.sleep(1.5)
        hear(page, "I am a portrait that learned to speak.")
        save(page, "french")
        page.context.close()

        page = meet(browser, url, viewport={"width": 390, "height": 844}, has_touch=True)
        hear(page, "Hello from the small screen.")
        save(page, "phone")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8080")
