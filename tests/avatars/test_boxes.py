from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.avatars.boxes import EXTRA_MARGIN, face_box, fill_gaps, final_boxes, smooth
from orchestrator.avatars.detection import detect
from orchestrator.avatars.landmarks import Landmarks, find_landmarks


def test_the_nose_bridge_is_the_middle_of_the_box() -> None:
    points = np.full((468, 2), 50.0, np.float32)
    points[234], points[454], points[152] = (20, 55), (90, 60), (52, 110)
    points[195], points[5] = (50, 68), (50, 72)
    box = face_box(Landmarks(points, 1.0))
    np.testing.assert_allclose(box, [20, 30, 90, 110])


def test_a_face_at_the_top_edge_is_cut_there() -> None:
    points = np.full((468, 2), 30.0, np.float32)
    points[[195, 5]], points[152] = (30, 20), (30, 90)
    assert face_box(Landmarks(points, 1.0))[1] == 0


def test_the_margin_goes_below_the_chin_and_stays_inside() -> None:
    boxes = final_boxes(np.array([[10.4, 20.6, 60.0, 80.0], [-5.0, 1.0, 99.0, 95.0]]), 90, 100)
    assert boxes.tolist() == [[10, 21, 60, 80 + EXTRA_MARGIN], [0, 1, 90, 100]]


@given(st.integers(1, 40), st.integers(0, 1000))
def test_smoothing_keeps_straight_motion_and_removes_noise(count: int, seed: int) -> None:
    line = np.linspace([0, 0, 50, 50], [40, 10, 90, 60], count)
    noise = np.random.default_rng(seed).normal(0, 1, line.shape)
    np.testing.assert_allclose(smooth(line), line, atol=1e-9)
    if count >= 20:
        assert np.abs(smooth(line + noise) - line).mean() < np.abs(noise).mean()


def test_gaps_are_bridged_in_a_straight_line() -> None:
    boxes = np.zeros((5, 4))
    boxes[0], boxes[4] = 10, 50
    found = np.array([True, False, False, False, True])
    np.testing.assert_allclose(fill_gaps(boxes, found)[:, 0], [10, 20, 30, 40, 50])


def test_the_middle_is_two_thirds_down_the_nose(photograph: npt.NDArray[np.uint8]) -> None:
    landmarks = find_landmarks(photograph, detect(photograph)[0])
    box = face_box(landmarks)
    root, tip = landmarks.points[168, 1], landmarks.points[4, 1]
    assert abs((box[1] + box[3]) / 2 - (root + (tip - root) * 2 / 3)) < 1.0
