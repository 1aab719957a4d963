"""How far a drawn mouth is open, read from its picture: analysis by synthesis.

The mouth's surroundings are compared with drawings of the same person whose opening is known;
the nearest few vote. Teeth, tongue and rounding are in the drawings, so they do not mislead it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from export.demo.head import Pose
from export.demo.idle import SECONDS, idle_pose
from export.demo.mouth import Mouth, opening
from export.demo.people import Person
from export.demo.portrait import Box, found_box, mouth_point, render_box

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

WIDTH, HEIGHT = 116, 100
"""Pixels of the 256x256 crop around the mouth, its middle a quarter from the top."""
_SMALL = (29, 25)
_PARTS = 48
_NEAREST = 6


def mouth_region(crop: U8, point: tuple[float, float]) -> U8:
    """The mouth's surroundings U8[100,116,3] in a 256x256 crop, around ``mouth_point``."""
    centre = (point[0], point[1] + HEIGHT * 0.2)
    return np.asarray(cv2.getRectSubPix(crop, (WIDTH, HEIGHT), centre), np.uint8)


def random_mouth(rng: np.random.Generator) -> Mouth:
    """Any articulation, closed ones and half of them small, as in speech."""
    jaw = 0.0 if rng.random() < 0.15 else float(rng.random() ** 1.6)
    wide, round_, teeth, tongue, tuck = (float(v) for v in rng.random(5) * rng.integers(0, 2, 5))
    return Mouth(jaw, wide, round_, teeth, tongue, tuck if jaw < 0.5 else 0.0)


class MouthMeter:
    """Reads openings of one person.

    Args:
        person: who.
        count: of drawings.
        seed: of all chance.
    """

    def __init__(self, person: Person, count: int = 900, seed: int = 0) -> None:
        self.person = person
        rows, self._openings = self._draw(np.random.default_rng(seed), count)
        self._mean = rows.mean(0)
        _, _, axes = np.linalg.svd(rows - self._mean, full_matrices=False)
        self._axes = axes[:_PARTS]
        self._known = (rows - self._mean) @ self._axes.T

    def _draw(self, rng: np.random.Generator, count: int) -> tuple[F32, F32]:
        rows, truth = [], []
        for _ in range(count):
            crop, pose, box, opened = self._drawing(rng)
            rows.append(self._row(crop, pose, box))
            truth.append(opened)
        return np.stack(rows), np.array(truth, np.float32)

    def _drawing(self, rng: np.random.Generator) -> tuple[U8, Pose, Box, float]:
        mouth = random_mouth(rng)
        pose = idle_pose(self.person, float(rng.uniform(0, SECONDS)))
        box = found_box(self.person, pose)
        crop = render_box(self.person, mouth, pose, box)
        return crop, pose, box, opening(self.person, mouth)

    @staticmethod
    def _row(crop: U8, pose: Pose, box: Box) -> F32:
        region = mouth_region(crop, mouth_point(pose, box))
        small = cv2.resize(region, _SMALL, interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.float32).ravel()

    def read(self, crop: U8, pose: Pose, box: Box) -> float:
        """The opening in face units.

        Args:
            crop: U8[256,256,3] BGR, the face box.
            pose: of the head in it.
            box: where the crop was cut.
        """
        row = (self._row(crop, pose, box) - self._mean) @ self._axes.T
        far = np.square(self._known - row).sum(1)
        nearest = np.argpartition(far, _NEAREST)[:_NEAREST]
        weight = 1 / (far[nearest] + 1e-3)
        return float((self._openings[nearest] * weight).sum() / weight.sum())

    def validate(self, count: int = 200, seed: int = 1) -> float:
        """Correlation with the truth on other drawings."""
        rng = np.random.default_rng(seed)
        drawings = [self._drawing(rng) for _ in range(count)]
        found = [self.read(crop, pose, box) for crop, pose, box, _ in drawings]
        return float(np.corrcoef(found, [truth for *_, truth in drawings])[0, 1])
