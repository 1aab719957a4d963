from __future__ import annotations

import math

import pytest

from orchestrator.sessions.playhead import Playhead


def test_without_reports_it_plays_from_the_first_fragment() -> None:
    head = Playhead()
    assert head.now(5.0) == 0.0
    head.sent(0.0, 1.0, at=10.0)
    assert head.now(10.4) == pytest.approx(0.4)
    assert head.now(12.0) == 1.0


def test_a_player_that_ran_dry_goes_on_when_there_is_more() -> None:
    head = Playhead()
    head.sent(0.0, 1.0, at=10.0)
    head.sent(1.0, 2.0, at=15.0)
    assert head.now(15.5) == pytest.approx(1.5)


def test_reports_win() -> None:
    head = Playhead()
    head.sent(0.0, 3.0, at=10.0)
    head.report(0.5, at=11.0)
    assert head.now(11.5) == pytest.approx(1.0)


def test_a_report_that_was_held_up_does_not_turn_time_back() -> None:
    head = Playhead()
    head.sent(0.0, 9.0, at=10.0)
    for at, time in ((11.0, 1.0), (11.25, 1.25), (11.9, 1.5), (11.95, 1.75)):
        head.report(time, at)
        assert head.now(at) == pytest.approx(at - 10.0)


def test_a_player_that_halts_is_believed_after_a_moment() -> None:
    head = Playhead()
    head.sent(0.0, 9.0, at=10.0)
    for quarter in range(4, 10):
        head.report(1.0, at=10 + quarter / 4)
    assert head.now(12.25) == pytest.approx(2.0)


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -5.0, 1e300])
def test_nonsense_cannot_make_the_server_hurry(nonsense: float) -> None:
    head = Playhead()
    head.sent(0.0, 1000.0, at=10.0)
    head.report(nonsense, at=11.0)
    assert 0.0 <= head.now(11.0) <= 2.0


def test_a_flood_of_reports_costs_no_more_than_a_few() -> None:
    head = Playhead()
    head.sent(0.0, 1000.0, at=10.0)
    for number in range(5000):  # each would look through all before it
        head.report(1.0, at=11.0 + number * 1e-6)
    assert head.now(11.2) == pytest.approx(1.2, abs=0.01)
    assert len(head._reports) < 100


def test_a_report_before_any_media_means_nothing() -> None:
    head = Playhead()
    head.report(3.0, at=1.0)
    assert head.now(1.0) == 0.0


def test_a_flush_takes_away_what_was_sent() -> None:
    head = Playhead()
    head.sent(0.0, 3.0, at=10.0)
    head.flushed(0.5)
    assert head.now(12.0) == 0.5
    head.sent(0.5, 1.5, at=12.0)
    assert head.now(12.5) == pytest.approx(1.0)


def test_a_new_player_starts_where_its_media_starts() -> None:
    head = Playhead()
    head.sent(0.0, 3.0, at=10.0)
    head.restart(7.0)
    assert head.now(20.0) == 7.0
    head.sent(7.0, 8.0, at=20.0)
    assert head.now(20.5) == pytest.approx(7.5)
