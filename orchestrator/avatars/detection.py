"""Find faces: MediaPipe's short-range detector (BlazeFace), run by OpenVINO.

The graph gives 896 boxes relative to fixed anchors; anchors, decoding and thresholds are those
of MediaPipe's published graph ``face_detection_short_range`` (Apache-2.0).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import openvino as ov

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

MODELS: Final = Path(__file__).parent / "models"
_INPUT: Final = 128
_MIN_SCORE: Final = 0.5
_SAME_FACE: Final = 0.3
"""Overlap (intersection over union) above which two boxes are one face."""
_NEAR: Final = 4
"""Side of what is looked at from near, in sides of the face's box: what the detector sees best."""


@dataclass(frozen=True)
class Detection:
    """One face, in pixels of the frame.

    Attributes:
        box: x0, y0, x1, y1 around eyes, nose and mouth.
        eyes: F32[2,2], the eye at the left of the picture first.
        score: 0 to 1.
    """

    box: tuple[float, float, float, float]
    eyes: F32
    score: float

    @property
    def area(self) -> float:
        """Of the box."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


_RUNNING: Final = threading.Lock()
"""A compiled model answers one call at a time; OpenVINO uses all cores for each."""


def run_model(name: str, inputs: dict[str, F32]) -> Any:
    """Run one of the shipped ``.tflite`` models; safe to call from several threads."""
    with _RUNNING:
        return _load_model(name)(inputs)


@cache
def _load_model(name: str) -> Any:
    core = ov.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return core.compile_model(core.read_model(MODELS / f"{name}.tflite"), "CPU", options)


@cache
def _anchors() -> F32:
    """Centres F32[896,2]: 2 in each cell of a 16x16 grid, 6 in each of an 8x8 grid."""
    centres = []
    for cells, count in ((16, 2), (8, 6)):
        steps = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        centres.append(np.repeat(grid, count, axis=0))
    return np.concatenate(centres).astype(np.float32)


def _detect_in(picture: U8) -> list[Detection]:
    """Faces of a picture U8[H,W,3] BGR that fill a good part of it."""
    height, width = picture.shape[:2]
    side = max(height, width)
    scale = _INPUT / side
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    left, top = (_INPUT - size[0]) // 2, (_INPUT - size[1]) // 2
    canvas = np.zeros((_INPUT, _INPUT, 3), np.float32)
    canvas[top : top + size[1], left : left + size[0]] = small[:, :, ::-1] / 127.5 - 1.0
    results = run_model("face_detection_short_range", {"input": canvas[None]})
    raw = results["regressors"][0] / _INPUT
    scores = 1 / (1 + np.exp(-np.clip(results["classificators"][0, :, 0], -50, 50)))
    found = []
    for index in np.flatnonzero(scores >= _MIN_SCORE):
        centre = raw[index, :2] + _anchors()[index]
        half = raw[index, 2:4] / 2
        points = np.stack([centre - half, centre + half])
        eyes = raw[index, 4:8].reshape(2, 2) + _anchors()[index]
        offset = np.array([left, top], np.float32)
        points, eyes = [(part * _INPUT - offset) / scale for part in (points, eyes)]
        (x0, y0), (x1, y1) = points.tolist()
        found.append(Detection((x0, y0, x1, y1), eyes.astype(np.float32), float(scores[index])))
    return _suppress(found)


def _overlap(one: Detection, other: Detection) -> float:
    width = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
    height = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
    common = max(0.0, width) * max(0.0, height)
    return common / (one.area + other.area - common)


def _suppress(found: list[Detection]) -> list[Detection]:
    """One detection a face, the surest."""
    kept: list[Detection] = []
    for detection in sorted(found, key=lambda item: -item.score):
        if all(_overlap(detection, other) < _SAME_FACE for other in kept):
            kept.append(detection)
    return kept


def detect(frame: U8) -> list[Detection]:
    """Faces of a frame, largest first.

    The detector sees 128 pixels; when it finds nothing in the whole frame, it looks at
    overlapping parts of it, where a face is larger.

    Args:
        frame: U8[H,W,3] BGR.
    """
    found = _detect_in(frame)
    for parts in (2, 3):
        if found:
            break
        height, width = frame.shape[:2]
        side = max(1, int(max(height, width) / parts * 1.3))
        for y in np.linspace(0, max(0, height - side), parts).astype(int):
            for x in np.linspace(0, max(0, width - side), parts).astype(int):
                shift = np.array([x, y], np.float32)
                for item in _detect_in(frame[y : y + side, x : x + side]):
                    x0, y0, x1, y1 = item.box
                    box = (x0 + x, y0 + y, x1 + x, y1 + y)
                    found.append(Detection(box, item.eyes + shift, item.score))
        found = _suppress(found)
    return sorted(found, key=lambda item: -item.area)


def detect_near(frame: U8, found: Detection) -> Detection | None:
    """Look at one face again from near; scores of faces at different sizes compare then.

    Args:
        frame: U8[H,W,3] BGR.
        found: where the face is.

    Returns:
        The face as it is seen now, in pixels of the part looked at; None: there is none.
    """
    x0, y0, x1, y1 = found.box
    half = max(x1 - x0, y1 - y0) * _NEAR / 2
    left, top = max(0, int((x0 + x1) / 2 - half)), max(0, int((y0 + y1) / 2 - half))
    right, bottom = int((x0 + x1) / 2 + half), int((y0 + y1) / 2 + half)
    seen = _detect_in(frame[top:bottom, left:right])
    return max(seen, key=lambda item: item.score, default=None)
