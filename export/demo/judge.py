"""What the composited frames of one clip are worth, held against drawings of the same person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from export.demo.held_out import HeldOut
from export.demo.idle import idle_pose
from export.demo.meter import MouthMeter, mouth_region
from export.demo.mouth import Mouth, opening
from export.demo.people import Person
from export.demo.portrait import mouth_point, render_box
from orchestrator.avatars.avatar import Avatar

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
        closures: how many m, b and p there are.
        closed: of them, those whose middle has closed lips.
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
    closures: int
    closed: int
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


class Judge:
    """Compares the frames of one person with the truth."""

    def __init__(self, person: Person, avatar: Avatar, meter: MouthMeter) -> None:
        self._person, self.avatar, self._meter = person, avatar, meter

    def openings(self, frames: Sequence[U8]) -> F64:
        """Openings read from composited frames."""
        found = []
        for i, frame in enumerate(frames):
            index = self.avatar.cycle_index(i)
            box = tuple(float(v) for v in self.avatar.boxes[index])
            crop = self.crop(frame, index)
            found.append(self._meter.read(crop, idle_pose(self._person, index / 25), box))  # type: ignore[arg-type] # four numbers
        return np.array(found)

    def crop(self, frame: U8, index: int) -> U8:
        """The face box of a frame of the idle loop, as the networks see it."""
        x0, y0, x1, y1 = (int(v) for v in self.avatar.boxes[index])
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
            index = self.avatar.cycle_index(i)
            pose = idle_pose(self._person, index / 25)
            x0, y0, x1, y1 = (float(v) for v in self.avatar.boxes[index])
            real = render_box(self._person, mouths[i], pose, (x0, y0, x1, y1))
            made = self.crop(frames[i], index)
            point = mouth_point(pose, (x0, y0, x1, y1))
            a, b = mouth_region(made, point), mouth_region(real, point)
            errors.append(float(np.square(a.astype(float) - b).mean()))
            alike.append(ssim(a, b))
            pictures.append((made, real))
        step, noise = self.border(frames[:count])
        return Score(
            name=clip.name,
            frames=count,
            correlation=float(np.corrcoef(found, truth)[0, 1]),
            lag=best_lag(found, truth),
            opening=float(found.mean() / truth.mean()),
            closures=len(closed),
            closed=sum(bool(found[i] < CLOSED) for i in closed),
            psnr=float(10 * np.log10(255**2 / np.mean(errors))),
            ssim=float(np.mean(alike)),
            step=step,
            noise=noise,
            pictures=pictures,
        )

    def border(self, frames: Sequence[U8]) -> tuple[float, float]:
        """Colour step inside the mask's border, and flicker of skin that should be still.

        Where the mask is between half and full, the generated colour is what the composite adds
        to the portrait over the mask; away from the mouth both show the same skin.
        """
        steps, changes = [], []
        last: NDArray[np.float32] | None = None
        for i, frame in enumerate(frames):
            index = self.avatar.cycle_index(i)
            mask = self.avatar.masks[index]
            part = np.s_[mask.y0 : mask.y1, mask.x0 : mask.x1]
            alpha = mask.alpha.astype(np.float32)
            rows = np.arange(mask.y0, mask.y1)[:, None]
            _, y0, _, y1 = (int(v) for v in self.avatar.boxes[index])
            cheeks = rows < y0 + 0.66 * (y1 - y0)
            ring = (alpha > 128) & (alpha < 250) & cheeks
            added = frame[part].astype(np.float32) - self.avatar.frame(index)[part]
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


def mean(scores: Sequence[Score], what: str) -> float:
    """Of one figure over clips, those that have it."""
    return float(np.nanmean([getattr(score, what) for score in scores]))


def closed_share(scores: Sequence[Score]) -> float:
    """Of the m, b and p of all clips, those whose middle has closed lips."""
    return sum(score.closed for score in scores) / sum(score.closures for score in scores)
