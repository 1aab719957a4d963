"""Record what the real service and the real Triton export, for the tests of the alerts.

``.venv/bin/python tests/deploy/record_metrics.py`` writes ``tests/deploy/recorded/*.json`` in about
ten minutes. Each holds the series that the rules ask for, one value every ``PERIOD`` seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtests.capacity import trial
from loadtests.load import system
from loadtests.machine import cpu_name

RECORDED = Path(__file__).with_name("recorded")
PERIOD = 5.0
SECONDS = 90.0
WANTED = {
    "musetalk_live_frames_total": {"kind": {"generated", "late"}},
    "musetalk_first_seconds_bucket": {"what": {"frame"}},
    "musetalk_session_refusals_total": {},
    "musetalk_turns_total": {},
    "musetalk_sessions": {},
    "nv_inference_queue_duration_us": {"model": {"unet"}},
    "nv_inference_pending_request_count": {"model": {"unet"}},
    "nv_inference_request_success": {"model": {"unet"}},
    "nv_inference_request_failure": {"model": {"unet", "vae_decoder"}},
}
"""Series and labels that alerts and autoscalers look at."""


def series(pages: Iterable[str]) -> dict[str, float]:
    """What of ``WANTED`` some pages of metrics hold, by name and labels."""
    found: dict[str, float] = {}
    for page in pages:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                # Triton's counters have no _total, which the parser adds.
                name = sample.name
                if name.startswith("nv_"):
                    name = name.removesuffix("_total")
                labels = WANTED.get(name)
                if labels is None:
                    continue
                if all(sample.labels[label] in values for label, values in labels.items()):
                    inside = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
                    found[f"{name}{{{inside}}}"] = sample.value
    return found


async def scrape(url: str, http: httpx.AsyncClient) -> str:
    """A page of metrics; empty where nobody answers."""
    try:
        return (await http.get(url)).text
    except httpx.HTTPError:
        return ""


def kill_triton() -> None:
    """The server is gone."""
    for process in psutil.Process().children(recursive=True):
        if process.name() == "tritonserver":
            process.kill()


def kill_unet() -> None:
    """The server lives, the process of one model does not: in a pod, out of memory for instance.

    What keeps an embedded server would end it at once, and is suspended for that.
    """
    for process in psutil.Process().children(recursive=True):
        if process.name() == "tritonserver" and (keeper := process.parent()) is not None:
            keeper.suspend()
        elif any("unet_0_0" in word for word in process.cmdline()):
            process.kill()


async def record(
    name: str, talkers: int, *, most: int | None = None, incident: Callable[[], None] | None = None
) -> None:
    """A load run, and what it exported.

    Args:
        name: of the recording.
        talkers: who begin a turn as soon as the last one is over.
        most: how many the service lets talk; None: all.
        incident: happens after a third of the time.
    """
    if most is not None:
        os.environ["MUSETALK_MAX_TALKERS"] = str(most)
    given = Namespace(mix="live", admission=most is not None, cache=Path("out/record_cache"))
    rows: list[dict[str, float]] = []

    async def sample(pages: list[str]) -> None:
        async with httpx.AsyncClient(timeout=3, trust_env=False) as http:
            while True:
                begun = time.monotonic()
                rows.append(series(await asyncio.gather(*(scrape(url, http) for url in pages))))
                await asyncio.sleep(PERIOD - (time.monotonic() - begun))

    async def happen(what: Callable[[], None]) -> None:
        await asyncio.sleep(SECONDS / 3)
        what()

    try:
        async with system(given) as (addresses, metrics):
            url = addresses["MUSETALK_LOAD_URL"]
            pages = [f"{url}/metrics", f"http://{metrics}/metrics"]
            helpers = [asyncio.create_task(sample(pages))]
            if incident is not None:
                helpers.append(asyncio.create_task(happen(incident)))
            # Who is refused is gone for the rest of a trial: in a crowd there are many short ones.
            piece = SECONDS if most is None else SECONDS / 30
            trials = []
            while len(rows) < SECONDS / PERIOD:
                trials.append(await trial(url, talkers, piece))
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            for process in psutil.Process().children(recursive=True):
                if process.status() == psutil.STATUS_STOPPED:
                    process.resume()
    finally:
        os.environ.pop("MUSETALK_MAX_TALKERS", None)
    rows = rows[: int(SECONDS / PERIOD)]
    names = sorted({key for row in rows for key in row})
    RECORDED.mkdir(exist_ok=True)
    frames = sum(trial.frames for trial in trials)
    in_time = sum(trial.on_time * trial.frames for trial in trials) / frames
    slowest = max(trial.first_frame_p95 for trial in trials)
    failed = sum(trial.failed for trial in trials)
    about = (
        f"{talkers} talkers for {SECONDS:.0f} s, "
        f"{'all admitted' if most is None else f'{most} admitted'}"
        f"{f', {incident.__name__} after a third' if incident else ''}; {os.cpu_count()} cores of "
        f"{cpu_name()}, {datetime.now(timezone.utc):%Y-%m-%d}; {in_time:.2%} of {frames} frames "
        f"on time, slowest p95 of first frames {slowest:.2f} s, {failed} turns refused or failed"
    )
    data = {
        "about": about,
        "period": PERIOD,
        "series": {key: [row.get(key) for row in rows] for key in names},
    }
    (RECORDED / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    print(f"{name}: {about}")  # noqa: T201


RUNS = {
    "healthy": lambda: record("healthy", 1),
    "overloaded": lambda: record("overloaded", 6),
    "crowded": lambda: record("crowded", 4, most=1),
    "without-triton": lambda: record("without-triton", 1, incident=kill_triton),
    "failing": lambda: record("failing", 1, incident=kill_unet),
}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or RUNS:
        asyncio.run(RUNS[wanted]())
