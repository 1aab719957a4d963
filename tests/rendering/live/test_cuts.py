"""Where a cut goes."""

from __future__ import annotations

import pytest

from orchestrator.rendering.live import encoders
from tests.rendering.live.viewer import TICK, Viewer


async def test_idle_video_can_be_cut_for_speech(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer.idle(3)
    with monkeypatch.context() as patch:
        patch.setattr(encoders, "_spawn", None)  # silence needs no encoder
        assert await viewer.cut(0.9) == pytest.approx(0.92)
    await viewer.turn([4])
    viewer.idle()
    viewer.player.check()
    assert viewer.player.video[23].start == 23 * TICK and viewer.player.video[23].key


@pytest.mark.parametrize(("at", "expected"), [(-3.0, 0.0), (0.0, 0.0), (0.601, 0.64), (99.0, 1.2)])
async def test_where_a_cut_goes(viewer: Viewer, at: float, expected: float) -> None:
    viewer.idle(2)
    assert await viewer.cut(at) == pytest.approx(expected)
    assert viewer.media.end == pytest.approx(expected)


async def test_a_cut_goes_no_further_back_than_the_sound_is_known(viewer: Viewer) -> None:
    viewer.idle(20)
    end = viewer.media.end
    assert await viewer.cut(0) == pytest.approx(end - 5, abs=0.61)
    position = viewer.media.end
    assert await viewer.cut(0) == position
