"""How well the demo checkpoint speaks: through Triton, from speech to composited frames.

Every frame has a truth: the same person drawn with the mouth that the phonemes ask for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from export.demo.heard import Heard, hear, middles_of, person_of, text_of
from export.demo.held_out import HeldOut, read
from export.demo.judge import CLOSED, U8, Judge, Score, closed_share, mean
from export.demo.look import border_sheet
from export.demo.meter import MouthMeter
from export.demo.people import PEOPLE, Person
from orchestrator.avatars.avatar import Avatar
from orchestrator.inference import EmbeddedTriton, Inference, TritonClient
from orchestrator.rendering.gallery import Gallery, avatar_store
from orchestrator.rendering.render import RenderOptions, render_speech
from orchestrator.rendering.timings import StageTimes
from orchestrator.settings import Settings
from orchestrator.speech.decode import decode_audio


async def frames_of(avatar: Avatar, pcm: NDArray[np.int16], inference: Inference) -> list[U8]:
    """The composited frames of one clip, as the product renders them."""
    found: list[U8] = []
    chunks = render_speech(
        avatar, pcm, inference=inference, options=RenderOptions(batch=8), times=StageTimes()
    )
    async with aclosing(chunks):
        async for chunk in chunks:
            found.extend(chunk.frames)
    return found


@asynccontextmanager
async def stage(repository: Path, settings: Settings) -> AsyncIterator[tuple[Gallery, Inference]]:
    """The portraits and the models, served for as long as the context lasts."""
    async with (
        EmbeddedTriton(repository) as server,
        TritonClient(server.grpc_address, default_timeout=60) as client,
    ):
        yield Gallery(settings, client, avatar_store(settings)), client


@dataclass(frozen=True)
class Evaluation:
    """All results."""

    meter: dict[str, float]
    """Correlation of the measure with the truth on true drawings, for each person."""
    scores: dict[str, list[Score]]
    silence: float
    """Share of the frames with closed lips when nothing is said."""
    borders: dict[int, U8]
    """Composited faces beside untouched ones, at 100 % (key 1) and 200 % (key 2)."""


async def evaluate(
    repository: Path,
    settings: Settings,
    people: Sequence[Person] = PEOPLE,
    clips: Sequence[HeldOut] | None = None,
    drawings: int = 900,
) -> Evaluation:
    """Judge a repository's models.

    Args:
        repository: to serve.
        settings: for the prepared portraits.
        people: who speak, in turn.
        clips: of speech; None: all held out.
        drawings: that the measure knows of each person.
    """
    clips = list(read()) if clips is None else clips
    meters = {
        person.name: await asyncio.to_thread(MouthMeter, person, drawings) for person in people
    }
    valid = {
        name: await asyncio.to_thread(meter.validate, max(50, drawings // 5))
        for name, meter in meters.items()
    }
    scores: dict[str, list[Score]] = {}
    borders: dict[str, tuple[Avatar, list[U8]]] = {}
    async with stage(repository, settings) as (gallery, client):
        judges = {
            person.name: Judge(person, await gallery.get(person.name), meters[person.name])
            for person in people
        }
        for i, clip in enumerate(clips):
            person = people[i % len(people)]
            avatar = await gallery.get(person.name)
            frames = await frames_of(avatar, clip.pcm, client)
            judge = judges[person.name]
            borders.setdefault(person.name, (avatar, frames))
            scores.setdefault(clip.group, []).append(
                await asyncio.to_thread(judge.score, clip, frames)
            )
        rng = np.random.default_rng(0)
        quiet = [np.zeros(32000, np.int16), rng.integers(-12, 12, 32000).astype(np.int16)]
        shut: list[bool] = []
        for pcm in quiet:
            frames = await frames_of(await gallery.get(people[0].name), pcm, client)
            shut += [bool(v < CLOSED) for v in judges[people[0].name].openings(frames)]
    sheets = {zoom: border_sheet(borders, zoom) for zoom in (1, 2)}
    return Evaluation(valid, scores, float(np.mean(shut)), sheets)


async def listen(
    repository: Path, settings: Settings, files: Sequence[Path], drawings: int = 900
) -> list[Heard]:
    """What the lips do to recordings of anybody; up to 30 s of each.

    Args:
        repository: to serve.
        settings: for the prepared portraits.
        files: of sound; what ``NAME.txt`` beside ``NAME.wav`` says is held against the lips too.
        drawings: that the measure knows of each person.
    """
    found, judges = [], dict[str, Judge]()
    async with stage(repository, settings) as (gallery, client):
        for number, file in enumerate(files):
            pcm = (await decode_audio(file, max_seconds=600, max_bytes=100 << 20))[: 30 * 16000]
            text = text_of(file)
            middles = await asyncio.to_thread(middles_of, pcm, text) if text else []
            person = person_of(number)
            avatar = await gallery.get(person.name)
            if person.name not in judges:
                meter = await asyncio.to_thread(MouthMeter, person, drawings)
                judges[person.name] = Judge(person, avatar, meter)
            frames = await frames_of(avatar, pcm, client)
            found.append(
                await asyncio.to_thread(hear, file.stem, judges[person.name], pcm, frames, middles)
            )
    return found


def sheet(found: Evaluation, columns: int = 10) -> U8:
    """A row of generated faces over a row of true ones, for each group: U8[H,W,3]."""
    rows: list[U8] = []
    for scores in found.scores.values():
        pictures = [pair for score in scores for pair in score.pictures]
        chosen = [pictures[k] for k in np.linspace(0, len(pictures) - 1, columns).astype(int)]
        for side in (0, 1):
            rows.append(np.hstack([pair[side][96:] for pair in chosen]))
    return np.vstack(rows)


def report(found: Evaluation, output: Path) -> None:
    """Print the table; write evaluation.json, sheet.png and the faces beside the portraits."""
    table = Table(
        "group", "correlation", "lag", "opening", "m b p", "PSNR", "SSIM", "step", "noise"
    )
    for group, scores in found.scores.items():
        lags = ", ".join(str(score.lag) for score in scores)
        table.add_row(
            group,
            f"{mean(scores, 'correlation'):.3f}",
            lags,
            f"{mean(scores, 'opening'):.2f}",
            f"{closed_share(scores):.0%}",
            f"{mean(scores, 'psnr'):.1f}",
            f"{mean(scores, 'ssim'):.3f}",
            f"{mean(scores, 'step'):.2f}",
            f"{mean(scores, 'noise'):.2f}",
        )
    console = Console()
    console.print(table)
    measure = ", ".join(f"{name} {value:.3f}" for name, value in found.meter.items())
    every = [score for scores in found.scores.values() for score in scores]
    console.print(
        f"lips closed in {closed_share(every):.1%} of {sum(score.closures for score in every)} "
        f"m, b, p, and in {found.silence:.1%} of silence; the measure itself: {measure}"
    )
    output.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(output / "sheet.png"), sheet(found))
    for zoom, picture in found.borders.items():
        cv2.imwrite(str(output / f"border-{zoom}00.png"), picture)
    plain = {
        group: [{k: v for k, v in asdict(score).items() if k != "pictures"} for score in scores]
        for group, scores in found.scores.items()
    }
    (output / "evaluation.json").write_text(
        json.dumps({"meter": found.meter, "silence": found.silence, "groups": plain}, indent=2)
    )
