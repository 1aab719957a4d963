"""Following one face."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.avatars import tracking
from orchestrator.avatars.detection import Detection, detect
from orchestrator.avatars.landmarks import Landmarks, find_landmarks
from orchestrator.avatars.media import encode
from orchestrator.avatars.tracking import track
from orchestrator.errors import AvatarError

U8 = npt.NDArray[np.uint8]


def test_faces_are_found_from_several_threads_at_once(photograph: U8) -> None:
    expected = find_landmarks(photograph, detect(photograph)[0]).points
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(lambda: find_landmarks(photograph, detect(photograph)[0]).points)
            for _ in range(24)
        ]
        for call in calls:
            np.testing.assert_allclose(call.result(), expected, atol=0.01)


def test_when_the_followed_face_goes_another_one_does_not_take_its_place(photograph: U8) -> None:
    both = np.full((640, 1040, 3), 200, np.uint8)
    both[:, :640], both[:400, 640:] = photograph, cv2.resize(photograph, (400, 400))
    other = both.copy()
    other[:, :640] = 200
    found = track([encode(frame) for frame in (both, both, both, other, other)])
    assert (found.start, len(found.boxes)) == (0, 3)
    assert found.boxes[:, 2].max() < 640
    assert "2 frames without a usable face were left out" in found.notes


def test_a_face_turned_away_is_refused(photograph: U8, monkeypatch: pytest.MonkeyPatch) -> None:
    def turned(frame: U8, detection: Detection) -> Landmarks:
        points = find_landmarks(frame, detection).points.copy()
        points[1] = 0.1 * points[454] + 0.9 * points[234]  # the nose over one cheek
        return Landmarks(points, 1.0)

    monkeypatch.setattr(tracking, "find_landmarks", turned)
    with pytest.raises(AvatarError, match="turned away"):
        track([encode(photograph)])


def test_a_face_of_a_few_pixels_is_called_small_not_turned(photograph: U8) -> None:
    for size in (48, 64, 80, 100, 140):
        tiny = np.asarray(cv2.resize(photograph, (size, size), interpolation=cv2.INTER_AREA))
        with pytest.raises(AvatarError, match="too small"):
            track([encode(tiny)])


def test_notes_count_what_was_left_out_and_why(photograph: U8) -> None:
    hidden = np.full_like(photograph, 200)
    gap = [encode(frame) for frame in (*[photograph] * 3, *[hidden] * 13, *[photograph] * 2)]
    found = track(gap)
    assert (found.start, len(found.boxes)) == (0, 3)
    (note,) = found.notes
    assert note.startswith("15 frames were left out"), "two of them show the face"
    assert "without a usable face" not in note


def test_the_face_of_the_photograph_is_not_turned(photograph: U8) -> None:
    assert abs(find_landmarks(photograph, detect(photograph)[0]).turn) < 0.15


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 3), (300, 1)])
def test_pictures_of_a_few_pixels_have_no_face(shape: tuple[int, int]) -> None:
    assert detect(np.full((*shape, 3), 128, np.uint8)) == []
