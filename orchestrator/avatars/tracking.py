"""One face through all frames: found, followed, refused when it cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from orchestrator.avatars.boxes import face_box, fill_gaps, final_boxes, smooth
from orchestrator.avatars.detection import Detection, detect, detect_near
from orchestrator.avatars.landmarks import Landmarks, find_landmarks
from orchestrator.avatars.media import decode
from orchestrator.errors import AvatarError

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]

MIN_FACE: Final = 64
"""Pixels a face must be wide; it is enlarged to 256."""
MAX_TURN: Final = 0.6
MIN_PRESENCE: Final = 0.5
"""Below it, the landmarks are of no face."""
SURE_PRESENCE: Final = 0.95
"""Of the landmarks: faces from the front have 0.99 and more."""
SURE_SCORE: Final = 0.81
"""Of the detector from near: faces from the front have 0.84 and more, also dark or blurred."""
LOW_SCORE: Final = 0.65
"""Of the detector from near: no face from the front comes near this."""
_REACH: Final = 1.0
"""How far a face moves between two looks at it, in its own sizes; what is further is another."""
MAX_GAP: Final = 12
"""Frames without a face that are bridged; a longer gap ends the usable part."""


@dataclass(frozen=True)
class Track:
    """The usable part of a clip.

    Attributes:
        start: first frame used.
        boxes: I32[n,4], margin included, inside the frame.
        landmarks: one a frame; a bridged frame has its neighbour's.
        notes: what the user should know.
    """

    start: int
    boxes: I32
    landmarks: tuple[Landmarks, ...]
    notes: tuple[str, ...]


def _followed(found: Sequence[Detection], last: Landmarks | None) -> Detection | None:
    """The face followed so far, the largest when there is none yet; None when it has gone."""
    if not found or last is None:
        return found[0] if found else None
    centre = last.points.mean(0)
    reach = float(np.ptp(last.points, axis=0).max()) * _REACH

    def distance(item: Detection) -> float:
        x0, y0, x1, y1 = item.box
        return float(np.hypot((x0 + x1) / 2 - centre[0], (y0 + y1) / 2 - centre[1]))

    nearest = min(found, key=distance)
    return nearest if distance(nearest) <= reach else None


def is_turned_away(frame: U8, found: Detection, face: Landmarks) -> bool:
    """Whether a head looks too far to the side.

    Beyond 65 degrees the landmarks often lie as if it looked ahead: their network knows no other
    faces. But the detector is not sure of such a head, even from near; nor, mostly, are they.

    Args:
        frame: U8[H,W,3] BGR.
        found: where the head is.
        face: its landmarks.
    """
    if abs(face.turn) > MAX_TURN:
        return True
    if found.score >= SURE_SCORE and face.presence >= SURE_PRESENCE:
        return False
    near = detect_near(frame, found)
    if near is None:
        return face.presence >= MIN_PRESENCE  # without landmarks there is no face at all
    unsure = near.score < SURE_SCORE and face.presence < SURE_PRESENCE
    return unsure or near.score < LOW_SCORE


def _refusal(turned: int, small: int) -> AvatarError:
    if turned:
        return AvatarError(
            "the face is turned away from the camera, or hidden",
            remedy="use a picture from the front",
        )
    if small:
        return AvatarError(
            f"the face is too small, under {MIN_FACE} pixels wide",
            remedy="use a larger picture, or crop it around the head",
        )
    return AvatarError("no face was found", remedy="use a clear picture of one face from the front")


def _longest_run(usable: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """The longest stretch without a gap of more than ``MAX_GAP``: first and one past last."""
    known = np.flatnonzero(usable)
    breaks = np.flatnonzero(np.diff(known) > MAX_GAP + 1) + 1
    runs = np.split(known, breaks)
    longest = max(runs, key=lambda run: int(run[-1] - run[0]))
    return int(longest[0]), int(longest[-1]) + 1


def track(jpegs: Sequence[bytes], progress: Callable[[float], None] = lambda _: None) -> Track:
    """Follow one face through a clip (a picture is a clip of one frame).

    Args:
        jpegs: the frames.
        progress: told the part that is done, 0 to 1.

    Raises:
        AvatarError: no frame has a usable face; the message says what is wrong with it.
    """
    landmarks: list[Landmarks | None] = []
    several = turned = small = 0
    last: Landmarks | None = None
    height = width = 0
    for index, jpeg in enumerate(jpegs):
        frame = decode(jpeg)
        height, width = frame.shape[:2]
        found = detect(frame)
        several += len(found) > 1
        current: Landmarks | None = None
        followed = _followed(found, last)
        if followed is not None:
            candidate = find_landmarks(frame, followed)
            box = face_box(candidate)
            narrow = box[2] - box[0] < MIN_FACE
            away = is_turned_away(frame, followed, candidate)  # presence may be low as well
            if narrow and (away or candidate.presence >= MIN_PRESENCE):
                small += 1  # so few pixels do not show where a head looks
            elif away:
                turned += 1
            elif candidate.presence >= MIN_PRESENCE:
                current = last = candidate
        landmarks.append(current)
        progress((index + 1) / len(jpegs))
    usable = np.array([item is not None for item in landmarks])
    if not usable.any():
        raise _refusal(turned, small)
    start, end = _longest_run(usable)
    part, found_in_part = landmarks[start:end], usable[start:end]
    boxes = np.array([np.zeros(4) if item is None else face_box(item) for item in part])
    boxes = smooth(fill_gaps(boxes, found_in_part))
    whole: list[Landmarks] = []
    for item in part:
        whole.append(whole[-1] if item is None else item)
    notes = []
    if several:
        where = f"{several} of {len(jpegs)} frames" if len(jpegs) > 1 else "the picture"
        notes.append(f"several faces in {where}: the largest was taken")
    if not found_in_part.all():
        notes.append(f"{int((~found_in_part).sum())} frames without a usable face were bridged")
    if left := len(jpegs) - len(part):
        notes.append(
            f"{left} frames without a usable face were left out"
            if usable.sum() == found_in_part.sum()
            else f"{left} frames were left out: the face was not to be seen all the time, and the"
            " longest part was taken"
        )
    return Track(start, final_boxes(boxes, width, height), tuple(whole), tuple(notes))
