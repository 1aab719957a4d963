"""Late frames are counted on the stream's clock, not from the moment somebody asks."""

from __future__ import annotations

import pytest

from loadtests.pace import Pace, late_frames


def test_a_chunk_in_time_is_due_one_chunk_later() -> None:
    pace = Pace(10.0, 12, 24)
    assert pace.answered(10.4) == (12, 0)
    assert pace.due == 10.5
    assert pace.answered(11.0) == (12, 0)


def test_a_late_chunk_misses_the_frames_whose_moment_has_passed() -> None:
    pace = Pace(10.0, 12, 24)
    assert pace.answered(10.5 + 2 / 24) == (12, 2)
    # The next one had to be asked for at 10.5: being asked for late gives it no more time.
    assert pace.due == 10.5
    assert pace.answered(11.0 + 1 / 24) == (12, 1)


def test_after_a_stall_all_that_should_have_played_was_missed() -> None:
    pace = Pace(10.0, 12, 24)
    # It plays from 10.5; what is asked for from 15.0 on is the first that can come in time.
    assert pace.answered(15.25) == (12 + 9 * 12, 120)
    assert pace.due == 15.0
    assert pace.answered(15.4) == (12, 0)


@pytest.mark.parametrize(("behind", "late"), [(-1.0, 0), (0.0, 0), (0.01, 1), (0.04, 1), (0.05, 2)])
def test_late_frames(behind: float, late: int) -> None:
    assert late_frames(behind, 25) == late
