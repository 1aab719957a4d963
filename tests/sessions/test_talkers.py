from __future__ import annotations

import pytest

from orchestrator.errors import OverloadedError, StoppingError
from orchestrator.sessions.profiles import CLASSIC, ECONOMY, QUALITY
from orchestrator.sessions.talkers import Talkers


def test_places_are_given_back_once() -> None:
    talkers = Talkers(1)
    place = talkers.admit(QUALITY)
    with pytest.raises(OverloadedError) as caught:
        talkers.admit(QUALITY)
    assert caught.value.retryable and talkers.retry_after >= 1
    place.give_back()
    place.give_back()
    talkers.admit(QUALITY)
    with pytest.raises(OverloadedError):
        talkers.admit(ECONOMY)


def test_one_more_is_let_in_with_half_the_pictures() -> None:
    talkers = Talkers(2.5)
    assert talkers.admit(QUALITY).profile is QUALITY
    assert talkers.admit(QUALITY).profile is QUALITY
    assert talkers.admit(QUALITY).profile is ECONOMY
    with pytest.raises(OverloadedError):
        talkers.admit(QUALITY)
    assert talkers.count == 3


def test_another_frame_grid_cannot_be_lowered() -> None:
    talkers = Talkers(0.5)
    with pytest.raises(OverloadedError):
        talkers.admit(CLASSIC)
    assert talkers.admit(QUALITY).profile is ECONOMY


def test_nobody_begins_when_the_service_stops_and_those_who_talk_go_on() -> None:
    talkers = Talkers(2)
    place = talkers.admit(QUALITY)
    talkers.close()
    with pytest.raises(StoppingError) as caught:
        talkers.admit(QUALITY)
    assert caught.value.retryable
    assert talkers.count == 1
    place.give_back()
    assert talkers.count == 0
