"""Training frames must have the colours that the portraits have."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("skia")

from export.demo.codec import as_of_a_clip
from export.demo.idle import idle_pose
from export.demo.mouth import REST
from export.demo.people import PEOPLE
from export.demo.portrait import face_box, render
from orchestrator.avatars.media import decode, read_frames
from orchestrator.rendering.gallery import portraits
from orchestrator.settings import Settings


def test_colours_are_those_of_the_portraits_and_not_of_the_drawings() -> None:
    for who in PEOPLE:
        frames = asyncio.run(read_frames(portraits()[who.name], Settings()))
        shown = decode(frames.jpegs[0]).astype(float)
        drawn = render(who, REST, idle_pose(who, 0.0))
        x0, y0, x1, y1 = (int(v) for v in face_box(who))
        cheeks = np.s_[y0 + (y1 - y0) // 2 : y0 + (y1 - y0) * 3 // 5, x0 + 40 : x1 - 40]
        lost = (shown - drawn)[cheeks].mean((0, 1))
        left = (shown - as_of_a_clip(drawn[None])[0])[cheeks].mean((0, 1))
        assert np.abs(left).max() < 1, who.name
        assert np.abs(left).mean() < np.abs(lost).mean() / 2, who.name


def test_pictures_stay_apart_and_in_order() -> None:
    grey = np.stack([np.full((64, 64, 3), level, np.uint8) for level in (10, 200, 90)])
    found = as_of_a_clip(grey)
    assert found.shape == grey.shape
    np.testing.assert_allclose(found.mean((1, 2, 3)), [10, 200, 90], atol=4)
