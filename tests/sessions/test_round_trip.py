from __future__ import annotations

import pytest

from orchestrator.sessions.round_trip import LONGEST, RoundTrip


def test_nothing_is_known_at_first() -> None:
    assert RoundTrip().seconds == 0.0


def test_one_that_waited_in_a_queue_does_not_count_and_a_longer_way_does() -> None:
    trip = RoundTrip()
    for number, seconds in enumerate([0.2, 0.9, 0.25]):
        trip.sent(number, at=float(number))
        trip.confirmed(number, at=number + seconds)
    assert trip.seconds == pytest.approx(0.2)
    for number in range(10, 20):
        trip.sent(number, at=float(number))
        trip.confirmed(number, at=number + 0.4)
    assert trip.seconds == pytest.approx(0.4)


def test_what_was_not_sent_or_is_confirmed_twice_means_nothing() -> None:
    trip = RoundTrip()
    trip.confirmed(3, at=1.0)
    trip.sent(4, at=1.0)
    trip.confirmed(4, at=1.3)
    trip.confirmed(4, at=1.3)
    trip.confirmed(4, at=1.0)
    assert trip.seconds == pytest.approx(0.3)


def test_a_client_cannot_make_it_long_and_one_that_never_confirms_costs_nothing() -> None:
    trip = RoundTrip()
    for number in range(1000):
        trip.sent(number, at=0.0)
    assert len(trip._sent) < 20
    trip.confirmed(999, at=1e9)
    assert trip.seconds == LONGEST


def test_another_connection_is_another_way() -> None:
    trip = RoundTrip()
    trip.sent(1, at=0.0)
    trip.confirmed(1, at=0.5)
    trip.sent(2, at=1.0)
    trip.restart()
    trip.confirmed(2, at=1.1)
    assert trip.seconds == 0.0
