"""The stored faces of the portraits that come along, against the full path."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.avatars import prepare
from orchestrator.avatars.known import KEPT, STEPS, known_track, write_track
from orchestrator.avatars.landmarks import Landmarks
from orchestrator.avatars.masks import BlendMask, blend_mask, blend_square, region, square_mask
from orchestrator.avatars.media import FPS, read_frames, source_digest
from orchestrator.avatars.prepare import prepare_avatar
from orchestrator.avatars.regions import landmark_labels
from orchestrator.avatars.tracking import Track, track
from orchestrator.rendering.gallery import PORTRAITS, portraits
from orchestrator.settings import Settings
from tests.avatars.conftest import MeanEncoder

LOOKED_AT = 12
SURE = 7
"""Of the frames looked at; smoothing reaches four frames, and an end is smoothed otherwise."""


def _mask(found: Track, index: int) -> BlendMask:
    x0, y0, x1, y1 = (int(value) for value in found.boxes[index])
    box = (x0, y0, x1, y1)
    square = blend_square(box)
    labels = landmark_labels(found.landmarks[index], square)
    return blend_mask(square_mask(region(labels), box, square), square, 1280, 720)


def test_the_faces_of_all_clips_are_stored() -> None:
    clips = {name: path for name, path in portraits().items() if path.suffix == ".mp4"}
    for name, clip in clips.items():
        stored = known_track(source_digest(clip, Settings()))
        assert stored is not None, f"{name} was drawn again; run: python -m export.demo follow"
        assert len(stored.boxes) == json.loads(clip.with_suffix(".json").read_text())["frames"]


async def test_a_portraits_stored_faces_are_those_that_are_found() -> None:
    clip, settings = PORTRAITS / "mei.mp4", Settings()
    stored = known_track(source_digest(clip, settings))
    assert stored is not None
    frames = await read_frames(clip, settings)
    assert len(stored.boxes) == len(stored.landmarks) == len(frames.jpegs)
    found = track(frames.jpegs[:LOOKED_AT])
    np.testing.assert_array_equal(stored.boxes[:SURE], found.boxes[:SURE])
    for kept, seen in zip(stored.landmarks[:LOOKED_AT], found.landmarks, strict=True):
        assert np.abs(kept.points[KEPT] - seen.points[KEPT]).max() < 0.5 / STEPS + 0.02
    one, other = _mask(stored, 0), _mask(found, 0)
    assert (one.x0, one.y0, one.alpha.shape) == (other.x0, other.y0, other.alpha.shape)
    difference = np.abs(one.alpha.astype(int) - other.alpha)
    assert difference.max() <= 12 and difference.mean() < 0.2  # of 255, on the blurred edge


async def test_a_portrait_is_prepared_without_looking_for_its_face(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def detector(*_: object) -> Track:
        raise AssertionError("the face was looked for")

    monkeypatch.setattr(prepare, "track", detector)
    told: list[float] = []
    avatar = await prepare_avatar(
        PORTRAITS / "mei.mp4",
        inference=MeanEncoder(),  # type: ignore[arg-type]
        settings=Settings(cache_dir=tmp_path),
        name="mei",
        consent="a drawing",
        progress=told.append,
    )
    assert len(avatar) == 10 * FPS and all(mask.alpha.size for mask in avatar.masks)
    assert told == sorted(told) and told[-1] == 1.0


async def test_a_stored_track_of_other_frames_is_not_used(
    monkeypatch: pytest.MonkeyPatch, film: Callable[..., Any], settings: Settings
) -> None:
    source = await film("a.mp4", "-frames:v", "1", "-pix_fmt", "yuv420p")
    wrong = Track(
        0, np.zeros((2, 4), np.int32), (Landmarks(np.zeros((468, 2), np.float32), 1.0),) * 2, ()
    )
    monkeypatch.setattr(prepare, "known_track", lambda _: wrong)
    encoder = MeanEncoder()
    avatar = await prepare_avatar(
        source,
        inference=encoder,  # type: ignore[arg-type]
        settings=settings,
        name="a",
        consent="public domain",
    )
    assert len(avatar) == 1 and avatar.boxes[0, 2] > 0


def test_clips_with_frames_left_out_are_not_stored(tmp_path: Path) -> None:
    bridged = Track(0, np.zeros((1, 4), np.int32), (), ("2 frames were bridged",))
    with pytest.raises(ValueError, match="bridged"):
        write_track(bridged, "0" * 64, tmp_path / "x.npz")
    assert known_track("0" * 64, tmp_path) is None
