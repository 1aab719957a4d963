"""A browser's tab that stays open: what it grows by, and whether long replies play without a stall.

``.venv/bin/python -m tests.web.tab http://localhost:8080 --minutes 30`` against a running service.
The last quarter's memory is held against the second quarter's. What was said stays on the page for
60 turns: its nodes are counted apart.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import psutil
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright
from rich.console import Console

from tests.web.conftest import FLAGS
from tests.web.screenshots import until

console = Console(highlight=False)

STALL = 200.0
"""Milliseconds from one picture on the screen to the next that a person sees as a stop."""
GROWTH = 0.02
LITTLE = {"heap": 1 << 20, "nodes": 50, "listeners": 10, "memory": 8 << 20}
"""Growth that is none: bytes, DOM nodes, event listeners."""

LONG = (
    "There was once a lighthouse keeper who wrote a letter every evening. He wrote about the "
    "weather, about the ships that passed, and about the birds that rested on his roof. Nobody "
    "answered, and he did not mind. One winter a boat came with a large bag of letters. They "
    "were from people who had seen his light, and who had wondered for years who kept it. He "
    "read them all, slowly, one each evening, and in the spring he began to write his answers. "
    "It took him the whole summer, and when it was done he painted the door of his tower blue."
)
SHORT = "The tab is still open, and I am still here."

WATCH = """
() => {
  const video = document.querySelector("#live");
  window.gaps = [];
  window.waits = 0;
  let last = 0;
  const look = (now) => {
    if (last) window.gaps.push(now - last);
    last = now;
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  video.addEventListener("waiting", () => { window.waits += 1; });
}
"""


SAID = """
() => {
  const walker = document.createTreeWalker(document.querySelector("#log"), NodeFilter.SHOW_ALL);
  let count = 0;
  while (walker.nextNode()) count += 1;
  return count;
}
"""


@dataclass(frozen=True)
class Sample:
    """What the tab holds: bytes of script heap after a collection, and of Chromium's processes.

    Attributes:
        nodes: of the page, without those of the conversation.
        said: nodes of the conversation.
    """

    minute: float
    heap: float
    nodes: float
    said: float
    listeners: float
    memory: float
    buffered: float


@dataclass(frozen=True)
class Reply:
    """How one reply played: seconds, and milliseconds between pictures."""

    seconds: float
    longest: float
    stalls: int
    waits: int


def say(page: Page, text: str) -> Reply:
    """Have a text spoken and wait for its end; pictures are watched from the first spoken one."""
    state = "document.querySelector('#stage').dataset.state"
    page.check("input[value=say]", force=True)
    page.fill("#message", text)
    page.press("#message", "Enter")
    until(page, f"{state} === 'speaking'", 30)
    page.evaluate("window.gaps = [], window.waits = 0")
    began = time.monotonic()
    until(page, f"{state} === 'idle'", 120)
    gaps = page.evaluate("window.gaps")
    return Reply(
        round(time.monotonic() - began, 1),
        round(max(gaps), 1),
        sum(gap > STALL for gap in gaps),
        page.evaluate("window.waits"),
    )


def sample(page: Page, tab: CDPSession, whole: CDPSession, minute: float) -> Sample:
    """Measure, after what is no longer needed has been collected."""
    tab.send("HeapProfiler.collectGarbage")
    metrics = {one["name"]: one["value"] for one in tab.send("Performance.getMetrics")["metrics"]}
    pids = [one["id"] for one in whole.send("SystemInfo.getProcessInfo")["processInfo"]]
    buffered = page.evaluate(
        "(({buffered: b}) => b.length ? b.end(b.length - 1) - b.start(0) : 0)"
        "(document.querySelector('#live'))"
    )
    said = page.evaluate(SAID)
    return Sample(
        round(minute, 2),
        metrics["JSHeapUsedSize"],
        metrics["Nodes"] - said,
        said,
        metrics["JSEventListeners"],
        sum(psutil.Process(pid).memory_full_info().uss for pid in pids),
        round(buffered, 1),
    )


def stay(browser: Browser, url: str, minutes: int) -> tuple[list[Sample], list[Reply]]:
    """Keep a tab open; a long reply at the start and each ten minutes, else one each minute."""
    page: Any = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(url)
    until(page, "document.querySelector('#live').currentTime > 0.3", 180)
    page.click("#message")
    page.evaluate(WATCH)
    tab, whole = page.context.new_cdp_session(page), browser.new_browser_cdp_session()
    tab.send("Performance.enable")
    samples, replies = [], []
    began = time.monotonic()
    for turn in range(minutes):
        replies.append(say(page, SHORT if turn % 10 else LONG))
        console.print_json(json.dumps(asdict(replies[-1])), indent=None)
        time.sleep(max(0.0, began + 60 * (turn + 1) - time.monotonic()))
        samples.append(sample(page, tab, whole, (time.monotonic() - began) / 60))
        console.print_json(json.dumps(asdict(samples[-1])), indent=None)
    return samples, replies


def main() -> int:
    """Run, print the table, and give 1 when the tab grew or stood still."""
    parser = argparse.ArgumentParser(description="A tab that stays open")
    parser.add_argument("url", nargs="?", default="http://localhost:8080")
    parser.add_argument("--minutes", type=int, default=30)
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        samples, replies = stay(browser, given.url, given.minutes)
        browser.close()
    quarter = max(1, len(samples) // 4)
    grown = False
    for name, little in LITTLE.items():
        before = statistics.fmean(getattr(one, name) for one in samples[quarter : 2 * quarter])
        after = statistics.fmean(getattr(one, name) for one in samples[-quarter:])
        bad = after / before - 1 > GROWTH and after - before > little
        grown |= bad
        console.print(
            f"{name}: {before:.0f} to {after:.0f} ({after / before - 1:+.1%}){' GREW' * bad}"
        )
    stalls = sum(reply.stalls for reply in replies)
    longest = max(reply.longest for reply in replies)
    console.print(
        f"{len(replies)} replies: {stalls} stalls over {STALL:.0f} ms, longest {longest:.0f} ms"
    )
    return int(grown or stalls > 0)


if __name__ == "__main__":
    sys.exit(main())
