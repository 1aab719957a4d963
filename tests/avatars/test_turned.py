"""Heads that are turned away, and how far they are from those that are not."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from orchestrator.avatars.detection import Detection, detect, detect_near
from orchestrator.avatars.landmarks import Landmarks, find_landmarks
from orchestrator.avatars.media import encode
from orchestrator.avatars.tracking import (
    LOW_SCORE,
    MAX_TURN,
    SURE_PRESENCE,
    SURE_SCORE,
    is_turned_away,
    track,
)
from orchestrator.errors import AvatarError
from tests.avatars.heads import U8, drawn, turned

NAMES = ("amara", "henrik", "mei")


def seen(frame: U8) -> tuple[Detection, Detection | None, Landmarks]:
    found = detect(frame)[0]
    return found, detect_near(frame, found), find_landmarks(frame, found)


def hard_to_see(photograph: U8) -> Iterator[tuple[str, U8]]:
    """The photograph as it is, and worse."""
    noise = np.random.default_rng(0).normal(0, 25, photograph.shape)
    yield "as it is", photograph
    yield "mirrored", np.ascontiguousarray(photograph[:, ::-1])
    yield "smaller", np.asarray(cv2.resize(photograph, (400, 400)), np.uint8)
    yield "dark", (photograph * 0.3).astype(np.uint8)
    yield "grainy", np.clip(photograph + noise, 0, 255).astype(np.uint8)
    yield "blurred", np.asarray(cv2.GaussianBlur(photograph, (0, 0), 4), np.uint8)
    for height in (1000, 1600):
        padded = np.zeros((height, 640, 3), np.uint8)
        padded[180:820] = photograph
        yield f"far away, {height}", padded
    for degrees in (-15, 30):
        lean = cv2.getRotationMatrix2D((280, 150), degrees, 1)
        leaning = cv2.warpAffine(photograph, lean, (640, 640), borderMode=cv2.BORDER_REPLICATE)
        yield f"leaning {degrees}", np.asarray(leaning, np.uint8)


def check_front(name: str, frame: U8) -> None:
    """Far from every limit."""
    found, near, face = seen(frame)
    assert near is not None, name
    assert abs(face.turn) < MAX_TURN / 4, name
    assert face.presence > 0.99 > SURE_PRESENCE, name
    assert near.score > SURE_SCORE + 0.03 > LOW_SCORE + 0.15, name
    assert not is_turned_away(frame, found, face), name


def test_a_photograph_from_the_front_is_far_from_the_limits(
    photograph: npt.NDArray[np.uint8],
) -> None:
    for name, picture in hard_to_see(photograph):
        check_front(name, picture)


@pytest.mark.parametrize("name", NAMES)
async def test_the_portraits_stay_far_from_the_limits_while_they_move(name: str) -> None:
    frames = await drawn(name, every=25)
    assert len(frames) == 10
    for number, frame in enumerate(frames):
        check_front(f"{name} {25 * number}", frame)


@pytest.mark.parametrize("name", NAMES)
async def test_a_head_half_turned_can_be_used(name: str) -> None:
    (frame,) = await drawn(name)
    for degrees in (0, 20, -20):
        assert len(track([encode(turned(frame, degrees))]).boxes) == 1, degrees


@pytest.mark.parametrize("name", NAMES)
async def test_a_head_in_profile_is_refused_as_turned_away(name: str) -> None:
    (frame,) = await drawn(name)
    for degrees in (45, -45, 60, -60, 65, -65, 70, -70, 75, -75, 80, -80, 85, -85, 90):
        with pytest.raises(AvatarError, match="turned away") as caught:
            track([encode(turned(frame, degrees))])
        assert "from the front" in (caught.value.remedy or ""), degrees


async def test_landmarks_of_a_profile_may_look_ahead() -> None:
    """Why the turn of the landmarks is not enough: heads that were taken for usable ones."""
    for name, degrees in (("amara", 75), ("mei", 70), ("mei", -75)):
        (frame,) = await drawn(name)
        picture = turned(frame, degrees)
        found, near, face = seen(picture)
        assert abs(face.turn) < MAX_TURN, name
        assert near is None or near.score < SURE_SCORE - 0.03, name
        sure = face.presence > SURE_PRESENCE - 0.1
        assert not sure or near is None or near.score < LOW_SCORE - 0.1, name
        assert is_turned_away(picture, found, face), name
