"""Figures of a load test by the field's names, and the objectives that decide its exit status."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from loadtests.simulation import percentile

SECONDS: Final = (
    *("first_audio", "first_frame", "first_frame_after_text", "frame_gap", "real_time_factor"),
    *("time_to_silence", "lipsync", "render", "sound_offset"),
)
"""Figures of which a report shows the distribution; all but the real-time factor in seconds."""


@dataclass(frozen=True)
class Turn:
    """What one request of one user got.

    Attributes:
        at: end, in seconds since the epoch.
        user: number of the user within its kind.
        kind: ``live``, ``triton``, ``grpc``, ``http`` or ``video``.
        request: what it asked for, such as ``say``.
        frames: of speech that were to be shown in real time; 0 where nobody watches.
        late: of them, those that were not there in time.
        reduced: of them, those at half rate, because time was short.
        figures: by name, in seconds; ``real_time_factor`` has no unit.
        marker: whether the viewer heard its own marker and nothing else; None: not asked.
        error: why it failed.
        refused: admission control sent it away, as it should under overload.
    """

    at: float
    user: int
    kind: str
    request: str
    frames: int = 0
    late: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    marker: bool | None = None
    error: str = ""
    refused: bool = False
    reduced: int = 0

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


def read(path: Path) -> Iterator[Turn]:
    """Turns of a file of lines; none where there is no file."""
    if path.exists():
        with path.open() as lines:
            yield from (Turn(**json.loads(line)) for line in lines)


@dataclass(frozen=True)
class Objectives:
    """What a run must reach.

    Attributes:
        on_time: least share of the frames that are there in time.
        first_frame: most seconds at the 95th percentile, of live turns.
        failures: most share of the requests that fail.
    """

    on_time: float = 0.99
    first_frame: float = 1.5
    failures: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """One objective: what was found, and whether it was met."""

    name: str
    found: str
    wanted: str
    met: bool


def judge(
    turns: Iterable[Turn], objectives: Objectives, kinds: Iterable[str] = ()
) -> list[Verdict]:
    """Hold turns against objectives; what nobody measured is met only where nobody could.

    Args:
        turns: of a run; none at all is a failure.
        objectives: to meet.
        kinds: of users that the run had: without a turn that was not refused it has not been
            tested, however well the others fared.
    """
    given = [turn for turn in turns if not turn.refused]
    silent = sorted(set(kinds) - {turn.kind for turn in given})
    failed = [turn for turn in given if turn.error]
    share = len(failed) / len(given) if given else 1.0
    verdicts = [
        Verdict(
            "requests that failed",
            f"{len(failed)} of {len(given)}",
            f"<= {objectives.failures:.1%}",
            share <= objectives.failures,
        )
    ]
    if silent:
        name = "kinds of users of which not one turn was taken"
        verdicts.append(Verdict(name, ", ".join(silent), "none", False))
    shown = [turn for turn in given if turn.kind in ("live", "triton")]
    frames = sum(turn.frames for turn in shown)
    if shown:
        on_time = 1 - sum(turn.late for turn in shown) / frames if frames else 0.0
        verdicts.append(
            Verdict(
                "frames on time",
                f"{on_time:.2%} of {frames}",
                f">= {objectives.on_time:.1%}",
                on_time >= objectives.on_time,
            )
        )
    live = [turn for turn in given if turn.kind == "live"]
    if live:
        seen = [turn.figures.get("first_frame", math.inf) for turn in live if not turn.error]
        first = percentile(seen, 0.95) if seen else math.inf
        verdicts.append(
            Verdict(
                "p95 first frame",
                f"{first:.2f} s of {len(seen)} turns",
                f"<= {objectives.first_frame:g} s",
                first <= objectives.first_frame,
            )
        )
        asked = [turn for turn in live if turn.marker is not None]
        wrong = sum(not turn.marker for turn in asked)
        verdicts.append(
            Verdict(
                "cross-talk: turns with another sound or word than the viewer's own",
                f"{wrong} of {len(asked)}",
                "0, and at least one turn looked at",
                bool(asked) and not wrong,
            )
        )
    return verdicts


def values(turns: Iterable[Turn], name: str) -> dict[str, list[float]]:
    """Values of a figure by kind of user and request, such as ``live say``."""
    found: dict[str, list[float]] = {}
    for turn in turns:
        if name in turn.figures:
            found.setdefault(f"{turn.kind} {turn.request}", []).append(turn.figures[name])
    return found
