"""Live sessions of the whole service: its profiles, the way to a first frame, cost against load."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
import psutil

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from loadtests.bench_report import Row
from loadtests.capacity import FIRST_FRAME, ON_TIME, Trial, trial
from loadtests.loopback_llm import loopback_llm
from loadtests.service import UNLIMITED, serving
from loadtests.turns import TURN_SECONDS, Speaker, timing
from loadtests.viewer import Viewer
from orchestrator.errors import MuseTalkError
from orchestrator.sessions.profiles import PROFILES

SECTION: Final = "live sessions"
QUESTION: Final = "What will the weather be like on the coast this week?"
FPS: Final = 25


@dataclass(frozen=True)
class Load:
    """What a number of talkers cost.

    Attributes:
        seen: by them.
        cost: core-seconds of the service, Triton and their children for a second of speech.
    """

    seen: Trial
    cost: float


async def live(cache: Path, plot: Path) -> list[Row]:
    """All of it, from one service that is started with the installed repository.

    Args:
        cache: of the service.
        plot: PNG of cost against load.

    Raises:
        MuseTalkError: a turn failed.
        TimeoutError: the service did not become ready.
    """
    async with loopback_llm() as llm, serving(llm, cache, **UNLIMITED) as url:
        rows = await profiles(url)
        rows += await first_frame(url)
        return rows + await cost_against_load(url, plot)


def _spent() -> float:
    """Core-seconds so far of all that was started from here; the viewers run in this process."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            # Its own and those of its children that have ended: an encoder lives for one turn.
            total += sum(process.cpu_times()[:4])
    return total


async def profiles(url: str, turns: int = 3) -> list[Row]:
    """First frame and cost of each profile, one talker.

    Args:
        url: of the service.
        turns: of each, after one that is not counted.

    Raises:
        MuseTalkError: a turn failed.
    """
    rows = []
    for name in PROFILES:
        async with Viewer(url, {"profile": name}) as viewer:
            speaker = Speaker(0, viewer, random.Random(0))
            await speaker.turn("say")
            before = _spent()
            found = [await speaker.turn("say") for _ in range(turns)]
            cost = _spent() - before
            fps = float(viewer.joined["fps"])
        if errors := [turn.error for turn in found if turn.error]:
            raise MuseTalkError(f"a turn of profile {name} failed: {errors[0]}")
        frames, late = sum(turn.frames for turn in found), sum(turn.late for turn in found)
        shown = statistics.median(turn.figures["first_frame"] for turn in found)
        rows.append(
            Row(
                SECTION,
                f"profile {name}: core-seconds for a second of speech",
                cost / (frames / fps),
                "",
                note=f"{fps:g} frames a second, first frame of say {shown:.2f} s (median of "
                f"{turns}), {1 - late / frames:.1%} of {frames} frames on time",
                details={"first_frame": shown, "frames": frames, "late": late},
            )
        )
    return rows


def steps(report: Mapping[str, Any], shown: float) -> dict[str, float]:
    """The way to a first frame, cut where each stage was at work for the first time.

    Args:
        report: the ``performance`` event of the turn.
        shown: seconds from the request until the player showed the frame.

    Returns:
        Seconds of each step, in order; together they are ``shown``.
    """
    made = float(report["first_frame"])
    starts = sorted((float(found["start"]), name) for name, found in report["stages"].items())
    marks = [("request", 0.0), *((name, at) for at, name in starts if at <= made)]
    ends = [at for _, at in marks[1:]] + [made]
    found = {name: end - at for (name, at), end in zip(marks, ends, strict=True)}
    return {**found, "to the player": shown - made}


async def first_frame(url: str, turns: int = 5) -> list[Row]:
    """Where the time to the first frame of an answered question goes.

    Args:
        url: of a service with a language model of 20 tokens a second.
        turns: after one that is not counted; medians count.

    Raises:
        MuseTalkError: a turn failed.
    """
    found: list[dict[str, float]] = []
    totals: list[float] = []
    async with Viewer(url) as viewer:
        for number in range(turns + 1):
            viewer.forget()
            began = time.monotonic()
            turn = await viewer.begin("ask", {"text": QUESTION})
            await viewer.idle_again(turn, TURN_SECONDS)
            if errors := viewer.of("error", turn):
                raise MuseTalkError(f"a turn failed: {errors[0]['message']}")
            spoken = [media for media in viewer.media if media.kind == "speech"]
            shown = timing(spoken, began, float(viewer.joined["fps"]))["first_frame"]
            if number:
                found.append(steps(viewer.of("performance", turn)[0], shown))
                totals.append(shown)
    rows = [
        Row(
            SECTION,
            "first frame of ask",
            statistics.median(totals),
            "s",
            note=f"median of {turns}; a language model with 20 tokens a second",
        )
    ]
    for name in found[-1]:
        seconds = statistics.median(one.get(name, 0.0) for one in found)
        rows.append(Row(SECTION, f"first frame, of that: {name}", seconds * 1000, "ms"))
    return rows


async def cost_against_load(
    url: str, plot: Path, *, seconds: float = 20.0, most: int = 8
) -> list[Row]:
    """One talker more until the objectives are missed, and what each number costs.

    Args:
        url: of a service that refuses nobody.
        plot: PNG to write.
        seconds: of each number.
        most: never try more.
    """
    loads: list[Load] = []
    for talkers in range(1, most + 1):
        before = _spent()
        seen = await trial(url, talkers, seconds)
        speech = seen.frames / FPS
        loads.append(Load(seen, (_spent() - before) / speech if speech else 0.0))
        if not seen.carried:
            break
    await asyncio.to_thread(draw, loads, plot)
    return [_row(load, plot) for load in loads]


def _row(load: Load, plot: Path) -> Row:
    seen = load.seen
    verdict = "carried" if seen.carried else f"not carried: {seen.problem or 'objectives missed'}"
    return Row(
        SECTION,
        f"{seen.talkers} talking: core-seconds for a second of speech",
        load.cost if seen.frames else None,
        "",
        note=f"{verdict}; {seen.on_time:.1%} of {seen.frames} frames on time, {seen.reduced:.1%} "
        f"at half rate, p95 first frame {seen.first_frame_p95:.2f} s; plot: {plot}",
        details=seen.record(),
    )


def draw(loads: Sequence[Load], path: Path) -> None:
    """Cost of a second of speech, and frames on time, against the number of talkers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    talkers = [load.seen.talkers for load in loads]
    figure, axes = plt.subplots(figsize=(8.0, 4.5), layout="constrained")
    axes.plot(talkers, [load.cost for load in loads], "o-", label="core-seconds")
    axes.set_xlabel("avatars that talk at the same time")
    axes.set_ylabel("core-seconds for a second of speech")
    axes.set_ylim(0)
    axes.set_xticks(talkers)
    axes.grid(alpha=0.3)
    share = axes.twinx()
    share.plot(talkers, _percent(load.seen.on_time for load in loads), "s--", color="gray")
    share.axhline(100 * ON_TIME, color="gray", alpha=0.4)
    share.set_ylabel(f"% of frames on time (grey; wanted: {ON_TIME:.0%})")
    axes.set_title(f"Cost against load, until frames or a first frame of {FIRST_FRAME:g} s fail")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _percent(shares: Iterable[float]) -> list[float]:
    return [100 * share for share in shares]
