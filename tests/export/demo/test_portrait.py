from __future__ import annotations

import numpy as np
import pytest

skia = pytest.importorskip("skia")

from export.demo.head import Pose  # noqa: E402
from export.demo.idle import SECONDS, idle_pose  # noqa: E402
from export.demo.mouth import REST, Mouth, lips, opening  # noqa: E402
from export.demo.people import PEOPLE, person  # noqa: E402
from export.demo.portrait import crop_box, face_box, mouth_point, render, render_box  # noqa: E402
from orchestrator.errors import NotFoundError  # noqa: E402

OPEN = Mouth(jaw=0.9, wide=0.3, round=0.0, teeth=0.2)


@pytest.mark.parametrize("who", PEOPLE, ids=lambda p: p.name)
def test_only_the_lower_half_of_the_crop_moves_with_the_mouth(who):
    box = crop_box(who)
    rest, spoken = (render_box(who, m, Pose(), box).astype(int) for m in (REST, OPEN))
    change = np.abs(rest - spoken).max(2)
    assert change[:120].max() <= 2  # MuseTalk never sees or draws that half
    assert change[150:240, 80:176].mean() > 10


@pytest.mark.parametrize("who", PEOPLE, ids=lambda p: p.name)
def test_open_mouth_stays_inside_the_crop(who):
    image = render_box(who, Mouth(jaw=1.0), Pose(), crop_box(who))
    x, y = mouth_point(Pose(), crop_box(who))
    assert 118 < x < 138
    assert 170 < y < 200
    assert image.shape == (256, 256, 3)


@pytest.mark.parametrize("who", PEOPLE, ids=lambda p: p.name)
def test_the_loop_has_no_seam(who):
    first, last = (render(who, REST, idle_pose(who, t)).astype(int) for t in (0.0, SECONDS))
    assert np.abs(first - last).max() <= 1


def test_everybody_moves_and_blinks():
    for who in PEOPLE:
        poses = [idle_pose(who, i / 25) for i in range(250)]
        assert max(p.blink for p in poses) > 0.95
        assert np.median([p.blink for p in poses]) == 0
        assert np.std([p.dx for p in poses]) > 0.003


def test_box_has_the_nose_bridge_in_its_middle():
    x0, y0, x1, y1 = face_box(PEOPLE[0])
    assert (y0 + y1) / 2 == pytest.approx(366.0, abs=0.5)
    assert (x0 + x1) / 2 == pytest.approx(640.0, abs=0.5)


def test_opening_follows_the_jaw_and_closes():
    for who in PEOPLE:
        values = [opening(who, Mouth(jaw=j)) for j in np.linspace(0, 1, 11)]
        assert values == sorted(values)
        assert opening(who, REST) < 0.01
        assert lips(who, Mouth(round=1.0)).half < lips(who, Mouth(wide=1.0)).half


def test_mouth_round_trips_through_numbers():
    mouth = Mouth(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    np.testing.assert_allclose(Mouth.of(mouth.values()).values(), mouth.values())


def test_unknown_person_is_named():
    with pytest.raises(NotFoundError, match="nobody"):
        person("nobody")
