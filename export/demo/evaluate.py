"""How well the demo checkpoint speaks: through Triton, from speech to composited frames.

Every frame has a truth: the same person drawn with the mouth that the phonemes ask for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from export.demo.held_out import HeldOut, read
from export.demo.idle import idle_pose
from export.demo.meter import MouthMeter, mouth_region
from export.demo.mouth import Mouth, opening
from export.demo.people import PEOPLE, Person
from export.demo.portrait import mouth_point, render_box
from orchestrator.avatars.avatar import Avatar
from orchestrator.inference import EmbeddedTriton, Inference, TritonClient
from orchestrator.rendering.gallery import Gallery, avatar_store
from orchestrator.rendering.render import RenderOptions, render_speech
from orchestrator.rendering.timings import StageTimes
from orchestrator.settings import Settings

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]

CLOSED = 0.03
"""Face units; a fully open mouth is 0.26."""
MAX_LAG = 3


@dataclass
class Score:
    """What one clip, or a group of them, reached.

    Attributes:
        correlation: of the opening with the truth.
        lag: frames by which the mouth is best shifted; 0 is right.
        opening: mean opening over the true mean.
        closed: share of m, b and p whose middle has closed lips.
        psnr: of the mouth's surroundings, dB.
        ssim: of the same.
        step: levels between generated face and portrait inside the mask's border.
        noise: levels that still skin changes from frame to frame, beyond the drawing's own.
    """

    name: str
    frames: int
    correlation: float
    lag: int
    opening: float
    closed: float
    psnr: float
    ssim: float
    step: float
    noise: float
    pictures: list[tuple[U8, U8]] = field(default_factory=list, repr=False)


def ssim(a: U8, b: U8) -> float:
    """Structural similarity of two pictures' luma, Gaussian window of 1.5 pixels."""
    x, y = (cv2.cvtColor(p, cv2.COLOR_BGR2GRAY).astype(np.float64) for p in (a, b))

    def blur(p: F64) -> F64:
        return np.asarray(cv2.GaussianBlur(p, (11, 11), 1.5), np.float64)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mx * my + c1) * (2 * cov + c2)
    return float((top / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())


def best_lag(found: F64, truth: F64) -> int:
    """The shift of `found` against `truth`, in frames, that correlates best."""

    def at(lag: int) -> float:
        a = found[max(0, lag) : len(found) + min(0, lag)]
        b = truth[max(0, -lag) : len(truth) + min(0, -lag)]
        return float(np.corrcoef(a, b)[0, 1])

    return max(range(-MAX_LAG, MAX_LAG + 1), key=at)


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


class Judge:
    """Compares the frames of one person with the truth."""

    def __init__(self, person: Person, avatar: Avatar, meter: MouthMeter) -> None:
        self._person, self._avatar, self._meter = person, avatar, meter

    def openings(self, frames: Sequence[U8]) -> F64:
        """Openings read from composited frames."""
        found = []
        for i, frame in enumerate(frames):
            index = self._avatar.cycle_index(i)
            box = tuple(float(v) for v in self._avatar.boxes[index])
            crop = self._crop(frame, index)
            found.append(self._meter.read(crop, idle_pose(self._person, index / 25), box))  # type: ignore[arg-type] # four numbers
        return np.array(found)

    def _crop(self, frame: U8, index: int) -> U8:
        x0, y0, x1, y1 = (int(v) for v in self._avatar.boxes[index])
        return np.asarray(
            cv2.resize(frame[y0:y1, x0:x1], (256, 256), interpolation=cv2.INTER_LINEAR), np.uint8
        )

    def score(self, clip: HeldOut, frames: Sequence[U8]) -> Score:
        """Everything about one clip."""
        count = min(len(frames), len(clip.mouths))
        mouths = [Mouth.of(row) for row in clip.mouths[:count]]
        truth = np.array([opening(self._person, mouth) for mouth in mouths])
        found = self.openings(frames[:count])
        closed = [i for i in clip.closed if i < count and truth[i] < CLOSED]
        errors, alike, pictures = [], [], []
        for i in range(0, count, 3):
            index = self._avatar.cycle_index(i)
            pose = idle_pose(self._person, index / 25)
            x0, y0, x1, y1 = (float(v) for v in self._avatar.boxes[index])
            real = render_box(self._person, mouths[i], pose, (x0, y0, x1, y1))
            made = self._crop(frames[i], index)
            point = mouth_point(pose, (x0, y0, x1, y1))
            a, b = mouth_region(made, point), mouth_region(real, point)
            errors.append(float(np.square(a.astype(float) - b).mean()))
            alike.append(ssim(a, b))
            pictures.append((made, real))
        step, noise = self._border(frames[:count])
        return Score(
            name=clip.name,
            frames=count,
            correlation=float(np.corrcoef(found, truth)[0, 1]),
            lag=best_lag(found, truth),
            opening=float(found.mean() / truth.mean()),
            closed=float(np.mean([found[i] < CLOSED for i in closed])) if closed else float("nan"),
            psnr=float(10 * np.log10(255**2 / np.mean(errors))),
            ssim=float(np.mean(alike)),
            step=step,
            noise=noise,
            pictures=pictures,
        )

    def _border(self, frames: Sequence[U8]) -> tuple[float, float]:
        """Colour step inside the mask's border, and flicker of skin that should be still.

        Where the mask is between half and full, the generated colour is what the composite adds
        to the portrait over the mask; away from the mouth both show the same skin.
        """
        steps, changes = [], []
        last: NDArray[np.float32] | None = None
        for i, frame in enumerate(frames):
            index = self._avatar.cycle_index(i)
            mask = self._avatar.masks[index]
            part = np.s_[mask.y0 : mask.y1, mask.x0 : mask.x1]
            alpha = mask.alpha.astype(np.float32)
            rows = np.arange(mask.y0, mask.y1)[:, None]
            _, y0, _, y1 = (int(v) for v in self._avatar.boxes[index])
            cheeks = rows < y0 + 0.66 * (y1 - y0)
            ring = (alpha > 128) & (alpha < 250) & cheeks
            added = frame[part].astype(np.float32) - self._avatar.frame(index)[part]
            if ring.any():
                smooth = cv2.blur(added * 255 / np.maximum(alpha, 1)[..., None], (9, 9))
                steps.append(float(np.abs(smooth[ring]).mean()))
            still = cv2.resize(
                added * (alpha > 250)[..., None] * cheeks[..., None], (64, 64),
                interpolation=cv2.INTER_AREA,
            )  # fmt: skip
            if last is not None:
                changes.append(float(np.abs(still - last)[still.any(-1)].mean()))
            last = np.asarray(still, np.float32)
        return float(np.mean(steps)) if steps else float("nan"), float(np.nanmean(changes))


@dataclass(frozen=True)
class Evaluation:
    """All results."""

    meter: dict[str, float]
    """Correlation of the measure with the truth on true drawings, for each person."""
    scores: dict[str, list[Score]]
    silence: float
    """Share of the frames with closed lips when nothing is said."""


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
    async with (
        EmbeddedTriton(repository) as server,
        TritonClient(server.grpc_address, default_timeout=60) as client,
    ):
        gallery = Gallery(settings, client, avatar_store(settings))
        judges = {
            person.name: Judge(person, await gallery.get(person.name), meters[person.name])
            for person in people
        }
        for i, clip in enumerate(clips):
            person = people[i % len(people)]
            avatar = await gallery.get(person.name)
            frames = await frames_of(avatar, clip.pcm, client)
            judge = judges[person.name]
            scores.setdefault(clip.group, []).append(
                await asyncio.to_thread(judge.score, clip, frames)
            )
        rng = np.random.default_rng(0)
        quiet = [np.zeros(32000, np.int16), rng.integers(-12, 12, 32000).astype(np.int16)]
        shut: list[bool] = []
        for pcm in quiet:
            frames = await frames_of(await gallery.get(people[0].name), pcm, client)
            shut += [bool(v < CLOSED) for v in judges[people[0].name].openings(frames)]
    return Evaluation(valid, scores, float(np.mean(shut)))


def mean(scores: Sequence[Score], what: str) -> float:
    """Of one figure over clips, those that have it."""
    return float(np.nanmean([getattr(score, what) for score in scores]))


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
    """Print the table; write evaluation.json and sheet.png."""
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
            f"{mean(scores, 'closed'):.0%}",
            f"{mean(scores, 'psnr'):.1f}",
            f"{mean(scores, 'ssim'):.3f}",
            f"{mean(scores, 'step'):.2f}",
            f"{mean(scores, 'noise'):.2f}",
        )
    console = Console()
    console.print(table)
    measure = ", ".join(f"{name} {value:.3f}" for name, value in found.meter.items())
    console.print(f"silence: closed in {found.silence:.1%}; the measure itself: {measure}")
    output.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(output / "sheet.png"), sheet(found))
    plain = {
        group: [{k: v for k, v in asdict(score).items() if k != "pictures"} for score in scores]
        for group, scores in found.scores.items()
    }
    (output / "evaluation.json").write_text(
        json.dumps({"meter": found.meter, "silence": found.silence, "groups": plain}, indent=2)
    )
