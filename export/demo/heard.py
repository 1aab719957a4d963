"""Anybody's speech, without a truth: what can be said of the lips all the same.

In pauses they must be closed; with the loudness they must open, at no lag; the skin must stand
still. Where the text is known, the lips must be closed at m, b and p, roughly found.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from export.demo.align import align
from export.demo.judge import CLOSED, U8, Judge, best_lag
from export.demo.people import PEOPLE, Person
from export.demo.speech_data import Speaker, Voice
from export.demo.visemes import closures
from orchestrator.speech import SAMPLE_RATE

I16 = NDArray[np.int16]
F64 = NDArray[np.float64]

FPS = 25
_SILENT = 30.0
"""Decibels below the loud parts of the clip."""
_PAUSE = 6
"""Frames that a pause has at least; its first and last two are the lips' way."""
_GUIDE = Voice("piper", "joe")
_NEAR = 1
"""Frames around the supposed middle of m, b and p in which the lips must close once."""


@dataclass
class Heard:
    """What one recording's lips do.

    Attributes:
        name: of the file.
        frames: of video.
        pauses: frames in the midst of pauses.
        shut: share of them with closed lips.
        loudness: correlation of the opening with the loudness.
        lag: of the opening behind the loudness, frames; lips open before and after the sound, so
            that one frame to either side says nothing.
        opening: mean while somebody speaks, face units.
        closures: m, b and p in the text; 0 without one.
        closed: share of them near which the lips close.
        chance: the same share at moments of speech drawn by lot.
        step: levels between generated face and portrait inside the mask's border.
        noise: levels that still skin changes from frame to frame.
    """

    name: str
    frames: int
    pauses: int
    shut: float
    loudness: float
    lag: int
    opening: float
    closures: int
    closed: float
    chance: float
    step: float
    noise: float
    pictures: list[U8] = field(default_factory=list, repr=False)


def levels(pcm: I16, frames: int) -> F64:
    """Loudness of every frame in decibels under the loud parts (95th percentile)."""
    hop = SAMPLE_RATE // FPS
    x = np.zeros(frames * hop)
    x[: len(pcm)] = pcm[: len(x)] / 32768
    power = np.square(x).reshape(frames, hop).mean(1)
    db = 10 * np.log10(power + 1e-9)
    return np.asarray(db - np.percentile(db, 95), np.float64)


def pauses(db: F64) -> NDArray[np.bool_]:
    """Frames in the midst of a pause."""
    found = np.zeros(len(db), bool)
    began = 0
    for i in range(len(db) + 1):
        if i == len(db) or db[i] > -_SILENT:
            # At the clip's ends there is no speech on the far side.
            a = began if began == 0 else began + 2
            b = i if i == len(db) else i - 2
            if i - began >= _PAUSE:
                found[a:b] = True
            began = i + 1
    return found


def near(opened: F64, middles: Sequence[int]) -> float:
    """Share of the middles around which the lips are closed in some frame."""
    shut = [
        bool((opened[max(0, i - _NEAR) : i + _NEAR + 1] < CLOSED).any())
        for i in middles
        if i < len(opened)
    ]
    return float(np.mean(shut)) if shut else float("nan")


def hear(name: str, judge: Judge, pcm: I16, frames: Sequence[U8], middles: Sequence[int]) -> Heard:
    """Figures of one recording.

    Args:
        name: of it.
        judge: of the person who speaks it.
        pcm: I16[S] at 16 kHz.
        frames: composited.
        middles: frames in the middle of m, b and p; empty when the text is not known.
    """
    count = min(len(frames), len(pcm) * FPS // SAMPLE_RATE)
    frames = frames[:count]
    opened = judge.openings(frames)
    db = levels(pcm, count)
    quiet = pauses(db)
    loud = np.maximum(db, -_SILENT)
    speaking = np.flatnonzero(db > -_SILENT)
    lots = np.random.default_rng(0).choice(speaking, 2000) if len(speaking) else speaking
    step, noise = judge.border(frames)
    return Heard(
        name=name,
        frames=count,
        pauses=int(quiet.sum()),
        shut=float((opened[quiet] < CLOSED).mean()) if quiet.any() else float("nan"),
        loudness=float(np.corrcoef(opened, loud)[0, 1]),
        lag=best_lag(opened, loud),
        opening=float(opened[speaking].mean()) if len(speaking) else float("nan"),
        closures=len(middles),
        closed=near(opened, middles),
        chance=near(opened, [int(i) for i in lots]),
        step=step,
        noise=noise,
        pictures=[
            judge.crop(frames[i], judge.avatar.cycle_index(i))[96:] for i in _shown(count, quiet)
        ],
    )


def _shown(count: int, quiet: NDArray[np.bool_], columns: int = 12) -> list[int]:
    """Frames for the sheet: neighbours from the midst of speech, every other one."""
    longest, began = (0, 0), 0
    for i in range(count + 1):
        if i == count or quiet[i]:
            longest = max(longest, (i - began, began))
            began = i + 1
    first = longest[1] + max(0, longest[0] - 2 * columns) // 2
    return [min(count - 1, first + 2 * k) for k in range(columns)]


def middles_of(pcm: I16, text: str) -> list[int]:
    """Frames in the middle of m, b and p, as well as they are found."""
    with Speaker() as speaker:
        return closures(align(pcm, text, speaker, _GUIDE))


def person_of(number: int) -> Person:
    """Who speaks the recording of that number."""
    return PEOPLE[number % len(PEOPLE)]


def text_of(file: Path) -> str:
    """What a recording says: the file of the same name that ends in ``.txt``, or nothing."""
    beside = file.with_suffix(".txt")
    return beside.read_text().strip() if beside.is_file() else ""


def sheet(heard: Sequence[Heard]) -> U8:
    """A row of frames for each recording, 80 ms from one to the next: U8[H,W,3]."""
    rows = [np.hstack(one.pictures) for one in heard]
    return np.asarray(cv2.resize(np.vstack(rows), None, fx=0.6, fy=0.6), np.uint8)


def report(heard: Sequence[Heard], output: Path) -> None:
    """Print the table; write heard.json and heard.png."""
    table = Table(
        "recording", "frames", "shut in pauses", "with loudness", "lag", "opening",
        "m b p", "by chance", "step", "noise",
    )  # fmt: skip
    for one in heard:
        table.add_row(
            one.name,
            str(one.frames),
            f"{one.shut:.0%} of {one.pauses}",
            f"{one.loudness:.2f}",
            str(one.lag),
            f"{one.opening:.3f}",
            f"{one.closed:.0%} of {one.closures}",
            f"{one.chance:.0%}",
            f"{one.step:.2f}",
            f"{one.noise:.2f}",
        )
    Console(width=120).print(table)
    output.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(output / "heard.png"), sheet(heard))
    plain = [{k: v for k, v in asdict(one).items() if k != "pictures"} for one in heard]
    (output / "heard.json").write_text(json.dumps(plain, indent=2))
