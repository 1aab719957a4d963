"""Where the faces are in clips that were followed before: the portraits that come along.

Following a face takes 60 to 100 ms a frame, and its result depends on nothing but the clip. So it
is shipped with the drawn portraits. Everything else is prepared as for any other clip.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from orchestrator.avatars.landmarks import LIPS, NOSE, OVAL, Landmarks
from orchestrator.avatars.tracking import Track

TRACKS: Final = Path(__file__).parent / "portraits" / "tracks"
KEPT: Final = np.unique((*OVAL, *LIPS, *NOSE))
"""The landmarks that masks are drawn from; the others are not stored."""
STEPS: Final = 16
"""Steps of a stored landmark, for each pixel."""
_COUNT: Final = 468


@cache
def _paths(folder: Path) -> dict[str, Path]:
    """The stored tracks by the SHA-256 of their clips."""
    found = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as data:
            found[str(data["sha256"])] = path
    return found


def known_track(digest: str, folder: Path = TRACKS) -> Track | None:
    """What following the face of a clip would find; None when that is not known.

    Args:
        digest: SHA-256 of the clip's file.
        folder: of the stored tracks.

    Returns:
        The boxes as they were found, and the landmarks of ``KEPT`` within half of 1/``STEPS``
        pixel; the others are NaN.
    """
    path = _paths(folder).get(digest)
    if path is None:
        return None
    with np.load(path) as data:
        boxes = data["boxes"].astype(np.int32)
        steps = np.cumsum(data["moves"], axis=0, dtype=np.int32)
    points = np.full((len(boxes), _COUNT, 2), np.nan, np.float32)
    points[:, KEPT] = steps / np.float32(STEPS)
    return Track(0, boxes, tuple(Landmarks(face, 1.0) for face in points), ())


def write_track(found: Track, digest: str, path: Path) -> None:
    """Store what was found in a clip.

    Args:
        found: of the whole clip, in which nothing was left out or bridged.
        digest: SHA-256 of the clip's file.
        path: the file to write.

    Raises:
        ValueError: the clip has frames without a usable face.
    """
    if found.start or found.notes:
        raise ValueError(f"not every frame has one face: {'; '.join(found.notes)}")
    points = np.stack([face.points[KEPT] for face in found.landmarks])
    steps = np.rint(points * STEPS).astype(np.int32)
    moves = np.diff(steps, axis=0, prepend=0).astype(np.int16)
    np.savez_compressed(
        path, sha256=np.array(digest), boxes=found.boxes.astype(np.int16), moves=moves
    )
    _paths.cache_clear()
